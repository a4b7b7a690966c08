package pluginhost

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const sigStop = syscall.SIGSTOP

// Not a test: the body of a process that holds a connector until it is killed.
func TestHoldConnector(t *testing.T) {
	dir := os.Getenv("REEVE_TEST_HOLD")
	if dir == "" {
		t.Skip("started by TestConnectorsDieWithTheAgent_C73")
	}
	h := New(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	go func() { _ = h.Run(context.Background()) }()
	p, err := h.Acquire(t.Context(), "toy", []string{sum(t, filepath.Join(dir, filePrefix+"toy"))})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintln(os.Stdout, "holds", p.run.ID(), h.sockets)
	select {}
}

// kill -9 of the agent leaves no connector behind.
func TestConnectorsDieWithTheAgent_C73(t *testing.T) {
	t.Parallel()
	dir := install(t, "toy")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHoldConnector$", "-test.v") //nolint:gosec // this test
	cmd.Env = append(os.Environ(), "REEVE_TEST_HOLD="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid, sockets string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "holds "); ok {
			pid, sockets, _ = strings.Cut(rest, " ")
			break
		}
	}
	if pid == "" || !alive(pid) {
		t.Fatal("no connector was started")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	gone(t, pid)
	_ = os.RemoveAll(sockets) // what a killed agent leaves: an empty private directory
}
