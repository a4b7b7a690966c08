package pluginhost

import (
	"context"
	"sync"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Process is a job's share of a running connector.
type Process struct {
	*engine
	guard    Guard // nil: none
	released sync.Once
}

// Protect gives the share the guard of its job, once and before any secret is sent. It
// redacts what the process prints, which goes to the agent's log and to no job's, and is
// wiped a moment after Release.
func (s *Process) Protect(g Guard) {
	s.guard = g
	s.out.protect(g)
}

// Release gives the share back.
func (s *Process) Release() {
	s.released.Do(func() {
		if s.guard != nil {
			s.out.forget(s.guard)
		}
		s.host.leave(s.engine)
	})
}

// Call runs fn with the connector's client. When ctx ends, the connector is told and has
// two seconds to answer; then its process is killed. So when Call returns, either the
// connector has said what became of its work, or nobody works on it any more.
//
// When the process died over another job, or over nobody knows which, the error of a
// call that cannot have changed anything is ClassBusy: this job is not at fault.
func (s *Process) Call(ctx context.Context, fn func(context.Context, *sdk.Client) error) error {
	err := s.call(ctx, s, fn)
	if !sdk.Answered(err) && sdk.ClassOf(err) == sdk.ClassCancelled && ctx.Err() == nil {
		// Its connection was closed before its end was seen.
		err = sdk.Errorf(sdk.ClassInternal, "the connector %s was ended while it worked", s.name).Wrap(err)
	}
	if !sdk.Answered(err) && sdk.ClassOf(err) == sdk.ClassInternal && s.Exited() && !s.AtFault() {
		return sdk.Errorf(sdk.ClassBusy, "the connector %s ended while it worked on several jobs", s.name).Wrap(err)
	}
	return err
}

// AtFault reports whether the process has ended because of this job: it was alone in
// it, or did not let itself be ended.
func (s *Process) AtFault() bool {
	if !s.Exited() {
		return false
	}
	<-s.mourned
	s.host.mu.Lock()
	defer s.host.mu.Unlock()
	if s.culprit != nil {
		return s.culprit == s
	}
	return s.crowd <= 1
}
