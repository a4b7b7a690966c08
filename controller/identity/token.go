package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"net/netip"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// TokenPrefix starts every bearer token, so that secret scanners can find one. It is
// followed by 32 random bytes and their CRC-32 in lower-case base32.
const TokenPrefix = "reevet_"

const (
	tokenBytes = 32
	tokenSum   = 4
	// useGrain is how exact Token.LastUsed is, so that reading does not mean writing.
	useGrain       = time.Hour
	maxDescription = 200 // bytes
)

// Token is a bearer token, without its secret, which is never stored.
type Token struct {
	ID          reeve.TokenID     `cbor:"1,keyasint,omitempty"`
	Principal   reeve.PrincipalID `cbor:"2,keyasint,omitempty"`
	Hash        string            `cbor:"3,keyasint,omitempty"` // hex, of the 32 random bytes
	Description string            `cbor:"4,keyasint,omitempty"`
	Created     time.Time         `cbor:"5,keyasint,omitempty"`
	Expires     time.Time         `cbor:"6,keyasint,omitempty"` // zero: never
	LastUsed    time.Time         `cbor:"7,keyasint,omitempty"` // to the hour; zero: never
	Limited     bool              `cbor:"8,keyasint,omitempty"`
	Privileges  []Privilege       `cbor:"9,keyasint,omitempty"`  // if Limited: all that it can be used for
	Networks    []netip.Prefix    `cbor:"10,keyasint,omitempty"` // none: usable from anywhere
}

// byToken are privileges that no token carries: who holds them must have signed in.
var byToken = []Privilege{WorkflowApprove}

// allows reports whether the token carries the privilege.
func (t *Token) allows(p Privilege) bool {
	return !slices.Contains(byToken, p) && (!t.Limited || slices.Contains(t.Privileges, p))
}

var tokens = store.NewTable("token",
	store.Key(func(t *Token) string { return string(t.ID) }),
	store.Unique("hash", func(t *Token) []string { return []string{t.Hash} }),
	store.Index("principal", func(t *Token) []string { return []string{string(t.Principal)} }),
)

var tokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewToken says which token to make.
type NewToken struct {
	Principal   reeve.PrincipalID
	Description string    // what it is for; up to 200 bytes
	Expires     time.Time // zero: never
	Limited     bool      // to Privileges
	Privileges  []Privilege
	Networks    []netip.Prefix // none: from anywhere
}

// CreateToken makes a token for a principal. The secret is returned this once and
// can never be shown again.
func CreateToken(tx *store.Tx, by audit.Actor, in NewToken) (*Token, reeve.Secret, error) {
	p, err := GetPrincipal(tx, in.Principal)
	if err != nil {
		return nil, reeve.Secret{}, err
	}
	if len(in.Description) > maxDescription {
		return nil, reeve.Secret{}, reeve.Errorf(reeve.Invalid, "description_too_long", "a description has up to %d bytes", maxDescription).WithField("/description")
	}
	if !in.Expires.IsZero() && !in.Expires.After(tx.Now()) {
		return nil, reeve.Secret{}, reeve.Errorf(reeve.Invalid, "expiry_past", "the token would have expired already").WithField("/expires_at")
	}
	if !p.Active() {
		return nil, reeve.Secret{}, reeve.Errorf(reeve.Conflict, "principal_disabled", "%s is %s", p.Name, p.Status())
	}
	for _, name := range in.Privileges {
		if err := CheckPrivilege(name); err != nil {
			return nil, reeve.Secret{}, err
		}
	}
	raw := make([]byte, tokenBytes)
	_, _ = rand.Read(raw) // never fails
	defer clear(raw)
	t := &Token{ID: reeve.NewTokenID(), Principal: p.ID, Hash: tokenHash(raw), Description: in.Description, Created: tx.Now(), Expires: in.Expires.UTC(),
		Limited: in.Limited, Privileges: in.Privileges, Networks: in.Networks}
	if err := tokens.Insert(tx, t); err != nil {
		return nil, reeve.Secret{}, err
	}
	details := map[string]string{"principal": string(p.ID), "name": p.Name, "description": in.Description}
	if !t.Expires.IsZero() {
		details["expires"] = t.Expires.Format(time.RFC3339)
	}
	if t.Limited {
		details["privileges"] = fmt.Sprint(t.Privileges)
	}
	if len(t.Networks) > 0 {
		details["networks"] = fmt.Sprint(t.Networks)
	}
	if err := audit.Record(tx, audit.Event{By: by, Action: "token.create", Object: string(t.ID), Details: details}); err != nil {
		return nil, reeve.Secret{}, err
	}
	return t, encodeToken(raw), nil
}

// Authenticate returns the principal that a bearer token belongs to. All failures
// have kind Unauthenticated: token_malformed for what cannot be a token (a typing
// error), token_unknown for one that was revoked or never made, token_expired,
// principal_disabled, token_elsewhere for one that is not good from the address. What the
// principal may do with the token is part of the Caller.
func Authenticate(tx *store.Tx, secret reeve.Secret, from netip.Addr) (Caller, error) {
	t, err := find(tx, secret)
	if err != nil {
		return Caller{}, err
	}
	if len(t.Networks) > 0 && !slices.ContainsFunc(t.Networks, func(n netip.Prefix) bool { return n.Contains(from) }) {
		return Caller{}, reeve.Errorf(reeve.Unauthenticated, "token_elsewhere", "this token may not be used from here").
			WithFix("use it from the networks it was made for")
	}
	p, err := GetPrincipal(tx, t.Principal)
	if err != nil {
		return Caller{}, err
	}
	if !p.Active() {
		return Caller{}, reeve.Errorf(reeve.Unauthenticated, "principal_disabled", "%s is %s", p.Name, p.Status()).WithFix("ask an administrator")
	}
	return Caller{*p, t}, nil
}

