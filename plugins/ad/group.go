package main

import (
	"context"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// domainUsers is the RID of the group that is every user's primary one unless somebody changes that.
const domainUsers = "513"

// run does one command of a role.
func (w *work) run(ctx context.Context, a action) (bool, error) {
	if w.account == nil { // removed, now or before
		return false, nil
	}
	removes := a.removes()
	if err := w.refresh(ctx); err != nil { // members are not changed in one request with a revision
		return false, err
	}
	switch a.by {
	case "spn":
		return w.principal(ctx, a.value, removes)
	case "flag":
		return w.flag(ctx, a.String(), flags[a.value], !removes)
	}
	g, err := w.group(ctx, a)
	if err != nil {
		return false, err
	}
	if removes {
		return w.leave(ctx, g)
	}
	return w.join(ctx, a, g)
}

// member is a group, and what the account is to it.
type member struct {
	dn, rid   string
	primary   bool // it is the account's primary group
	listed    bool // the account is in its list of members
	protected bool
}

// group finds the group of a command, and what the account is to it. nil: it is not there.
func (w *work) group(ctx context.Context, a action) (*member, error) {
	g, err := w.groupOf(ctx, a, w.account.domain())
	if err != nil || g == nil {
		return nil, err
	}
	g.primary = g.rid != "" && g.rid == w.account.primary
	g.listed, err = w.listed(ctx, g.dn)
	return g, err
}

// groupOf finds the group of a command in the domain with a SID. nil: it is not there.
func (s *session) groupOf(ctx context.Context, a action, domain string) (*member, error) {
	what, base, scope, filter := "find the group of "+a.String(), s.base, ldap.ScopeWholeSubtree, ""
	switch a.by {
	case "rid":
		filter = "(objectSid=" + domain + "-" + a.value + ")"
	case "sid":
		filter = "(objectSid=" + a.value + ")"
	case "dn":
		base, scope, filter = a.value, ldap.ScopeBaseObject, "(objectClass=*)"
	default:
		filter = a.value
	}
	found, err := s.search(ctx, what, base, scope, "(&(objectClass=group)"+filter+")", []string{"objectSid", "adminCount"})
	if sdk.ClassOf(err) == sdk.ClassNotFound {
		return nil, nil
	}
	if err != nil || len(found) == 0 {
		return nil, err
	}
	if len(found) > 1 {
		return nil, sdk.Errorf(sdk.ClassInvalid, "%s: more than one group matches", what).WithFix("name it by its SID or its distinguished name")
	}
	sid, err := sidString(found[0].GetRawAttributeValue("objectSid"))
	if err != nil {
		return nil, err
	}
	rid, own := strings.CutPrefix(sid, domain+"-")
	if !own {
		rid = ""
	}
	return &member{dn: found[0].DN, rid: rid, protected: found[0].GetAttributeValue("adminCount") == "1"}, nil
}

// listed asks whether the account is in a group's list of members, which may be too long to be read.
func (w *work) listed(ctx context.Context, group string) (bool, error) {
	found, err := w.search(ctx, "read the members of the group", group, ldap.ScopeBaseObject,
		"(member="+ldap.EscapeFilter(w.account.dn)+")", []string{"objectSid"})
	return len(found) > 0, err
}

func noGroup(a action) error {
	return sdk.Errorf(sdk.ClassInvalid, "%s: there is no such group in the domain", a).
		WithFix("check the role's command and parameters; groups of the whole forest are in its root domain")
}

func (w *work) join(ctx context.Context, a action, g *member) (bool, error) {
	if g == nil {
		return false, noGroup(a)
	}
	if g.protected {
		w.note("members of this group are protected: within the hour the domain gives the account the rights of " +
			"AdminSDHolder, and without rights on that the management account cannot change it any more")
	}
	if g.listed || g.primary {
		return false, nil
	}
	err := w.try(g.dn, func(r *ldap.ModifyRequest) { r.Add("member", []string{w.account.dn}) })
	if is(err, ldap.LDAPResultEntryAlreadyExists, ldap.LDAPResultAttributeOrValueExists) {
		return false, nil
	}
	if err := failure(ctx, "add the account to the group "+g.dn, err, true); err != nil {
		return false, err
	}
	return true, w.wantListed(ctx, g, true)
}

// leave takes the account out of a group. One that is its primary group does not show it among its members, and is
// changed for Domain Users first.
func (w *work) leave(ctx context.Context, g *member) (bool, error) {
	if g == nil || !g.listed && !g.primary {
		return false, nil
	}
	if g.primary {
		if g.rid == domainUsers {
			return false, sdk.Errorf(sdk.ClassInvalid, "the account cannot leave %s: it is its primary group", g.dn).
				WithFix("give the account another primary group first")
		}
		err := w.change(ctx, "make Domain Users the primary group", w.account.address(), func(r *ldap.ModifyRequest) {
			r.Replace("primaryGroupID", []string{domainUsers})
		})
		if err != nil {
			return false, err
		}
		if err := w.refresh(ctx); err != nil {
			return false, err
		}
	}
	err := w.try(g.dn, func(r *ldap.ModifyRequest) { r.Delete("member", []string{w.account.dn}) })
	// 16 or 53 for who is no member: reading back decides.
	if is(err, ldap.LDAPResultNoSuchAttribute, ldap.LDAPResultUnwillingToPerform) {
		still, readErr := w.listed(ctx, g.dn)
		if readErr != nil || !still {
			return g.primary, readErr
		}
	}
	if err := failure(ctx, "take the account out of the group "+g.dn, err, true); err != nil {
		return false, err
	}
	return true, w.wantListed(ctx, g, false)
}

func (w *work) wantListed(ctx context.Context, g *member, want bool) error {
	got, err := w.listed(ctx, g.dn)
	if err == nil && got != want {
		err = sdk.Errorf(sdk.ClassUnknownOutcome, "the server accepted a change of the members of %s and does not show it", g.dn).
			WithFix("look for somebody else who changes the group")
	}
	return err
}

// leaveGroups takes the account out of every group. One that the management account may not change is told.
func (w *work) leaveGroups(ctx context.Context) (bool, error) {
	if w.account == nil {
		return false, nil
	}
	done := false
	for _, dn := range w.account.groups {
		left, err := w.leave(ctx, &member{dn: dn, listed: true})
		if sdk.ClassOf(err) == sdk.ClassNotPermitted {
			w.residue = append(w.residue, "the account is still in the group "+dn)
			continue
		}
		if err != nil {
			return done, err
		}
		done = done || left
	}
	if w.account.primary != "" && w.account.primary != domainUsers {
		w.residue = append(w.residue, "the account still has the primary group with the RID "+w.account.primary)
	}
	return done, nil
}

// principal makes sure that the account has a service principal name, or has it not.
func (w *work) principal(ctx context.Context, name string, remove bool) (bool, error) {
	has := false
	for _, p := range w.account.servicePrincipal {
		has = has || strings.EqualFold(p, name)
	}
	if has != remove {
		return false, nil
	}
	err := w.try(w.account.address(), func(r *ldap.ModifyRequest) {
		if remove {
			r.Delete("servicePrincipalName", []string{name})
		} else {
			r.Add("servicePrincipalName", []string{name})
		}
	})
	if is(err, ldap.LDAPResultNoSuchAttribute, ldap.LDAPResultAttributeOrValueExists) {
		return false, nil
	}
	if err := failure(ctx, "change the service principal name", err, true); err != nil {
		return false, err
	}
	return true, w.refresh(ctx)
}
