package identity

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

const (
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
	Scope       *Scope            `cbor:"11,keyasint,omitempty"` // nil: wherever its principal may
}

// byToken are privileges that no token carries: who holds them must have signed in.
var byToken = []Privilege{WorkflowApprove}

// allows reports whether the token carries the privilege. Without a token everything is.
func (t *Token) allows(p Privilege) bool {
	return t == nil || !slices.Contains(byToken, p) && t.gives(p)
}

// gives reports whether the privilege can be given away with the token: also one that no
// token carries.
func (t *Token) gives(p Privilege) bool {
	return t == nil || !t.Limited || slices.Contains(t.Privileges, p)
}

// reachesAll reports whether the token can be used for everything in the scope.
func (t *Token) reachesAll(in Scope) bool { return t == nil || t.Scope == nil || t.Scope.Contains(in) }

// Narrow reports whether the token can do less than its principal.
func (t *Token) Narrow() bool { return t.Limited || len(t.Networks) > 0 || t.Scope != nil }

var tokens = store.NewTable("token",
	store.Key(func(t *Token) string { return string(t.ID) }),
	store.Unique("hash", func(t *Token) []string { return []string{t.Hash} }),
	store.Index("principal", func(t *Token) []string { return []string{string(t.Principal)} }),
)

// NewToken says which token to make.
type NewToken struct {
	Principal   reeve.PrincipalID
	Description string    // what it is for; up to 200 bytes
	Expires     time.Time // zero: never
	Limited     bool      // to Privileges
	Privileges  []Privilege
	Networks    []netip.Prefix // none: from anywhere
	Scope       *Scope         // all that it can be used on; nil: whatever its principal may
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
	if in.Scope != nil {
		if err := in.Scope.check(tx); err != nil {
			return nil, reeve.Secret{}, err
		}
	}
	secret, hash := tokenBearer.make()
	t := &Token{ID: reeve.NewTokenID(), Principal: p.ID, Hash: hash, Description: in.Description, Created: tx.Now(), Expires: in.Expires.UTC(),
		Limited: in.Limited, Privileges: in.Privileges, Networks: in.Networks, Scope: in.Scope}
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
	if t.Scope != nil {
		details["scope"] = newGroupings(tx).text(*t.Scope)
	}
	if err := audit.Record(tx, audit.Event{By: by, Action: "token.create", Object: string(t.ID), Details: details}); err != nil {
		return nil, reeve.Secret{}, err
	}
	return t, secret, nil
}

// Authenticate returns who shows a secret: the token of a program, or the session of
// somebody who signed in. All failures have kind Unauthenticated: token_malformed and
// session_malformed for what cannot be one (a typing error), token_unknown for one that was
// revoked or never made, token_expired, token_elsewhere for one that is not good from the
// address, token_owner_absent, session_ended, principal_disabled, principal_shut_out.
func Authenticate(tx *store.Tx, secret reeve.Secret, from netip.Addr) (Caller, error) {
	var c Caller
	var owner reeve.PrincipalID
	if isSession(secret) {
		s, err := findSession(tx, secret)
		if err != nil {
			return Caller{}, err
		}
		c.Session, owner = s, s.Principal
	} else {
		t, err := find(tx, secret)
		if err != nil {
			return Caller{}, err
		}
		if len(t.Networks) > 0 && !slices.ContainsFunc(t.Networks, func(n netip.Prefix) bool { return n.Contains(from) }) {
			return Caller{}, reeve.Errorf(reeve.Unauthenticated, "token_elsewhere", "this token may not be used from here").
				WithFix("use it from the networks it was made for")
		}
		c.Token, owner = t, t.Principal
	}
	p, err := GetPrincipal(tx, owner)
	if err != nil {
		return Caller{}, err
	}
	if !p.Active() {
		return Caller{}, principalDisabled(p)
	}
	if err := stillVouched(tx, p, c.Token); err != nil {
		return Caller{}, err
	}
	c.Principal = *p
	return c, nil
}

