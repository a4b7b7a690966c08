package store_test

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// raftLog stands in for the Raft log of a cluster: entries are proposed by a leader,
// committed under the term of the log, and applied to every attached store. Tests
// decide when.
type raftLog struct {
	mu       sync.Mutex
	term     uint64
	manual   bool // entries wait for commit
	entries  []logged
	waiting  []*proposed
	stores   []*store.Store
	fail     func(error)
	proposed int
}

type logged struct {
	term uint64
	data []byte
}

type proposed struct {
	data []byte
	done chan error
}

func (p *proposed) Wait() error { return <-p.done }

func (l *raftLog) Propose(entry []byte) store.Proposal {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &proposed{data: entry, done: make(chan error, 1)}
	l.proposed++
	l.waiting = append(l.waiting, p)
	if !l.manual {
		l.commitLocked()
	}
	return p
}

// commit commits, under the log's term, everything proposed.
func (l *raftLog) commit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commitLocked()
}

func (l *raftLog) commitLocked() {
	for _, p := range l.waiting {
		l.entries = append(l.entries, logged{l.term, p.data})
		for _, s := range l.stores {
			if err := s.Apply(uint64(len(l.entries)), l.term, p.data); err != nil {
				l.fail(err)
			}
		}
		p.done <- nil
	}
	l.waiting = nil
}

// drop answers everything proposed with err and forgets it.
func (l *raftLog) drop(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.waiting {
		p.done <- err
	}
	l.waiting = nil
}

func (l *raftLog) hold(manual bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.manual = manual
}

func (l *raftLog) setTerm(term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term = term
}

// replay applies the whole log to s.
func (l *raftLog) replay(t *testing.T, s *store.Store) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, e := range l.entries {
		if err := s.Apply(uint64(i)+1, e.term, e.data); err != nil {
			t.Fatal(err)
		}
	}
}

// newCluster opens n stores on one log and runs them; the first leads term 1.
func newCluster(t *testing.T, n int, clock func() time.Time) (*raftLog, []*store.Store) {
	t.Helper()
	log := &raftLog{term: 1, fail: func(err error) { t.Error(err) }}
	c := storetest.NewCipher()
	for range n {
		s := open(t, filepath.Join(t.TempDir(), "state.db"), c, log, clock)
		run(t, s, log)
		log.stores = append(log.stores, s)
	}
	if err := log.stores[0].Lead(1); err != nil {
		t.Fatal(err)
	}
	return log, log.stores
}

func open(t *testing.T, path string, c store.Cipher, r store.Replicator, clock func() time.Time) *store.Store {
	t.Helper()
	s, err := store.Open(store.Config{
		Path: path, Cipher: c, Replicator: r, Clock: clock, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func run(t *testing.T, s *store.Store, log *raftLog) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var g sync.WaitGroup
	g.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		log.hold(true)
		log.drop(errDropped)
		g.Wait()
	})
}

var errDropped = reeve.Errorf(reeve.OutcomeUnknown, "leadership_lost", "dropped")

func snapshotBytes(t *testing.T, s *store.Store) []byte {
	t.Helper()
	sn, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer sn.Release()
	var b bytes.Buffer
	n, err := sn.WriteTo(&b)
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(b.Len()) {
		t.Errorf("WriteTo says %d bytes, wrote %d", n, b.Len())
	}
	return b.Bytes()
}

// put stores a host, ids lists the ids on s.
func put(ctx context.Context, s *store.Store, h host) error {
	return s.Update(ctx, func(tx *store.Tx) error { return hosts.Put(tx, &h) })
}

func ids(t *testing.T, s *store.Store) []string {
	t.Helper()
	got := []string{}
	err := s.View(context.Background(), func(tx *store.Tx) error {
		for h, err := range hosts.List(tx, "") {
			if err != nil {
				return err
			}
			got = append(got, h.ID)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func wantKind(t *testing.T, err error, kind reeve.Kind, code string) {
	t.Helper()
	if reeve.KindOf(err) != kind || reeve.CodeOf(err) != code {
		t.Errorf("got %v, want kind %s, code %s", err, kind, code)
	}
}
