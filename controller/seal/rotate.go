package seal

import (
	"strconv"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
)

// MaxTermAge is how old the active term of data may grow before the leader starts new
// ones by itself.
const MaxTermAge = 90 * 24 * time.Hour

// Rotate starts a new term for every purpose: from the commit of tx on, new values are
// sealed under these, on this node at once and on others when they see the new state.
// Old terms stay and open what they sealed, also in backups; what they sealed of the
// state is to be rewrapped. It fails with kind Sealed on a sealed node.
func (m *Manager) Rotate(tx *store.Tx, by audit.Actor) error {
	stored, err := stored(tx)
	if err != nil {
		return err
	}
	next, err := m.rotated(stored, tx.Now())
	if err != nil {
		return err
	}
	if err := m.change(tx, next); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "seal.rotate", Object: "cluster",
		Details: map[string]string{"keyring": strconv.FormatUint(next.KeyringVersion, 10)}})
}

// stored is the state of an initialised cluster.
func stored(tx *store.Tx) (*State, error) {
	s, err := LoadState(tx)
	if err == nil && s == nil {
		err = notInitialised()
	}
	return s, err
}

// change stores a state and takes it over on this node once it is committed.
func (m *Manager) change(tx *store.Tx, next *State) error {
	tx.OnCommit(func() {
		if err := m.Load(next); err != nil {
			m.log.Error("the changed keyring does not open", "error", err)
		}
	})
	return saveState(tx, next)
}

// rotated is the stored state with new terms.
func (m *Manager) rotated(stored *State, now time.Time) (*State, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.root == nil {
		return nil, sealedError()
	}
	ring, err := unwrapKeyring(m.root, stored.Cluster, stored.WrappedRing)
	if err != nil {
		return nil, err
	}
	defer ring.wipe()
	newer := ring.clone()
	for _, p := range purposes {
		before := newer
		newer = before.rotated(p, now)
		before.wipe()
	}
	defer newer.wipe()
	changed := *stored
	changed.KeyringVersion = newer.Version
	changed.WrappedRing, err = newer.wrap(m.root, stored.Cluster)
	return &changed, err
}

// Term is what may be known of a key term.
type Term struct {
	Purpose Purpose
	Number  uint32
	Created time.Time
	Active  bool
}

// Terms lists the terms of the keyring, in the order in which they were made. It fails
// with kind Sealed on a sealed node.
func (m *Manager) Terms() ([]Term, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.ring == nil {
		return nil, sealedError()
	}
	terms := make([]Term, 0, len(m.ring.Terms))
	for _, t := range m.ring.Terms {
		terms = append(terms, Term{Purpose: t.Purpose, Number: t.Number, Created: t.Created, Active: t.State == active})
	}
	return terms, nil
}

// Stale reports whether sealed is a value of a term of the purpose that is not the
// newest this node knows. On a sealed node nothing is.
func (m *Manager) Stale(p Purpose, sealed []byte) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.ring != nil && m.ring.age(p, sealed) < 0
}

// Rewrapped notes that no value older than the keyring of a version is left. It changes
// nothing if there is a newer keyring by now.
func Rewrapped(tx *store.Tx, by audit.Actor, version uint64, values int) error {
	s, err := stored(tx)
	if err != nil || s.KeyringVersion != version {
		return err
	}
	s.Rewrapped = version
	if err := saveState(tx, s); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "seal.rewrap", Object: "cluster",
		Details: map[string]string{"keyring": strconv.FormatUint(version, 10), "values": strconv.Itoa(values)}})
}
