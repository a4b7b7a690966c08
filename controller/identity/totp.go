package identity

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"regexp"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Time-based one-time passwords (RFC 6238), as every authenticator app makes them.
const (
	totpKind   = "totp"
	totpPeriod = 30 // seconds
	totpWindow = 1  // steps that a clock may be off, RFC 6238 §5.2
	totpKey    = 20 // bytes, RFC 4226 §4 R6
)

// sixDigits is all that a code can be: what a lenient reader makes of anything else would
// be a second spelling of a used code (CVE-2025-6014).
var sixDigits = regexp.MustCompile(`^[0-9]{6}$`)

// matchStep returns the step after a given one whose code this is, within the window.
func matchStep(key []byte, code reeve.Secret, after int64, now time.Time) (step int64, ok bool, err error) {
	if !sixDigits.Match(code.Bytes()) {
		return 0, false, nil
	}
	text := base32.StdEncoding.EncodeToString(key)
	current := now.Unix() / totpPeriod
	for n := max(current-totpWindow, after+1); n <= current+totpWindow; n++ {
		want, err := hotp.GenerateCodeCustom(text, uint64(n), hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1}) //nolint:gosec // seconds since 1970
		if err != nil {
			return 0, false, reeve.Errorf(reeve.Internal, "factor_corrupt", "the key of a second factor cannot be used").Wrap(err)
		}
		if !ok && subtle.ConstantTimeCompare([]byte(want), code.Bytes()) == 1 {
			step, ok = n, true
		}
	}
	return step, ok, nil
}

// use takes a code, once: what is stored with it is that its step was used.
func (f *Factor) use(tx *store.Tx, keys store.Cipher, code reeve.Secret) (bool, error) {
	key, err := keys.Open(f.binding(), f.Key)
	if err != nil {
		return false, err
	}
	defer clear(key)
	step, ok, err := matchStep(key, code, f.Step, tx.Now())
	if err != nil || !ok {
		return false, err
	}
	f.Step, f.LastUsed = step, tx.Now()
	return true, factors.Put(tx, f)
}

// AddTOTP begins the enrolment of an authenticator app for the caller; one that was begun
// and not confirmed ends. The uri, which holds the key, is returned this once.
func AddTOTP(tx *store.Tx, by audit.Actor, who Caller, keys store.Cipher, name string) (f *Factor, uri reeve.Secret, err error) {
	f, err = newFactor(tx, who, totpKind, name, "authenticator app")
	if err != nil {
		return nil, reeve.Secret{}, err
	}
	key := make([]byte, totpKey)
	_, _ = rand.Read(key) // never fails
	defer clear(key)
	made, err := totp.Generate(totp.GenerateOpts{Issuer: "Reeve", AccountName: who.Name, Period: totpPeriod, Secret: key, Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
	if err != nil {
		return nil, reeve.Secret{}, reeve.Errorf(reeve.Internal, "factor_not_made", "the second factor could not be made").Wrap(err)
	}
	if f.Key, err = keys.Seal(f.binding(), key); err != nil {
		return nil, reeve.Secret{}, err
	}
	if err := factors.Insert(tx, f); err != nil {
		return nil, reeve.Secret{}, err
	}
	return f, reeve.SecretString(made.URL()), audit.Record(tx, audit.Event{By: by, Action: "factor.add", Object: string(f.ID), Details: map[string]string{"kind": f.Kind, "name": f.Name}})
}

// ConfirmTOTP makes an authenticator app count, with a code that shows that its owner has
// it; see [Factor.confirm]. Codes factor_not_found, factor_confirmed, factor_kind,
// code_wrong.
func ConfirmTOTP(tx *store.Tx, by audit.Actor, who Caller, keys store.Cipher, id reeve.FactorID, code reeve.Secret) (recovery []reeve.Secret, err error) {
	f, err := pendingFactor(tx, who, id, totpKind)
	if err != nil {
		return nil, err
	}
	used, err := f.use(tx, keys, code)
	if err == nil && !used {
		err = reeve.Errorf(reeve.Invalid, "code_wrong", "this is not the code of the authenticator app").
			WithFix("enter the six digits it shows now; if they are not taken, set the clock of the device").WithField("/code")
	}
	if err != nil {
		return nil, err
	}
	return f.confirm(tx, by, who)
}
