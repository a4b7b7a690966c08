package oidc

import (
	"errors"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// link says whom at an issuer belongs to which user. It is made once: from then on the
// subject counts, which providers never give to another, and no name.
type link struct {
	Key       string            `cbor:"1,keyasint"` // hash of issuer and subject
	Principal reeve.PrincipalID `cbor:"2,keyasint"`
	Issuer    string            `cbor:"3,keyasint"`
	Since     time.Time         `cbor:"4,keyasint"`
}

var links = store.NewTable("oidc_link",
	store.Key(func(l *link) string { return l.Key }),
	store.Index("principal", func(l *link) []string { return []string{string(l.Principal)} }),
)

// given is a place in a group that somebody has because a provider says so.
type given struct {
	Key       string            `cbor:"1,keyasint"`
	Provider  string            `cbor:"2,keyasint"`
	Principal reeve.PrincipalID `cbor:"3,keyasint"`
	Group     reeve.GroupID     `cbor:"4,keyasint"`
}

var givens = store.NewTable("oidc_membership",
	store.Key(func(g *given) string { return g.Key }),
	store.Index("principal", func(g *given) []string { return []string{g.Provider, string(g.Principal)} }),
)

// Keep makes whose word counts, and for whom, in to, a restored state, what it is in from:
// a provider that was removed since does not come back.
func Keep(to, from *store.Tx) error {
	return errors.Join(providers.Replace(to, from), links.Replace(to, from), givens.Replace(to, from))
}

func linkKey(issuer, subject string) string { return hashOf("subject", issuer+" "+subject) } // no issuer holds a space

// userUnknown is the one answer to whoever is nobody here.
func userUnknown() error {
	return reeve.Errorf(reeve.Unauthenticated, "oidc_user_unknown", "who signed in at the OpenID provider is no active user here").
		WithFix("ask an administrator to add you under the name that the provider gives you")
}

// userOf is the user whom a provider has identified: the one its subject is linked to, or
// else, once, the one of that name.
func (p *Provider) userOf(tx *store.Tx, from From, who person) (*identity.Principal, error) {
	key := linkKey(p.Issuer, who.Subject)
	known, err := links.Get(tx, key)
	if err == nil {
		return p.usable(identity.GetPrincipal(tx, known.Principal))
	}
	if reeve.KindOf(err) != reeve.NotFound {
		return nil, err
	}
	by := audit.System("oidc " + p.Name)
	by.From, by.Node = from.Address.String(), from.Node
	user, err := identity.FindPrincipal(tx, who.Name)
	if reeve.KindOf(err) == reeve.NotFound && p.AllowCreate && !reeve.ValidID("prin", who.Name) {
		user, err = identity.CreatePrincipal(tx, by, who.Name, identity.User, who.Profile)
	}
	if user, err = p.usable(user, err); err != nil {
		return nil, err
	}
	if user.Name != who.Name { // found by its id, which is no name
		return nil, userUnknown()
	}
	for l, err := range links.Scan(tx, "principal", store.Range{Prefix: []string{string(user.ID)}}) {
		if err != nil {
			return nil, err
		}
		if l.Issuer == p.Issuer { // somebody else at the provider has this name now
			return nil, userUnknown()
		}
	}
	if err := links.Insert(tx, &link{Key: key, Principal: user.ID, Issuer: p.Issuer, Since: tx.Now()}); err != nil {
		return nil, err
	}
	return user, audit.Record(tx, audit.Event{By: by, Action: "oidc.link", Object: string(user.ID), Details: map[string]string{"provider": p.Name, "issuer": p.Issuer, "name": user.Name}})
}

// usable is user, if it is one who can sign in.
func (p *Provider) usable(user *identity.Principal, err error) (*identity.Principal, error) {
	if reeve.KindOf(err) == reeve.NotFound || err == nil && (user.Kind != identity.User || !user.Active()) {
		return nil, userUnknown()
	}
	return user, err
}

// mapGroups puts a user into the groups of these names, and takes it out of those it was
// put into by the provider and that it names no more. Where people put it, it stays.
func (p *Provider) mapGroups(tx *store.Tx, from From, user *identity.Principal, names []string) error {
	if p.GroupClaim == "" {
		return nil
	}
	by := audit.System("oidc " + p.Name)
	by.From, by.Node = from.Address.String(), from.Node
	var wanted []reeve.GroupID
	for _, name := range names {
		g, err := identity.FindGroup(tx, name)
		if reeve.KindOf(err) == reeve.NotFound || err == nil && g.Name != name {
			continue
		}
		if err != nil {
			return err
		}
		wanted = append(wanted, g.ID)
		fresh, err := identity.Join(tx, by, g, user)
		if err == nil && fresh {
			err = givens.Put(tx, &given{Key: p.Name + "/" + string(user.ID) + "/" + string(g.ID), Provider: p.Name, Principal: user.ID, Group: g.ID})
		}
		if err != nil {
			return err
		}
	}
	for g, err := range givens.Scan(tx, "principal", store.Range{Prefix: []string{p.Name, string(user.ID)}}) {
		if err != nil {
			return err
		}
		if slices.Contains(wanted, g.Group) {
			continue
		}
		if err := identity.Leave(tx, by, g.Group, user); err != nil {
			return err
		}
		if err := givens.Delete(tx, g.Key); err != nil {
			return err
		}
	}
	return nil
}