// Recheck fails with kind Unauthenticated if what the caller showed has ended since, or the
// caller was disabled: for the transactions after the one that let it in.
func Recheck(tx *store.Tx, c Caller) error {
	if c.Session == nil && c.Token == nil {
		return nil
	}
	if c.Session != nil {
		if s, err := sessions.Get(tx, string(c.Session.ID)); err != nil || !tx.Now().Before(s.Ends()) {
			return ended(err, "session_ended", "this session has ended", "sign in again: reeve login")
		}
	}
	if c.Token != nil {
		if t, err := tokens.Get(tx, string(c.Token.ID)); err != nil || !t.Expires.IsZero() && !tx.Now().Before(t.Expires) {
			return ended(err, "token_unknown", "this token was revoked or has expired", "use another token or have a new one made")
		}
	}
	p, err := GetPrincipal(tx, c.ID)
	if err == nil && !p.Active() {
		err = principalDisabled(p)
	}
	if err != nil {
		return err
	}
	return stillVouched(tx, p, c.Token)
}

func ended(err error, code, message, fix string) error {
	if err != nil && reeve.KindOf(err) != reeve.NotFound {
		return err
	}
	return reeve.Errorf(reeve.Unauthenticated, code, "%s", message).WithFix("%s", fix)
}

func principalDisabled(p *Principal) error {
	return reeve.Errorf(reeve.Unauthenticated, "principal_disabled", "%s is %s", p.Name, p.Status()).WithFix("ask an administrator")
}

// Actor is the caller for the audit trail, with the session or token it came with.
func (c Caller) Actor(from, node string) audit.Actor {
	by := c.Principal.Actor(from, node)
	switch {
	case c.Session != nil:
		by.Session = string(c.Session.ID)
	case c.Token != nil:
		by.Session = string(c.Token.ID)
	}
	return by
}

// UseIsStale reports whether NoteUse would write anything for the caller.
func (c Caller) UseIsStale(now time.Time) bool {
	return c.Session != nil && now.Sub(c.Session.LastSeen) >= seenGrain || c.Token != nil && now.Sub(c.Token.LastUsed) >= useGrain
}

// NoteUse keeps when a token was last used, to the hour, or a session, to the minute. It
// is not audited: what was done with it is.
func NoteUse(tx *store.Tx, c Caller) error {
	if !c.UseIsStale(tx.Now()) {
		return nil
	}
	if c.Session != nil {
		s, err := sessions.Get(tx, string(c.Session.ID))
		if err != nil {
			return err
		}
		if s.LastSeen = tx.Now().Truncate(seenGrain); s.LastSeen.Before(s.Created) {
			s.LastSeen = s.Created
		}
		return sessions.Put(tx, s)
	}
	t, err := tokens.Get(tx, string(c.Token.ID))
	if err != nil {
		return err
	}
	t.LastUsed = tx.Now().Truncate(useGrain)
	return tokens.Put(tx, t)
}

// Carries reports whether the token was made for the very privilege, among few.
func (t *Token) Carries(p Privilege) bool { return t.Limited && slices.Contains(t.Privileges, p) }

func isSession(secret reeve.Secret) bool {
	return bytes.HasPrefix(secret.Bytes(), []byte(SessionPrefix))
}

func find(tx *store.Tx, secret reeve.Secret) (*Token, error) {
	hash, err := tokenBearer.hash(secret)
	if err != nil {
		return nil, err
	}
	t, err := tokens.Find(tx, "hash", hash)
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

// IssueToken is CreateToken for a caller: for itself, or for a service account of which it
// holds everything (code grant_exceeds). Nobody makes a token for another person: code
// token_for_person. A token that is limited makes none: code token_limited.
func IssueToken(tx *store.Tx, by audit.Actor, grantor Caller, in NewToken) (*Token, reeve.Secret, error) {
	if t := grantor.Token; t != nil && t.Narrow() {
		return nil, reeve.Secret{}, reeve.Errorf(reeve.Denied, "token_limited", "a token that is limited makes and revokes no other tokens").
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
