package identity

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ccojocar/zxcvbn-go"
	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Cost of hashing a password with argon2id: the memory and passes of RFC 9106 §4, second recommended option, in one
// lane, so that a sign-in does not take all processors from the leader.
// The memory is a variable for tests, which hash often.
var hashMemory uint32 = 64 << 10 // KiB

// onHash is told of each hash; tests count them.
var onHash = func(context.Context) {}

const (
	hashTime  = 3
	hashLanes = 1
	hashBytes = 32
	saltBytes = 16
)

// hashing bounds how many passwords are hashed at once: each takes 64 MiB and a processor,
// and the leader needs some too.
var hashing = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))

// Lengths of a password in characters: NIST SP 800-63B-4 §3.1.1.2 asks for 15 where it is
// the only factor, for 8 beside a second one, and for no rules of composition.
const (
	minPassword   = 15
	minWithFactor = 8
	maxPassword   = 256
)

// password is what is stored of the password with which somebody signs in to Reeve.
type password struct {
	Principal reeve.PrincipalID `cbor:"1,keyasint"`
	Salt      []byte            `cbor:"2,keyasint"`
	Hash      []byte            `cbor:"3,keyasint"`
	SetAt     time.Time         `cbor:"4,keyasint"`
	Short     bool              `cbor:"5,keyasint,omitempty"` // under minPassword: never the only factor
}

var passwords = store.NewTable("password", store.Key(func(p *password) string { return string(p.Principal) }))

// Hashed is a password that was found good enough and is hashed already, so that it can be
// stored in a transaction: hashing takes too long for one.
type Hashed struct {
	salt, hash []byte
	length     int // in characters
}

func tooShort(length, least int) error {
	err := reeve.Errorf(reeve.Invalid, "password_short", "the password has %d characters; at least %d are needed", length, least).WithField("/password")
	if least == minPassword {
		return err.WithFix("take a few words that do not belong together; %d are enough for who has a second factor", minWithFactor)
	}
	return err.WithFix("take a few words that do not belong together")
}

// leastPassword is how long a password of somebody must be.
func leastPassword(tx *store.Tx, id reeve.PrincipalID) (int, error) {
	if all, err := confirmed(tx, id); err != nil || len(all) > 0 {
		return minWithFactor, err
	}
	return minPassword, nil
}

// HashPassword checks a new password and hashes it. least is how long it must be; about are
// words that belong to the person, which must not be most of it. Codes password_short,
// password_long, password_weak, with what to do better.
func HashPassword(ctx context.Context, secret reeve.Secret, least int, about ...string) (Hashed, error) {
	text := normal(secret)
	defer text.Wipe()
	n := utf8.RuneCount(text.Bytes())
	switch {
	case !utf8.Valid(text.Bytes()):
		return Hashed{}, reeve.Errorf(reeve.Invalid, "password_invalid", "the password is not UTF-8").WithField("/password")
	case n < least:
		return Hashed{}, tooShort(n, least)
	case n > maxPassword:
		return Hashed{}, reeve.Errorf(reeve.Invalid, "password_long", "the password has more than %d characters", maxPassword).WithField("/password")
	}
	// zxcvbn knows the common passwords, names and words, keyboard rows, dates and repeats.
	if score := zxcvbn.PasswordStrength(text.Reveal(), append(about, "reeve", "password", "privileged")).Score; score < 3 {
		return Hashed{}, reeve.Errorf(reeve.Invalid, "password_weak", "the password is easy to guess (%d of 4, 3 are needed)", score).
			WithFix("leave out names, dates, rows of keys and common passwords; take a few words that do not belong together").WithField("/password")
	}
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails
	hash, err := derive(ctx, text, salt)
	return Hashed{salt, hash, n}, err
}

// derive waits for its turn and hashes.
func derive(ctx context.Context, text reeve.Secret, salt []byte) ([]byte, error) {
	select {
	case hashing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-hashing }()
	onHash(ctx)
	return argon2.IDKey(text.Bytes(), salt, hashTime, hashMemory, hashLanes, hashBytes), nil
}

// normal is NFKC, so that a password is the same from every keyboard. It is a copy.
func normal(s reeve.Secret) reeve.Secret { return reeve.NewSecret(norm.NFKC.Append(nil, s.Bytes()...)) }

// matches reports whether the secret is the password. It takes as long for nil, which no
// secret matches.
func (p *password) matches(ctx context.Context, secret reeve.Secret) (bool, error) {
	stored := p
	if p == nil {
		stored = &password{Salt: make([]byte, saltBytes), Hash: make([]byte, hashBytes)}
	}
	text := normal(secret)
	defer text.Wipe()
	if len(text.Bytes()) > 4*maxPassword {
		text = reeve.SecretString("")
	}
	hash, err := derive(ctx, text, stored.Salt)
	return subtle.ConstantTimeCompare(hash, stored.Hash) == 1 && p != nil, err
}

// setPassword stores a password. An invitation that is open ends: it was made to replace
// the old one. Code password_short for one that was long enough beside a second factor that
// is gone by now.
func setPassword(tx *store.Tx, id reeve.PrincipalID, h Hashed) error {
	if least, err := leastPassword(tx, id); err != nil || h.length < least {
		return cmp.Or(err, tooShort(h.length, least))
	}
	if err := endInvitations(tx, id); err != nil {
		return err
	}
	return passwords.Put(tx, &password{Principal: id, Salt: h.salt, Hash: h.hash, SetAt: tx.Now(), Short: h.length < minPassword})
}

// shortPassword reports whether somebody has a password that must not be their only factor.
func shortPassword(tx *store.Tx, id reeve.PrincipalID) (bool, error) {
	p, err := passwords.Get(tx, string(id))
	if reeve.KindOf(err) == reeve.NotFound {
		return false, nil
	}
	return err == nil && p.Short, err
}

func forgetPassword(tx *store.Tx, id reeve.PrincipalID) error {
	err := passwords.Delete(tx, string(id))
	if reeve.KindOf(err) == reeve.NotFound {
		return nil
	}
	return err
}

// about are the words of a principal that its password must not be made of.
func (p Principal) about() []string {
	return append(strings.FieldsFunc(p.Name+" "+p.Profile.FullName+" "+p.Profile.Email+" "+p.Profile.Department, func(r rune) bool {
		return strings.ContainsRune(" .@-_", r)
	}), p.Name)
}

func joined(words []string) string { return strings.Join(words, " ") }

// printable cuts what a client says of itself to what may stand in a record.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return -1
		}
		return r
	}, s)
	if len(s) > maxDescription {
		s = strings.ToValidUTF8(s[:maxDescription], "")
	}
	return s
}
