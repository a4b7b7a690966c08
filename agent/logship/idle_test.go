package logship

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/reeve-pam/reeve/agent/agenttest"
	"github.com/reeve-pam/reeve/internal/redact"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// An agent opens a stream for logs when it has something to ship and closes it when it
// has had nothing for a while; what comes later is shipped on another.
func TestAnIdleAgentHoldsNoLogStream(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	opened := 0
	c.With(func(s *agenttest.State) {
		s.Before = func(m string) error {
			if m == "StreamLogs" {
				opened++
			}
			return nil
		}
	})
	s, err := Open(Config{Path: filepath.Join(t.TempDir(), "logs.db"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	s.linger = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient("passthrough:///"+c.Address, grpc.WithTransportCredentials(credentials.NewTLS(c.Client(t))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })

	waited, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	s.Await(waited)
	if waited.Err() == nil {
		t.Error("an agent without logs opens a stream")
	}
	for i, job := range []string{"job_1", "job_2"} {
		l := s.Begin(attempt(job), 0, redact.New())
		l.Write(Info, "", "", "a line")
		l.Close()
		s.Await(ctx)
		if err := s.Ship(ctx, agentv1.NewAgentServiceClient(conn)); err != nil {
			t.Fatal(err)
		}
		c.With(func(st *agenttest.State) {
			if n := len(st.Logs[job+"/1"]); n == 0 || !st.Logs[job+"/1"][n-1].Last {
				t.Errorf("the log of %s has not arrived", job)
			}
			if opened != i+1 {
				t.Errorf("%d streams were opened for %d logs", opened, i+1)
			}
		})
	}
}
