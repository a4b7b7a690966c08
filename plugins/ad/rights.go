package main

import (
	"context"
	"slices"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// written are the attributes of accounts that the management account writes, whatever their role, and why.
var written = []struct{ attribute, reason string }{
	{"userAccountControl", "enable and disable accounts"},
	{"accountExpires", "set when accounts end"},
	{"description", "say what accounts are for"},
	{"lockoutTime", "lift lockouts"},
	{attributeMark, "notice another attempt at the same account"},
}

// resetPassword is the extended right to set a password without the old one (MS-ADTS 5.1.3.2.1).
const resetPassword = "00299570-246d-11d0-a768-00aa006e0529" //nolint:gosec // a number, not a credential

// read are attributes that not everybody may read, without which accounts cannot be worked on.
var read = []string{attributeMark, "userAccountControl", "pwdLastSet", "accountExpires", "lockoutTime", "memberOf", "primaryGroupID"}

// CheckRights implements sdk.RightsChecker. What may be made in a unit and who may change a group the server itself says;
// the rest is read from access lists.
func (connector) CheckRights(ctx context.Context, t sdk.Target, r sdk.Role, params map[string]string) ([]sdk.Right, error) {
	s, err := manage(ctx, t)
	if err != nil {
		return nil, err
	}
	defer s.close()
	k, err := s.rightsCheck(ctx)
	if err != nil {
		return nil, err
	}
	if err := k.everyRole(ctx); err != nil {
		return nil, err
	}
	for _, phase := range []sdk.Phase{
		sdk.PhaseCreate, sdk.PhaseGrant, sdk.PhaseRotate, sdk.PhaseEnable, sdk.PhaseDisable, sdk.PhaseRevoke, sdk.PhaseRemove,
	} {
		for i, line := range r.Phases[phase] {
			// The name of the account makes no difference to what is needed.
			a, err := actionOf(line, sdk.Intent{Account: plainName(t.Management.Username), Params: params})
			if err != nil {
				return nil, badCommand(i, phase, r, err)
			}
			if err := k.command(ctx, a); err != nil {
				return nil, err
			}
		}
	}
	return k.rights, nil
}

// rightsCheck is one look at what the management account may do.
type rightsCheck struct {
	*session
	who    trustee
	domain string              // its SID
	sids   []string            // of the management account and its groups
	guids  map[string][]string // of an attribute or class: its own and that of the set it belongs to

	accounts object // the unit they are made in
	rights   []sdk.Right
	missing  []string // those that surely are
}

// rightsCheck finds out who is logged in, and how the schema numbers things.
func (s *session) rightsCheck(ctx context.Context) (*rightsCheck, error) {
	k := &rightsCheck{session: s, guids: map[string][]string{}}
	var err error
	if k.sids, err = s.token(ctx); err != nil {
		return nil, err
	}
	if len(k.sids) == 0 {
		return nil, sdk.Errorf(sdk.ClassUnsupported, "the server does not say which groups the management account is in").
			WithFix("compare its rights with the connector's page")
	}
	domain, err := s.search(ctx, "read the domain", s.base, ldap.ScopeBaseObject, "(objectClass=*)", []string{"objectSid"})
	if err != nil {
		return nil, err
	}
	if len(domain) != 1 {
		return nil, sdk.Errorf(sdk.ClassNotPermitted, "the management account may not read the domain %s", s.base).
			WithFix("let it read that, as every account may by default")
	}
	if k.domain, err = sidString(domain[0].GetRawAttributeValue("objectSid")); err != nil {
		return nil, err
	}
	if k.who, err = s.trustee(ctx, k.sids); err != nil {
		return nil, err
	}
	names := append(slices.Clone(read), "user", "member", "description", "cn", "name", "servicePrincipalName", "sAMAccountName", "userPrincipalName")
	return k, k.schema(ctx, names)
}

// schema reads the numbers of attributes and classes.
func (k *rightsCheck) schema(ctx context.Context, names []string) error {
	var which string
	for _, name := range names {
		which += "(lDAPDisplayName=" + name + ")"
	}
	all, err := k.search(ctx, "read the schema", k.root.GetAttributeValue("schemaNamingContext"), ldap.ScopeSingleLevel, "(|"+which+")",
		[]string{"lDAPDisplayName", "schemaIDGUID", "attributeSecurityGUID"})
	if err != nil {
		return err
	}
	for _, e := range all {
		own, err := guidText(e.GetRawAttributeValue("schemaIDGUID"))
		if err != nil {
			return err
		}
		guids := []string{own}
		if raw := e.GetRawAttributeValue("attributeSecurityGUID"); len(raw) > 0 {
			set, err := guidText(raw)
			if err != nil {
				return err
			}
			guids = append(guids, set)
		}
		k.guids[e.GetAttributeValue("lDAPDisplayName")] = guids
	}
	for _, name := range names {
		if k.guids[name] == nil {
			return sdk.Errorf(sdk.ClassNotPermitted, "the management account may not read %s in the schema", name).
				WithFix("let it read the schema, as every account may by default")
		}
	}
	return nil
}

// object is a unit, whose access list says what may be done with accounts in it, or what the list of protected accounts is
// copied from.
type object struct {
	dn     string
	what   string // the accounts that are meant, for people
	permit permit // how a right on them is given
	list   acl    // of the object
	of     acl    // of the accounts
	hidden bool   // the management account may not read the list
}

// full is a mask of everything.
const full = 0xF01FF

// unit reads what may be done with accounts in a unit. It adds that they may be made there, which the server itself says.
func (k *rightsCheck) unit(ctx context.Context, option, dn, makes string) (object, error) {
	user := k.guids["user"][0]
	found, err := k.search(ctx, "read "+dn, dn, ldap.ScopeBaseObject, "(objectClass=*)", []string{"allowedChildClassesEffective"})
	if sdk.ClassOf(err) == sdk.ClassNotFound || err == nil && len(found) != 1 {
		err = sdk.Errorf(sdk.ClassInvalid, "there is no %s, or the management account may not read it", dn).
			WithFix("make the unit, or correct the option %s", option)
	}
	if err != nil {
		return object{}, err
	}
	o := object{dn: dn, what: "user objects in " + dn, permit: permit{inherit: "CIIO", class: "user", classGUID: user}}
	k.add(o, sdk.Right{
		Name: "create " + o.what, Reason: makes, Held: slices.Contains(found[0].GetAttributeValues("allowedChildClassesEffective"), "user"),
	}, permit{inherit: "CI", rights: "CC", object: "user", guid: user})
	list, err := k.list(ctx, dn)
	if err != nil {
		return object{}, err
	}
	if list == nil {
		o.hidden = true
		k.rights = append(k.rights, sdk.Right{ // and not missing: accounts can be worked on without
			Name: "read the access list of " + dn, Reason: "know which rights there are", Grant: k.grant(dn, permit{rights: "RC"}),
		})
		return o, nil
	}
	// What every new user has by its class: https://learn.microsoft.com/en-us/windows/win32/adschema/c-user
	o.list = list
	o.of = append(acl{{mask: full, sid: "S-1-5-32-548"}, {mask: full, sid: k.domain + "-512"}}, list.below(user)...)
	return o, nil
}

// list reads an object's access list; nil if the management account may not read it.
func (k *rightsCheck) list(ctx context.Context, dn string) (acl, error) {
	// The access list alone: whoever asks for owner and auditing too needs rights for that (MS-ADTS 3.1.1.3.4.1.11).
	control := ldap.NewControlString("1.2.840.113556.1.4.801", true, "\x30\x03\x02\x01\x04")
	r, err := k.conn.Search(ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)",
		[]string{"nTSecurityDescriptor"}, []ldap.Control{control}))
	if err := failure(ctx, "read the access list of "+dn, err, false); err != nil {
		return nil, err
	}
	if len(r.Entries) != 1 || len(r.Entries[0].GetRawAttributeValue("nTSecurityDescriptor")) == 0 {
		return nil, nil
	}
	return aclOf(r.Entries[0].GetRawAttributeValue("nTSecurityDescriptor"))
}

