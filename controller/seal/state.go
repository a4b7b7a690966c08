package seal

import (
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// State is what is stored of the seal: wrapped keys and how to unwrap them. It holds
// nothing that opens without the seal key, so its table is plain and sealed nodes
// have it too.
type State struct {
	Cluster        string   `cbor:"1,keyasint,omitempty"`
	Scheme         string   `cbor:"2,keyasint,omitempty"` // SchemeShamir or SchemeKeyFile
	Generation     uint32   `cbor:"3,keyasint,omitempty"` // of the seal key, from 1
	Threshold      int      `cbor:"4,keyasint,omitempty"` // shares needed; 0 for a key file
	Shares         int      `cbor:"5,keyasint,omitempty"`
	ShareDigests   [][]byte `cbor:"6,keyasint,omitempty"` // of share 1, 2, …
	Check          []byte   `cbor:"7,keyasint,omitempty"` // key check value of the seal key
	WrappedRoot    []byte   `cbor:"8,keyasint,omitempty"` // root key under the seal key
	WrappedRing    []byte   `cbor:"9,keyasint,omitempty"` // keyring under the root key
	KeyringVersion uint64   `cbor:"10,keyasint,omitempty"`

	// Rewrapped is the KeyringVersion for which no value of an older term is left.
	Rewrapped uint64 `cbor:"11,keyasint,omitempty"`
	// Next is the seal that a rekeying is to bring, while its shares are being proven.
	Next *Rekeying `cbor:"12,keyasint,omitempty"`
	// Handover is the root key under the one of the generation before, by which unsealed
	// nodes follow a rekeying; kept for HandoverTerm from HandoverAt.
	Handover   []byte    `cbor:"13,keyasint,omitempty"`
	HandoverAt time.Time `cbor:"14,keyasint,omitzero"`
}

// RewrapPending reports whether there may be values of older terms.
func (s *State) RewrapPending() bool { return s.Rewrapped != s.KeyringVersion }

// The schemes of a seal.
const (
	SchemeShamir  = "shamir"
	SchemeKeyFile = "key_file"
)

// Table is the name of the table that holds the State.
const Table store.TableName = "seal"

const stateKey = "seal"

var states = store.NewTable(Table, store.Key(func(*State) string { return stateKey }), store.Plain[State]())

// LoadState returns the stored state, nil while the cluster is not initialised. It
// works on sealed nodes.
func LoadState(tx *store.Tx) (*State, error) {
	s, err := states.Get(tx, stateKey)
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, nil //nolint:nilnil // documented: not initialised is not an error
	}
	return s, err
}

func saveState(tx *store.Tx, s *State) error { return states.Put(tx, s) }

// Keep makes the seal of to, a restored state, that of from: the keys of now open all
// that was ever sealed, and shares that were replaced stay replaced. What the restored
// state holds of older terms is to be rewrapped.
func Keep(to, from *store.Tx) error {
	if err := states.Replace(to, from); err != nil {
		return err
	}
	s, err := states.Get(to, stateKey)
	if err != nil {
		return err
	}
	s.Rewrapped = 0
	return saveState(to, s)
}
