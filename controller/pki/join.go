package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/jointoken"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Lifetimes of join tokens.
const (
	DefaultTokenLifetime = 15 * time.Minute
	MaxTokenLifetime     = 24 * time.Hour
)

// JoinToken lets one node or one agent in, once. Its secret is not stored.
type JoinToken struct {
	ID      reeve.JoinTokenID `cbor:"1,keyasint,omitempty"`
	Role    Role              `cbor:"2,keyasint,omitempty"`
	SiteID  reeve.SiteID      `cbor:"3,keyasint,omitempty"` // agents only
	Name    string            `cbor:"4,keyasint,omitempty"` // of the agent or node
	Hash    string            `cbor:"5,keyasint,omitempty"` // SHA-256 of the secret, hex
	Created time.Time         `cbor:"6,keyasint,omitempty"`
	Expires time.Time         `cbor:"7,keyasint,omitempty"`
	Used    time.Time         `cbor:"8,keyasint,omitempty"`  // zero: not used
	UsedKey string            `cbor:"9,keyasint,omitempty"`  // hash of the public key it admitted
	UsedBy  string            `cbor:"10,keyasint,omitempty"` // id of the agent or node it admitted
	Misused time.Time         `cbor:"11,keyasint,omitempty"` // when another key first tried it
}

var joinTokens = store.NewTable("join_token",
	store.Key(func(t *JoinToken) string { return string(t.ID) }),
	store.Unique("hash", func(t *JoinToken) []string { return []string{t.Hash} }),
)

// NewJoinToken says whom to let in.
type NewJoinToken struct {
	Role      Role
	SiteID    reeve.SiteID  // agents: their site, which the caller has checked to exist
	Name      string        // 1 to 64 of a-z, 0-9, dot and dash
	Lifetime  time.Duration // zero: DefaultTokenLifetime
	Addresses []string      // host:port where it will find controllers; agents: agent addresses, nodes: API addresses
}

// CreateJoinToken makes a join token and its text, which is returned this once. Codes:
// name_invalid, lifetime_invalid, site_missing, agent_banned (an agent of this name is
// banned), node_name_taken. An active agent of the name is replaced when the token is used.
func CreateJoinToken(tx *store.Tx, by audit.Actor, in NewJoinToken) (*JoinToken, reeve.Secret, error) {
	if err := checkNewToken(tx, &in); err != nil {
		return nil, reeve.Secret{}, err
	}
	ca, err := issuing(tx, RoleNode)
	if err != nil {
		return nil, reeve.Secret{}, err
	}
	cert, err := x509.ParseCertificate(ca.Certificate)
	if err != nil {
		return nil, reeve.Secret{}, reeve.Errorf(reeve.Internal, "ca_corrupt", "the node authority's certificate cannot be read").Wrap(err)
	}
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	defer clear(raw)
	text, err := jointoken.Token{Cluster: ca.Cluster, CASPKIHash: sha256.Sum256(cert.RawSubjectPublicKeyInfo),
		Addresses: in.Addresses, Secret: reeve.NewSecret(raw)}.Encode()
	if err != nil {
		return nil, reeve.Secret{}, err
	}
	t := &JoinToken{ID: reeve.NewJoinTokenID(), Role: in.Role, SiteID: in.SiteID, Name: in.Name, Hash: joinHash(reeve.NewSecret(raw)),
		Created: tx.Now(), Expires: tx.Now().Add(in.Lifetime)}
	if err := joinTokens.Insert(tx, t); err != nil {
		return nil, reeve.Secret{}, err
	}
	if err := audit.Record(tx, audit.Event{By: by, Action: "join_token.create", Object: string(t.ID), Details: map[string]string{
		"role": string(t.Role), "site": string(t.SiteID), "name": t.Name, "expires": t.Expires.Format(time.RFC3339)}}); err != nil {
		return nil, reeve.Secret{}, err
	}
	return t, text, nil
}

