package seal

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Rekeying is a new seal in the making: prepared, given to its holders, and not in force
// before each of them has shown that they have what they need. It is part of the State,
// so that it outlives leaders, and holds nothing that opens without the root key of now
// or the seal key to come.
type Rekeying struct {
	ID           reeve.RekeyID `cbor:"1,keyasint,omitempty"` // names it; asked for with every share
	Scheme       string        `cbor:"2,keyasint,omitempty"`
	Threshold    int           `cbor:"3,keyasint,omitempty"`
	Shares       int           `cbor:"4,keyasint,omitempty"`
	ShareDigests [][]byte      `cbor:"5,keyasint,omitempty"`
	Check        []byte        `cbor:"6,keyasint,omitempty"`
	WrappedRoot  []byte        `cbor:"7,keyasint,omitempty"` // the root key to come under the seal key to come
	Handover     []byte        `cbor:"8,keyasint,omitempty"` // the root key to come under that of now
	Proven       []int         `cbor:"9,keyasint,omitempty"` // numbers of the shares that were given back
	Started      time.Time     `cbor:"10,keyasint,omitzero"`
}

// HandoverTerm is how long an unsealed node may be away and still follow a rekeying by
// itself.
const HandoverTerm = time.Hour

// NewSeal is what a rekeying is to bring: shares, or the key of a key file.
type NewSeal struct {
	Shares, Threshold int
	Key               reeve.Secret // one line of a key file; Shares and Threshold are then 0
}

// StartRekey prepares a new seal key and a new root key, and returns the shares of the
// first (none for a key file), which nothing can show again. Nothing changes until
// ProveRekey was given all of them. Codes: seal_scheme_invalid, key_malformed,
// rekey_under_way, sealed.
func (m *Manager) StartRekey(tx *store.Tx, by audit.Actor, n NewSeal) (*Rekeying, []reeve.Secret, error) {
	s, err := stored(tx)
	if err != nil {
		return nil, nil, err
	}
	if s.Next != nil {
		return nil, nil, reeve.Errorf(reeve.Conflict, "rekey_under_way", "a rekeying is under way since %s", s.Next.Started.Format(time.RFC3339)).
			WithFix("give it the missing shares, or cancel it: reeve seal rekey cancel %s", s.Next.ID)
	}
	r := &Rekeying{ID: reeve.NewRekeyID(), Started: tx.Now()}
	var key []byte
	var shares []share
	if n.Key.Empty() {
		if err := (Scheme{Shares: n.Shares, Threshold: n.Threshold}).possible(); err != nil {
			return nil, nil, err
		}
		r.Scheme, r.Shares, r.Threshold, key = SchemeShamir, n.Shares, n.Threshold, newKey()
		shares = makeShares(key, s.Generation+1, n.Shares, n.Threshold)
		r.ShareDigests = digests(s.Cluster, shares)
	} else {
		given, ok := decodeKey(n.Key.Bytes())
		if !ok {
			return nil, nil, keyMalformed()
		}
		r.Scheme, key = SchemeKeyFile, given.Bytes()
	}
	defer clear(key)
	if err := m.prepare(r, s, key); err != nil {
		return nil, nil, err
	}
	s.Next = r
	if err := saveState(tx, s); err != nil {
		return nil, nil, err
	}
	return r, encodeShares(shares), audit.Record(tx, audit.Event{By: by, Action: "seal.rekey_start", Object: string(r.ID),
		Details: map[string]string{"scheme": r.Scheme, "shares": strconv.Itoa(r.Shares), "threshold": strconv.Itoa(r.Threshold)}})
}

// prepare wraps a new root key under the seal key to come, and under the root key of now.
func (m *Manager) prepare(r *Rekeying, s *State, key []byte) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.root == nil {
		return sealedError()
	}
	root := newKey()
	defer clear(root)
	r.Check = keyCheck(key, s.Cluster, s.Generation+1)
	var err error
	if r.WrappedRoot, err = wrapKey(key, root, rootBinding(s.Cluster, s.Generation+1)); err != nil {
		return err
	}
	r.Handover, err = wrapKey(m.root, root, handoverBinding(s.Cluster, s.Generation+1))
	return err
}

// ProveRekey takes one share of the new seal key, or the new key itself, as proof that
// its holder has it. With the last one the new seal is in force, in the same transaction:
// the shares of before open nothing any more. It returns what is under way, nil when
// that was the last. Codes: rekey_unknown, unseal_share_malformed, unseal_share_wrong
// (naming the number), key_malformed, unseal_key_wrong, seal_scheme_other, sealed.
func (m *Manager) ProveRekey(tx *store.Tx, by audit.Actor, id reeve.RekeyID, n Proof) (*Rekeying, error) {
	s, err := underWay(tx, id)
	if err != nil {
		return nil, err
	}
	r := s.Next
	if (r.Scheme == SchemeKeyFile) == n.Key.Empty() {
		return nil, reeve.Errorf(reeve.Conflict, "seal_scheme_other", "the new seal is kept with %s", r.Scheme)
	}
	event := audit.Event{By: by, Action: "seal.rekey_prove", Object: string(id)}
	if r.Scheme == SchemeKeyFile {
		if err := r.proveKey(s, n.Key); err != nil {
			return nil, err
		}
	} else {
		number, err := r.proveShare(s, n.Share)
		if err != nil {
			return nil, err
		}
		event.Details = map[string]string{"share": strconv.Itoa(number)}
	}
	if err := audit.Record(tx, event); err != nil {
		return nil, err
	}
	if len(r.Proven) < r.Shares {
		return r, saveState(tx, s)
	}
	next, err := m.activate(s, tx.Now())
	if err != nil {
		return nil, err
	}
	if err := m.change(tx, next); err != nil {
		return nil, err
	}
	return nil, audit.Record(tx, audit.Event{By: by, Action: "seal.rekey", Object: string(id),
		Before: map[string]string{"generation": fmt.Sprint(s.Generation), "scheme": s.Scheme},
		After:  map[string]string{"generation": fmt.Sprint(next.Generation), "scheme": next.Scheme}})
}

