package identity

import (
	"context"
	"iter"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

const (
	// EnrolFor is how long a second factor can be confirmed.
	EnrolFor = 10 * time.Minute
	// mostFactors is how many second factors somebody can have.
	mostFactors = 5
)

// Factor is a second factor of somebody. One that is not confirmed does not count.
type Factor struct {
	ID        reeve.FactorID    `cbor:"1,keyasint"`
	Principal reeve.PrincipalID `cbor:"2,keyasint"`
	Kind      string            `cbor:"3,keyasint"` // totp
	Name      string            `cbor:"4,keyasint"`
	Created   time.Time         `cbor:"5,keyasint"`
	Confirmed time.Time         `cbor:"6,keyasint,omitzero"`
	LastUsed  time.Time         `cbor:"7,keyasint,omitzero"`
	Key       []byte            `cbor:"8,keyasint"`           // sealed
	Step      int64             `cbor:"9,keyasint,omitempty"` // the last that was used: no code of it or of an earlier one is good again
}

var factors = store.NewTable("factor",
	store.Key(func(f *Factor) string { return string(f.ID) }),
	store.Index("principal", func(f *Factor) []string { return []string{string(f.Principal)} }),
)

// binding is the additional data of the sealed key: moved to another factor or person it
// does not open.
func (f *Factor) binding() []byte {
	return []byte("reeve/factor/v1:" + string(f.ID) + ":" + string(f.Principal))
}

// ListFactors yields the second factors of a principal, oldest first, also one that waits
// to be confirmed.
func ListFactors(tx *store.Tx, id reeve.PrincipalID) iter.Seq2[*Factor, error] {
	return func(yield func(*Factor, error) bool) {
		for f, err := range factors.Scan(tx, "principal", store.Range{Prefix: []string{string(id)}}) {
			if err == nil && f.Confirmed.IsZero() && !tx.Now().Before(f.Created.Add(EnrolFor)) {
				continue
			}
			if !yield(f, err) || err != nil {
				return
			}
		}
	}
}

// confirmed are the second factors that count.
func confirmed(tx *store.Tx, id reeve.PrincipalID) (out []*Factor, err error) {
	for f, err := range ListFactors(tx, id) {
		if err != nil {
			return nil, err
		}
		if !f.Confirmed.IsZero() {
			out = append(out, f)
		}
	}
	return out, nil
}

// useSecondFactor proves a second factor of somebody whose password was right, and returns
// by what; somebody without one needs none. Each code is good once. Codes
// second_factor_needed, second_factor_wrong.
func useSecondFactor(tx *store.Tx, p *Principal, in Attempt) (methods []string, err error) {
	all, err := confirmed(tx, p.ID)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	if in.Code.Empty() {
		return nil, reeve.Errorf(reeve.Unauthenticated, "second_factor_needed", "%s also signs in with a code", p.Name).
			WithFix("send the six digits that the authenticator app shows, or a recovery code, as code")
	}
	for _, f := range all {
		if used, err := f.use(tx, in.Keys, in.Code); err != nil || used {
			return []string{f.Kind}, err
		}
	}
	used, err := useRecoveryCode(tx, p.Actor(in.From.String(), in.Node), p.ID, in.Code)
	if err == nil && !used {
		err = reeve.Errorf(reeve.Unauthenticated, "second_factor_wrong", "the code is wrong, was used before, or is too old").
			WithFix("wait for the next one; if none is taken, set the clock of the device, or use a recovery code")
	}
	return []string{"recovery_code"}, err
}

// bySession refuses tokens: whoever finds one must not be able to lock its owner out, or to
// make themselves at home. Code factor_by_token.
func bySession(who Caller) error {
	if who.Session == nil {
		return reeve.Errorf(reeve.Denied, "factor_by_token", "a token changes no second factors").WithFix("sign in: reeve login")
	}
	return nil
}

// GetFactor returns a second factor of the caller; code factor_not_found.
func GetFactor(tx *store.Tx, who Caller, id reeve.FactorID) (*Factor, error) {
	f, err := factors.Get(tx, string(id))
	if err == nil && f.Principal != who.ID {
		err = reeve.Errorf(reeve.NotFound, "factor_not_found", "there is no factor %q", id)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// RemoveFactor removes a second factor of the caller, and with the last one the recovery
// codes. Code factor_not_found.
func RemoveFactor(tx *store.Tx, by audit.Actor, who Caller, id reeve.FactorID) error {
	if err := bySession(who); err != nil {
		return err
	}
	f, err := GetFactor(tx, who, id)
	if err == nil {
		err = factors.Delete(tx, string(id))
	}
	if err != nil {
		return err
	}
	left, err := confirmed(tx, who.ID)
	if err == nil && len(left) == 0 {
		err = dropRecoveryCodes(tx, who.ID)
	}
	if err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "factor.remove", Object: string(id), Details: map[string]string{"kind": f.Kind, "name": f.Name}})
}

// ResetFactors takes all second factors and recovery codes from somebody who lost them, and
// ends their sessions. The grantor must have signed in, and hold all that the principal
// holds: what is left is a password, which an invitation of the grantor's can set.
func ResetFactors(tx *store.Tx, by audit.Actor, grantor Caller, id reeve.PrincipalID) (*Principal, error) {
	if err := bySession(grantor); err != nil {
		return nil, err
	}
	return change(tx, by, grantor, id, "factor.reset", func(*Principal) (before, after map[string]string, err error) {
		if err := dropFactors(tx, id); err != nil {
			return nil, nil, err
		}
		return nil, nil, EndSessions(tx, by, id)
	})
}

func dropFactors(tx *store.Tx, id reeve.PrincipalID) error {
	for f, err := range factors.Scan(tx, "principal", store.Range{Prefix: []string{string(id)}}) {
		if err == nil {
			err = factors.Delete(tx, string(f.ID))
		}
		if err != nil {
			return err
		}
	}
	return dropRecoveryCodes(tx, id)
}

// rewrapBatch is how many factors one transaction of RewrapFactors looks at.
const rewrapBatch = 128

// RewrapFactors seals keys of second factors again that stale says are to be, as after a
// change of keys, from after the place at which an earlier call left off ("" for the
// beginning). It returns the next place, "" when it has seen all, and how many it sealed.
func RewrapFactors(ctx context.Context, st *store.Store, keys store.Cipher, stale func(sealed []byte) bool, after string) (next string, n int, err error) {
	err = st.Update(ctx, func(tx *store.Tx) error {
		next, n = "", 0
		seen := 0
		for f, err := range factors.List(tx, after) {
			if err != nil {
				return err
			}
			if seen++; seen > rewrapBatch {
				return nil
			}
			next = string(f.ID)
			if !stale(f.Key) {
				continue
			}
			key, err := keys.Open(f.binding(), f.Key)
			if err != nil {
				return err
			}
			f.Key, err = keys.Seal(f.binding(), key)
			clear(key)
			if err == nil {
				err = factors.Put(tx, f)
			}
			if err != nil {
				return err
			}
			n++
		}
		next = ""
		return nil
	})
	return next, n, err
}
