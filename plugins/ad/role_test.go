package main

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

func TestEveryRoleOfTheCatalogueWorks(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := asAdministrator(d)
	addGroup(t, d, "Help Desk", "Help Desk")
	if err := d.Add(t.Context(), "CN=DnsAdmins,CN=Users,"+testlab.DomainDN, // a domain with DNS has it
		map[string][]string{"objectClass": {"group"}, "sAMAccountName": {"DnsAdmins"}}); err != nil && !strings.Contains(err.Error(), "68") {
		t.Fatal(err)
	}
	groups := map[string]string{
		"ad-domain-user": "", "ad-domain-admin": "Domain Admins", "ad-enterprise-admin": "Enterprise Admins",
		"ad-schema-admin": "Schema Admins", "ad-server-operator": "Server Operators", "ad-account-operator": "Account Operators",
		"ad-backup-operator": "Backup Operators", "ad-print-operator": "Print Operators", "ad-dns-admin": "DnsAdmins",
		"ad-gpo-creator": "Group Policy Creator Owners", "ad-remote-desktop": "Remote Desktop Users",
		"ad-event-log-reader": "Event Log Readers", "ad-helpdesk": "Help Desk", "ad-protected-user": "Protected Users",
		"ad-service-account": "Help Desk", "ad-jit-group-member": "Help Desk",
	}
	for i, r := range roles() {
		want, known := groups[r.Name]
		if !known {
			t.Errorf("%s: not looked at", r.Name)
		}
		if group, err := d.Find(t.Context(), "(&(objectClass=group)(sAMAccountName="+want+"))"); want == "Protected Users" && err == nil && group == nil {
			// A domain of the level of 2008 R2 has no such group. One cannot be made with its number.
			in := intent(sdk.Provision)
			in.Role = r
			_, err := apply(t.Context(), tgt, in, first)
			wantClass(t, r.Name, err, sdk.ClassInvalid)
			continue
		}
		in := intent(sdk.Provision)
		in.Role, in.Account, in.AccountID = r, "role"+strconv.Itoa(i), "acct_"+r.Name
		for _, p := range r.Params {
			if in.Params == nil {
				in.Params = map[string]string{}
			}
			in.Params[p.Name] = "Help Desk"
			if p.Name == "SPN" {
				in.Params[p.Name] = "HTTP/web.lab.test"
			}
		}
		if err := r.CheckParams(in.Params); err != nil {
			t.Fatal(err)
		}
		res, err := apply(t.Context(), tgt, in, first)
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		in.Identity = res.Facts.Identity
		e := entry(t, d, in.Account)
		for _, dn := range e.GetAttributeValues("memberOf") {
			if !strings.HasPrefix(dn, "CN="+want+",") || !slices.Contains(res.Facts.Groups, dn) {
				t.Errorf("%s: member of %s, facts %q", r.Name, dn, res.Facts.Groups)
			}
		}
		if n := len(e.GetAttributeValues("memberOf")); (n == 1) != (want != "") {
			t.Errorf("%s: in %d groups", r.Name, n)
		}
		if r.Name == "ad-service-account" &&
			(e.GetAttributeValue("servicePrincipalName") != "HTTP/web.lab.test" || e.GetAttributeValue("userAccountControl") != "1114624") {
			t.Errorf("service account: %v", e.Attributes)
		}
		if want == "Protected Users" { // a plain bind tells nothing of them, not even whether the password is right
			wantVerdict(t, tgt, in.Account, first, sdk.VerdictUnknown)
			wantVerdict(t, tgt, in.Account, second, sdk.VerdictUnknown)
			must(t, tgt, in, first)
			continue
		}
		wantLogin(t, d, in.Account, first, true)
		if again := must(t, tgt, in, first); again.Changed {
			t.Errorf("%s: provisioning again changed something", r.Name)
		}
		in.Action = sdk.Deprovision
		must(t, tgt, in, "")
	}
}

func TestMembersOfProtectedGroupsAreWarnedOf(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	in := intent(sdk.Provision)
	in.Role = role(t, "ad-domain-admin")
	var notes []string
	r, err := applyWith(t.Context(), asAdministrator(d), in, first, func(e sdk.Event) {
		if e.State == sdk.StepInfo {
			notes = append(notes, e.Message)
		}
	})
	if err != nil || len(notes) != 1 || !strings.Contains(notes[0], "AdminSDHolder") {
		t.Errorf("notes %q, %v", notes, err)
	}
	// Groups within groups are in the facts.
	if want := "member through other groups: CN=Administrators,CN=Builtin," + testlab.DomainDN; !slices.Contains(r.Facts.Grants, want) {
		t.Errorf("grants %q, want %q", r.Facts.Grants, want)
	}
}

