package store

import (
	"context"

	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Update runs fn on the leader and replicates what it changes. Functions run one at a
// time, each on the state its predecessors made, committed or still in flight;
// transactions are serializable. fn must be quick, do no I/O, and not call Update,
// View or Watch of the same store; its effects outside the store are not undone.
//
// Update returns nil after the changes are durable on a majority and visible to View
// on this node, and otherwise
//   - what fn returned; nothing was changed (the answer too waits until the state
//     that fn saw is committed),
//   - Kind Unavailable: nothing was changed and a retry is safe; code "not_leader" when
//     this node does not lead,
//   - Kind OutcomeUnknown: leadership was lost or ctx ended while waiting; the change
//     may have been made or may still be made.
//
// A panic of fn changes nothing and reaches the caller.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	tx, p, mine, err := s.compute(ctx, fn)
	if p != nil {
		err = s.await(ctx, p, mine, err)
	}
	if mutant.Is(mutant.UnknownRetried) && reeve.KindOf(err) == reeve.OutcomeUnknown {
		return s.Update(ctx, fn)
	}
	if err != nil {
		return err
	}
	for _, f := range tx.onCommit {
		f()
	}
	return nil
}

// await waits for the fate of p. If p is the transaction's own write set (mine), that is
// the answer; otherwise p is what the transaction read, and answer holds if p does.
func (s *Store) await(ctx context.Context, p *pending, mine bool, answer error) error {
	if mutant.Is(mutant.AckedEarly) && mine || mutant.Is(mutant.DirtyAnswer) && !mine {
		return answer
	}
	if err := s.wait(ctx, p.done); err != nil {
		if !mine {
			return errGone(err)
		}
		return errUnknown.Wrap(err)
	}
	switch {
	case mine:
		return p.err
	case p.err != nil:
		return errSuperseded.Wrap(p.err)
	default:
		return answer
	}
}

// compute runs fn in turn. It returns the write set to wait for: the transaction's own
// (mine), or, if it has none, the youngest one that it may have read.
func (s *Store) compute(ctx context.Context, fn func(*Tx) error) (tx *Tx, p *pending, mine bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, false, errGone(err)
	}
	if err := s.takeTurn(ctx); err != nil {
		return nil, nil, false, errGone(err)
	}
	defer func() { <-s.turn }()
	tx, l, before, err := s.beginUpdate(ctx)
	if err != nil {
		return nil, nil, false, err
	}
	defer tx.end()
	if err := fn(tx); err != nil || tx.own.empty() {
		return tx, before, false, err
	}
	tx.end()
	p, err = s.enqueue(ctx, l, tx)
	return tx, p, true, err
}

// beginUpdate makes a transaction on the applied state plus what is in flight.
func (s *Store) beginUpdate(ctx context.Context) (*Tx, *leadership, *pending, error) {
	for {
		s.mu.Lock()
		l := s.lead
		switch {
		case s.failure != nil:
			defer s.mu.Unlock()
			return nil, nil, nil, s.failure
		case s.stopped:
			defer s.mu.Unlock()
			return nil, nil, nil, errStopping
		case l == nil:
			defer s.mu.Unlock()
			return nil, nil, nil, errNotLeader
		case l.stalled:
			settled := l.settled
			s.mu.Unlock()
			if err := s.wait(ctx, settled); err != nil {
				return nil, nil, nil, errGone(err)
			}
			continue
		}
		defer s.mu.Unlock()
		if len(l.queue) == 0 && len(l.inflight) == 0 {
			l.rebase(s.applied)
		}
		tx, err := s.beginLocked()
		if err != nil {
			return nil, nil, nil, err
		}
		if !mutant.Is(mutant.InFlightUnseen) {
			tx.snap.layers = append([]layer{l.overlay.view()}, tx.snap.layers...)
		}
		tx.write, tx.pending = true, new(pending)
		tx.revision = l.revision + 1
		tx.now, tx.doubted = s.stamp(max(l.stamp, s.applied.Time))
		l.stamp = tx.now.UnixNano()
		return tx, l, l.last, nil
	}
}

// enqueue makes the write set of tx visible to the next transaction and hands it to
// the proposer. It blocks while too much is in flight: the caller has the turn, so
// nothing new is computed meanwhile.
func (s *Store) enqueue(ctx context.Context, l *leadership, tx *Tx) (*pending, error) {
	data := encodeWrites(tx.own)
	p := tx.pending
	*p = pending{
		revision: tx.revision,
		stamp:    tx.now.UnixNano(),
		data:     data,
		writes:   tx.own,
		cost:     int64(len(data)) + setOverhead,
		done:     make(chan struct{}),
	}
	if err := s.budget.Acquire(ctx, p.cost); err != nil {
		return nil, errGone(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead != l || l.stalled {
		s.budget.Release(p.cost)
		if s.lead != l {
			return nil, errNotLeader
		}
		return nil, errSuperseded
	}
	if l.overlay.empty() {
		l.overlay = p.writes.view()
	} else {
		p.writes.m.Scan(func(key string, c cell) bool {
			l.overlay.set(key, c)
			return true
		})
	}
	l.queue = append(l.queue, p)
	l.last, l.revision = p, p.revision
	signal(s.work)
	return p, nil
}
