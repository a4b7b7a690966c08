package store

import "context"

// Park is how the callers of a Store wait where a goroutine must not block: it returns
// when ready says so or ctx has ended, and may be called again. ready is cheap, and true
// stays true only until somebody else acts.
type Park func(ctx context.Context, ready func() bool)

// Step proposes one entry of queued write sets in the caller's goroutine, as Run does in
// its own. It returns nil if there is nothing to propose; otherwise settle must be called
// once when the Wait of the proposal would return. It is for internal/simulation, which
// has one event loop for everything: a Store that is stepped is not run.
func (s *Store) Step() (settle func()) {
	f, e := s.pack()
	if f == nil {
		return nil
	}
	proposal := s.replicator.Propose(f.encode(e))
	return func() { s.complete(f, proposal.Wait()) }
}

// wait waits for c to be closed. It fails when ctx ends first.
func (s *Store) wait(ctx context.Context, c <-chan struct{}) error {
	if s.park != nil {
		s.park(ctx, func() bool { return closed(c) })
	}
	if closed(c) {
		return nil
	}
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// takeTurn waits for the turn to run an Update function.
func (s *Store) takeTurn(ctx context.Context) error {
	if s.park != nil {
		s.park(ctx, func() bool { return len(s.turn) == 0 })
	}
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
