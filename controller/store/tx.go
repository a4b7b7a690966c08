package store

import (
	"bytes"
	"context"
	"time"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Tx is a transaction. It sees the state of one moment and, in Update, its own
// changes. It is for the goroutine that was given it, and ends with the function.
type Tx struct {
	store    *Store
	snap     snapshot
	own      layer
	pending  *pending // what own becomes; nil unless it is an Update
	write    bool
	amends   bool // it enters no log, whose entries are bounded
	ended    bool
	now      time.Time
	doubted  bool // now is not the clock's
	recorded time.Time
	revision uint64
	bytes    int
	onCommit []func()
	// seen has the index entries of the records that were read or written, by record key;
	// nil for a record that was deleted. Replacing a record needs them, not the record.
	seen map[string][]string

	encoded bytes.Buffer // room for a record that is being encoded,
	bound   []byte       // and for its additional data
}

func (tx *Tx) remember(key string, entries []string) {
	if tx.seen == nil {
		tx.seen = map[string][]string{}
	}
	tx.seen[key] = entries
}

// Now is the time of the transaction, in UTC: in Update the leader's clock when it
// began, replicated with it; it never goes backwards from one committed transaction to
// the next, also over a change of leader or clock. In View it is this node's clock, but
// not before the last transaction that the view can see.
//
// While the clock is in doubt ([Store.Clock]) time goes on without it, at its usual speed.
func (tx *Tx) Now() time.Time { return tx.now }

// ClockInDoubt reports whether Now may be wrong, because this node does not believe its
// clock. What is begun because of the time, and what tells the time to others, must wait.
func (tx *Tx) ClockInDoubt() bool { return tx.doubted }

// Recorded is the time of the newest transaction that changed what this one sees.
func (tx *Tx) Recorded() time.Time { return tx.recorded }

// Revision numbers the transactions that changed something, in commit order, without
// gaps but those [Store.Amend] leaves, the same on every node. In Update it is the number this transaction will have
// if it commits; in View the number of the last transaction it sees.
func (tx *Tx) Revision() uint64 { return tx.revision }

// OnCommit makes Update call f, in the caller's goroutine, after the transaction is
// committed and just before Update returns nil; View ignores it. f is not called when Update returns an
// error, which includes transactions that did commit without this node learning it in
// time; what must happen for every commit belongs into the state, see [Store.Watch].
func (tx *Tx) OnCommit(f func()) { tx.onCommit = append(tx.onCommit, f) }

// View runs fn on the state this node has applied. It works on every node, reads
// without waiting for writers, and may be stale on a follower or a leader that does
// not know yet that it lost; callers that must not be ask the cluster to verify first.
// It returns what fn returns.
//
// fn must not call Update. Long views keep old pages of the file alive.
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return errGone(err)
	}
	s.mu.Lock()
	tx, err := s.beginLocked()
	if err == nil {
		tx.revision = s.applied.Revision
		tx.now, tx.doubted = s.stamp(s.applied.Time)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	defer tx.end()
	return fn(tx)
}

// beginLocked makes a transaction on what is applied. Caller holds mu, so that the
// bbolt transaction and the layers belong together.
func (s *Store) beginLocked() (*Tx, error) {
	if s.failure != nil {
		return nil, s.failure
	}
	btx, err := s.db.Begin(false)
	if err != nil {
		return nil, errDisk("cannot read the state file", err)
	}
	return &Tx{store: s, recorded: time.Unix(0, s.applied.Time).UTC(), snap: snapshot{
		tx:     btx,
		state:  btx.Bucket(bucketState),
		layers: []layer{s.active.view(), s.flushing.view()},
	}}, nil
}

// stamp is the time, not before floor, and whether the clock is in doubt.
func (s *Store) stamp(floor int64) (time.Time, bool) {
	now, doubted := s.clock.now()
	return time.Unix(0, max(now.UnixNano(), floor)).UTC(), doubted
}

func (tx *Tx) end() {
	if !tx.ended {
		tx.ended = true
		_ = tx.snap.tx.Rollback() // of a read transaction: fails only when it has ended
		for i := range tx.snap.layers {
			tx.snap.layers[i].release()
		}
	}
}

func (tx *Tx) check() error {
	if tx.ended {
		return reeve.Errorf(reeve.Internal, "tx_ended", "a transaction was used after its function returned")
	}
	return nil
}

// view is what the transaction sees now, its own changes included. It does not change
// when the transaction goes on writing, until sn.own is released.
func (tx *Tx) view() snapshot {
	if tx.own.empty() {
		return tx.snap
	}
	sn := tx.snap
	sn.own = tx.own.view()
	sn.layers = append([]layer{sn.own}, tx.snap.layers...)
	return sn
}

func (tx *Tx) get(key string) ([]byte, bool) {
	if c, ok := tx.own.get(key); ok {
		return c.value, !c.gone
	}
	return tx.snap.get(key)
}

func (tx *Tx) set(key string, c cell) error {
	if err := tx.check(); err != nil {
		return err
	}
	if !tx.write {
		return reeve.Errorf(reeve.Internal, "tx_read_only", "a View cannot change anything")
	}
	if len(key) > maxKeyBytes {
		return reeve.Errorf(reeve.TooLarge, "key_too_long",
			"an identifier or indexed value makes a key of %d bytes; the limit is %d", len(key), maxKeyBytes)
	}
	tx.bytes += len(key) + len(c.value) + 16
	if !tx.amends && (tx.bytes > maxSetBytes || tx.own.m != nil && tx.own.m.Len() >= maxSetOps) {
		return reeve.Errorf(reeve.TooLarge, "transaction_too_large",
			"a transaction changes more than %d bytes or %d keys", maxSetBytes, maxSetOps).
			WithFix("do the work in smaller parts")
	}
	c.owner = tx.pending
	tx.own.set(key, c)
	return nil
}

// errGone is for a caller that left before anything was done.
func errGone(err error) error {
	return reeve.Errorf(reeve.Unavailable, "cancelled", "the request ended before anything was changed").Wrap(err)
}
