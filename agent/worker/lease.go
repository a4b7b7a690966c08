package worker

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reeve-pam/reeve/internal/mutant"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// Times of leases (security.md §4).
const (
	renewEvery   = 20 * time.Second
	defaultLease = 60 * time.Second
	renewTimeout = 10 * time.Second
	renewAgain   = time.Second // after it failed
)

// Why a job's context ended.
var (
	errLeaseLost = errors.New("the lease was lost")
	errCancelled = errors.New("the job was cancelled")
	errOverrun   = errors.New("the job ran out of time")
)

// uptime is a clock that goes on while the machine sleeps, unlike Go's monotonic one:
// an agent that wakes up must know that its leases are gone.
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Duration(time.Now().UnixNano())
	}
	return time.Duration(ts.Nano())
}

// lease is how long a job may be worked on. Its fields are guarded by Worker.mu.
//
// A job can have waited for its agent, in a socket of a machine that was stopped, until
// long after the lease it came with: nothing in it tells. So a lease counts for a change,
// and for a login that may fail, only after a controller has said, since the job came,
// that it is held.
type lease struct {
	term      time.Duration
	came      time.Duration // in uptime
	until     time.Duration // in uptime
	asked     bool          // a controller was asked since it came
	confirmed bool          // and said that it is held
	timer     *time.Timer
}

// held is a job this worker has the lease of.
type held struct {
	job    *agentv1.Job
	cancel context.CancelCauseFunc
	lease  lease
	done   chan struct{}
}

// hold starts the lease of a job received now; when it ends, so does the job's context.
func (w *Worker) hold(ctx context.Context, j *agentv1.Job) (context.Context, *held) {
	ctx, cancel := context.WithCancelCause(ctx)
	h := &held{job: j, cancel: cancel, done: make(chan struct{})}
	h.lease.term = j.Lease.AsDuration()
	if h.lease.term <= 0 {
		h.lease.term = defaultLease
	}
	h.lease.came = w.cfg.Uptime()
	h.lease.until = h.lease.came + h.lease.term
	h.lease.timer = time.AfterFunc(h.lease.term, func() { cancel(errLeaseLost) })
	return ctx, h
}

// alive fails when the lease has ended by the clock that knows about sleep, or when no
// controller says that it is held.
func (w *Worker) alive(ctx context.Context, h *held) error {
	if !w.confirmed(h) && ctx.Err() == nil {
		if err := w.renewLeases(ctx); err != nil {
			w.log.Warn("lease not confirmed", "job", h.job.Id, "error", err)
		}
	}
	w.mu.Lock()
	over := !h.lease.confirmed && !mutant.Is(mutant.LeaseUnconfirmed) || w.cfg.Uptime() >= h.lease.until
	w.mu.Unlock()
	if over {
		h.cancel(errLeaseLost)
	}
	return context.Cause(ctx)
}

// keepLeases renews the leases of all jobs until ctx ends.
func (w *Worker) keepLeases(ctx context.Context) error {
	for {
		t := time.NewTimer(w.renewIn())
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-w.leasesChanged:
			t.Stop()
			continue
		case <-t.C:
		}
		if err := w.renewLeases(ctx); err != nil && ctx.Err() == nil {
			w.log.Warn("leases not renewed", "error", err)
			w.pause(ctx, renewAgain)
		}
	}
}

func (w *Worker) confirmed(h *held) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return h.lease.confirmed || mutant.Is(mutant.LeaseUnconfirmed)
}

// renewIn is how long until leases must be renewed: three chances per term; a new one is
// confirmed at once.
func (w *Worker) renewIn() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	wait := renewEvery
	for _, h := range w.jobs {
		wait = min(wait, h.lease.term/3)
		if !h.lease.asked {
			return 0
		}
	}
	return wait
}

func (w *Worker) renewLeases(ctx context.Context) error {
	w.mu.Lock()
	req := &agentv1.RenewLeasesRequest{}
	term := renewEvery * 3
	for _, h := range w.jobs {
		h.lease.asked = true
		req.Leases = append(req.Leases, &agentv1.LeaseRef{Job: h.job.Id, Fence: h.job.Fence})
		term = min(term, h.lease.term)
	}
	w.mu.Unlock()
	if len(req.Leases) == 0 {
		return nil
	}
	// No longer than the shortest lease could last: later the answer is of no use.
	ctx, cancel := context.WithTimeout(ctx, term)
	defer cancel()
	return w.cfg.Link.Call(ctx, func(ctx context.Context, c agentv1.AgentServiceClient) error {
		if err := w.at("before-renew"); err != nil {
			return err
		}
		asked := w.cfg.Uptime()
		ctx, cancel := context.WithTimeout(ctx, min(renewTimeout, term/3))
		defer cancel()
		res, err := c.RenewLeases(ctx, req)
		if err != nil {
			return err
		}
		for _, s := range res.Leases {
			w.renewed(s, asked)
		}
		return nil
	})
}

// cancelled takes the controller's wish that a job ends.
func (w *Worker) cancelled(c *agentv1.Cancel) {
	w.renewed(&agentv1.LeaseState{Job: c.Job, Fence: c.Fence, State: "cancel"}, 0)
}

// renewed takes the controller's answer. A lease counts from when it was asked for.
func (w *Worker) renewed(s *agentv1.LeaseState, asked time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.jobs[s.Job]
	if h == nil || h.job.Fence != s.Fence {
		return
	}
	switch s.State {
	case "held":
		h.lease.confirmed = h.lease.confirmed || asked >= h.lease.came
		now := w.cfg.Uptime()
		left := asked + h.lease.term - now
		if left > 0 && now < h.lease.until && h.lease.timer.Stop() {
			h.lease.until = asked + h.lease.term
			h.lease.timer.Reset(left)
		}
	case "cancel":
		h.cancel(errCancelled)
	default:
		h.cancel(errLeaseLost)
	}
}
