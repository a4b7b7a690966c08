package reeve

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what a Secret shows of itself everywhere.
const Redacted = "[redacted]"

// Secret holds a value that must not be shown: a password, a private key, a
// token. It prints, logs and marshals as Redacted with every verb and every
// encoder; the value leaves only through Bytes or Reveal, so a reader can find
// each place where that happens. The zero Secret is empty.
//
// A Secret shares its bytes when copied: Wipe on one copy clears all of them.
type Secret struct{ b []byte }

// NewSecret takes ownership of b.
func NewSecret(b []byte) Secret { return Secret{b: b} }

// SecretString copies s into a Secret. Prefer NewSecret: a string cannot be wiped.
func SecretString(s string) Secret { return Secret{b: []byte(s)} }

// Bytes returns the value itself, not a copy. Callers must not modify or retain it.
func (s Secret) Bytes() []byte { return s.b }

// Reveal returns the value as a string, for libraries that take nothing else.
func (s Secret) Reveal() string { return string(s.b) }

// Len is the length of the value in bytes.
func (s Secret) Len() int { return len(s.b) }

// Empty reports whether the Secret holds no bytes.
func (s Secret) Empty() bool { return len(s.b) == 0 }

// Equal compares in time that depends only on the lengths.
func (s Secret) Equal(o Secret) bool { return subtle.ConstantTimeCompare(s.b, o.b) == 1 }

// Wipe overwrites the value with zeros, in this copy and all others.
func (s Secret) Wipe() { clear(s.b) }

// String implements fmt.Stringer with Redacted.
func (s Secret) String() string { return Redacted }

// GoString implements fmt.GoStringer with Redacted.
func (s Secret) GoString() string { return Redacted }

// Format implements fmt.Formatter, so that no verb reaches the bytes.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// LogValue implements slog.LogValuer with Redacted.
func (s Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText implements encoding.TextMarshaler with Redacted. Encoders that ask
// for it (JSON, XML, YAML) therefore never see the value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalBinary refuses: binary encoders such as gob would otherwise be asked to
// persist a secret that the vault has not sealed.
func (s Secret) MarshalBinary() ([]byte, error) {
	return nil, errors.New("reeve: a Secret is not encoded; seal its bytes and store those")
}
