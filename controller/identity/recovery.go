package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"strconv"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Recovery codes stand in for a second factor that is lost, each once. With 80 random bits
// there is nothing to guess, so what is stored is a plain hash.
const (
	recoveryCodes = 10
	recoveryBytes = 10
	recoveryGroup = 4 // characters between dashes
)

// recovery is what is stored of the recovery codes of somebody that were not used yet.
type recovery struct {
	Principal reeve.PrincipalID `cbor:"1,keyasint"`
	Hashes    [][]byte          `cbor:"2,keyasint"`
	Made      time.Time         `cbor:"3,keyasint"`
}

var recoveries = store.NewTable("recovery_code", store.Key(func(r *recovery) string { return string(r.Principal) }))

// MakeRecoveryCodes makes ten recovery codes for the caller in place of those there were.
// They are returned this once. Code factor_missing for somebody without a second factor.
func MakeRecoveryCodes(tx *store.Tx, by audit.Actor, who Caller) ([]reeve.Secret, error) {
	if err := bySession(who); err != nil {
		return nil, err
	}
	if all, err := confirmed(tx, who.ID); err != nil || len(all) == 0 {
		if err == nil {
			err = reeve.Errorf(reeve.Conflict, "factor_missing", "you have no second factor that recovery codes could stand in for").WithFix("add one: reeve factor add-totp")
		}
		return nil, err
	}
	r := &recovery{Principal: who.ID, Made: tx.Now()}
	var out []reeve.Secret
	for range recoveryCodes {
		raw := make([]byte, recoveryBytes)
		_, _ = rand.Read(raw) // never fails
		out = append(out, writeRecoveryCode(raw))
		r.Hashes = append(r.Hashes, r.hash(raw))
		clear(raw)
	}
	if err := recoveries.Put(tx, r); err != nil {
		return nil, err
	}
	return out, audit.Record(tx, audit.Event{By: by, Action: "recovery_code.create", Object: string(who.ID), Details: map[string]string{"codes": strconv.Itoa(len(out))}})
}

// RecoveryCodesLeft is how many recovery codes somebody has not used.
func RecoveryCodesLeft(tx *store.Tx, id reeve.PrincipalID) (int, error) {
	r, err := recoveries.Get(tx, string(id))
	if reeve.KindOf(err) == reeve.NotFound {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return len(r.Hashes), nil
}

// useRecoveryCode takes a recovery code, once.
func useRecoveryCode(tx *store.Tx, by audit.Actor, id reeve.PrincipalID, code reeve.Secret) (bool, error) {
	raw, ok := readRecoveryCode(code)
	if !ok {
		return false, nil
	}
	defer clear(raw)
	r, err := recoveries.Get(tx, string(id))
	if reeve.KindOf(err) == reeve.NotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	hash := r.hash(raw)
	var left [][]byte
	for _, h := range r.Hashes {
		if subtle.ConstantTimeCompare(h, hash) == 0 {
			left = append(left, h)
		}
	}
	if len(left) == len(r.Hashes) {
		return false, nil
	}
	r.Hashes = left
	if err := recoveries.Put(tx, r); err != nil {
		return false, err
	}
	return true, audit.Record(tx, audit.Event{By: by, Action: "recovery_code.use", Object: string(id), Details: map[string]string{"left": strconv.Itoa(len(left))}})
}

func dropRecoveryCodes(tx *store.Tx, id reeve.PrincipalID) error {
	err := recoveries.Delete(tx, string(id))
	if reeve.KindOf(err) == reeve.NotFound {
		return nil
	}
	return err
}

func (r *recovery) hash(raw []byte) []byte {
	h := sha256.New()
	h.Write([]byte("reeve/v1/recovery-code:" + string(r.Principal) + ":"))
	h.Write(raw)
	return h.Sum(nil)
}

// writeRecoveryCode writes a code in groups, for people who type it.
func writeRecoveryCode(raw []byte) reeve.Secret {
	text := bearerEncoding.AppendEncode(nil, raw)
	defer clear(text)
	var groups [][]byte
	for len(text) > recoveryGroup {
		groups, text = append(groups, text[:recoveryGroup]), text[recoveryGroup:]
	}
	return reeve.NewSecret(bytes.Join(append(groups, text), []byte("-")))
}

// readRecoveryCode reads a code as it was shown; capitals do not matter.
func readRecoveryCode(code reeve.Secret) ([]byte, bool) {
	text := bytes.ToLower(code.Bytes())
	defer clear(text)
	raw, err := bearerEncoding.AppendDecode(nil, bytes.ReplaceAll(text, []byte("-"), nil))
	if err != nil || len(raw) != recoveryBytes {
		return nil, false
	}
	shown := writeRecoveryCode(raw)
	defer shown.Wipe()
	return raw, bytes.Equal(shown.Bytes(), text)
}
