package gateway

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// No message of an agent may end a controller.
func TestACallThatPanicsFailsAlone(t *testing.T) {
	t.Parallel()
	s := New(Config{Logger: slog.New(slog.DiscardHandler), Leader: func() (reeve.NodeID, bool) { return "", true }})
	method := agentv1.AgentService_Enroll_FullMethodName // admitted without a certificate
	_, err := s.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: method},
		func(context.Context, any) (any, error) { panic("canary") })
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "canary") {
		t.Errorf("the call ended with %v", err)
	}
	var left error
	func() {
		defer survive(&left)
		panic("canary")
	}()
	if reeve.KindOf(left) != reeve.Internal || strings.Contains(s.status(t.Context(), method, left).Error(), "canary") {
		t.Errorf("a panic became %v", left)
	}
}