// Proof is a share, or the key of a key file.
type Proof struct{ Share, Key reeve.Secret }

func (r *Rekeying) proveKey(s *State, key reeve.Secret) error {
	given, ok := decodeKey(key.Bytes())
	if !ok {
		return keyMalformed()
	}
	defer given.Wipe()
	if subtle.ConstantTimeCompare(keyCheck(given.Bytes(), s.Cluster, s.Generation+1), r.Check) != 1 {
		return reeve.Errorf(reeve.Invalid, "unseal_key_wrong", "this is not the key that the rekeying was started with")
	}
	return nil
}

func (r *Rekeying) proveShare(s *State, text reeve.Secret) (number int, err error) {
	given, err := decodeShare(text)
	if err != nil {
		return 0, err
	}
	defer clear(given.y)
	to := State{Cluster: s.Cluster, Generation: s.Generation + 1, ShareDigests: r.ShareDigests}
	if err := to.checkShare(given); err != nil {
		return 0, err
	}
	number = int(given.x)
	if !slices.Contains(r.Proven, number) {
		r.Proven = append(r.Proven, number)
		slices.Sort(r.Proven)
	}
	return number, nil
}

// activate is the state in which the prepared seal is in force.
func (m *Manager) activate(s *State, now time.Time) (*State, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.root == nil {
		return nil, sealedError()
	}
	r := s.Next
	root, err := openHandover(m.root, s.Cluster, s.Generation+1, r.Handover)
	if err != nil {
		return nil, err
	}
	defer clear(root)
	ring, err := unwrapKeyring(m.root, s.Cluster, s.WrappedRing)
	if err != nil {
		return nil, err
	}
	defer ring.wipe()
	ring.Version++
	next := &State{Cluster: s.Cluster, Scheme: r.Scheme, Generation: s.Generation + 1, Threshold: r.Threshold, Shares: r.Shares,
		ShareDigests: r.ShareDigests, Check: r.Check, WrappedRoot: r.WrappedRoot, KeyringVersion: ring.Version,
		Rewrapped: s.Rewrapped, Handover: r.Handover, HandoverAt: now}
	if !s.RewrapPending() { // the terms are the same
		next.Rewrapped = next.KeyringVersion
	}
	next.WrappedRing, err = ring.wrap(root, s.Cluster)
	return next, err
}

// CancelRekey gives a rekeying up: its shares will open nothing. Code rekey_unknown.
func (m *Manager) CancelRekey(tx *store.Tx, by audit.Actor, id reeve.RekeyID) error {
	s, err := underWay(tx, id)
	if err != nil {
		return err
	}
	s.Next = nil
	if err := saveState(tx, s); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "seal.rekey_cancel", Object: string(id)})
}

// ForgetHandover deletes what lets unsealed nodes follow the last rekeying, once
// HandoverTerm is over. It reports whether there was something to delete.
func ForgetHandover(tx *store.Tx) (bool, error) {
	s, err := stored(tx)
	if err != nil || len(s.Handover) == 0 || tx.Now().Before(s.HandoverAt.Add(HandoverTerm)) {
		return false, err
	}
	s.Handover, s.HandoverAt = nil, time.Time{}
	return true, saveState(tx, s)
}

func underWay(tx *store.Tx, id reeve.RekeyID) (*State, error) {
	s, err := stored(tx)
	if err != nil {
		return nil, err
	}
	if s.Next == nil || s.Next.ID != id {
		return nil, reeve.Errorf(reeve.NotFound, "rekey_unknown", "no rekeying %q is under way", id).
			WithFix("see `reeve seal status`; start one with `reeve seal rekey start`")
	}
	return s, nil
}

func wrapKey(under, key, binding []byte) ([]byte, error) {
	aead, err := newAEAD(under)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, key, binding), nil //nolint:gosec // G407: this AEAD makes its own random nonce
}

// openHandover opens the root key of a generation with that of the one before.
func openHandover(root []byte, cluster string, generation uint32, handover []byte) ([]byte, error) {
	aead, err := newAEAD(root)
	if err != nil {
		return nil, err
	}
	next, err := aead.Open(nil, nil, handover, handoverBinding(cluster, generation))
	if err != nil {
		return nil, reeve.Errorf(reeve.Sealed, "sealed", "the root key was replaced while this node was away").
			WithFix("unseal it with the new shares or the new key file").Wrap(err)
	}
	return next, nil
}

func handoverBinding(cluster string, generation uint32) []byte {
	return lengthPrefixed([]byte("reeve/v1"), []byte(cluster), []byte("handover"), binary.BigEndian.AppendUint32(nil, generation))
}

func keyMalformed() *reeve.Error {
	return reeve.Errorf(reeve.Invalid, "key_malformed", "a seal key is one line of a key file: 32 bytes in base64").
		WithFix("take the last line of the new key file; `reeved key-file` makes one")
}
