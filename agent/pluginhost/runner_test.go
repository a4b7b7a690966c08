package pluginhost

import (
	"errors"
	"os/exec"
	"strconv"
	"sync"
	"testing"
)

// endless is a runner of a program that never ends by itself.
func endless(t *testing.T) *runner {
	t.Helper()
	path, err := exec.LookPath("yes")
	if err != nil {
		t.Fatal(err)
	}
	img, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(img.close)
	r, err := newRunner("endless", img, exec.CommandContext(t.Context(), "")) //nolint:gosec // newRunner says what to run
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A job that is cancelled while its connector is on the point of starting must not leave
// that connector behind.
func TestAConnectorKilledBeforeItBeganNeverRuns_C73(t *testing.T) {
	t.Parallel()
	r := endless(t)
	r.kill()
	err := r.Start(t.Context())
	if r.cmd.Process != nil {
		t.Errorf("process %d runs", r.cmd.Process.Pid)
		r.running = true
		r.kill()
	}
	if !errors.Is(err, errDoomed) {
		t.Errorf("it was started: %v", err)
	}
}

func TestStartingAndKillingAtOnceLeavesNothingBehind_C73(t *testing.T) {
	t.Parallel()
	for range 30 {
		r := endless(t)
		var both sync.WaitGroup
		var err error
		both.Go(func() { err = r.Start(t.Context()) })
		both.Go(r.kill)
		both.Wait()
		<-r.exited
		switch {
		case err == nil:
			gone(t, strconv.Itoa(r.cmd.Process.Pid))
		case !errors.Is(err, errDoomed):
			t.Error(err)
		}
		_, _ = r.stdout.Close(), r.stderr.Close()
	}
}
