package store

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Run proposes queued write sets and writes applied ones to disk a few times a second,
// until ctx ends (then it returns nil) or the store fails (then the node must stop: its
// state can no longer follow the log, or its disk is broken). When it returns, every
// waiting Update has been answered and no goroutine is left; it waits for proposals on
// their way, so the replicator must be stopped with it.
func (s *Store) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.runFlush(ctx) })
	g.Go(func() error { return s.runPropose(ctx) })
	return g.Wait()
}

func (s *Store) runPropose(ctx context.Context) error {
	var flights sync.WaitGroup
	defer flights.Wait()
	defer s.stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.work:
		}
		for {
			settle := s.Step()
			if settle == nil {
				break
			}
			flights.Go(settle)
		}
	}
}

// stop answers everybody who waits and refuses new transactions that would change
// something. Apply goes on.
func (s *Store) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.followLocked()
}

func (s *Store) runFlush(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.failed:
			return s.Flush() // returns the failure
		case <-s.dirty:
		}
		select {
		case <-ctx.Done():
			return nil // Close flushes
		case <-time.After(flushEvery):
		}
		if err := s.Flush(); err != nil {
			return err
		}
	}
}