// UseIsStale reports whether NoteUse would write anything for the token.
func UseIsStale(tx *store.Tx, secret reeve.Secret) (bool, error) {
	t, err := find(tx, secret)
	return err == nil && tx.Now().Sub(t.LastUsed) >= useGrain, err
}

// NoteUse keeps when a token was last used, to the hour. It is not audited: what was
// done with the token is.
func NoteUse(tx *store.Tx, secret reeve.Secret) error {
	t, err := find(tx, secret)
	if err != nil {
		return err
	}
	if tx.Now().Sub(t.LastUsed) < useGrain {
		return nil
	}
	t.LastUsed = tx.Now().Truncate(useGrain)
	return tokens.Put(tx, t)
}

func find(tx *store.Tx, secret reeve.Secret) (*Token, error) {
	raw, err := decodeToken(secret)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	t, err := tokens.Find(tx, "hash", tokenHash(raw))
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, reeve.Errorf(reeve.Unauthenticated, "token_unknown", "this token was revoked or never existed").
			WithFix("use another token or have a new one made")
	}
	if err != nil {
		return nil, err
	}
	if !t.Expires.IsZero() && !tx.Now().Before(t.Expires) {
		return nil, reeve.Errorf(reeve.Unauthenticated, "token_expired", "this token expired at %s", t.Expires.Format(time.RFC3339)).
			WithFix("have a new one made")
	}
	return t, nil
}

// ListTokens returns the tokens of a principal, or all if it is empty, oldest first.
// At most limit of them come after the token with the id after.
func ListTokens(tx *store.Tx, principal reeve.PrincipalID, after reeve.TokenID, limit int) ([]*Token, error) {
	seq := tokens.List(tx, string(after))
	if principal != "" {
		seq = tokens.Scan(tx, "principal", store.Range{Prefix: []string{string(principal)}})
	}
	var page []*Token
	for t, err := range seq {
		if err != nil {
			return nil, err
		}
		if t.ID <= after {
			continue
		}
		if len(page) == limit {
			break
		}
		page = append(page, t)
	}
	return page, nil
}

// GetToken returns a token without its secret; code token_not_found.
func GetToken(tx *store.Tx, id reeve.TokenID) (*Token, error) { return tokens.Get(tx, string(id)) }

// RevokeToken ends a token: the next request with it is refused. Code token_not_found.
func RevokeToken(tx *store.Tx, by audit.Actor, id reeve.TokenID) error {
	t, err := tokens.Get(tx, string(id))
	if err != nil {
		return err
	}
	if err := tokens.Delete(tx, string(id)); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "token.revoke", Object: string(id),
		Details: map[string]string{"principal": string(t.Principal), "description": t.Description}})
}

// tokenHash is what is stored: with 256 random bits there is nothing to guess, so no
// key and no slow hash.
func tokenHash(raw []byte) string {
	h := sha256.New()
	h.Write([]byte("reeve/v1/token:"))
	h.Write(raw)
	return hex.EncodeToString(h.Sum(nil))
}

func encodeToken(raw []byte) reeve.Secret {
	b := binary.BigEndian.AppendUint32(bytes.Clone(raw), crc32.ChecksumIEEE(raw))
	defer clear(b)
	return reeve.NewSecret(tokenEncoding.AppendEncode([]byte(TokenPrefix), b))
}

func decodeToken(secret reeve.Secret) ([]byte, error) {
	body, ok := bytes.CutPrefix(secret.Bytes(), []byte(TokenPrefix))
	if !ok || len(body) != tokenEncoding.EncodedLen(tokenBytes+tokenSum) || bytes.ContainsAny(body, "\r\n") {
		return nil, malformedToken()
	}
	b, err := tokenEncoding.AppendDecode(nil, body)
	if err != nil || !bytes.Equal(tokenEncoding.AppendEncode(nil, b), body) {
		return nil, malformedToken()
	}
	raw, sum := b[:tokenBytes], b[tokenBytes:]
	if binary.BigEndian.Uint32(sum) != crc32.ChecksumIEEE(raw) {
		return nil, malformedToken()
	}
	return raw, nil
}

func malformedToken() *reeve.Error {
	return reeve.Errorf(reeve.Unauthenticated, "token_malformed", "this is not a token: it is incomplete or mistyped").
		WithFix("send the token exactly as it was printed, with its prefix %s", TokenPrefix)
}

// IssueToken is CreateToken for a caller: for itself, or for a service account of which it
// holds everything (code grant_exceeds). Nobody makes a token for another person: code
// token_for_person. A token that is limited makes none: code token_limited.
func IssueToken(tx *store.Tx, by audit.Actor, grantor Caller, in NewToken) (*Token, reeve.Secret, error) {
	if t := grantor.Token; t != nil && (t.Limited || len(t.Networks) > 0) {
		return nil, reeve.Secret{}, reeve.Errorf(reeve.Denied, "token_limited", "a token that is limited makes no other tokens").
			WithFix("use one that is not limited")
	}
	p, err := GetPrincipal(tx, in.Principal)
	if err == nil && p.ID != grantor.ID && p.Kind != Service {
		err = reeve.Errorf(reeve.Denied, "token_for_person", "nobody makes a token for another person").WithFix("let them make it themselves, or use a service account")
	}
	if err == nil {
		err = MayActFor(tx, grantor, in.Principal)
	}
	if err != nil {
		return nil, reeve.Secret{}, err
	}
	return CreateToken(tx, by, in)
}
