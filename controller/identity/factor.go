package identity

import (
	"cmp"
	"context"
	"iter"
	"slices"
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
	Kind      string            `cbor:"3,keyasint"` // totp, webauthn
	Name      string            `cbor:"4,keyasint"`
	Created   time.Time         `cbor:"5,keyasint"`
	Confirmed time.Time         `cbor:"6,keyasint,omitzero"`
	LastUsed  time.Time         `cbor:"7,keyasint,omitzero"`
	Key       []byte            `cbor:"8,keyasint"`           // sealed: the key of an app; what is kept of a security key
	Step      int64             `cbor:"9,keyasint,omitempty"` // the last that was used: no code of it or of an earlier one is good again; of a security key its counter
	// Credential is the hash of the credential id of a security key.
	Credential string `cbor:"10,keyasint,omitempty"`
}

var factors = store.NewTable("factor",
	store.Key(func(f *Factor) string { return string(f.ID) }),
	store.Index("principal", func(f *Factor) []string { return []string{string(f.Principal)} }),
	store.Unique("credential", func(f *Factor) []string {
		if f.Credential == "" {
			return nil
		}
		return []string{f.Credential}
	}),
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
// by what; somebody without one needs none. Each code, and each challenge, is good once.
// Codes second_factor_needed, security_key_needed if there is no app, second_factor_wrong,
// security_key_copied.
func useSecondFactor(tx *store.Tx, p *Principal, in Attempt) (methods []string, err error) {
	all, err := confirmed(tx, p.ID)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	if in.Answer != "" {
		return []string{keyKind}, useKey(tx, p, in)
	}
	apps := slices.DeleteFunc(all, func(f *Factor) bool { return f.Kind != totpKind })
	if in.Code.Empty() {
		if len(apps) == 0 {
			return nil, reeve.Errorf(reeve.Unauthenticated, "security_key_needed", "%s also signs in with a security key", p.Name).
				WithFix("ask for a challenge and send what the key answers, or send a recovery code as code; with the command line: --key")
		}
		return nil, reeve.Errorf(reeve.Unauthenticated, "second_factor_needed", "%s also signs in with a code", p.Name).
			WithFix("send the six digits that the authenticator app shows, or a recovery code, as code")
	}
	for _, f := range apps {
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

// newFactor makes a second factor that waits to be confirmed, to be inserted; one that
// waited already ends. Codes factor_by_token, factors_too_many.
func newFactor(tx *store.Tx, who Caller, kind, name, otherwise string) (*Factor, error) {
	if err := bySession(who); err != nil {
		return nil, err
	}
	if err := checkText(name); err != nil {
		return nil, err
	}
	count := 0
	for old, err := range factors.Scan(tx, "principal", store.Range{Prefix: []string{string(who.ID)}}) {
		if err == nil && old.Confirmed.IsZero() {
			err = factors.Delete(tx, string(old.ID))
		} else {
			count++
		}
		if err != nil {
			return nil, err
		}
	}
	if count >= mostFactors {
		return nil, reeve.Errorf(reeve.Conflict, "factors_too_many", "you have %d second factors already", count).WithFix("remove one: reeve factor remove")
	}
	return &Factor{ID: reeve.NewFactorID(), Principal: who.ID, Kind: kind, Name: cmp.Or(name, otherwise), Created: tx.Now()}, nil
}

// pendingFactor returns a second factor of the caller that waits to be confirmed. Codes
// factor_by_token, factor_not_found, factor_confirmed, factor_kind.
func pendingFactor(tx *store.Tx, who Caller, id reeve.FactorID, kind string) (*Factor, error) {
	if err := bySession(who); err != nil {
		return nil, err
	}
	f, err := GetFactor(tx, who, id)
	switch {
	case err != nil:
		return nil, err
	case !f.Confirmed.IsZero():
		return nil, reeve.Errorf(reeve.Conflict, "factor_confirmed", "this second factor is confirmed already")
	case !tx.Now().Before(f.Created.Add(EnrolFor)):
		return nil, reeve.Errorf(reeve.NotFound, "factor_not_found", "there is no factor %q", id).WithFix("add it again: reeve factor add-totp or add-key")
	case f.Kind != kind:
		return nil, reeve.Errorf(reeve.Conflict, "factor_kind", "an authenticator app is confirmed with a code, a security key with an answer").WithFix("send the other one")
	}
	return f, nil
}

// confirm makes a second factor count that was proved. The first one brings recovery codes,
// which are returned this once. The caller's other sessions end: they were begun without it.
func (f *Factor) confirm(tx *store.Tx, by audit.Actor, who Caller) (recovery []reeve.Secret, err error) {
	f.Confirmed = tx.Now()
	if err := factors.Put(tx, f); err != nil {
		return nil, err
	}
	if err := endOtherSessions(tx, by, who); err != nil {
		return nil, err
	}
	if _, err := prove(tx, by, who.Session.ID, []string{f.Kind}); err != nil {
		return nil, err
	}
	if err := audit.Record(tx, audit.Event{By: by, Action: "factor.confirm", Object: string(f.ID), Details: map[string]string{"kind": f.Kind, "name": f.Name}}); err != nil {
		return nil, err
	}
	if all, err := confirmed(tx, who.ID); err != nil || len(all) > 1 {
		return nil, err
	}
	return MakeRecoveryCodes(tx, by, who)
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
// codes. Codes factor_not_found; password_needs_factor for the last one beside a password
// that is too short to stand alone.
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
	if err == nil && len(left) == 0 && !f.Confirmed.IsZero() {
		err = dropRecoveryCodes(tx, who.ID)
		if short, bad := shortPassword(tx, who.ID); err == nil && (short || bad != nil) {
			err = cmp.Or[error](bad, reeve.Errorf(reeve.Conflict, "password_needs_factor", "this is your last second factor, and a password of fewer than %d characters needs one", minPassword).
				WithFix("set a longer password first: reeve session password"))
		}
	}
	if err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "factor.remove", Object: string(id), Details: map[string]string{"kind": f.Kind, "name": f.Name}})
}

// ResetFactors takes all second factors and recovery codes from somebody who lost them, and
// ends their sessions. A password that is too short to stand alone goes as well. The grantor
// must have signed in, and hold all that the principal holds: what is left is a password,
// which an invitation of the grantor's can set.
func ResetFactors(tx *store.Tx, by audit.Actor, grantor Caller, id reeve.PrincipalID) (*Principal, error) {
	if err := bySession(grantor); err != nil {
		return nil, err
	}
	return change(tx, by, grantor, id, "factor.reset", func(*Principal) (before, after map[string]string, err error) {
		short, err := shortPassword(tx, id)
		if err == nil {
			err = dropFactors(tx, id)
		}
		if err == nil && short {
			after, err = map[string]string{"password": "none: it was too short to be the only factor"}, forgetPassword(tx, id)
		}
		if err != nil {
			return nil, nil, err
		}
		return nil, after, EndSessions(tx, by, id)
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
