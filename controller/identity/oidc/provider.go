// Package oidc lets people sign in with what an OpenID provider says about them: the
// authorisation code flow with PKCE, of a native application (RFC 8252) and of a browser
// (OpenID Connect Core 1.0). It owns the providers, the sign-ins that are under way, and whom at a provider
// belongs to which user. The API's edge imports it; it imports identity, audit and store.
package oidc

import (
	"cmp"
	"crypto/x509"
	"iter"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// The claims that can name a user.
const (
	Email             = "email"
	PreferredUsername = "preferred_username"
)

// Provider is an OpenID provider whose word counts.
type Provider struct {
	Name        string    `cbor:"1,keyasint"`
	Issuer      string    `cbor:"2,keyasint"`
	ClientID    string    `cbor:"3,keyasint"`
	Secret      []byte    `cbor:"4,keyasint,omitempty"` // of the client; none: a public one. Never shown
	Authority   string    `cbor:"5,keyasint,omitempty"` // PEM; none: those of the system
	UserClaim   string    `cbor:"6,keyasint"`
	GroupClaim  string    `cbor:"7,keyasint,omitempty"` // none: groups are not mapped
	Scopes      []string  `cbor:"8,keyasint,omitempty"` // besides openid, profile and email
	AllowCreate bool      `cbor:"9,keyasint,omitempty"` // users that nobody added
	CreatedAt   time.Time `cbor:"10,keyasint"`
	Origins     []string  `cbor:"11,keyasint,omitempty"` // where browsers may sign in from; none: only programs can
	Second      string    `cbor:"12,keyasint,omitempty"` // who asks for a second factor; "": as SecondReeve
}

// Who asks for a second factor.
const (
	SecondReeve    = "reeve"    // Reeve, of whoever has one here, unless the provider says that it has asked for more than one
	SecondProvider = "provider" // the provider, which must say that it has
	SecondNone     = "none"     // nobody
)

// SecondFactor is who asks for a second factor.
func (p *Provider) SecondFactor() string { return cmp.Or(p.Second, SecondReeve) }

var providers = store.NewTable("oidc_provider", store.Key(func(p *Provider) string { return p.Name }))

// NewProvider says what provider to add.
type NewProvider struct {
	Name, Issuer, ClientID string
	Secret                 reeve.Secret
	Authority              string
	UserClaim, GroupClaim  string
	Scopes                 []string
	AllowCreate            bool
	Origins                []string
	SecondFactor           string // "": SecondReeve
}

// Add adds a provider. The grantor must hold everything, since a provider can say of
// anybody that it is them: code grant_exceeds. Codes oidc_provider_exists, name_invalid,
// oidc_issuer_invalid, oidc_setting_invalid.
func Add(tx *store.Tx, by audit.Actor, grantor identity.Caller, in NewProvider) (*Provider, error) {
	if err := identity.MayActForAll(tx, grantor); err != nil {
		return nil, err
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	switch _, err := providers.Get(tx, in.Name); {
	case err == nil:
		return nil, reeve.Errorf(reeve.Conflict, "oidc_provider_exists", "there is a provider of this name").WithFix("remove it first, or choose another name")
	case reeve.KindOf(err) != reeve.NotFound:
		return nil, err
	}
	p := &Provider{Name: in.Name, Issuer: in.Issuer, ClientID: in.ClientID, Secret: slices.Clone(in.Secret.Bytes()), Authority: in.Authority,
		UserClaim: in.UserClaim, GroupClaim: in.GroupClaim, Scopes: in.Scopes, AllowCreate: in.AllowCreate, CreatedAt: tx.Now(),
		Origins: in.Origins, Second: in.SecondFactor}
	if err := providers.Insert(tx, p); err != nil {
		return nil, err
	}
	return p, audit.Record(tx, audit.Event{By: by, Action: "oidc.add_provider", Object: p.Name, After: p.audited()})
}

func (p *Provider) audited() map[string]string {
	out := map[string]string{"issuer": p.Issuer, "client_id": p.ClientID, "user_claim": p.UserClaim}
	if p.GroupClaim != "" {
		out["group_claim"] = p.GroupClaim
	}
	if p.AllowCreate {
		out["allow_create"] = "true"
	}
	if len(p.Origins) > 0 {
		out["origins"] = strings.Join(p.Origins, " ")
	}
	out["second_factor"] = p.SecondFactor()
	return out
}

func (in *NewProvider) check() error {
	if name, ok := identity.Canonical(in.Name); !ok || name != in.Name {
		return reeve.Errorf(reeve.Invalid, "name_invalid", "the name of a provider is 1 to 64 of a-z, 0-9, '.', '-', '_' and '@'").WithField("/name")
	}
	u, err := url.Parse(in.Issuer)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(in.Issuer, "#") {
		return reeve.Errorf(reeve.Invalid, "oidc_issuer_invalid", "the issuer is no https URL without user, query and fragment").
			WithFix("give it exactly as the provider's documentation names it").WithField("/issuer")
	}
	wrong := func(field, what string) error {
		return reeve.Errorf(reeve.Invalid, "oidc_setting_invalid", "%s", what).WithField(field)
	}
	switch {
	case !visible(in.ClientID):
		return wrong("/client_id", "the client id holds what is not visible ASCII")
	case in.UserClaim != Email && in.UserClaim != PreferredUsername:
		return wrong("/user_claim", "users are named by the claim email or preferred_username")
	case in.GroupClaim != "" && !visible(in.GroupClaim):
		return wrong("/group_claim", "the name of a claim is visible ASCII")
	case slices.ContainsFunc(in.Scopes, func(s string) bool { return !visible(s) || strings.ContainsAny(s, `"\`) }):
		return wrong("/scopes", "a scope is visible ASCII without quotes and backslashes")
	case in.Authority != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(in.Authority)):
		return wrong("/authority", "the authority holds no certificate in PEM")
	case !slices.Contains([]string{"", SecondReeve, SecondProvider, SecondNone}, in.SecondFactor):
		return wrong("/second_factor", "who asks for a second factor is reeve, provider or none")
	}
	for _, o := range in.Origins {
		if u, err := url.Parse(o); err != nil || u.Scheme != "https" || u.Hostname() == "" || o != "https://"+strings.ToLower(u.Host) || strings.HasSuffix(o, ":443") {
			return wrong("/origins", "an origin is https://HOST or https://HOST:PORT in lower case, as browsers write it, and nothing after it")
		}
	}
	return nil
}

// visible reports whether s is some visible ASCII, without spaces.
func visible(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// Get returns a provider; code oidc_provider_not_found.
func Get(tx *store.Tx, name string) (*Provider, error) {
	p, err := providers.Get(tx, name)
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, reeve.Errorf(reeve.NotFound, "oidc_provider_not_found", "there is no OpenID provider of this name").WithFix("see what there is: reeve oidc list")
	}
	return p, err
}

// List yields the providers by name, those after the name given only.
func List(tx *store.Tx, after string) iter.Seq2[*Provider, error] { return providers.List(tx, after) }

// Remove takes a provider's word back: nobody can sign in with it any more, and sign-ins
// that are under way end. Sessions stay, and so do users, and groups they are in. Code
// oidc_provider_not_found.
func Remove(tx *store.Tx, by audit.Actor, name string) error {
	p, err := Get(tx, name)
	if err != nil {
		return err
	}
	if err := providers.Delete(tx, name); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "oidc.remove_provider", Object: name, Before: p.audited()})
}