func TestPrimaryGroupIsLeftToo(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := asAdministrator(d)
	in := intent(sdk.Provision)
	in.Role = role(t, "ad-domain-admin")
	in.Role.Phases[sdk.PhaseDisable] = in.Role.Phases[sdk.PhaseRevoke]
	must(t, tgt, in, first)
	dn := entry(t, d, "alice").DN
	set(t, d, dn, "primaryGroupID", "512") // the membership shows no more in the group's list
	admins := "CN=Domain Admins,CN=Users," + testlab.DomainDN
	f, err := connector{}.Inspect(t.Context(), tgt, "alice")
	if err != nil || !slices.Contains(f.Groups, admins) {
		t.Errorf("groups %q, %v", f.Groups, err)
	}
	in.Action = sdk.Disable
	r := must(t, tgt, in, "")
	e := entry(t, d, "alice")
	if slices.Contains(r.Facts.Groups, admins) || len(e.GetAttributeValues("memberOf")) != 0 || e.GetAttributeValue("primaryGroupID") != "513" {
		t.Errorf("facts %q, entry %v", r.Facts.Groups, e.GetAttributeValues("memberOf"))
	}
	if r := must(t, tgt, in, ""); r.Changed {
		t.Error("again changed something")
	}
}

// hostile are values that would be more than a value in a distinguished name or a filter.
var hostile = []string{
	`*`, `x)(cn=*`, `*)(objectClass=*))(|(cn=*`, `a,CN=Users`, `a,OU=Groups,DC=lab,DC=test`, `#05ab`, ` lead`, `trail `,
	`back\slash`, `\2a`, `q"uote`, `pl+us=x`, `se;mi<x>`, `ünï-密`, `nul\00`, `%Username%`, `%%`,
}

func TestHostileValuesStayValues(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	ctx := t.Context()
	all := map[string]string{}
	for i, name := range hostile {
		all[name] = addGroup(t, d, name, "g"+strconv.Itoa(i))
	}
	must(t, tgt, intent(sdk.Provision), first)
	for name, dn := range all {
		in := intent(sdk.Enable)
		in.Role, in.Params = custom(sdk.PhaseEnable, `add-to-group "CN=%P%,`+testlab.GroupsOU+`"`), map[string]string{"P": name}
		must(t, tgt, in, "")
		if got := entry(t, d, "alice").GetAttributeValues("memberOf"); len(got) != 1 || !sameName(got[0], dn) {
			t.Errorf("%q by its name: member of %q", name, got)
		}
		in.Action, in.Role = sdk.Disable, custom(sdk.PhaseDisable, `remove-from-group "(&(!(cn=x%P%))(cn=%P%))"`)
		if r := must(t, tgt, in, ""); !r.Changed {
			t.Errorf("%q by a filter: not found", name)
		}
		if got := entry(t, d, "alice").GetAttributeValues("memberOf"); len(got) != 0 {
			t.Errorf("%q by a filter: member of %q", name, got)
		}
	}
	// Values that no group has match none.
	for _, name := range []string{`*`, `g*`, `g1)(cn=*`, `g1))(|(cn=*`} {
		in := intent(sdk.Provision)
		in.Role, in.Params = custom(sdk.PhaseGrant, "add-to-group name %P%"), map[string]string{"P": name}
		_, err := apply(ctx, tgt, in, first)
		wantClass(t, "name "+name, err, sdk.ClassInvalid)
	}
	// Names of accounts that are only looked at.
	for _, name := range append(slices.Clone(hostile), "alic*", "alice)(cn=*") {
		f, err := connector{}.Inspect(ctx, tgt, name)
		if err != nil || f.Exists || f.Account != name {
			t.Errorf("inspect %q: %+v, %v", name, f, err)
		}
		wantVerdict(t, tgt, name, first, sdk.VerdictBadCredential)
	}
}

// sameName compares distinguished names, however they are written.
func sameName(a, b string) bool { return within(a, b) && within(b, a) }

