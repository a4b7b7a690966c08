package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

type note struct {
	ID    string `cbor:"1,keyasint,omitempty"`
	Count int    `cbor:"2,keyasint,omitempty"`
}

var notes = store.NewTable("clustertest_note", store.Key(func(n *note) string { return n.ID }))

// stored is a real store as a member's state. It is closed when the node stops and
// opened again when it starts.
type stored struct {
	replica
	t      testing.TB
	path   string
	cipher store.Cipher
	broken bool // the store is expected to fail
}

func newStored(t testing.TB, cipher store.Cipher) *stored {
	return &stored{t: t, path: filepath.Join(t.TempDir(), "state.db"), cipher: cipher}
}

func (s *stored) open(n *Node) (applier, func()) {
	db, err := store.Open(store.Config{
		Path: s.path, Cipher: s.cipher, Replicator: n, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.replica = replica{db}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- db.Run(ctx) }()
	return s, func() {
		cancel()
		if err := errors.Join(<-done, db.Close()); (err != nil) != s.broken {
			s.t.Errorf("store: %v", err)
		}
	}
}

func (m *member) store() *store.Store { return m.state.(*stored).Store }

// storeCluster starts n voters with real stores that share a cipher.
func (l *lab) storeCluster(n int, change ...func(*Config)) {
	l.t.Helper()
	cipher := storetest.NewCipher()
	first := l.add(newStored(l.t, cipher), change...)
	if err := first.Bootstrap(); err != nil {
		l.t.Fatal(err)
	}
	for range n - 1 {
		l.join(l.add(newStored(l.t, cipher), change...))
	}
	l.voters(n)
	// Raft knows its leader a little before the store leads.
	until(l.t, "a store that leads", func() bool {
		return l.leader().store().Update(l.t.Context(), func(*store.Tx) error { return nil }) == nil
	})
}

func increment(ctx context.Context, s *store.Store, id string) error {
	return s.Update(ctx, func(tx *store.Tx) error {
		n, err := notes.Get(tx, id)
		if reeve.KindOf(err) == reeve.NotFound {
			n, err = &note{ID: id}, nil
		}
		if err != nil {
			return err
		}
		n.Count++
		return notes.Put(tx, n)
	})
}

func countOf(t testing.TB, s *store.Store, id string) (count int) {
	t.Helper()
	err := s.View(t.Context(), func(tx *store.Tx) error {
		n, err := notes.Get(tx, id)
		if err == nil {
			count = n.Count
		}
		return err
	})
	if err != nil && reeve.KindOf(err) != reeve.NotFound {
		t.Fatal(err)
	}
	return count
}

// sameState waits until all stores are at the same index with the same bytes.
func sameState(t testing.TB, members ...*member) {
	t.Helper()
	until(t, "equal states (O3)", func() bool {
		index, sum, err := members[0].store().StateHash()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range members[1:] {
			i, s, err := m.store().StateHash()
			if err != nil {
				t.Fatal(err)
			}
			if i != index {
				return false
			}
			if s != sum {
				t.Fatalf("states differ at index %d", index)
			}
		}
		return true
	})
}

// Increments through a cluster whose leader is moved, cut off and restarted: each
// acknowledged one counts once, each unknown one at most once, and all replicas hold
// the same bytes.
func TestStoreOverLeaderChanges_O1_O3(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.storeCluster(3)
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	acknowledged, unknown := map[string]int{}, map[string]int{}
	total := func() int {
		mu.Lock()
		defer mu.Unlock()
		n := 0
		for _, c := range acknowledged {
			n += c
		}
		return n
	}
	var writers sync.WaitGroup
	for w := range 6 {
		id := fmt.Sprint(w % 3)
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				m := l.members[(w+i)%3]
				if !m.IsLeader() {
					time.Sleep(time.Millisecond) // until polls leaders the same way
					continue
				}
				err := increment(ctx, m.store(), id)
				mu.Lock()
				switch {
				case err == nil:
					acknowledged[id]++
				case reeve.KindOf(err) != reeve.Unavailable:
					unknown[id]++
				}
				mu.Unlock()
			}
		})
	}
	progress := func() {
		t.Helper()
		from := total()
		until(t, "writes go on", func() bool { return total() > from+20 })
	}
	progress()
	for range 3 {
		until(t, "transfer", func() bool { return l.leader().TransferLeadership(ctx, "") == nil })
		progress()
	}
	old := l.leader()
	l.net.Isolate(old.cfg.ID)
	l.leader(old)
	progress()
	l.net.Heal()
	progress()
	cancel()
	writers.Wait()

	for _, m := range l.members { // restarts read the disk and the log again
		if err := m.stop(); err != nil {
			t.Fatal(err)
		}
		m.start()
	}
	leader := l.leader()
	until(t, "one more write", func() bool { return increment(t.Context(), l.leader().store(), "last") == nil })
	sameState(t, l.members...)
	for id, want := range acknowledged {
		if got := countOf(t, leader.store(), id); got < want || got > want+unknown[id] {
			t.Errorf("count %s is %d after %d acknowledged and %d unknown increments", id, got, want, unknown[id])
		}
	}
	t.Logf("%d acknowledged, %v unknown", total(), unknown)
}

// Without the keys a node votes, replicates and installs snapshots like any other.
func TestStoreSnapshotReachesANewNodeThatIsSealed_O3(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.storeCluster(1, smallLog)
	leader := l.leader()
	for i := range 40 {
		if err := increment(t.Context(), leader.store(), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := leader.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := increment(t.Context(), leader.store(), "0"); err != nil {
		t.Fatal(err)
	}
	sealed := l.add(newStored(t, storetest.NewCipher()), smallLog) // has a key of its own, which opens nothing
	l.join(sealed)
	l.voters(2)
	sameState(t, leader, sealed)
	if err := sealed.stop(); err != nil {
		t.Fatal(err)
	}
	sealed.start()
	sameState(t, leader, sealed)
}

// An entry that this release does not know stops every node that meets it.
func TestAnUnknownEntryVersionStopsTheNode(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.storeCluster(1)
	m := l.leader()
	if err := increment(t.Context(), m.store(), "a"); err != nil {
		t.Fatal(err)
	}
	m.state.(*stored).broken = true
	wantCode(t, m.Propose([]byte{255}).Wait(), reeve.OutcomeUnknown, "outcome_unknown")
	wantCode(t, m.ended(), reeve.Internal, "apply_failed")
	m.start() // nor does a restart pass over it
	wantCode(t, m.ended(), reeve.Internal, "apply_failed")
}
