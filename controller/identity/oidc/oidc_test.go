package oidc

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/identity/oidc/oidctest"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

var (
	root = audit.Actor{Kind: "root", ID: "prin_root", Name: "root"}
	from = From{Address: netip.MustParseAddr("192.0.2.10"), Client: "test", Node: "node_1"}
)

const verifier = "a-verifier-that-only-the-client-has-0123456789-abcdef"

// program is what a program on the person's machine begins.
var program = Start{Provider: "corp", Challenge: challengeOf(verifier), Port: 40123}

// world is a store in which root has made ada and the group dba.
type world struct {
	*store.Store
	root identity.Caller
	ada  *identity.Principal
}

func newWorld(t testing.TB, opts ...storetest.Option) *world {
	t.Helper()
	w := &world{Store: storetest.New(t, opts...)}
	w.update(t, func(tx *store.Tx) error {
		p, err := identity.CreatePrincipal(tx, root, "root", identity.Root, identity.Profile{})
		if err != nil {
			return err
		}
		w.root = identity.Caller{Principal: *p}
		if _, err := identity.CreateGroup(tx, root, "dba", ""); err != nil {
			return err
		}
		w.ada, err = identity.CreatePrincipal(tx, root, "ada", identity.User, identity.Profile{})
		return err
	})
	return w
}

func (w *world) update(t testing.TB, fn func(*store.Tx) error) {
	t.Helper()
	if err := w.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func (w *world) add(t testing.TB, in NewProvider) {
	t.Helper()
	w.update(t, func(tx *store.Tx) error {
		_, err := Add(tx, root, w.root, in)
		return err
	})
}

// settings are those that fit a provider.
func settings(p *oidctest.Provider) NewProvider {
	return NewProvider{Name: "corp", Issuer: p.Issuer, ClientID: p.ClientID, Secret: reeve.SecretString(p.ClientSecret), Authority: p.Authority,
		UserClaim: PreferredUsername, GroupClaim: "groups", Scopes: []string{"groups"}}
}

func (w *world) begin(t testing.TB) Begun {
	t.Helper()
	b, err := Begin(t.Context(), w.Store, from, program)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// signIn is a whole sign-in of somebody at a real provider.
func (w *world) signIn(t testing.TB, p *oidctest.Provider, person string) (*identity.Session, reeve.Secret, error) {
	t.Helper()
	return Finish(t.Context(), w.Store, from, answer(p.Browse(t, w.begin(t).URL, person).Query()))
}

func answer(q map[string][]string) Answer {
	one := func(name string) string { return strings.Join(q[name], "") }
	return Answer{Provider: "corp", State: one("state"), Code: one("code"), Issuer: one("iss"), Verifier: verifier}
}

func (w *world) groupsOf(t testing.TB, id reeve.PrincipalID) string {
	t.Helper()
	var names []string
	err := w.View(t.Context(), func(tx *store.Tx) error {
		all, err := identity.GroupsOf(tx, id)
		for _, g := range all {
			names = append(names, g.Name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

func ada(groups ...string) map[string]oidctest.Person {
	return map[string]oidctest.Person{
		"sub-ada": {"preferred_username": "Ada", "name": "Ada L.", "email": "ada@example.com", "email_verified": true, "groups": groups},
		"sub-eve": {"preferred_username": "eve", "name": "Eve", "email": "ada@example.com", "email_verified": false},
		"sub-mal": {"preferred_username": "ada", "email": "mal@example.com", "email_verified": true},
	}
}

func TestARealProviderLetsPeopleIn(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]oidctest.Options{
		"RS256":         {},
		"ES256":         {Algorithm: "ES256"},
		"EdDSA":         {Algorithm: "EdDSA"},
		"public client": {Public: true},
		"secret posted": {Method: "client_secret_post"},
		"userinfo":      {OnlyInUserinfo: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.People = ada("dba", "Dba", "elsewhere")
			p := oidctest.Start(t, o)
			w := newWorld(t)
			w.add(t, settings(p))
			s, secret, err := w.signIn(t, p, "sub-ada")
			if err != nil {
				t.Fatal(err)
			}
			if s.Principal != w.ada.ID || s.Methods[0] != "oidc" || w.groupsOf(t, w.ada.ID) != "dba" {
				t.Errorf("%+v, in %s", s, w.groupsOf(t, w.ada.ID))
			}
			err = w.View(t.Context(), func(tx *store.Tx) error {
				_, err := identity.Authenticate(tx, secret, from.Address)
				return err
			})
			if err != nil {
				t.Errorf("the session: %v", err)
			}
			// From now on the subject counts: another with the name is not ada.
			if _, _, err := w.signIn(t, p, "sub-mal"); reeve.CodeOf(err) != "oidc_user_unknown" {
				t.Errorf("another of the same name: %v", err)
			}
			if _, _, err := w.signIn(t, p, "sub-eve"); reeve.CodeOf(err) != "oidc_user_unknown" {
				t.Errorf("a stranger: %v", err)
			}
		})
	}
}

func findGroup(tx *store.Tx, name string) (*identity.Group, error) {
	return identity.FindGroup(tx, name)
}

func addMember(tx *store.Tx, w *world, g *identity.Group) error {
	return identity.AddMember(tx, root, w.root, g.ID, w.ada.ID)
}

func (w *world) caller() identity.Caller { return identity.Caller{Principal: *w.ada} }

func (w *world) find(t testing.TB, name string) (p *identity.Principal) {
	t.Helper()
	err := w.View(t.Context(), func(tx *store.Tx) (err error) {
		p, err = identity.FindPrincipal(tx, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (w *world) disable(t testing.TB, name string) {
	t.Helper()
	p := w.find(t, name)
	w.update(t, func(tx *store.Tx) error {
		_, err := identity.DisablePrincipal(tx, root, w.root, p.ID)
		return err
	})
}

func canBe(name string) bool {
	spelt, ok := identity.Canonical(name)
	return ok && spelt == name
}
