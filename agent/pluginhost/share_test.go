package pluginhost

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// A job that is cancelled is told to end; the process and the jobs beside it go on.
func TestCancelledCallEndsAloneWhenItListens_C17(t *testing.T) {
	t.Parallel()
	h := newHost(t, install(t, "bad"))
	p, beside := acquire(t, h, "bad"), acquire(t, h, "bad")
	defer p.Release()
	defer beside.Release()
	ctx, cancel := context.WithCancel(t.Context())
	stop := time.AfterFunc(100*time.Millisecond, cancel)
	defer stop.Stop()
	if err := probe(ctx, p, bad("wait")); sdk.ClassOf(err) != sdk.ClassBusy {
		t.Errorf("the connector's own answer was lost: %v", err)
	}
	if p.Exited() {
		t.Error("the process was killed although the connector listened")
	}
	if err := probe(t.Context(), beside, bad("fine")); err != nil {
		t.Error(err)
	}
}

// A job that does not let itself be ended is killed with its process. The job beside it
// is not at fault, and those to come share as before.
func TestHangingJobTakesTheBlameAlone_C72(t *testing.T) {
	t.Parallel()
	h := newHost(t, install(t, "bad"))
	p, beside := acquire(t, h, "bad"), acquire(t, h, "bad")
	defer p.Release()
	defer beside.Release()
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { err = probe(t.Context(), beside, bad("wait")) })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if probe(ctx, p, bad("hang")) == nil {
		t.Error("no error")
	}
	wg.Wait()
	if !p.AtFault() || beside.AtFault() {
		t.Errorf("at fault: %v, %v", p.AtFault(), beside.AtFault())
	}
	if sdk.ClassOf(err) != sdk.ClassBusy {
		t.Errorf("the job beside it got %v", err)
	}
	x, y := acquire(t, h, "bad"), acquire(t, h, "bad")
	defer x.Release()
	defer y.Release()
	if x.engine != y.engine {
		t.Error("jobs no longer share a process")
	}
}

// A connector that is killed loses its connection too, at about the same time: what a call
// sees first is a call that was cancelled. Nobody cancelled the job, so it is tried again.
func TestAJobIsNotCancelledByTheEndOfItsConnector_C72(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		jobs int
		want sdk.Class
	}{"alone": {1, sdk.ClassInternal}, "beside another": {2, sdk.ClassBusy}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, install(t, "bad"))
			p := acquire(t, h, "bad")
			defer p.Release()
			for range c.jobs - 1 {
				defer acquire(t, h, "bad").Release()
			}
			stop := time.AfterFunc(100*time.Millisecond, func() {
				_ = p.conn.Close()
				p.kill()
			})
			defer stop.Stop()
			if err := probe(t.Context(), p, bad("wait")); sdk.ClassOf(err) != c.want {
				t.Errorf("%v", err)
			}
		})
	}
}

// Nobody knows which of several jobs crashed a process: none is blamed, and for a while
// each gets a process of its own, so that the one at fault shows.
func TestAfterACrashJobsGoAlone_C72(t *testing.T) {
	t.Parallel()
	h := newHost(t, install(t, "bad"))
	p, beside := acquire(t, h, "bad"), acquire(t, h, "bad")
	if err := probe(t.Context(), p, bad("crash")); sdk.ClassOf(err) != sdk.ClassBusy {
		t.Errorf("got %v", err)
	}
	if p.AtFault() || beside.AtFault() {
		t.Error("one of two jobs is blamed")
	}
	p.Release()
	beside.Release()
	x, y := acquire(t, h, "bad"), acquire(t, h, "bad")
	defer y.Release()
	if x.engine == y.engine {
		t.Error("jobs share a process right after a crash")
	}
	if err := probe(t.Context(), x, bad("crash")); sdk.ClassOf(err) != sdk.ClassInternal || !x.AtFault() {
		t.Errorf("a job that crashed a process of its own is not blamed: %v", err)
	}
	x.Release()
	if err := probe(t.Context(), y, bad("fine")); err != nil {
		t.Error(err)
	}
}

// guard replaces one word, and remembers that it was wiped.
type guard struct {
	secret string
	wiped  chan struct{}
}

func newGuard(secret string) *guard { return &guard{secret: secret, wiped: make(chan struct{})} }

func (g *guard) Redact(s string) string { return strings.ReplaceAll(s, g.secret, "[redacted]") }
func (g *guard) Wipe()                  { close(g.wiped) }

// What a process prints goes through the guards of all jobs in it, and of those that
// have just left: output comes later than answers.
func TestOutputOfASharedProcessShowsNoJobsSecret_J6_K1(t *testing.T) {
	t.Parallel()
	h := newHost(t, install(t, "bad"))
	log := &lockedBuffer{}
	h.log = slog.New(slog.NewTextHandler(log, nil))
	p, beside := acquire(t, h, "bad"), acquire(t, h, "bad")
	mine, other := newGuard("canary-1"), newGuard("canary-2")
	p.Protect(mine)
	beside.Protect(other)
	for _, line := range []string{"print:mine canary-1", "print:not mine canary-2"} {
		if err := probe(t.Context(), p, bad(line)); err != nil {
			t.Fatal(err)
		}
	}
	p.Release()
	beside.Release()
	for _, g := range []*guard{mine, other} {
		select {
		case <-g.wiped:
		case <-time.After(linger + 10*time.Second):
			t.Fatal("a guard is never wiped")
		}
	}
	got := log.String()
	if strings.Contains(got, "canary") || strings.Count(got, "[redacted]") != 2 {
		t.Errorf("logged: %s", got)
	}
}

func TestOutputIsBounded_P3(t *testing.T) {
	t.Parallel()
	log := &lockedBuffer{}
	o := newOutput(slog.New(slog.NewTextHandler(log, nil)))
	line := []byte(strings.Repeat("x", 1023) + "\n")
	for range 4096 {
		_, _ = o.Write(line)
	}
	o.close()
	if n := strings.Count(log.String(), "x"); n < maxOutput/2 || n > maxOutput {
		t.Errorf("%d bytes were logged", n)
	}
	if strings.Count(log.String(), "left out") != 1 {
		t.Error("nothing says that output was left out")
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
