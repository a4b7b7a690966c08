// Package jointoken is the text form of a join token: what an operator carries from
// a controller to a new agent or node. It owns the format and nothing else; the
// controller makes tokens, the agent and joining nodes read them.
//
// The string is "reevej_" and, in unpadded base64url, a version byte, the cluster
// name, the SHA-256 hash of the cluster CA's SubjectPublicKeyInfo (with which the
// very first contact is authenticated), the addresses to try, the secret, and the
// first four bytes of the SHA-256 hash of all that, so that a truncated or mistyped
// paste is told apart from a refused token.
package jointoken

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net"
	"strconv"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Prefix starts every join token, so that secret scanners can find one.
const Prefix = "reevej_"

// Limits of a token. MaxText is what Parse reads before it gives up.
const (
	MaxText      = 4096 // bytes
	MaxAddresses = 16
	maxPart      = 255 // bytes; each part has a one-byte length
	version      = 1
	sumSize      = 4
)

// Token is what a join token says.
type Token struct {
	Cluster    string
	CASPKIHash [32]byte     // SHA-256 of the SubjectPublicKeyInfo of the CA that signed the controllers
	Addresses  []string     // host:port of controllers, at least one
	Secret     reeve.Secret // proves the right to join; the controller stores its hash only
}

// Encode returns the string an operator copies. It fails with code
// join_token_invalid when a part is missing or over its limit.
func (t Token) Encode() (reeve.Secret, error) {
	if err := t.check(); err != nil {
		return reeve.Secret{}, err
	}
	raw := make([]byte, 0, 512)
	raw = append(raw, version)
	raw = appendPart(raw, []byte(t.Cluster))
	raw = append(raw, t.CASPKIHash[:]...)
	raw = append(raw, byte(len(t.Addresses))) //nolint:gosec // checked: at most MaxAddresses
	for _, a := range t.Addresses {
		raw = appendPart(raw, []byte(a))
	}
	raw = appendPart(raw, t.Secret.Bytes())
	sum := sha256.Sum256(raw)
	raw = append(raw, sum[:sumSize]...)
	text := base64.RawURLEncoding.AppendEncode([]byte(Prefix), raw)
	clear(raw)
	return reeve.NewSecret(text), nil
}

// Parse reads what Encode wrote; white space around it is ignored. Every failure has
// kind Invalid and code join_token_invalid, and never quotes the token.
func Parse(s reeve.Secret) (Token, error) {
	text := bytes.TrimSpace(s.Bytes())
	if len(text) > MaxText {
		return Token{}, invalid("is longer than %d bytes", MaxText)
	}
	body, ok := bytes.CutPrefix(text, []byte(Prefix))
	if !ok {
		return Token{}, invalid("does not start with %s", Prefix)
	}
	raw, err := base64.RawURLEncoding.Strict().AppendDecode(nil, body)
	if err != nil || bytes.ContainsAny(body, "\r\n") {
		return Token{}, invalid("holds characters that no join token has")
	}
	defer clear(raw)
	if len(raw) < 1+sumSize {
		return Token{}, invalid("is cut short")
	}
	data, sum := raw[:len(raw)-sumSize], raw[len(raw)-sumSize:]
	if want := sha256.Sum256(data); !bytes.Equal(want[:sumSize], sum) {
		return Token{}, invalid("is incomplete or mistyped")
	}
	r := reader{rest: data}
	if v := r.take(1); r.bad || v[0] != version {
		return Token{}, invalid("has a format this version does not know")
	}
	t := Token{Cluster: string(r.part())}
	copy(t.CASPKIHash[:], r.take(len(t.CASPKIHash)))
	if n := r.take(1); !r.bad {
		for range n[0] {
			t.Addresses = append(t.Addresses, string(r.part()))
		}
	}
	t.Secret = reeve.NewSecret(bytes.Clone(r.part()))
	if r.bad || len(r.rest) > 0 {
		return Token{}, invalid("is malformed")
	}
	if err := t.check(); err != nil {
		return Token{}, err
	}
	return t, nil
}

func (t Token) check() error {
	switch {
	case t.Cluster == "" || len(t.Cluster) > maxPart:
		return invalid("needs a cluster name of 1 to %d bytes", maxPart)
	case t.CASPKIHash == [32]byte{}:
		return invalid("lacks the hash of the cluster's CA")
	case len(t.Addresses) == 0 || len(t.Addresses) > MaxAddresses:
		return invalid("needs 1 to %d addresses", MaxAddresses)
	case t.Secret.Empty() || t.Secret.Len() > maxPart:
		return invalid("needs a secret of 1 to %d bytes", maxPart)
	}
	for _, a := range t.Addresses {
		if !validAddress(a) {
			return invalid("holds %q, which is not host:port", a)
		}
	}
	return nil
}

func validAddress(a string) bool {
	host, port, err := net.SplitHostPort(a)
	if err != nil || host == "" || len(a) > maxPart {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

func appendPart(b, part []byte) []byte {
	b = append(b, byte(len(part))) //nolint:gosec // checked: at most maxPart
	return append(b, part...)
}

// reader takes parts off the front; once something is missing it stays bad.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || len(r.rest) < n {
		r.bad = true
		return nil
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *reader) part() []byte {
	n := r.take(1)
	if r.bad {
		return nil
	}
	return r.take(int(n[0]))
}

func invalid(format string, args ...any) *reeve.Error {
	e := reeve.Errorf(reeve.Invalid, "join_token_invalid", "the join token "+format, args...)
	return e.WithFix("copy the whole token as it was printed, or have a new one made")
}
