package seal

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"log/slog"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Manager holds this node's keys while it is unsealed. It is the store's Cipher, for
// purpose Data. All methods may be called concurrently.
type Manager struct {
	log *slog.Logger

	mu      sync.RWMutex
	state   *State         // nil: not initialised, or not loaded yet
	root    []byte         // nil: sealed
	ring    *keyring       // nil: sealed
	loaded  chan struct{}  // closed when another state is loaded
	given   map[byte]share // progress of unsealing
	pending *founding      // an Init whose outcome is unknown
}

var _ store.Cipher = (*Manager)(nil)

// NewManager returns a sealed Manager. Run keeps it up to date with the store.
func NewManager(log *slog.Logger) *Manager {
	return &Manager{log: log, given: map[byte]share{}, loaded: make(chan struct{})}
}

// Status is what anybody may know about a node's seal.
type Status struct {
	Initialised bool
	Sealed      bool
	Scheme      string
	Generation  uint32 // of the seal key
	Threshold   int    // shares needed
	Shares      int    // shares made
	Given       []int  // numbers of the shares given so far
}

// Status reports the state of this node's seal.
func (m *Manager) Status() Status {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.status()
}

func (m *Manager) status() Status {
	if m.state == nil {
		return Status{Sealed: true}
	}
	s := Status{Initialised: true, Sealed: m.ring == nil, Scheme: m.state.Scheme, Generation: m.state.Generation,
		Threshold: m.state.Threshold, Shares: m.state.Shares}
	for _, x := range slices.Sorted(maps.Keys(m.given)) {
		s.Given = append(s.Given, int(x))
	}
	return s
}

// Sealed reports whether this node can open nothing.
func (m *Manager) Sealed() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.ring == nil
}

