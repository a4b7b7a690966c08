package store

import "github.com/reeve-pam/reeve/internal/reeve"

// Amend changes a state that follows no log: one restored beside a node's own, which is
// to take its place with [Store.Snapshot] and the cluster's Restore. fn is as in Update;
// its revision is greater than floor and than all before it, so that revisions that were
// handed out elsewhere, as fences are, do not come twice. A store with a replicator is
// refused.
func (s *Store) Amend(floor uint64, fn func(*Tx) error) error {
	if s.replicator != nil {
		return reeve.Errorf(reeve.Internal, "amend_invalid", "a state that follows a log is changed through the log")
	}
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.mu.Lock()
	tx, err := s.beginLocked()
	if err == nil {
		tx.write, tx.amends, tx.revision = true, true, max(s.applied.Revision, floor)+1
		tx.now, tx.doubted = s.stamp(s.applied.Time)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	defer tx.end()
	if err := fn(tx); err != nil {
		return err
	}
	tx.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	if tx.own.empty() {
		return nil
	}
	tx.own.m.Scan(func(key string, c cell) bool {
		s.active.set(key, c)
		s.notifyLocked(key)
		return true
	})
	s.applied.Revision, s.applied.Time = tx.revision, tx.now.UnixNano()
	return nil
}

// Replace makes the table in to what it is in from, a transaction of another store.
func (t *Table[T]) Replace(to, from *Tx) error {
	for r, err := range t.List(to, "") {
		if err == nil {
			err = t.Delete(to, t.key(r))
		}
		if err != nil {
			return err
		}
	}
	for r, err := range t.List(from, "") {
		if err == nil {
			err = t.Insert(to, r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
