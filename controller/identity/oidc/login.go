package oidc

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// LoginLife is how long a sign-in may take, from its beginning to its end.
const LoginLife = 10 * time.Minute

// How many sign-ins may be under way.
const (
	perNetwork = 30
	inAll      = 1000
)

// login is a sign-in that is under way. What proves it, state and nonce, is stored hashed.
type login struct {
	State     string    `cbor:"1,keyasint"` // hash
	Nonce     string    `cbor:"2,keyasint"` // hash
	Challenge string    `cbor:"3,keyasint"` // S256 of the verifier that its client keeps
	Provider  string    `cbor:"4,keyasint"`
	Added     time.Time `cbor:"5,keyasint"` // when that provider was
	Port      int       `cbor:"6,keyasint"` // on which its client listens
	Network   string    `cbor:"7,keyasint"`
	Began     time.Time `cbor:"8,keyasint"`

	Origin   string          `cbor:"9,keyasint,omitempty"`  // where the browser comes back to; "": to a program
	ReturnTo string          `cbor:"10,keyasint,omitempty"` // the page of it to go on to
	Session  reeve.SessionID `cbor:"11,keyasint,omitempty"` // whose owner is to prove again who they are; "": one is to begin
	Known    *person         `cbor:"12,keyasint,omitempty"` // who it is, if only a second factor is missing
}

var logins = store.NewTable("oidc_login",
	store.Key(func(l *login) string { return l.State }),
	store.Index("network", func(l *login) []string { return []string{l.Network} }),
	store.Index("began", func(l *login) []string { return []string{store.TimePart(l.Began)} }),
)

// redirect is where the browser comes back to: a program on its machine (RFC 8252 §7.3), or
// a page of this provider's alone, which is one more defence against mix-up (RFC 9700 §4.4).
func (l *login) redirect() string {
	if l.Origin != "" {
		return l.Origin + "/v1/browser/oidc/" + l.Provider + "/callback"
	}
	return fmt.Sprintf("http://127.0.0.1:%d/callback", l.Port)
}

// random is 256 bits in base64url.
func random() string {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	return base64.RawURLEncoding.EncodeToString(raw)
}

func hashOf(noun, value string) string {
	sum := sha256.Sum256([]byte("reeve/v1/oidc-" + noun + ":" + value))
	return hex.EncodeToString(sum[:])
}

// challengeOf is the S256 challenge of a verifier (RFC 7636 §4.2).
func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// admit fails with TooMany "oidc_logins_too_many" if too many sign-ins are under way, and
// as [identity.AdmitSignIn] does.
func admit(tx *store.Tx, from netip.Addr) error {
	if err := identity.AdmitSignIn(tx, from); err != nil {
		return err
	}
	alive := store.TimePart(tx.Now().Add(-LoginLife))
	count := func(index string, in store.Range, most int) error {
		n := 0
		for l, err := range logins.Scan(tx, index, in) {
			if err != nil {
				return err
			}
			if tx.Now().Before(l.Began.Add(LoginLife)) {
				n++
			}
			if n == most {
				return loginsTooMany()
			}
		}
		return nil
	}
	if err := count("network", store.Range{Prefix: []string{identity.Network(from)}}, perNetwork); err != nil {
		return err
	}
	return count("began", store.Range{From: alive}, inAll)
}

// forgetOld drops a few sign-ins that nobody finished.
func forgetOld(tx *store.Tx) error {
	n := 0
	for l, err := range logins.Scan(tx, "began", store.Range{To: store.TimePart(tx.Now().Add(-LoginLife))}) {
		if err == nil {
			err = logins.Delete(tx, l.State)
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

func loginsTooMany() error {
	return reeve.Errorf(reeve.TooMany, "oidc_logins_too_many", "too many sign-ins are under way").WithFix("finish one, or wait %s", LoginLife)
}

// LoginUnknown is the one answer to whoever comes back with what no sign-in is waiting for.
func LoginUnknown() *reeve.Error {
	return reeve.Errorf(reeve.Unauthenticated, "oidc_login_unknown", "this sign-in was finished, has expired, was begun by another client or never existed").
		WithFix("begin again, and finish where you began")
}
