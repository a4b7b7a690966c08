package store

import "github.com/reeve-pam/reeve/internal/mutant"

// Apply takes the committed entry at index of the replicated log, in log order; term is
// the term under which the log holds it. It is called on every node, for every entry,
// from one goroutine, and depends on nothing but its arguments and the state: no clock,
// no randomness, no configuration, no keys. A sealed node applies like any other.
//
// The write sets take effect only if the entry was computed in the term in which it was
// committed and on the very revision that the state has; otherwise the entry has no
// effect, on any node. Entries up to the applied index are skipped, so the log may be
// passed again from an earlier point after a restart.
//
// The state keeps parts of data, which must not be changed any more.
//
// Any error means that this node cannot follow the log and must stop; the error stays.
func (s *Store) Apply(index, term uint64, data []byte) error {
	s.mu.Lock()
	if s.failure != nil || index <= s.applied.Index {
		defer s.mu.Unlock()
		return s.failure
	}
	s.mu.Unlock()

	e, err := decodeEntry(data)
	if err != nil {
		return s.fail(err)
	}
	if s.take(index, term, e) > maxLayerBytes {
		return s.Flush() // the disk is slower than the log: let the log wait
	}
	signal(s.dirty)
	return nil
}

// take puts the write sets into the memory layer and returns its size.
func (s *Store) take(index, term uint64, e *entry) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	accepted := e.Term == term && (e.Base == s.applied.Revision || mutant.Is(mutant.BaseGuardOff)) || mutant.Is(mutant.TermGuardOff)
	if accepted {
		for i := range e.Sets {
			s.mergeLocked(&e.Sets[i])
		}
		s.applied.Revision += uint64(len(e.Sets))
		s.applied.Time = max(s.applied.Time, e.Time)
	} else {
		s.log.Info("log entry rejected", "index", index, "term", term, "entry_term", e.Term,
			"revision", s.applied.Revision, "entry_base", e.Base)
	}
	s.applied.Index = index
	s.landedLocked(e, accepted)
	return s.active.bytes
}

func (s *Store) mergeLocked(w *writeSet) {
	for i := range w.Puts {
		key := string(w.Puts[i].Key)
		s.active.set(key, cell{value: w.Puts[i].Value})
		s.notifyLocked(key)
	}
	for _, k := range w.Deletes {
		key := string(k)
		s.active.set(key, cell{gone: true})
		s.notifyLocked(key)
	}
}

// watcher is one caller of Watch.
type watcher struct {
	tables map[TableName]bool // nil: all
	c      chan struct{}
}

// Watch returns a channel that receives after records of one of the tables (of any
// table, if none is named) have changed in the state that View sees, on any node, and
// after a Restore. Signals that nobody received yet are merged into one; there is none
// for the state as it is now, so look first, after calling Watch. The function ends the
// watch; the channel is never closed.
func (s *Store) Watch(tables ...TableName) (<-chan struct{}, func()) {
	w := &watcher{c: make(chan struct{}, 1)}
	for _, t := range tables {
		if w.tables == nil {
			w.tables = map[TableName]bool{}
		}
		w.tables[t] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[w] = struct{}{}
	return w.c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, w)
	}
}

func (s *Store) notifyLocked(key string) {
	if len(s.watchers) == 0 {
		return
	}
	table, record, _ := tableOf(key)
	if !record {
		return
	}
	for w := range s.watchers {
		if w.tables == nil || w.tables[table] {
			signal(w.c)
		}
	}
}