func checkNewToken(tx *store.Tx, in *NewJoinToken) error {
	if in.Lifetime == 0 {
		in.Lifetime = DefaultTokenLifetime
	}
	switch {
	case !validName(in.Name):
		return invalidName()
	case in.Lifetime < 0 || in.Lifetime > MaxTokenLifetime:
		return reeve.Errorf(reeve.Invalid, "lifetime_invalid", "a join token lives up to %s", MaxTokenLifetime).WithField("/lifetime")
	case in.Role == RoleAgent && !reeve.ValidID("site", string(in.SiteID)):
		return reeve.Errorf(reeve.Invalid, "site_missing", "an agent's join token needs the site the agent will serve").WithField("/site")
	case in.Role == RoleNode && in.SiteID != "":
		return reeve.Errorf(reeve.Invalid, "site_unexpected", "controllers belong to no site").WithField("/site")
	case in.Role == RoleNode:
		return nodeNameFree(tx, in.Name)
	case in.Role != RoleAgent:
		return reeve.Errorf(reeve.Invalid, "role_invalid", "a join token is for a node or an agent").WithField("/role")
	}
	holder, err := holderOf(tx, in.SiteID, in.Name)
	if err != nil {
		return err
	}
	if holder != nil && holder.Status == Banned {
		return holder.refusal()
	}
	return nil
}

// RevokeJoinToken ends a token that was not used; code join_token_used if it was, and
// join_token_not_found.
func RevokeJoinToken(tx *store.Tx, by audit.Actor, id reeve.JoinTokenID) error {
	t, err := joinTokens.Get(tx, string(id))
	if err != nil {
		return err
	}
	if !t.Used.IsZero() {
		return reeve.Errorf(reeve.Conflict, "join_token_used", "this join token was used by %s", t.UsedBy).WithFix("ban %s instead", t.UsedBy)
	}
	if err := joinTokens.Delete(tx, string(id)); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "join_token.revoke", Object: string(id),
		Details: map[string]string{"role": string(t.Role), "site": string(t.SiteID), "name": t.Name}})
}

// keptTokens is how long a join token is remembered after it was used or expired:
// that long another key that tries it is known for what it is.
const keptTokens = 30 * 24 * time.Hour

// ForgetJoinTokens deletes at most limit tokens that ended longer than 30 days ago and
// returns how many. What they did is in the audit trail.
func ForgetJoinTokens(tx *store.Tx, limit int) (int, error) {
	old, err := page(joinTokens.List(tx, ""), limit, func(t *JoinToken) bool {
		return tx.Now().Sub(t.Expires) > keptTokens && tx.Now().Sub(t.Used) > keptTokens
	})
	if err != nil {
		return 0, err
	}
	for _, t := range old {
		if err := joinTokens.Delete(tx, string(t.ID)); err != nil {
			return 0, err
		}
	}
	return len(old), nil
}

// findToken returns the token with the secret, if it is for the role.
func findToken(tx *store.Tx, role Role, secret reeve.Secret) (*JoinToken, error) {
	t, err := joinTokens.Find(tx, "hash", joinHash(secret))
	if reeve.KindOf(err) == reeve.NotFound || err == nil && t.Role != role {
		return nil, reeve.Errorf(reeve.Unauthenticated, "join_token_unknown", "this join token was revoked or never made here, or is not for joining as %s", role).
			WithFix("have a new one made")
	}
	return t, err
}

func tokenExpired(t *JoinToken) *reeve.Error {
	return reeve.Errorf(reeve.Unauthenticated, "join_token_expired", "this join token expired at %s", t.Expires.Format(time.RFC3339)).
		WithFix("have a new one made")
}

func tokenUsed(t *JoinToken) *reeve.Error {
	return reeve.Errorf(reeve.Unauthenticated, "join_token_used", "this join token was already used, at %s", t.Used.Format(time.RFC3339)).
		WithFix("if that was not you, somebody else has the token; have a new one made")
}

// misused keeps, and records the first time, that another key tried a used token.
func misused(tx *store.Tx, t *JoinToken, from, key string) error {
	if !t.Misused.IsZero() {
		return nil
	}
	t.Misused = tx.Now()
	if err := joinTokens.Put(tx, t); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: audit.Actor{Kind: string(t.Role), Name: t.Name, From: from}, Action: "join_token.misuse",
		Object: string(t.ID), Outcome: audit.Denied, Details: map[string]string{"admitted": t.UsedBy, "other_key": key}})
}

func joinHash(secret reeve.Secret) string {
	h := sha256.New()
	h.Write([]byte("reeve/v1/join-token:"))
	h.Write(secret.Bytes())
	return hex.EncodeToString(h.Sum(nil))
}

func validName(s string) bool {
	return len(s) >= 1 && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.-") == ""
}

func invalidName() *reeve.Error {
	return reeve.Errorf(reeve.Invalid, "name_invalid", "a name is 1 to 64 of a-z, 0-9, '.' and '-'").WithField("/name")
}