// Run loads the stored state now and whenever it changes, until ctx ends: a term
// rotated by the leader reaches every unsealed node this way.
func (m *Manager) Run(ctx context.Context, st *store.Store) error {
	changed, stop := st.Watch(Table)
	defer stop()
	for {
		err := m.Refresh(ctx, st)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // asked to stop
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// Refresh loads what is stored now. A leader does it before its work, so that it never
// seals under a term that is not the newest. A keyring that does not open is logged; it
// fails if the state cannot be read.
func (m *Manager) Refresh(ctx context.Context, st *store.Store) error {
	var state *State
	err := st.View(ctx, func(tx *store.Tx) (err error) {
		state, err = LoadState(tx)
		return err
	})
	if err != nil || state == nil {
		return err
	}
	if err := m.Load(state); err != nil {
		m.log.Error("the stored keyring does not open", "error", err)
	}
	return nil
}

// Load takes the stored state. A sealed node stays sealed; an unsealed one opens the
// new keyring with its root key, or with the one that a rekeying handed over. If it
// missed that, it is sealed: it needs the new shares. A state older than the one in use is ignored.
func (m *Manager) Load(s *State) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != nil && s.KeyringVersion < m.state.KeyringVersion {
		return nil
	}
	rekeyed := m.state != nil && m.state.Generation != s.Generation
	if m.ring != nil {
		if err := m.follow(s); err != nil {
			if rekeyed {
				m.drop()
				m.state = s
				m.log.Warn("the cluster was rekeyed while this node was away: it is sealed now and needs the new key", "generation", s.Generation)
			}
			return err
		}
	}
	if rekeyed {
		m.forget()
	}
	m.state = s
	close(m.loaded)
	m.loaded = make(chan struct{})
	return nil
}

// follow opens the keyring of s on an unsealed node.
func (m *Manager) follow(s *State) error {
	if bytes.Equal(s.WrappedRing, m.state.WrappedRing) {
		return nil
	}
	root := m.root
	if s.Generation != m.state.Generation {
		handed, err := openHandover(m.root, s.Cluster, s.Generation, s.Handover)
		if err != nil {
			return err
		}
		root = handed
	}
	ring, err := unwrapKeyring(root, s.Cluster, s.WrappedRing)
	if err != nil {
		return err
	}
	m.ring.wipe()
	m.ring = ring
	if s.Generation != m.state.Generation {
		clear(m.root)
		m.root = root
	}
	return nil
}

// Unseal gives one share. A malformed share fails with unseal_share_malformed, one
// that is not of this cluster's seal key with unseal_share_wrong, naming its number;
// neither spoils the shares given before. Giving a share twice changes nothing.
// With the last one needed the node is unsealed.
func (m *Manager) Unseal(text reeve.Secret) (Status, error) {
	s, err := decodeShare(text)
	if err != nil {
		return m.Status(), err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.expect(SchemeShamir); err != nil {
		return m.status(), err
	}
	if m.ring != nil {
		clear(s.y)
		return m.status(), nil
	}
	if err := m.state.checkShare(s); err != nil {
		clear(s.y)
		return m.status(), err
	}
	m.given[s.x] = s
	if len(m.given) < m.state.Threshold {
		return m.status(), nil
	}
	points := make([]point, 0, len(m.given))
	for _, g := range m.given {
		points = append(points, g.point)
	}
	key := combine(points)
	defer clear(key)
	m.forget()
	if err := m.unlock(key); err != nil {
		return m.status(), err
	}
	m.log.Info("unsealed", "scheme", SchemeShamir)
	return m.status(), nil
}

// UnsealWithKeyFile unseals with one of the keys in a file; codes key_file_unreadable,
// key_file_exposed, key_file_malformed, unseal_key_wrong.
func (m *Manager) UnsealWithKeyFile(path string) error {
	keys, err := readKeyFile(path)
	if err != nil {
		return err
	}
	defer wipeKeys(keys)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.expect(SchemeKeyFile); err != nil {
		return err
	}
	if m.ring != nil {
		return nil
	}
	for _, key := range keys {
		if err = m.unlock(key.Bytes()); reeve.CodeOf(err) != "unseal_key_wrong" {
			break
		}
	}
	if err != nil {
		return err
	}
	m.log.Info("unsealed", "scheme", SchemeKeyFile)
	return nil
}

// SealNode forgets all keys and the shares given, overwriting them: this node serves
// only status and unsealing until it is unsealed again. Other nodes are not affected.
func (m *Manager) SealNode() {
	m.mu.Lock()
	m.drop()
	m.mu.Unlock()
	// What is garbage by now may hold copies that others made of keys and values.
	scrub()
	// Work that was under way lets go of its copies within seconds.
	for _, later := range []time.Duration{2 * time.Second, 5 * time.Second, 10 * time.Second} {
		time.AfterFunc(later, func() {
			if m.Status().Sealed {
				scrub()
			}
		})
	}
	m.log.Info("sealed")
}

// scrub overwrites copies of keys in memory that was freed but shares a span with what is
// still in use, which the collector neither clears nor gives back: crypto/aes begins its
// key schedules with the key, in objects of these sizes. New objects are put there, zeroed.
func scrub() {
	debug.FreeOSMemory()
	defer debug.FreeOSMemory()
	var fill [][]byte
	for _, size := range []int{32, 48, 64, 480, 512, 576, 640, 704, 768, 896, 1024} {
		for range 6000 {
			fill = append(fill, make([]byte, size))
		}
	}
	runtime.KeepAlive(fill)
}

func (m *Manager) drop() {
	if m.ring != nil {
		m.ring.wipe()
	}
	clear(m.root)
	m.ring, m.root = nil, nil
	m.forget()
}

// forget overwrites the shares given so far.
func (m *Manager) forget() {
	for _, s := range m.given {
		clear(s.y)
	}
	clear(m.given)
}

func (m *Manager) expect(scheme string) error {
	if m.state == nil {
		return notInitialised()
	}
	if m.state.Scheme != scheme {
		return reeve.Errorf(reeve.Conflict, "seal_scheme_other", "this cluster is sealed with %s, not %s", m.state.Scheme, scheme)
	}
	return nil
}

// unlock opens root key and keyring with the seal key.
func (m *Manager) unlock(key []byte) error {
	root, ring, err := m.state.unwrap(key)
	if err != nil {
		return err
	}
	m.root, m.ring = root, ring
	return nil
}

func (s *State) unwrap(key []byte) ([]byte, *keyring, error) {
	if subtle.ConstantTimeCompare(keyCheck(key, s.Cluster, s.Generation), s.Check) != 1 {
		return nil, nil, reeve.Errorf(reeve.Invalid, "unseal_key_wrong", "the seal key is not the one of this cluster")
	}
	aead, err := newAEAD(key)
	if err != nil {
		return nil, nil, err
	}
	root, err := aead.Open(nil, nil, s.WrappedRoot, rootBinding(s.Cluster, s.Generation))
	if err != nil {
		return nil, nil, stateCorrupt("root key").Wrap(err)
	}
	ring, err := unwrapKeyring(root, s.Cluster, s.WrappedRing)
	if err != nil {
		clear(root)
		return nil, nil, err
	}
	return root, ring, nil
}

func (s *State) checkShare(given share) error {
	number := int(given.x)
	if given.generation != s.Generation {
		return reeve.Errorf(reeve.Invalid, "unseal_share_wrong", "share number %d belongs to generation %d of the seal key; the current one is %d",
			number, given.generation, s.Generation).WithFix("enter a share of generation %d", s.Generation)
	}
	if number > len(s.ShareDigests) || subtle.ConstantTimeCompare(given.digest(s.Cluster), s.ShareDigests[number-1]) != 1 {
		return reeve.Errorf(reeve.Invalid, "unseal_share_wrong", "share number %d is not a share of this cluster's seal key", number).
			WithFix("check with the holder of share %d; the shares given before still count", number)
	}
	return nil
}

// keyCheck tells a wrong seal key from a damaged wrapping.
func keyCheck(key []byte, cluster string, generation uint32) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(lengthPrefixed([]byte("reeve/v1/key-check"), []byte(cluster), binary.BigEndian.AppendUint32(nil, generation)))
	return mac.Sum(nil)[:16]
}

func rootBinding(cluster string, generation uint32) []byte {
	return lengthPrefixed([]byte("reeve/v1"), []byte(cluster), []byte("root"), binary.BigEndian.AppendUint32(nil, generation))
}

func stateCorrupt(what string) *reeve.Error {
	return reeve.Errorf(reeve.Internal, "seal_state_corrupt", "the stored %s does not open with the right key: it was altered", what).
		WithFix("restore the cluster from a verified backup")
}

func notInitialised() *reeve.Error {
	return reeve.Errorf(reeve.Precondition, "not_initialised", "this cluster is not initialised").WithFix("bootstrap it first")
}
