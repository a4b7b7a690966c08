package oidc

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// maxGroups is how many groups a provider may say somebody is in.
const maxGroups = 1000

// claims are what a provider says about somebody, by name.
type claims map[string]json.RawMessage

func (c claims) text(name string) (s string) {
	_ = json.Unmarshal(c[name], &s) // of another type: as if it were not there
	return s
}

func (c claims) texts(name string) (all []string) {
	_ = json.Unmarshal(c[name], &all)
	return all
}

// instant is the time of a claim in seconds since 1970; zero if it is none.
func (c claims) instant(name string) time.Time {
	var seconds int64
	if err := json.Unmarshal(c[name], &seconds); err != nil || seconds <= 0 || seconds > 1<<40 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// person is what claims come to.
type person struct {
	Subject  string           `cbor:"1,keyasint"`
	Name     string           `cbor:"2,keyasint"` // spelt as user names are
	Profile  identity.Profile `cbor:"3,keyasint"`
	Groups   []string         `cbor:"4,keyasint,omitempty"` // those that can be groups of ours
	ProvedAt time.Time        `cbor:"5,keyasint,omitzero"`  // when they last signed in there; zero: it does not say
	MFA      bool             `cbor:"6,keyasint,omitempty"` // with more than one factor
}

func claimsUnfit(why string) error {
	return reeve.Errorf(reeve.Unauthenticated, "oidc_claims_unfit", "what the OpenID provider says about you names no user: %s", why).
		WithFix("ask an administrator to compare the claims with: reeve oidc list")
}

// read turns claims into a person. An address that the provider has not verified names
// nobody: anybody could claim it. Code oidc_claims_unfit.
func (p *Provider) read(subject string, c claims) (person, error) {
	out := person{Subject: subject, ProvedAt: c.instant("auth_time"), MFA: slices.Contains(c.texts("amr"), "mfa")} // RFC 8176
	if len(subject) == 0 || len(subject) > 255 {
		return person{}, claimsUnfit("the subject is empty or too long")
	}
	name, ok := identity.Canonical(c.text(p.UserClaim))
	if !ok {
		return person{}, claimsUnfit("the claim " + p.UserClaim + " is missing or cannot be a user name")
	}
	verified := string(c["email_verified"]) == "true" || c.text("email_verified") == "true" // some send text
	if p.UserClaim == Email && !verified {
		return person{}, claimsUnfit("the e-mail address is not verified")
	}
	out.Name = name
	if f := (identity.Profile{FullName: c.text("name")}); f.Check() == nil {
		out.Profile.FullName = f.FullName
	}
	if f := (identity.Profile{Email: c.text(Email)}); verified && f.Check() == nil {
		out.Profile.Email = f.Email
	}
	if p.GroupClaim == "" || len(c[p.GroupClaim]) == 0 {
		return out, nil
	}
	var groups []string
	if err := json.Unmarshal(c[p.GroupClaim], &groups); err != nil {
		one := c.text(p.GroupClaim)
		if one == "" {
			return person{}, claimsUnfit("the claim of groups is no list of names")
		}
		groups = []string{one}
	}
	if len(groups) > maxGroups {
		return person{}, claimsUnfit("it names too many groups")
	}
	for _, g := range groups {
		if name, ok := identity.Canonical(g); ok && name == g { // exactly: Admins is not admins
			out.Groups = append(out.Groups, g)
		}
	}
	return out, nil
}