// add adds a right that is not there yet, on an object or what is in it.
func (k *rightsCheck) add(o object, r sdk.Right, p permit) {
	if slices.ContainsFunc(k.rights, func(other sdk.Right) bool { return other.Name == r.Name }) {
		return
	}
	switch {
	case r.Held:
	case o.hidden:
		r.Reason += "; whether it is there cannot be known without reading the access list of " + o.dn
		r.Grant = k.grant(o.dn, p)
	default:
		k.missing = append(k.missing, r.Name)
		r.Grant = k.grant(o.dn, p)
	}
	k.rights = append(k.rights, r)
}

// may reports whether the management account holds a right on accounts. An account that it makes is its own.
func (k *rightsCheck) may(l acl, right uint32, of []string) bool {
	return l.allows(append(slices.Clone(k.sids), creatorOwner), right, of...)
}

// everyRole adds what is needed for all accounts.
func (k *rightsCheck) everyRole(ctx context.Context) error {
	unit, err := k.unit(ctx, optionOU, k.place.ou, "make accounts")
	if err != nil {
		return err
	}
	k.accounts = unit
	user := k.guids["user"]
	k.add(unit, sdk.Right{
		Name: "delete " + unit.what, Reason: "remove accounts, also those that could not be finished",
		Held: k.may(unit.list, rightDeleteChild, user) || k.may(unit.of, rightDelete, nil),
	}, permit{inherit: "CI", rights: "DC", object: "user", guid: user[0]})
	readable := !slices.ContainsFunc(read, func(name string) bool { return !k.may(unit.of, rightRead, k.guids[name]) })
	reads := unit.permit
	reads.rights = "RP"
	k.add(unit, sdk.Right{Name: "read " + unit.what, Reason: "know what state accounts are in", Held: readable}, reads)
	k.onAccounts(unit)
	if k.place.quarantine == "" {
		return nil
	}
	for _, name := range []string{"cn", "name"} {
		k.write(unit, name, "move removed accounts")
	}
	if unit, err = k.unit(ctx, optionQuarantine, k.place.quarantine, "move removed accounts"); err != nil {
		return err
	}
	k.resets(unit)
	k.write(unit, attributeMark, written[len(written)-1].reason)
	for _, name := range []string{"sAMAccountName", "userPrincipalName"} {
		k.write(unit, name, "free the names of removed accounts")
	}
	return nil
}

