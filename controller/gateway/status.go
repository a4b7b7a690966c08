package gateway

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// code is the gRPC code of a kind. An agent gives up on codes that say that the same
// call will always fail, and tries others again.
func code(k reeve.Kind) codes.Code {
	switch k {
	case reeve.Invalid, reeve.UnsupportedMedia:
		return codes.InvalidArgument
	case reeve.TooLarge:
		return codes.OutOfRange
	case reeve.Unauthenticated:
		return codes.Unauthenticated
	case reeve.Denied:
		return codes.PermissionDenied
	case reeve.NotFound:
		return codes.NotFound
	case reeve.Conflict:
		return codes.AlreadyExists
	case reeve.Precondition:
		return codes.FailedPrecondition
	case reeve.TooMany:
		return codes.ResourceExhausted
	case reeve.Unavailable, reeve.Sealed, reeve.OutcomeUnknown:
		return codes.Unavailable
	default:
		return codes.Internal
	}
}

// status is what an agent is told of an error: kind, stable code, message and fix. The
// cause stays here; of an unexpected error nothing leaves but that there was one.
func (s *Server) status(ctx context.Context, method string, err error) error {
	if reeve.CodeOf(err) == "not_leader" {
		return s.notLeader(ctx)
	}
	e, ok := errors.AsType[*reeve.Error](err)
	switch {
	case ok:
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return status.FromContextError(err).Err()
	default:
		if st, ok := status.FromError(err); ok { // from grpc itself: the stream broke
			return st.Err()
		}
		e = reeve.Errorf(reeve.Internal, "internal", "the controller failed")
	}
	if e.Kind == reeve.Internal || e.Kind == "" {
		s.log.Error("call of an agent failed", "method", method, "error", err)
		e = reeve.Errorf(reeve.Internal, e.Code, "the controller failed").WithFix("see the controller's log")
	}
	text := e.Code + ": " + e.Message
	if e.Fix != "" {
		text += " (" + e.Fix + ")"
	}
	return withDetails(status.New(code(e.Kind), text), &errdetails.ErrorInfo{Reason: e.Code, Domain: "reeve",
		Metadata: map[string]string{"kind": string(e.Kind), "fix": e.Fix}})
}

// notLeader tells the agent where to go.
func (s *Server) notLeader(ctx context.Context) error {
	id, here := s.cfg.Leader()
	if here { // it begins or ends to lead just now
		id = ""
	}
	all, leader, err := s.addresses(ctx, id)
	if err != nil && ctx.Err() == nil {
		s.log.Warn("controllers' addresses cannot be read", "error", err)
	}
	return withDetails(status.New(codes.FailedPrecondition, errNotLeader.Code+": "+errNotLeader.Message),
		&agentv1.NotLeader{LeaderAddress: leader, Addresses: all})
}

func withDetails(st *status.Status, detail protoadapt.MessageV1) error {
	with, err := st.WithDetails(detail)
	if err != nil { // only for an OK status
		return st.Err()
	}
	return with.Err()
}
