package ios

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// A secret of type 8 is "$8$", 14 characters of salt, "$" and 43 characters: PBKDF2 with
// HMAC-SHA-256 and 20000 rounds over the salt as it is written, in the base64 alphabet of
// crypt(3). Devices have taken it since IOS 15.3(3)M.
const (
	secretType   = "8"
	saltLength   = 14
	secretRounds = 20000
	alphabet     = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

var encoding = base64.NewEncoding(alphabet).WithPadding(base64.NoPadding)

var secretForm = regexp.MustCompile(`^\$8\$[./0-9A-Za-z]{14}\$[./0-9A-Za-z]{43}$`)

// The beginning of a salt says what an account is to us; see DESIGN.md.
const (
	saltOwned         = "RvA" // made for an account id, whose mark follows
	saltOwnedLocked   = "LvA"
	saltAdopted       = "RvN" // its password was set by us, but it is not ours
	saltAdoptedLocked = "LvN"
	markLength        = 5
)

// secret is the stored form of a password.
type secret string

// newSecret hashes a password for an account. mark is empty for an adopted one.
func newSecret(password sdk.Secret, mark string) (secret, error) {
	if strings.ContainsFunc(password.Reveal(), func(r rune) bool { return r > '~' }) {
		return "", sdk.Errorf(sdk.ClassPolicyRejected, "the password has characters beyond ASCII, which nobody can type at a device").
			WithFix("generate a password of printable ASCII")
	}
	salt := saltAdopted
	if mark != "" {
		salt = saltOwned + mark
	}
	random := make([]byte, saltLength-len(salt))
	if _, err := rand.Read(random); err != nil {
		return "", fmt.Errorf("no random numbers: %w", err)
	}
	for _, b := range random {
		salt += string(alphabet[b&63])
	}
	return hash(password, salt)
}

func hash(password sdk.Secret, salt string) (secret, error) {
	key, err := pbkdf2.Key(sha256.New, password.Reveal(), []byte(salt), secretRounds, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("hash a password: %w", err)
	}
	return secret("$8$" + salt + "$" + encoding.EncodeToString(key)), nil
}

// markOf is the mark of an account id: 30 bits of its digest.
func markOf(accountID string) string {
	sum := sha256.Sum256([]byte("reeve " + accountID))
	return encoding.EncodeToString(sum[:])[:markLength]
}

func (s secret) salt() string {
	if !secretForm.MatchString(string(s)) {
		return ""
	}
	return string(s[3 : 3+saltLength])
}

// mark is that of the account id the account was made for; empty if it was not made by us.
func (s secret) mark() string {
	salt := s.salt()
	if !strings.HasPrefix(salt, saltOwned) && !strings.HasPrefix(salt, saltOwnedLocked) {
		return ""
	}
	return salt[len(saltOwned) : len(saltOwned)+markLength]
}

func (s secret) locked() bool {
	return strings.HasPrefix(s.salt(), saltOwnedLocked) || strings.HasPrefix(s.salt(), saltAdoptedLocked)
}

// lockable reports whether a locked secret can be made of s that can be opened again.
func (s secret) lockable() bool {
	salt := s.salt()
	return s.locked() || strings.HasPrefix(salt, saltOwned) || strings.HasPrefix(salt, saltAdopted)
}

// lock returns the secret with a salt that is not the one it was made with, so that no
// password fits it; unlock undoes that.
func (s secret) lock() secret   { return s.withSalt("L") }
func (s secret) unlock() secret { return s.withSalt("R") }

func (s secret) withSalt(first string) secret {
	if !s.lockable() {
		return s
	}
	return s[:3] + secret(first) + s[4:]
}

// is reports whether s is made of the password, locked or not.
func (s secret) is(password sdk.Secret) bool {
	open := s.unlock()
	salt := open.salt()
	if salt == "" {
		return false
	}
	h, err := hash(password, salt)
	return err == nil && subtle.ConstantTimeCompare([]byte(h), []byte(open)) == 1
}