func TestFilterThatMatchesSeveralGroupsIsRefused(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	addGroup(t, d, "g1", "g1")
	addGroup(t, d, "g2", "g2")
	in := intent(sdk.Provision)
	in.Role = custom(sdk.PhaseGrant, `add-to-group "(cn=g*)"`)
	_, err := apply(t.Context(), target(d), in, first)
	wantClass(t, "provision", err, sdk.ClassInvalid)
	if e := entry(t, d, "alice"); e != nil {
		t.Error("the account is there")
	}
}

func TestProbeSaysWhatTheServerIsAndWhatIsMissing(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	must(t, tgt, intent(sdk.Provision), first)
	f, err := connector{}.Probe(t.Context(), tgt)
	if err != nil || f.Product != "Active Directory on Samba" || f.Version == "" || len(f.MissingRights) != 0 ||
		f.Attributes["domain"] != "lab.test" || f.Attributes["pdc_emulator"] != "yes" {
		t.Errorf("probe: %+v, %v", f, err)
	}
	if err := d.AddAccount(t.Context(), "weak", "Weak-12345"); err != nil {
		t.Fatal(err)
	}
	tgt.Management = sdk.Credential{Username: "weak", Password: secret("Weak-12345")}
	f, err = connector{}.Probe(t.Context(), tgt)
	const unit = "user objects in " + testlab.AccountsOU
	want := []string{"create " + unit, "delete " + unit, "reset passwords of " + unit}
	for _, a := range written {
		want = append(want, "write "+a.attribute+" of "+unit)
	}
	if diff := cmp.Diff(want, f.MissingRights); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	_, err = apply(t.Context(), tgt, intent(sdk.Rotate), second)
	wantClass(t, "rotate without the right", err, sdk.ClassNotPermitted)
	wantLogin(t, d, "alice", first, true)

	for option, want := range map[string]sdk.Class{
		"OU=nowhere,DC=lab,DC=test": sdk.ClassInvalid, "OU=Reeve,DC=other,DC=test": sdk.ClassInvalid, "nonsense": sdk.ClassInvalid,
		"DC=lab,DC=test": sdk.ClassInvalid, "OU=a,DC=lab,OU=b": sdk.ClassInvalid, "": sdk.ClassInvalid,
	} {
		tgt := target(d)
		tgt.Options[optionOU] = option
		_, err := connector{}.Probe(t.Context(), tgt)
		wantClass(t, "account_ou "+option, err, want)
		in := intent(sdk.Provision)
		in.Account = "bob"
		_, err = apply(t.Context(), tgt, in, first)
		wantClass(t, "provision in "+option, err, want)
	}
}

func TestDiscoverListsPeopleAndNoComputers(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	made := must(t, target(d), intent(sdk.Provision), first)
	found := map[string]sdk.Facts{}
	err := connector{}.Discover(t.Context(), target(d), func(f sdk.Facts) bool {
		found[f.Account] = f
		return true
	})
	var names []string
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	if diff := cmp.Diff([]string{"Administrator", "Guest", "alice", "krbtgt", "reeve"}, names); diff != "" || err != nil {
		t.Errorf("%s, %v", diff, err)
	}
	alice := found["alice"]
	alice.ReadAt = made.Facts.ReadAt
	made.Facts.Grants = nil // groups within groups cost a search for each account
	made.Facts.Attributes["last_logon"], alice.Attributes["last_logon"] = "", ""
	if diff := cmp.Diff(made.Facts, alice); diff != "" {
		t.Error(diff)
	}
	n := 0
	_ = connector{}.Discover(t.Context(), target(d), func(sdk.Facts) bool { n++; return false })
	if n != 1 {
		t.Errorf("%d yields after the first said stop", n)
	}
}

func TestAfterARemovalThereIsNothingToGive(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	addGroup(t, d, "Leavers", "Leavers")
	in := intent(sdk.Provision)
	in.Role = sdk.Role{Name: "own", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseRemove: {"add-to-group name Leavers"}}}
	_, err := connector{}.Plan(t.Context(), tgt, in)
	wantClass(t, "a role that gives", err, sdk.ClassInvalid)
	kept := tgt
	kept.Options = maps.Clone(tgt.Options)
	kept.Options[optionQuarantine] = testlab.QuarantineOU
	if _, err := (connector{}).Plan(t.Context(), kept, in); err != nil {
		t.Errorf("where the account is kept: %v", err)
	}
	in.Role.Phases[sdk.PhaseRemove] = []string{"remove-from-group name Leavers"}
	must(t, tgt, in, first)
	in.Action = sdk.Deprovision
	for range 2 {
		must(t, tgt, in, "")
	}
}
