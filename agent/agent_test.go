package agent_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/reeve-pam/reeve/agent"
	"github.com/reeve-pam/reeve/agent/agenttest"
	"github.com/reeve-pam/reeve/internal/jointoken"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

var quiet = slog.New(slog.DiscardHandler)

func TestDataDirectoryIsPrivateAndServesOneAgent(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	data := filepath.Join(t.TempDir(), "a", "b")
	cfg := agent.Config{Data: data, Connectors: t.TempDir(), Logger: quiet}
	if _, err := agent.New(cfg); reeve.CodeOf(err) != "agent_not_enrolled" {
		t.Errorf("before enrolment: %v", err)
	}
	if _, err := agent.Enroll(t.Context(), data, c.Token(t), quiet); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(data, 0o755); err != nil { //nolint:gosec // what must be mended
		t.Fatal(err)
	}
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(data); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info, err)
	}
	if _, err := agent.New(cfg); reeve.CodeOf(err) != "data_in_use" {
		t.Errorf("second agent: %v", err)
	}
	if _, err := agent.Enroll(t.Context(), data, c.Token(t), quiet); reeve.CodeOf(err) != "data_in_use" {
		t.Errorf("enrolment beside it: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
	a, err = agent.New(cfg)
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	c.Wait(t, "pull", func(s *agenttest.State) bool { return strings.Contains(strings.Join(s.Calls, " "), "PullJobs") })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if a, err := agent.New(cfg); err != nil {
		t.Errorf("after Run: %v", err)
	} else {
		_ = a.Close()
	}
}

// The program itself: enrolled from standard input, it says that it is there, does a
// job, is killed and comes back.
func TestProgramEnrolsRunsAndComesBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := filepath.Join(dir, "reeve-agent")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/reeve-agent").CombinedOutput(); err != nil { //nolint:gosec // our own
		t.Fatalf("%v\n%s", err, out)
	}
	c := agenttest.NewController(t)
	data, connectors := filepath.Join(dir, "data"), filepath.Join(dir, "connectors")
	if err := os.Mkdir(connectors, 0o700); err != nil {
		t.Fatal(err)
	}
	token := c.Token(t)
	tok, err := jointoken.Parse(token)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "enroll", "--token-file", "-", "--data", data) //nolint:gosec // our own
	cmd.Stdin = bytes.NewReader(append(bytes.Clone(token.Bytes()), '\n'))
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.HasPrefix(out, []byte("enrolled as agent-1 (agent_")) {
		t.Fatalf("%v: %s", err, out)
	}
	if bytes.Contains(out, token.Bytes()) || bytes.Contains(out, []byte(hex.EncodeToString(tok.Secret.Bytes()))) {
		t.Error("the token is shown")
	}
	out, err = exec.CommandContext(t.Context(), program, "enroll", "--token-file", "/dev/null", "--data", data).CombinedOutput() //nolint:gosec // our own
	if err == nil || !bytes.Contains(out, []byte("[join_token_invalid]")) {
		t.Errorf("%v: %s", err, out)
	}
	out, err = exec.CommandContext(t.Context(), program, "run", "--data", data).CombinedOutput() //nolint:gosec // our own
	if err == nil || !bytes.Contains(out, []byte("[config_invalid]")) {
		t.Errorf("%v: %s", err, out)
	}

	config := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(config, []byte("data: "+data+"\nconnectors: "+connectors+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for fence := range uint64(2) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		run := exec.CommandContext(ctx, program, "run", "--config", config) //nolint:gosec // our own
		if err := run.Start(); err != nil {
			t.Fatal(err)
		}
		c.Wait(t, "pull", func(s *agenttest.State) bool {
			return strings.Count(strings.Join(s.Calls, " "), "PullJobs") == int(fence)+1 //nolint:gosec // small
		})
		c.Send(&agentv1.PullJobsResponse{Message: &agentv1.PullJobsResponse_Job{Job: &agentv1.Job{Id: "job_1", Fence: fence + 1, Attempt: 1,
			Lease: durationpb.New(time.Minute), Timeout: durationpb.New(time.Minute), Connector: "absent", Work: &agentv1.Work{Operation: "probe"}}}})
		c.Wait(t, "outcome", func(s *agenttest.State) bool { return len(s.Outcomes) == int(fence)+1 }) //nolint:gosec // small
		if fence == 0 {
			_ = run.Process.Kill()
			_ = run.Wait()
		} else {
			_ = run.Process.Signal(os.Interrupt)
			if err := run.Wait(); err != nil {
				t.Errorf("stopped: %v", err)
			}
		}
		cancel()
	}
	c.With(func(s *agenttest.State) {
		if r := s.Outcomes[0].Result; r.Class != string(reeve.ClassUnsupported) || r.Fix == "" {
			t.Errorf("outcome %v", r)
		}
	})
}
