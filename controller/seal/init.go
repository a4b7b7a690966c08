package seal

import (
	"bytes"
	"context"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Scheme is how a new seal key is kept.
type Scheme struct {
	Shares    int    // Shamir: how many shares to make, 2 to 255
	Threshold int    // Shamir: how many of them unseal, 2 to Shares
	KeyFile   string // path of a key file that exists already; Shares and Threshold are then 0
}

func (s Scheme) possible() error {
	if s.Threshold < 2 || s.Shares < s.Threshold || s.Shares > 255 {
		return reeve.Errorf(reeve.Invalid, "seal_scheme_invalid", "a threshold of %d of %d shares is not possible", s.Threshold, s.Shares).
			WithFix("choose 2 to 255 shares and a threshold from 2 to that many")
	}
	return nil
}

// founding is a prepared first state with everything it wraps.
type founding struct {
	state  *State
	root   []byte
	ring   *keyring
	shares []share
}

// Init makes the keys of a new cluster, stores them wrapped, and unseals this node, all
// or nothing: also runs in the same transaction and may seal values already. It returns
// the unseal shares (none with a key file); nothing can show them again.
//
// It fails with already_initialised if the cluster has a seal. After an error of kind
// OutcomeUnknown the node is sealed; calling Init again on the same Manager finds out,
// and returns the same shares if the first call did commit.
func (m *Manager) Init(ctx context.Context, st *store.Store, cluster string, scheme Scheme, also func(*store.Tx) error) ([]reeve.Secret, error) {
	f, err := m.begin(cluster, scheme)
	if err != nil {
		return nil, err
	}
	err = st.Update(ctx, func(tx *store.Tx) error {
		stored, err := LoadState(tx)
		if err != nil {
			return err
		}
		if stored != nil {
			if !bytes.Equal(stored.WrappedRoot, f.state.WrappedRoot) {
				return alreadyInitialised()
			}
			m.adopt(f) // the call before this one did commit
			return nil
		}
		if err := saveState(tx, f.state); err != nil {
			return err
		}
		m.adopt(f) // what follows, and the commit itself, is sealed with the new keys
		return also(tx)
	})
	if err != nil {
		m.abandon(f, reeve.KindOf(err) == reeve.OutcomeUnknown)
		return nil, err
	}
	m.mu.Lock()
	m.pending = nil
	m.mu.Unlock()
	shares := encodeShares(f.shares)
	f.wipe() // the Manager has copies of its own
	return shares, nil
}

// begin returns the founding to commit: that of an earlier call with unknown outcome,
// or a new one.
func (m *Manager) begin(cluster string, scheme Scheme) (*founding, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pending != nil {
		return m.pending, nil
	}
	if m.state != nil {
		return nil, alreadyInitialised()
	}
	f, err := found(cluster, scheme)
	if err != nil {
		return nil, err
	}
	m.pending = f
	return f, nil
}

func (m *Manager) adopt(f *founding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.root, m.ring = f.state, bytes.Clone(f.root), f.ring.clone()
}

// abandon takes back adopt. keep holds on to the founding for another call.
func (m *Manager) abandon(f *founding, keep bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == f.state { // else Run has loaded what is stored meanwhile
		m.drop()
		m.state = nil
	}
	if !keep {
		f.wipe()
		m.pending = nil
	}
}

// found makes keys and wraps them.
func found(cluster string, scheme Scheme) (*founding, error) {
	s := &State{Cluster: cluster, Generation: 1}
	f := &founding{state: s, root: newKey(), ring: newKeyring(time.Now())}
	var key []byte
	if scheme.KeyFile != "" {
		fromFile, err := readKeyFile(scheme.KeyFile)
		if err != nil {
			return nil, err
		}
		defer wipeKeys(fromFile)
		key, s.Scheme = fromFile[len(fromFile)-1].Bytes(), SchemeKeyFile
	} else {
		if err := scheme.possible(); err != nil {
			return nil, err
		}
		key, s.Scheme, s.Shares, s.Threshold = newKey(), SchemeShamir, scheme.Shares, scheme.Threshold
		f.shares = makeShares(key, s.Generation, s.Shares, s.Threshold)
		s.ShareDigests = digests(cluster, f.shares)
	}
	defer clear(key)
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	s.Check = keyCheck(key, cluster, s.Generation)
	s.WrappedRoot = aead.Seal(nil, nil, f.root, rootBinding(cluster, s.Generation)) //nolint:gosec // G407: this AEAD makes its own random nonce
	s.KeyringVersion, s.Rewrapped = f.ring.Version, f.ring.Version
	if s.WrappedRing, err = f.ring.wrap(f.root, cluster); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *founding) wipe() {
	clear(f.root)
	f.ring.wipe()
	for _, s := range f.shares {
		clear(s.y)
	}
}

func alreadyInitialised() *reeve.Error {
	return reeve.Errorf(reeve.Conflict, "already_initialised", "this cluster is initialised already").
		WithFix("unseal it with the shares it was initialised with")
}