// onAccounts adds what is done with accounts that are there.
func (k *rightsCheck) onAccounts(o object) {
	k.resets(o)
	for _, a := range written {
		k.write(o, a.attribute, a.reason)
	}
}

func (k *rightsCheck) resets(o object) {
	p := o.permit
	p.rights, p.object, p.guid = "CR", "Reset Password", resetPassword
	k.add(o, sdk.Right{
		Name: "reset passwords of " + o.what, Reason: "set passwords", Held: k.may(o.of, rightExtended, []string{resetPassword}),
	}, p)
}

// write adds that an attribute of accounts may be written.
func (k *rightsCheck) write(o object, attribute, reason string) {
	p := o.permit
	p.rights, p.object, p.guid = "RPWP", attribute, k.guids[attribute][0]
	k.add(o, sdk.Right{Name: "write " + attribute + " of " + o.what, Reason: reason, Held: k.may(o.of, rightWrite, k.guids[attribute])}, p)
}

// command adds what a role's command needs.
func (k *rightsCheck) command(ctx context.Context, a action) error {
	switch a.by {
	case "flag": // userAccountControl
		return nil
	case "spn":
		k.write(k.accounts, "servicePrincipalName", "set the service principal name")
		return nil
	}
	g, err := k.groupOf(ctx, a, k.domain)
	if err == nil && g == nil {
		err = noGroup(a)
	}
	if err != nil {
		return err
	}
	found, err := k.search(ctx, "read the group", g.dn, ldap.ScopeBaseObject, "(objectClass=*)", []string{"allowedAttributesEffective"})
	if err != nil {
		return err
	}
	member := permit{rights: "RPWP", object: "member", guid: k.guids["member"][0]}
	k.add(object{dn: g.dn}, sdk.Right{
		Name: "write member of " + g.dn, Reason: "change who is in that group",
		Held: len(found) == 1 && slices.Contains(found[0].GetAttributeValues("allowedAttributesEffective"), "member"),
	}, member)
	if g.protected {
		return k.protected(ctx, member)
	}
	return nil
}

// protected adds rights on the object whose access list the domain gives protected groups and their members every hour.
// Domain controllers of Samba do not.
// https://learn.microsoft.com/en-us/windows-server/identity/ad-ds/plan/security-best-practices/appendix-c--protected-accounts-and-groups-in-active-directory
func (k *rightsCheck) protected(ctx context.Context, member permit) error {
	o := object{dn: "CN=AdminSDHolder,CN=System," + k.base}
	o.what = o.dn
	list, err := k.list(ctx, o.dn)
	if err != nil {
		return err
	}
	o.of, o.hidden = list, list == nil
	k.add(o, sdk.Right{
		Name: "write member of " + o.what, Reason: "keep the right to change protected groups; Windows gives them this object's access list every hour",
		Held: k.may(o.of, rightWrite, k.guids["member"]),
	}, member)
	k.onAccounts(o)
	return nil
}
