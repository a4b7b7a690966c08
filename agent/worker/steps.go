package worker

import (
	"context"
	"time"

	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// Steps does what Run does one step at a time, in the goroutine that calls it, for the
// simulation (internal/simulation), which has one event loop for everything. A Worker
// that is stepped is not run.
type Steps struct {
	w    *Worker
	Stop context.CancelFunc // ends all jobs, as the end of Run's context does
}

// Steps begins the life of a Worker as Run would.
func (w *Worker) Steps(ctx context.Context) *Steps {
	w.base, w.stop = context.WithCancel(ctx)
	return &Steps{w: w, Stop: w.stop}
}

// Credits is what the worker asks for at the beginning of a stream, and after that as
// jobs end.
func (s *Steps) Credits(first bool) uint32 {
	if first {
		return s.w.firstCredits()
	}
	return s.w.moreCredits()
}

// Accept takes a delivery from a stream. It returns what is to be run for it, nil if
// nothing is; of two deliveries of one job the first must have been run to its end
// before the second is begun.
func (s *Steps) Accept(j *agentv1.Job) func() { return s.w.take(j) }

// Cancel takes a cancellation from a stream.
func (s *Steps) Cancel(c *agentv1.Cancel) { s.w.cancelled(c) }

// Report reports what the outbox holds.
func (s *Steps) Report(ctx context.Context) error { return s.w.cfg.Link.Call(ctx, s.w.drain) }

// RenewIn is how long until Renew is to be called.
func (s *Steps) RenewIn() time.Duration { return s.w.renewIn() }

// Renew renews the leases of all jobs.
func (s *Steps) Renew(ctx context.Context) error { return s.w.renewLeases(ctx) }
