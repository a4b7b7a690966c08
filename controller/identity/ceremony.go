package identity

import (
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// CeremonyLife is how long a challenge for a security key can be answered.
const CeremonyLife = 5 * time.Minute

// How many challenges for signing in may be open for somebody. A session has one for each
// purpose.
const (
	ceremoniesPerNetwork = 5
	ceremoniesInAll      = 50
)

// What a challenge is for. An answer to one purpose is none to another.
const (
	forEnrolment = "enrol"
	forSignIn    = "sign_in"
	forStepUp    = "step_up"
)

// ceremony is a challenge that waits for the answer of a security key. It is in the store,
// so that it can be answered to the next leader, and there once: whatever answers it, right
// or wrong, uses it up, and nobody else's answer does (CVE-2026-5807).
type ceremony struct {
	Challenge string            `cbor:"1,keyasint"` // base64url
	Principal reeve.PrincipalID `cbor:"2,keyasint"`
	Purpose   string            `cbor:"3,keyasint"`
	Session   reeve.SessionID   `cbor:"4,keyasint,omitempty"` // that asked; none to sign in
	Factor    reeve.FactorID    `cbor:"5,keyasint,omitempty"` // that is enrolled
	Network   string            `cbor:"6,keyasint,omitempty"` // from which a sign-in was begun
	Began     time.Time         `cbor:"7,keyasint"`
}

var ceremonies = store.NewTable("key_ceremony",
	store.Key(func(c *ceremony) string { return c.Challenge }),
	store.Index("principal", func(c *ceremony) []string { return []string{string(c.Principal)} }),
	store.Index("began", func(c *ceremony) []string { return []string{store.TimePart(c.Began)} }),
)

func (c *ceremony) open(now time.Time) bool { return now.Before(c.Began.Add(CeremonyLife)) }

// begin stores a challenge. One of the same session for the same purpose ends. To sign in
// somebody can have a few from each network: whoever knows a password can neither fill the
// store nor, from elsewhere, keep its owner out (CVE-2024-8185). Code ceremonies_too_many.
func (c *ceremony) begin(tx *store.Tx) error {
	c.Began = tx.Now()
	if err := forgetOldCeremonies(tx); err != nil {
		return err
	}
	near, all := 0, 0
	for old, err := range ceremonies.Scan(tx, "principal", store.Range{Prefix: []string{string(c.Principal)}}) {
		switch {
		case err != nil:
			return err
		case old.Purpose != c.Purpose || old.Session != c.Session:
		case c.Session != "" || !old.open(tx.Now()):
			if err := ceremonies.Delete(tx, old.Challenge); err != nil {
				return err
			}
		default:
			all++
			if old.Network == c.Network {
				near++
			}
		}
	}
	if near >= ceremoniesPerNetwork || all >= ceremoniesInAll {
		return reeve.Errorf(reeve.TooMany, "ceremonies_too_many", "too many sign-ins with a security key are under way").WithFix("finish one, or wait %s", CeremonyLife)
	}
	return ceremonies.Insert(tx, c)
}

// take uses up the challenge that is answered, and reports whether there is one for what c
// says. One for anything or anybody else stays as it is.
func (c *ceremony) take(tx *store.Tx) (bool, error) {
	found, err := ceremonies.Get(tx, c.Challenge)
	if reeve.KindOf(err) == reeve.NotFound || err == nil && (found.Principal != c.Principal || found.Purpose != c.Purpose || found.Session != c.Session || found.Factor != c.Factor) {
		return false, nil
	}
	if err == nil {
		err = ceremonies.Delete(tx, c.Challenge)
	}
	return err == nil && found.open(tx.Now()), err
}

// forgetOldCeremonies drops a few that nobody answered.
func forgetOldCeremonies(tx *store.Tx) error {
	n := 0
	for c, err := range ceremonies.Scan(tx, "began", store.Range{To: store.TimePart(tx.Now().Add(-CeremonyLife))}) {
		if err == nil {
			err = ceremonies.Delete(tx, c.Challenge)
		}
		if err != nil {
			return err
		}
		if n++; n == 8 {
			break
		}
	}
	return nil
}
