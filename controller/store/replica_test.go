package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// churn makes n transactions that insert, change and delete.
func churn(t *testing.T, s *store.Store, n int) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		err := s.Update(t.Context(), func(tx *store.Tx) error {
			id := fmt.Sprint(r.IntN(40))
			if r.IntN(4) == 0 {
				if err := hosts.Delete(tx, id); reeve.KindOf(err) != reeve.NotFound {
					return err
				}
			}
			return hosts.Put(tx, &host{ID: id, Name: "n" + id, Site: fmt.Sprint(r.IntN(3)), N: i})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestReplicasAreByteEqualAtEqualIndex_O3(t *testing.T) {
	t.Parallel()
	log, nodes := newCluster(t, 3, nil)
	churn(t, nodes[0], 100)
	if err := nodes[1].Flush(); err != nil { // nodes differ in what is on disk
		t.Fatal(err)
	}
	churn(t, nodes[0], 100)
	index, sum, err := nodes[0].StateHash()
	if err != nil || index != uint64(len(log.entries)) {
		t.Fatalf("index %d of %d: %v", index, len(log.entries), err)
	}
	want := snapshotBytes(t, nodes[0])
	if !bytes.HasSuffix(want, sum[:]) {
		t.Error("StateHash is not the hash of the snapshot")
	}
	for _, n := range nodes[1:] {
		i, h, err := n.StateHash()
		if err != nil || i != index || h != sum {
			t.Errorf("index %d hash %x, want %d %x: %v", i, h, index, sum, err)
		}
		if !bytes.Equal(snapshotBytes(t, n), want) {
			t.Error("snapshots differ")
		}
	}
	if err := put(t.Context(), nodes[0], host{ID: "one more"}); err != nil {
		t.Fatal(err)
	}
	if _, h, _ := nodes[0].StateHash(); h == sum {
		t.Error("a change did not change the hash")
	}
}

// useless is a cipher and a clock that fail the test when used.
type useless struct{ t *testing.T }

func (u useless) Seal(_, _ []byte) ([]byte, error) {
	u.t.Error("apply sealed")
	return nil, os.ErrInvalid
}
func (u useless) Open(_, _ []byte) ([]byte, error) {
	u.t.Error("apply opened")
	return nil, os.ErrInvalid
}
func (u useless) now() time.Time { u.t.Error("apply read the clock"); return time.Time{} }

func TestReplayFromScratchIsByteEqual_O4(t *testing.T) {
	t.Parallel()
	log, nodes := newCluster(t, 1, nil)
	churn(t, nodes[0], 150)
	want := snapshotBytes(t, nodes[0])
	for range 2 {
		u := useless{t}
		s := open(t, filepath.Join(t.TempDir(), "state.db"), u, nil, u.now)
		log.replay(t, s)
		if !bytes.Equal(snapshotBytes(t, s), want) {
			t.Error("the replayed state differs")
		}
	}
}

func TestRestartResumesFromAppliedIndex(t *testing.T) {
	t.Parallel()
	log, nodes := newCluster(t, 1, nil)
	churn(t, nodes[0], 50)
	path := filepath.Join(t.TempDir(), "state.db")
	u := useless{t}
	s := open(t, path, u, nil, u.now)
	log.replay(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, u, nil, u.now)
	if s.AppliedIndex() != 50 {
		t.Fatalf("applied index %d, want 50", s.AppliedIndex())
	}
	// Entries up to the applied index are not even decoded.
	for i := range uint64(50) {
		if err := s.Apply(i+1, 1, []byte("not an entry")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(snapshotBytes(t, s), snapshotBytes(t, nodes[0])) {
		t.Error("the state differs after the restart")
	}
}

func TestCrashBetweenFlushesReplaysTheLog(t *testing.T) {
	t.Parallel()
	log, nodes := newCluster(t, 1, nil)
	churn(t, nodes[0], 60)
	dir := t.TempDir()
	u := useless{t}
	s := open(t, filepath.Join(dir, "state.db"), u, nil, u.now)
	for i, e := range log.entries[:40] {
		if i == 20 {
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Apply(uint64(i)+1, e.term, e.data); err != nil {
			t.Fatal(err)
		}
	}
	// A crash leaves the file as it is now: what is in memory is lost.
	crashed := filepath.Join(dir, "crashed.db")
	copyFile(t, filepath.Join(dir, "state.db"), crashed)
	s = open(t, crashed, u, nil, u.now)
	if s.AppliedIndex() != 20 {
		t.Fatalf("applied index %d, want 20", s.AppliedIndex())
	}
	log.replay(t, s)
	if !bytes.Equal(snapshotBytes(t, s), snapshotBytes(t, nodes[0])) {
		t.Error("the state differs after the crash")
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAcknowledgedSurvivesACrash_O1(t *testing.T) {
	t.Parallel()
	path, c := filepath.Join(t.TempDir(), "state.db"), storetest.NewCipher()
	s := storetest.New(t, storetest.WithPath(path), storetest.WithCipher(c))
	for i := range 10 {
		if err := put(t.Context(), s, host{ID: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		crashed := filepath.Join(t.TempDir(), "crashed.db")
		copyFile(t, path, crashed)
		if got := ids(t, open(t, crashed, c, nil, nil)); len(got) != i+1 {
			t.Fatalf("after %d acknowledged transactions the disk has %v", i+1, got)
		}
	}
}

func TestSnapshotRestoresEverything(t *testing.T) {
	t.Parallel()
	log, nodes := newCluster(t, 1, nil)
	churn(t, nodes[0], 80)
	stream := snapshotBytes(t, nodes[0])
	path := filepath.Join(t.TempDir(), "state.db")
	u := useless{t}
	s := open(t, path, u, nil, u.now)
	if err := s.Apply(1, 1, log.entries[79].data); err != nil { // some other state, to be replaced
		t.Fatal(err)
	}
	changed, stop := s.Watch("host")
	defer stop()
	if err := s.Restore(bytes.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("Watch did not tell of the restore")
	}
	if s.AppliedIndex() != 80 || !bytes.Equal(snapshotBytes(t, s), stream) {
		t.Errorf("index %d; the restored state differs", s.AppliedIndex())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, u, nil, u.now)
	if !bytes.Equal(snapshotBytes(t, s), stream) {
		t.Error("the restored state did not survive a restart")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestTamperedSnapshotIsRefusedAndNothingReplaced_K5(t *testing.T) {
	t.Parallel()
	_, nodes := newCluster(t, 1, nil)
	churn(t, nodes[0], 6)
	stream := snapshotBytes(t, nodes[0])
	s := storetest.New(t)
	if err := put(t.Context(), s, host{ID: "keep"}); err != nil {
		t.Fatal(err)
	}
	before := snapshotBytes(t, s)
	bad := map[string][]byte{
		"empty":    {},
		"trailing": append(bytes.Clone(stream), 0),
		"twice":    append(bytes.Clone(stream), stream...),
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 60 {
		i := r.IntN(len(stream))
		b := bytes.Clone(stream)
		b[i] ^= 1 << r.IntN(8)
		bad[fmt.Sprintf("byte %d of %d", i, len(stream))] = b
		bad[fmt.Sprintf("cut at %d", i)] = stream[:i]
	}
	for name, b := range bad {
		err := s.Restore(bytes.NewReader(b))
		if reeve.CodeOf(err) != "snapshot_corrupt" || reeve.KindOf(err) != reeve.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !bytes.Equal(snapshotBytes(t, s), before) {
		t.Error("a refused snapshot changed the state")
	}
	if err := put(t.Context(), s, host{ID: "goes on"}); err != nil {
		t.Error(err)
	}
}

func TestViewKeepsItsStateOverARestore(t *testing.T) {
	t.Parallel()
	_, nodes := newCluster(t, 1, nil)
	churn(t, nodes[0], 5)
	stream := snapshotBytes(t, nodes[0])
	s := storetest.New(t)
	if err := put(t.Context(), s, host{ID: "old"}); err != nil {
		t.Fatal(err)
	}
	restored := make(chan error, 1)
	err := s.View(t.Context(), func(tx *store.Tx) error {
		changed, stop := s.Watch()
		defer stop()
		go func() { restored <- s.Restore(bytes.NewReader(stream)) }()
		<-changed // the state is replaced; Restore now waits for this view
		_, err := hosts.Get(tx, "old")
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := <-restored; err != nil {
		t.Error(err)
	}
}

func TestMovedCiphertextDoesNotOpen_K2(t *testing.T) {
	t.Parallel()
	type note struct {
		ID   string `cbor:"1,keyasint,omitempty"`
		Text string `cbor:"2,keyasint,omitempty"`
	}
	key := store.Key(func(n *note) string { return n.ID })
	notes, memos := store.NewTable("note", key), store.NewTable("memo", key)
	path, c := filepath.Join(t.TempDir(), "state.db"), storetest.NewCipher()
	n := storetest.Start(t, storetest.WithPath(path), storetest.WithCipher(c))
	err := n.Store.Update(t.Context(), func(tx *store.Tx) error {
		for _, id := range []string{"a", "b"} {
			if err := notes.Insert(tx, &note{id, "text " + id}); err != nil {
				return err
			}
		}
		return memos.Insert(tx, &note{"a", "memo"})
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Stop()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { // a's ciphertext to another id and another table
		b := tx.Bucket([]byte("state"))
		a := bytes.Clone(b.Get([]byte("note\x00\x01ra")))
		if a == nil {
			t.Fatal("the record is not where the test looks")
		}
		if err := b.Put([]byte("memo\x00\x01ra"), a); err != nil {
			return err
		}
		return b.Put([]byte("note\x00\x01rb"), a)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := storetest.New(t, storetest.WithPath(path), storetest.WithCipher(c))
	err = s.View(t.Context(), func(tx *store.Tx) error {
		if got, err := notes.Get(tx, "a"); err != nil || got.Text != "text a" {
			t.Errorf("untouched record: %v, %v", got, err)
		}
		_, err := notes.Get(tx, "b")
		wantKind(t, err, reeve.Internal, "record_unreadable")
		_, err = memos.Get(tx, "a")
		wantKind(t, err, reeve.Internal, "record_unreadable")
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestNoPlaintextReachesLogDiskOrSnapshot_K1(t *testing.T) {
	t.Parallel()
	const canary = "canary-7f3a9c51d2"
	log, nodes := newCluster(t, 2, nil)
	path := filepath.Join(t.TempDir(), "state.db")
	follower := open(t, path, useless{t}, nil, nil)
	log.stores = append(log.stores, follower)
	type note struct {
		ID   string `cbor:"1,keyasint,omitempty"`
		Text string `cbor:"2,keyasint,omitempty"`
	}
	notes := store.NewTable("note", store.Key(func(n *note) string { return n.ID }))
	err := nodes[0].Update(t.Context(), func(tx *store.Tx) error { return notes.Insert(tx, &note{"a", canary}) })
	if err != nil {
		t.Fatal(err)
	}
	stream := snapshotBytes(t, follower)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"log": log.entries[0].data, "file": file, "snapshot": stream} {
		if !bytes.Contains(b, []byte("note")) {
			t.Errorf("%s: the test does not see the record at all", name)
		}
		if bytes.Contains(b, []byte(canary)) {
			t.Errorf("%s holds the plaintext", name)
		}
	}
}

func TestUnknownEntryVersionStopsTheNode(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "state.db"), useless{t}, nil, nil)
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context()) }()
	wantKind(t, s.Apply(1, 1, []byte{2, 0x80}), reeve.Internal, "entry_version_unknown")
	wantKind(t, <-done, reeve.Internal, "entry_version_unknown")
	wantKind(t, s.Apply(2, 1, nil), reeve.Internal, "entry_version_unknown")
	wantKind(t, s.Flush(), reeve.Internal, "entry_version_unknown")
}

func TestDamagedEntryStopsTheNode(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "state.db"), useless{t}, nil, nil)
	wantKind(t, s.Apply(1, 1, []byte{1, 0x85}), reeve.Internal, "entry_corrupt")
}

func TestWatchTellsOfItsTablesOnEveryNode(t *testing.T) {
	t.Parallel()
	_, nodes := newCluster(t, 2, nil)
	told := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	hostC, stop := nodes[1].Watch("host")
	blobC, stopBlob := nodes[1].Watch("blob", "other")
	allC, stopAll := nodes[0].Watch()
	defer stopBlob()
	defer stopAll()
	for range 3 { // merged into one
		if err := put(t.Context(), nodes[0], host{ID: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	got := []bool{told(hostC), told(hostC), told(blobC), told(allC)}
	if d := cmp.Diff([]bool{true, false, false, true}, got); d != "" {
		t.Error(d)
	}
	stop()
	if err := put(t.Context(), nodes[0], host{ID: "b"}); err != nil {
		t.Fatal(err)
	}
	if told(hostC) {
		t.Error("told after the watch had ended")
	}
}

func TestStateFileInUseOrFromANewerReleaseIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("meta"))
		if err != nil {
			return err
		}
		return b.Put([]byte("format"), []byte("2"))
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.Open(store.Config{Path: path, Cipher: useless{t}})
	wantKind(t, err, reeve.Precondition, "state_in_use")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = store.Open(store.Config{Path: path, Cipher: useless{t}})
	wantKind(t, err, reeve.Precondition, "state_format_unknown")
}

// Two records are always changed together. Views see them equal, and no change is lost,
// while the memory layer is moved to disk again and again.
func TestViewIsOneMomentWhileStateMovesToDisk(t *testing.T) {
	t.Parallel()
	log, nodes := newCluster(t, 2, nil)
	ctx, done := context.WithCancel(t.Context())
	var g sync.WaitGroup
	for _, n := range nodes {
		g.Go(func() {
			for ctx.Err() == nil {
				if err := n.Flush(); err != nil {
					t.Error(err)
				}
			}
		})
		g.Go(func() {
			for ctx.Err() == nil {
				viewPair(t, n)
			}
		})
	}
	for i := range 300 {
		err := nodes[0].Update(t.Context(), func(tx *store.Tx) error {
			return errors.Join(hosts.Put(tx, &host{ID: "a", N: i}), hosts.Put(tx, &host{ID: "b", N: i}),
				hosts.Insert(tx, &host{ID: fmt.Sprintf("c%03d", i)}))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	done()
	g.Wait()
	u := useless{t}
	s := open(t, filepath.Join(t.TempDir(), "state.db"), u, nil, u.now)
	log.replay(t, s)
	want := snapshotBytes(t, s)
	for _, n := range nodes {
		if !bytes.Equal(snapshotBytes(t, n), want) {
			t.Error("the state that went to disk piecemeal differs")
		}
	}
}

func viewPair(t *testing.T, s *store.Store) {
	err := s.View(context.Background(), func(tx *store.Tx) error {
		a, errA := hosts.Get(tx, "a")
		b, errB := hosts.Get(tx, "b")
		if reeve.KindOf(errA) == reeve.NotFound && reeve.KindOf(errB) == reeve.NotFound {
			return nil
		}
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		if a.N != b.N || uint64(a.N)+1 != tx.Revision() {
			t.Errorf("revision %d shows %d and %d", tx.Revision(), a.N, b.N)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
