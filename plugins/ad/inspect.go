package main

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Inspect implements sdk.Inspector.
func (c connector) Inspect(ctx context.Context, t sdk.Target, name string) (f sdk.Facts, err error) {
	s, err := c.borrow(ctx, t)
	if err != nil {
		return sdk.Facts{}, err
	}
	defer func() { s.done(err) }()
	a, err := s.account(ctx, name)
	if err != nil {
		return sdk.Facts{}, err
	}
	return s.facts(ctx, name, a)
}

// Discover implements sdk.Discoverer: the users of the whole domain, page by page. Groups within groups are left out
// of it: they cost a search each.
func (connector) Discover(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
	s, err := manage(ctx, t)
	if err != nil {
		return err
	}
	defer s.close()
	primary := map[string]string{} // the DN of each primary group, by its RID
	return s.pages(ctx, "list the accounts", s.base, ldap.ScopeWholeSubtree, "(&"+users+")", accountAttributes,
		func(e *ldap.Entry) (bool, error) {
			a, err := accountOf(e)
			if err != nil {
				return false, err
			}
			dn, known := primary[a.primary]
			if !known {
				if dn, err = s.primaryGroup(ctx, a); err != nil {
					return false, err
				}
				primary[a.primary] = dn
			}
			return yield(a.facts(dn)), nil
		})
}

// inChain is the rule that follows groups within groups (MS-ADTS 3.1.1.3.4.4.3).
const inChain = "1.2.840.113556.1.4.1941"

// facts are those of an account that was read, or of none.
func (s *session) facts(ctx context.Context, name string, a *account) (sdk.Facts, error) {
	if a == nil {
		return sdk.Facts{Account: name, ReadAt: time.Now().UTC()}, nil
	}
	primary, err := s.primaryGroup(ctx, a)
	if err != nil {
		return sdk.Facts{}, err
	}
	f := a.facts(primary)
	of := "(member:" + inChain + ":=" + ldap.EscapeFilter(a.dn) + ")"
	if primary != "" {
		of += "(member:" + inChain + ":=" + ldap.EscapeFilter(primary) + ")"
	}
	effective, err := s.search(ctx, "read the groups of the account", s.base, ldap.ScopeWholeSubtree, "(&(objectClass=group)(|"+of+"))",
		[]string{"objectSid"})
	if err != nil {
		return sdk.Facts{}, err
	}
	for _, g := range effective {
		if !slices.Contains(f.Groups, g.DN) {
			f.Grants = append(f.Grants, "member through other groups: "+g.DN)
		}
	}
	for _, p := range a.servicePrincipal {
		f.Grants = append(f.Grants, "service principal: "+p)
	}
	slices.Sort(f.Grants)
	return f, nil
}

// facts are what the account's own attributes say.
func (a *account) facts(primary string) sdk.Facts {
	f := sdk.Facts{
		Exists:            true,
		Account:           a.name,
		Identity:          a.guid,
		Locked:            a.disabled() || a.lockedOut(),
		HasPassword:       a.passwordTicks > 0,
		ExpiresAt:         a.expires,
		PasswordChangedAt: a.passwordSet,
		Groups:            slices.Clone(a.groups),
		ReadAt:            time.Now().UTC(),
		Attributes: map[string]string{
			"dn": a.dn, "sid": a.sid, "userPrincipalName": a.upn,
			"userAccountControl": strconv.FormatInt(a.control, 10), "whenCreated": a.created,
		},
	}
	if primary != "" && !slices.Contains(f.Groups, primary) {
		f.Groups = append(f.Groups, primary)
		slices.Sort(f.Groups)
	}
	set := func(name string, on bool) {
		if on {
			f.Attributes[name] = "yes"
		}
	}
	set("disabled", a.disabled())
	set("locked_out", a.lockedOut())
	set("must_change_password", a.passwordTicks == 0)
	set("password_expired", a.computed&bitExpired != 0)
	set("protected", a.protected) // AdminSDHolder decides who may change it
	if a.comment != "" {
		f.Attributes["comment"] = a.comment
	}
	if !a.lastLogon.IsZero() {
		f.Attributes["last_logon"] = a.lastLogon.Format(time.RFC3339)
	}
	if len(a.servicePrincipal) > 0 {
		f.Attributes["service_principals"] = strings.Join(a.servicePrincipal, " ")
	}
	return f
}
