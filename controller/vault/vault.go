// Package vault owns secrets: what they are worth to whom, and which of their
// versions is known to open a target. Every version has a data key of its own,
// wrapped by the keyring, so a store record holds no plaintext even when the record
// itself has been unsealed.
//
// The rules it keeps, whatever its callers do (security.md §3):
//
//   - a secret has at most one candidate (R3);
//   - a version becomes current only with a Proof: a fresh login that worked, seen
//     under the lease that is still the last one of that version (R4);
//   - a version that ever left the vault for a target is not deleted before two
//     later versions are verified and thirty days have passed.
//
// controller/jobs opens secrets for dispatch, controller/lifecycle makes and promotes
// them, controller/rest reveals them. Changes are audited by the action they belong
// to (account.rotate, …); reveals and prunings are audited here.
package vault

import (
	"errors"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Kind is what a secret is.
type Kind string

// The kinds.
const (
	Password Kind = "password"
	SSHKey   Kind = "ssh_key" // PEM, unencrypted
)

// State is what is known about a version.
type State string

// The states. Only candidate is open; a version that left it never returns to it.
const (
	Candidate State = "candidate" // committed, perhaps sent, not proven
	Current   State = "current"   // proven by a fresh login
	Retired   State = "retired"   // was current
	Abandoned State = "abandoned" // was a candidate, given up; kept for healing
)

// Retention is how long a version that was ever leased is kept after it stopped
// being current or candidate, and VerifiedSince how many later versions must have
// been verified as well, before Prune may delete it (security.md §3, rule 2).
const (
	Retention     = 30 * 24 * time.Hour
	VerifiedSince = 2
)

// Info is what may be known of a secret without opening it.
type Info struct {
	ID        reeve.SecretID `cbor:"1,keyasint"`
	Kind      Kind           `cbor:"2,keyasint"`
	Owner     string         `cbor:"3,keyasint"` // id of the object it belongs to: acct_…, asset_…
	CreatedAt time.Time      `cbor:"4,keyasint"`
	Last      uint32         `cbor:"5,keyasint,omitempty"` // highest version number given out
	Candidate uint32         `cbor:"6,keyasint,omitempty"` // 0: none
	Current   uint32         `cbor:"7,keyasint,omitempty"` // 0: none is proven yet
}

// Version is what may be known of one version without opening it. Times that have
// not happened are zero.
type Version struct {
	Number     uint32
	State      State
	CreatedAt  time.Time
	LeasedAt   time.Time // first time it was sealed to an agent
	Fence      uint64    // of the last lease it was sealed for
	VerifiedAt time.Time // last proof that it opens the target
	ClosedAt   time.Time // when it was retired or abandoned
}

type record struct {
	Secret     reeve.SecretID `cbor:"1,keyasint"`
	Number     uint32         `cbor:"2,keyasint"`
	State      State          `cbor:"3,keyasint"`
	Key        []byte         `cbor:"4,keyasint"` // data key, wrapped
	Value      []byte         `cbor:"5,keyasint"` // sealed under the data key
	CreatedAt  time.Time      `cbor:"6,keyasint"`
	LeasedAt   time.Time      `cbor:"7,keyasint,omitzero"`
	Fence      uint64         `cbor:"8,keyasint,omitempty"`
	VerifiedAt time.Time      `cbor:"9,keyasint,omitzero"`
	ClosedAt   time.Time      `cbor:"10,keyasint,omitzero"`
}

func (r *record) info() Version {
	return Version{Number: r.Number, State: r.State, CreatedAt: r.CreatedAt, LeasedAt: r.LeasedAt, Fence: r.Fence,
		VerifiedAt: r.VerifiedAt, ClosedAt: r.ClosedAt}
}

func versionKey(id reeve.SecretID, number uint32) string {
	n := strconv.FormatUint(uint64(number), 10)
	return string(id) + "." + "0000000000"[len(n):] + n
}

var (
	secrets = store.NewTable("secret",
		store.Key(func(s *Info) string { return string(s.ID) }),
		store.Index("owner", func(s *Info) []string { return []string{s.Owner} }))
	versions = store.NewTable("secret_version",
		store.Key(func(r *record) string { return versionKey(r.Secret, r.Number) }),
		store.Index("secret", func(r *record) []string {
			return []string{string(r.Secret), versionKey(r.Secret, r.Number)}
		}))
)

// Vault opens and closes secrets with a cipher. It has no state of its own and may
// be used from many goroutines.
type Vault struct{ cipher store.Cipher }

// New returns a Vault whose data keys are wrapped by c.
func New(c store.Cipher) *Vault { return &Vault{cipher: c} }

// Create makes an empty secret that belongs to the object owner.
func (v *Vault) Create(tx *store.Tx, kind Kind, owner string) (reeve.SecretID, error) {
	if kind != Password && kind != SSHKey {
		return "", reeve.Errorf(reeve.Invalid, "secret_kind_invalid", "%q is not a kind of secret", kind).
			WithFix("use %s or %s", Password, SSHKey)
	}
	s := &Info{ID: reeve.NewSecretID(), Kind: kind, Owner: owner, CreatedAt: tx.Now()}
	return s.ID, secrets.Insert(tx, s)
}

// AddCandidate commits a new value and returns its version number. It must be
// committed before the value is sent anywhere. A secret has one candidate at most:
// while there is one, AddCandidate fails with Conflict "candidate_exists" (R3).
func (v *Vault) AddCandidate(tx *store.Tx, id reeve.SecretID, value reeve.Secret) (uint32, error) {
	s, err := secrets.Get(tx, string(id))
	if err != nil {
		return 0, err
	}
	if s.Candidate != 0 {
		return 0, reeve.Errorf(reeve.Conflict, "candidate_exists",
			"version %d of %s is a candidate that is neither proven nor given up", s.Candidate, id).
			WithFix("retry with that candidate")
	}
	if value.Empty() {
		return 0, reeve.Errorf(reeve.Invalid, "secret_empty", "a secret must not be empty")
	}
	s.Last++
	s.Candidate = s.Last
	r := &record{Secret: id, Number: s.Last, State: Candidate, CreatedAt: tx.Now()}
	if r.Key, r.Value, err = v.seal(s, r.Number, value); err != nil {
		return 0, err
	}
	if err := versions.Insert(tx, r); err != nil {
		return 0, err
	}
	return r.Number, secrets.Put(tx, s)
}

// Promote makes the proven version the current one; the version that was current
// is retired. It takes a candidate, or a retired or abandoned version that healing
// found to work. Promoting what is current already only notes a live proof and ignores
// an old one, so a repeated report is harmless (R7). A proof from another lease than the version's
// last fails with Conflict "proof_stale" (R4).
func (v *Vault) Promote(tx *store.Tx, p Proof) error {
	s, r, err := load(tx, p.secret, p.version)
	if err != nil {
		return err
	}
	if live := p.fence != 0 && p.fence == r.Fence || mutant.Is(mutant.ProofUnfenced); !live && s.Current == r.Number {
		return nil
	} else if !live {
		return reeve.Errorf(reeve.Conflict, "proof_stale",
			"the login of %s was seen under lease %d, but version %d was last leased under %d", p.job, p.fence, r.Number, r.Fence)
	}
	r.VerifiedAt = tx.Now()
	if s.Current == r.Number {
		return versions.Put(tx, r)
	}
	if s.Current != 0 {
		old, err := versions.Get(tx, versionKey(s.ID, s.Current))
		if err != nil {
			return err
		}
		old.State, old.ClosedAt = Retired, tx.Now()
		if err := versions.Put(tx, old); err != nil {
			return err
		}
	}
	if s.Candidate == r.Number {
		s.Candidate = 0
	}
	s.Current = r.Number
	r.State, r.ClosedAt = Current, time.Time{}
	if err := versions.Put(tx, r); err != nil {
		return err
	}
	return secrets.Put(tx, s)
}

// Abandon gives the candidate up. It is kept: a target may still apply it late, and
// healing will try it. Only a candidate can be abandoned (Conflict "not_candidate").
func (v *Vault) Abandon(tx *store.Tx, id reeve.SecretID, version uint32) error {
	s, r, err := load(tx, id, version)
	if err != nil {
		return err
	}
	if s.Candidate != version {
		return reeve.Errorf(reeve.Conflict, "not_candidate", "version %d of %s is %s, not a candidate", version, id, r.State)
	}
	s.Candidate = 0
	if mutant.Is(mutant.CandidateDiscarded) {
		return errors.Join(versions.Delete(tx, versionKey(id, version)), secrets.Put(tx, s))
	}
	r.State, r.ClosedAt = Abandoned, tx.Now()
	if err := versions.Put(tx, r); err != nil {
		return err
	}
	return secrets.Put(tx, s)
}

// MarkLeased notes that the version is about to be sealed to an agent, in the
// transaction that grants the lease: the transaction's revision is the lease's
// fence, and only a proof that carries the last fence can promote the version. It is
// fresh if it never left the vault before: then it cannot be live on the target.
func (v *Vault) MarkLeased(tx *store.Tx, id reeve.SecretID, version uint32, at time.Time) (fresh bool, err error) {
	_, r, err := load(tx, id, version)
	if err != nil {
		return false, err
	}
	fresh = r.LeasedAt.IsZero()
	if fresh {
		r.LeasedAt = at
	}
	r.Fence = tx.Revision()
	return fresh, versions.Put(tx, r)
}

// Open decrypts one version. The caller sends it to an agent or wipes it; showing
// it to a person is Reveal's business.
func (v *Vault) Open(tx *store.Tx, id reeve.SecretID, version uint32) (Kind, reeve.Secret, error) {
	s, r, err := load(tx, id, version)
	if err != nil {
		return "", reeve.Secret{}, err
	}
	value, err := v.open(s, r)
	return s.Kind, value, err
}

// Get returns what may be known of a secret without opening it.
func (v *Vault) Get(tx *store.Tx, id reeve.SecretID) (*Info, error) {
	return secrets.Get(tx, string(id))
}

// Versions returns all versions that are kept, oldest first.
func (v *Vault) Versions(tx *store.Tx, id reeve.SecretID) ([]Version, error) {
	if _, err := secrets.Get(tx, string(id)); err != nil {
		return nil, err
	}
	var out []Version
	for r, err := range records(tx, id) {
		if err != nil {
			return nil, err
		}
		out = append(out, r.info())
	}
	return out, nil
}

// History returns the versions healing may try when neither candidate nor current
// opens the target, newest first: all that were ever leased or proven.
func (v *Vault) History(tx *store.Tx, id reeve.SecretID) ([]Version, error) {
	all, err := v.Versions(tx, id)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(x Version) bool {
		open := x.State == Candidate || x.State == Current
		return open || (x.LeasedAt.IsZero() && x.VerifiedAt.IsZero())
	})
	slices.Reverse(all)
	return all, nil
}

func load(tx *store.Tx, id reeve.SecretID, version uint32) (*Info, *record, error) {
	s, err := secrets.Get(tx, string(id))
	if err != nil {
		return nil, nil, err
	}
	r, err := versions.Get(tx, versionKey(id, version))
	return s, r, err
}

func records(tx *store.Tx, id reeve.SecretID) iter.Seq2[*record, error] {
	return versions.Scan(tx, "secret", store.Range{Prefix: []string{string(id)}})
}
