package store

import (
	"errors"

	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Bounds on packing. While maxInflight entries are on their way, waiting write sets
// gather and go out together in the next one.
const (
	maxInflight   = 8
	maxEntrySets  = 512
	maxEntryBytes = 1 << 20 // one write set may be larger; it then goes alone
)

// leadership is one unbroken stretch of leading. Everything computed in it stands on
// the applied state of its beginning and on the write sets before it, and falls with it.
type leadership struct {
	term     uint64
	overlay  layer // write sets queued and in flight, on top of what is applied
	queue    []*pending
	inflight map[uint64]*flight
	last     *pending // youngest write set, nil if its fate is known
	revision uint64   // revision of the youngest write set
	stamp    int64    // latest time given to a transaction

	// An entry failed, so whatever was computed after it is void. Nothing new is
	// computed until the fate of all entries in flight is known.
	stalled bool
	settled chan struct{} // closed when stalled ends, or the leadership does
}

// pending is a write set whose transaction waits for its fate.
type pending struct {
	revision uint64
	stamp    int64
	data     []byte // encoded writeSet
	writes   layer
	cost     int64
	done     chan struct{} // closed when err is final
	err      error
	resolved bool
}

// flight is an entry on its way.
type flight struct {
	id       uint64
	sets     []*pending
	applied  bool // Apply of this node has seen it
	accepted bool // and has taken its write sets
}

// Lead makes this node the one that runs Update, in the given term. Call it on
// winning an election, after everything committed before has been applied (the
// barrier); it ends an earlier leadership of this node.
func (s *Store) Lead(term uint64) error {
	s.checkClock()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.failure != nil:
		return s.failure
	case s.stopped:
		return errStopping
	case s.replicator == nil || term == 0:
		return reeve.Errorf(reeve.Internal, "lead_invalid", "cannot lead term %d without a replicator and a term", term)
	}
	s.followLocked()
	s.lead = &leadership{term: term, inflight: map[uint64]*flight{}, revision: s.applied.Revision}
	s.log.Info("store leads", "term", term, "index", s.applied.Index, "revision", s.applied.Revision)
	return nil
}

// Follow ends leadership, if there is one. Transactions that wait for their fate end
// with Kind OutcomeUnknown, or Unavailable where it is certain that they never left.
func (s *Store) Follow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.followLocked()
}

func (s *Store) followLocked() {
	l := s.lead
	if l == nil {
		return
	}
	s.lead = nil
	for _, p := range l.queue {
		s.resolveLocked(p, errNotLeader)
	}
	for _, f := range l.inflight {
		for _, p := range f.sets {
			if mutant.Is(mutant.UnknownRefused) {
				s.resolveLocked(p, errNotLeader)
			}
			s.resolveLocked(p, errLost)
		}
	}
	if l.stalled {
		close(l.settled)
	}
	s.log.Info("store follows", "term", l.term)
}

var (
	errLost = reeve.Errorf(reeve.OutcomeUnknown, "leadership_lost",
		"this node lost leadership before it learned whether the change was made").
		WithFix("look whether it was made, or repeat the request with the same idempotency key")
	errUnknown = reeve.Errorf(reeve.OutcomeUnknown, "outcome_unknown",
		"nobody knows whether the change was made").
		WithFix("look whether it was made, or repeat the request with the same idempotency key")
	errSuperseded = reeve.Errorf(reeve.Unavailable, "superseded",
		"a change made just before this one failed, so this one was not made").WithFix("try again")
)

// pack moves waiting write sets into the next entry, or returns nil if there are none
// or enough entries are on their way.
func (s *Store) pack() (*flight, *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lead
	if l == nil || len(l.queue) == 0 || len(l.inflight) >= maxInflight {
		return nil, nil
	}
	n, size := 0, 0
	for n < len(l.queue) && n < maxEntrySets && (n == 0 || size+len(l.queue[n].data) <= maxEntryBytes) {
		size += len(l.queue[n].data)
		n++
	}
	s.proposal++
	f := &flight{id: s.proposal, sets: l.queue[:n:n]}
	l.queue = l.queue[n:]
	l.inflight[f.id] = f
	return f, &entry{Term: l.term, Proposal: f.id, Base: f.sets[0].revision - 1, Time: f.sets[n-1].stamp}
}

// encode is the entry with the write sets of the flight.
func (f *flight) encode(e *entry) []byte {
	sets := make([][]byte, len(f.sets))
	for i, p := range f.sets {
		sets[i] = p.data
	}
	return encodeEntry(e, sets)
}

// complete records the fate of an entry. If it was not committed, everything computed
// after it is void: what is still queued ends here, what is in flight will be rejected
// by Apply because its base does not match.
func (s *Store) complete(f *flight, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil && !f.applied:
		err = errUnknown.Wrap(errors.New("committed, but not applied on this node"))
	case err == nil && !f.accepted:
		err = errSuperseded
	case err != nil && reeve.KindOf(err) != reeve.Unavailable:
		err = errUnknown.Wrap(err)
	}
	for _, p := range f.sets {
		s.resolveLocked(p, err)
	}
	l := s.lead
	if l == nil || l.inflight[f.id] != f {
		return // the leadership it belonged to is over
	}
	delete(l.inflight, f.id)
	if err != nil {
		s.log.Warn("a log entry failed; computing anew", "term", l.term, "error", err)
		s.voidLocked(l)
	}
	if l.stalled && len(l.inflight) == 0 {
		l.rebase(s.applied)
		l.stalled = false
		close(l.settled)
	}
	signal(s.work)
}

// rebase forgets everything in flight: the next transaction stands on what is applied.
func (l *leadership) rebase(at position) {
	l.overlay, l.last, l.revision = layer{}, nil, at.Revision
}

// voidLocked ends what is queued and lets nothing new be computed until the fate of all
// that is in flight is known.
func (s *Store) voidLocked(l *leadership) {
	for _, p := range l.queue {
		s.resolveLocked(p, errSuperseded)
	}
	l.queue = nil
	if !l.stalled {
		l.stalled, l.settled = true, make(chan struct{})
	}
}

// resolveLocked tells the waiting transaction its fate. The first word counts.
func (s *Store) resolveLocked(p *pending, err error) {
	if p.resolved {
		return
	}
	p.resolved, p.err = true, err
	s.budget.Release(p.cost)
	close(p.done)
}

// landedLocked is called by Apply for every entry: if it is one of ours, its write sets
// leave the overlay, in the same moment in which they enter the memory layer.
func (s *Store) landedLocked(e *entry, accepted bool) {
	l := s.lead
	if l == nil || l.term != e.Term {
		return
	}
	f := l.inflight[e.Proposal]
	if f == nil {
		return
	}
	f.applied, f.accepted = true, accepted
	if !accepted {
		return
	}
	for _, p := range f.sets {
		if p == l.last { // it stood on all the others, so they have landed before
			l.overlay, l.last = layer{}, nil
			return
		}
		p.writes.m.Scan(func(key string, _ cell) bool {
			if c, ok := l.overlay.get(key); ok && c.owner == p {
				l.overlay.delete(key)
			}
			return true
		})
	}
}
