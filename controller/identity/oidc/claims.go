package oidc

import (
	"encoding/json"

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

// person is what claims come to.
type person struct {
	Subject string
	Name    string // spelt as user names are
	Profile identity.Profile
	Groups  []string // those that can be groups of ours
}

func claimsUnfit(why string) error {
	return reeve.Errorf(reeve.Unauthenticated, "oidc_claims_unfit", "what the OpenID provider says about you names no user: %s", why).
		WithFix("ask an administrator to compare the claims with: reeve oidc list")
}

// read turns claims into a person. An address that the provider has not verified names
// nobody: anybody could claim it. Code oidc_claims_unfit.
func (p *Provider) read(subject string, c claims) (person, error) {
	out := person{Subject: subject}
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
