// Package storetest gives tests a leading, running [store.Store] with real encryption
// and real durability, in one process. Tests of any package of the controller may
// import it; production code may not.
package storetest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
)

// Term is the term in which the stores of this package lead.
const Term = 1

type options struct {
	path   string
	cipher store.Cipher
	clock  func() time.Time
	steady func() time.Duration
	peers  func() []time.Time
	faults *Faults
}

// Option changes what New and Start make.
type Option func(*options)

// WithPath keeps the state in this file, which may exist already. Pass the same
// Cipher then.
func WithPath(path string) Option { return func(o *options) { o.path = path } }

// WithCipher seals with c.
func WithCipher(c store.Cipher) Option { return func(o *options) { o.cipher = c } }

// WithClock makes now the leader's clock.
func WithClock(now func() time.Time) Option { return func(o *options) { o.clock = now } }

// WithSteady is the monotonic clock against which that of WithClock is held.
func WithSteady(since func() time.Duration) Option { return func(o *options) { o.steady = since } }

// WithPeers is what the other controllers say the time is.
func WithPeers(peers func() []time.Time) Option { return func(o *options) { o.peers = peers } }

// WithFaults lets f decide the fate of log entries.
func WithFaults(f *Faults) Option { return func(o *options) { o.faults = f } }

// New returns a leading, running store in a directory of its own; the test's cleanup
// stops it and fails the test if it had failed.
func New(t testing.TB, opts ...Option) *store.Store {
	t.Helper()
	return Start(t, opts...).Store
}

// Node is a running store that can be stopped before the test ends.
type Node struct {
	Store *store.Store
	stop  func()
}

// Stop stops the store as an orderly shutdown does. It may be called more than once.
func (n *Node) Stop() { n.stop() }

// Start is New for tests that stop the store and start another one on its file.
func Start(t testing.TB, opts ...Option) *Node {
	t.Helper()
	o := options{}
	for _, f := range opts {
		f(&o)
	}
	if o.path == "" {
		o.path = filepath.Join(t.TempDir(), "state.db")
	}
	if o.cipher == nil {
		o.cipher = NewCipher()
	}
	if o.faults == nil {
		o.faults = new(Faults)
	}
	if o.clock == nil { // the store's own would run on while the time of testing/synctest stands
		start := time.Now()
		o.clock, o.steady = time.Now, func() time.Duration { return time.Since(start) }
	}
	log := &local{faults: o.faults, wake: make(chan struct{}, 1)}
	s, err := store.Open(store.Config{
		Path: o.path, Cipher: o.cipher, Replicator: log, Clock: o.clock, Steady: o.steady, Peers: o.peers, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatalf("open the store: %v", err)
	}
	log.state, log.index = s, s.AppliedIndex()

	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("run the store: %v", err)
		}
	})
	running.Go(func() { log.run(ctx) })
	if err := s.Lead(Term); err != nil {
		t.Fatalf("lead: %v", err)
	}
	n := &Node{Store: s, stop: sync.OnceFunc(func() {
		cancel()
		running.Wait()
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})}
	t.Cleanup(n.Stop)
	return n
}

// aesCipher is AES-256-GCM with random nonces under one key.
type aesCipher struct{ aead cipher.AEAD }

// NewCipher makes a cipher with a fresh key.
func NewCipher() store.Cipher {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails (Go 1.24)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key has the right length
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aesCipher{aead}
}

// Seal implements store.Cipher.
func (c aesCipher) Seal(aad, plaintext []byte) ([]byte, error) {
	return c.aead.Seal(nil, nil, plaintext, aad), nil //nolint:gosec // the AEAD makes and prepends its own nonce
}

// Open implements store.Cipher.
func (c aesCipher) Open(aad, sealed []byte) ([]byte, error) {
	return c.aead.Open(nil, nil, sealed, aad)
}

// Clock is a clock that moves only when told to.
type Clock struct {
	mu sync.Mutex
	at time.Time
}

// NewClock makes a clock that shows at.
func NewClock(at time.Time) *Clock { return &Clock{at: at} }

// Now is the time shown; pass it to WithClock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// Advance moves the clock by d, backwards if it is negative.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}
