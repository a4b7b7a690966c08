package cluster

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// applier is the replicated state: a *store.Store, whose documentation has the details.
type applier interface {
	// Apply makes a committed entry part of the state, in order of index. An error means
	// that this node cannot follow the log any further.
	Apply(index, term uint64, entry []byte) error
	// AppliedIndex is the index of the last entry whose effects survive a crash.
	AppliedIndex() uint64
	// Snapshot captures the state, with everything applied so far made durable.
	Snapshot() (snapshot, error)
	// Restore replaces the whole state by a snapshot, or changes nothing.
	Restore(io.Reader) error
	// Lead and Follow begin and end this node's right to change the state.
	Lead(term uint64) error
	Follow()
	// Now is the time the state goes by.
	Now() time.Time
}

type snapshot interface {
	io.WriterTo
	Release()
}

// replica is a *store.Store as an applier.
type replica struct{ *store.Store }

func (r replica) Snapshot() (snapshot, error) { return r.Store.Snapshot() }

// fsm drives an applier as a raft.BatchingFSM. raft calls it from one goroutine.
type fsm struct {
	state        applier
	applied      uint64 // index of the newest entry the state has, durable or not
	started      bool   // raft runs; before, a failed Restore lets raft try an older snapshot
	restoreError error

	fail   sync.Once
	failed chan struct{} // closed when the state cannot follow
	cause  error

	mu       sync.Mutex
	seen     uint64        // everything up to this index has been through ApplyBatch
	progress chan struct{} // closed and replaced when seen grows
	visible  atomic.Uint64 // seen, for metrics
}

func newFSM(state applier) *fsm {
	f := &fsm{state: state, applied: state.AppliedIndex(), failed: make(chan struct{}), progress: make(chan struct{})}
	if mutant.Is(mutant.ReplayAhead) && f.applied > 20 {
		f.applied += 2
	}
	f.advance(f.applied)
	return f
}

var _ raft.BatchingFSM = (*fsm)(nil)

// ApplyBatch implements raft.BatchingFSM.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	answers := make([]any, len(logs))
	for i, l := range logs {
		answers[i] = f.apply(l)
	}
	f.advance(logs[len(logs)-1].Index)
	return answers
}

// Apply implements raft.FSM; raft prefers ApplyBatch.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

func (f *fsm) apply(l *raft.Log) error {
	if l.Type != raft.LogCommand {
		return nil
	}
	if f.hasFailed() {
		return f.stoppedError()
	}
	if l.Index <= f.applied {
		return nil // from before the restart: the state has it on disk
	}
	if err := f.state.Apply(l.Index, l.Term, l.Data); err != nil {
		f.stop(reeve.Errorf(reeve.Internal, "apply_failed", "entry %d of the log cannot be applied", l.Index).
			WithFix("if this version is older than another controller's, upgrade it; if the disk failed, replace it; " +
				"then start again: nothing was lost").Wrap(err))
		return f.stoppedError()
	}
	f.applied = l.Index
	return nil
}

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.hasFailed() {
		return nil, f.stoppedError()
	}
	s, err := f.state.Snapshot()
	if err != nil {
		return nil, err
	}
	return fsmSnapshot{s}, nil
}

// Restore implements raft.FSM.
func (f *fsm) Restore(r io.ReadCloser) error {
	if f.hasFailed() {
		return f.stoppedError()
	}
	if err := f.state.Restore(r); err != nil {
		f.restoreError = err
		if f.started {
			f.stop(reeve.Errorf(reeve.Internal, "restore_failed", "the leader's snapshot cannot be restored").Wrap(err))
		}
		return err
	}
	f.applied = f.state.AppliedIndex()
	f.advance(f.applied)
	return nil
}

type fsmSnapshot struct{ snapshot }

// Persist implements raft.FSMSnapshot; raft closes or cancels the sink.
func (s fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	_, err := s.WriteTo(sink)
	return err
}

// stop makes the node end: from here on nothing is applied, restored or captured.
func (f *fsm) stop(cause error) {
	f.fail.Do(func() {
		f.cause = cause
		close(f.failed)
	})
}

func (f *fsm) hasFailed() bool {
	select {
	case <-f.failed:
		return true
	default:
		return false
	}
}

func (f *fsm) failure() error { return f.cause }

// stoppedError answers proposals that are committed, so the others apply them, but
// whose effect this node will not see.
func (f *fsm) stoppedError() error {
	return errUnknown().Wrap(f.cause)
}

// advance notes that everything up to index is visible in the state.
func (f *fsm) advance(index uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if index <= f.seen {
		return
	}
	f.seen = index
	f.visible.Store(index)
	close(f.progress)
	f.progress = make(chan struct{})
}

// reached reports whether everything up to index is visible, and a channel that
// closes when that may have changed.
func (f *fsm) reached(index uint64) (bool, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen >= index, f.progress
}

// behindSnapshot reports whether the state lacks something the newest snapshot has,
// so that raft must restore it at start. The indexes alone do not say so: a snapshot's
// index counts barriers and no-ops, which never reach the state.
func (n *Node) behindSnapshot(applied uint64) (bool, error) {
	metas, err := n.snaps.List()
	if err != nil {
		return false, reeve.Errorf(reeve.Internal, "data_dir_unusable", "cannot list the snapshots").Wrap(err)
	}
	last, err := n.logs.LastIndex()
	if err != nil {
		return false, reeve.Errorf(reeve.Internal, "data_dir_unusable", "cannot read the log").Wrap(err)
	}
	if len(metas) > 0 {
		last = max(last, metas[0].Index)
	}
	if applied > last {
		return false, reeve.Errorf(reeve.Internal, "state_ahead_of_log",
			"the state holds entry %d, but the log and the snapshots end at %d", applied, last).
			WithFix("the raft directory was lost or belongs to other data: remove this node from the cluster, " +
				"empty its data directory and let it join again")
	}
	if len(metas) == 0 {
		return false, nil
	}
	for index := applied + 1; index <= metas[0].Index; index++ {
		var l raft.Log
		err := n.logs.GetLog(index, &l)
		switch {
		case errors.Is(err, raft.ErrLogNotFound): // cut off, because the snapshot has it
			return true, nil
		case err != nil:
			return false, reeve.Errorf(reeve.Internal, "data_dir_unusable", "cannot read entry %d of the log", index).Wrap(err)
		case l.Type == raft.LogCommand:
			return true, nil
		}
	}
	return false, nil
}
