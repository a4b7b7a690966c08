package store

import (
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sync/semaphore"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Cipher seals and opens record values. Open must fail unless aad is the one the
// value was sealed with. While the node is sealed both return an error of Kind
// [reeve.Sealed]. Implementations are safe for concurrent use, do no I/O, and neither keep
// nor return any part of what they were given.
type Cipher interface {
	Seal(aad, plaintext []byte) ([]byte, error)
	Open(aad, sealed []byte) ([]byte, error)
}

// Replicator puts entries into the replicated log.
type Replicator interface {
	// Propose queues the entry and returns at once. Entries enter the log in the
	// order of the calls, or not at all. Nobody may change entry afterwards.
	Propose(entry []byte) Proposal
}

// Proposal is an entry on its way into the log.
type Proposal interface {
	// Wait blocks until the fate of the entry is known. Nil means that it is committed,
	// durable, and has been passed to [Store.Apply] of this node. An error of Kind
	// Unavailable means that it is not in the log and never will be. Any other error
	// means that nobody knows. Wait must return once the replicator has stopped.
	Wait() error
}

// Config says how to open a Store.
type Config struct {
	// Path is the bbolt file. It is created, with mode 0600, if it is not there; its
	// directory must exist.
	Path string
	// Cipher seals the values of all tables that are not [Plain].
	Cipher Cipher
	// Replicator takes the write sets. It may be nil for a store that never leads.
	Replicator Replicator
	// Clock is this node's clock, of which the leader stamps transactions. Nil: time.Now,
	// held against the monotonic clock: see [ClockDoubt].
	Clock func() time.Time
	// Steady is what a Clock is held against: the time since some moment, as a monotonic
	// clock tells it. Nil: a Clock that was given is believed whatever it says.
	Steady func() time.Duration
	// Peers asks the other controllers that answer for the time they have. A new leader
	// does, when the last record is too old to check its clock by. Nil: there are none.
	Peers func() []time.Time
	// Logger receives one line per event. Nil: slog.Default.
	Logger *slog.Logger
	// Park is for simulations. Nil: callers block.
	Park Park
}

// Store is one node's copy of the replicated state. All methods are safe for
// concurrent use.
type Store struct {
	path       string
	cipher     Cipher
	replicator Replicator
	clock      *clock
	peers      func() []time.Time
	log        *slog.Logger
	park       Park

	turn   chan struct{}       // holds one token: who has it runs an Update function
	budget *semaphore.Weighted // bytes of write sets between Update and their fate
	work   chan struct{}       // capacity 1: there may be something to propose
	dirty  chan struct{}       // capacity 1: there is something to flush
	failed chan struct{}       // closed once failure is set

	// flushMu serializes everything that replaces what is on disk: flush, Restore,
	// Snapshot, Close. It is taken before mu.
	flushMu sync.Mutex
	durable atomic.Uint64 // index of the last entry whose effects are on disk

	mu       sync.Mutex // guards everything below; held for microseconds, never over I/O
	db       *bbolt.DB
	applied  position // what active, flushing and db together hold
	active   layer    // applied, not on disk
	flushing layer    // applied, being written to disk
	lead     *leadership
	proposal uint64 // number of the last entry this process made
	stopped  bool
	failure  error // sticky: the node must stop
	watchers map[*watcher]struct{}
}

// Bounds on what is between Update and the log. A write set costs its size plus
// setOverhead against the budget, so they also bound the number of write sets.
const (
	maxSetBytes   = 4 << 20  // one transaction; larger ones fail with transaction_too_large
	maxSetOps     = 1 << 16  // puts and deletes, index entries included, of one transaction
	maxKeyBytes   = 4 << 10  // one key: table, index, parts and id
	budgetBytes   = 64 << 20 // all transactions waiting for their fate
	setOverhead   = 16 << 10
	flushEvery    = 250 * time.Millisecond
	maxLayerBytes = 64 << 20 // memory layer at which Apply flushes by itself
)

// Open opens or creates the state at cfg.Path. The store follows until [Store.Lead].
// No goroutine is started: call [Store.Run], and [Store.Close] after it has returned.
//
// It fails with code "state_format_unknown" if a newer release wrote the file.
func Open(cfg Config) (*Store, error) {
	if cfg.Path == "" || cfg.Cipher == nil {
		return nil, reeve.Errorf(reeve.Invalid, "store_config_invalid", "the store needs a path and a cipher")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	s := &Store{
		path:       filepath.Clean(cfg.Path),
		cipher:     cfg.Cipher,
		replicator: cfg.Replicator,
		clock:      newClock(cfg.Clock, cfg.Steady, cfg.Logger),
		peers:      cfg.Peers,
		log:        cfg.Logger,
		park:       cfg.Park,
		turn:       make(chan struct{}, 1),
		budget:     semaphore.NewWeighted(budgetBytes),
		work:       make(chan struct{}, 1),
		dirty:      make(chan struct{}, 1),
		failed:     make(chan struct{}),
		watchers:   map[*watcher]struct{}{},
	}
	db, at, err := openState(s.path)
	if err != nil {
		return nil, err
	}
	s.db, s.applied = db, at
	s.durable.Store(at.Index)
	return s, nil
}

// AppliedIndex is the log index of the last entry whose effects are on disk. The log
// must keep, and after a restart pass to Apply again, everything after it.
func (s *Store) AppliedIndex() uint64 { return s.durable.Load() }

// Close writes what is applied to disk and closes the file. Call it after Run has
// returned and the replicator has stopped. Transactions still running are waited for.
func (s *Store) Close() error {
	flushErr := s.Flush()
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	s.mu.Lock()
	s.stopped = true
	if s.failure == nil {
		s.failure = errClosed
		close(s.failed)
	}
	db := s.db
	s.mu.Unlock()
	if err := db.Close(); err != nil {
		return reeve.Errorf(reeve.Internal, "state_close_failed", "cannot close the state file").Wrap(err)
	}
	return flushErr
}

var (
	errClosed   = reeve.Errorf(reeve.Unavailable, "store_closed", "the store is closed")
	errStopping = reeve.Errorf(reeve.Unavailable, "store_stopping", "this node is stopping").
			WithFix("send the request to another node")
	errNotLeader = reeve.Errorf(reeve.Unavailable, "not_leader", "this node does not lead the cluster").
			WithFix("send the request to the leader")
)

// fail makes err sticky: the node must stop. The first failure wins.
func (s *Store) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		s.failure = err
		close(s.failed)
		s.log.Error("store failed; this node must stop", "error", err)
	}
	return s.failure
}

// signal wakes the receiver of a channel of capacity 1.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
