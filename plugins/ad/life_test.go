package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

func TestAccountLivesFromProvisionToDeprovision(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	helpdesk := addGroup(t, d, "helpdesk", "helpdesk")

	in := intent(sdk.Provision)
	in.ExpiresAt = time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
	in.Role, in.Params = role(t, "ad-helpdesk"), map[string]string{"Group": "helpdesk"}
	made := must(t, tgt, in, first)
	if f := made.Facts; !made.Changed || !f.Exists || f.Locked || !f.HasPassword || !f.ExpiresAt.Equal(in.ExpiresAt) ||
		!slices.Equal(f.Groups, []string{"CN=Domain Users,CN=Users," + testlab.DomainDN, helpdesk}) || f.Attributes["comment"] != in.Comment {
		t.Errorf("provision: %+v", made)
	}
	e := entry(t, d, "alice")
	for name, want := range map[string]string{
		"userAccountControl": "512", "userPrincipalName": "alice@lab.test", "memberOf": helpdesk,
		"accountExpires": testlab.FileTime(in.ExpiresAt), "distinguishedName": "CN=alice," + testlab.AccountsOU,
	} {
		if got := e.GetAttributeValue(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if marks := e.GetAttributeValues("extensionName"); len(marks) != 2 || !slices.Contains(marks, "reeve:acct_1") {
		t.Errorf("marks %q", marks)
	}
	wantLogin(t, d, "alice", first, true)
	if again := must(t, tgt, in, first); again.Changed || again.Facts.Identity != made.Facts.Identity {
		t.Errorf("provision again: changed %t, identity %s, before %s", again.Changed, again.Facts.Identity, made.Facts.Identity)
	}
	in.ExpiresAt = time.Time{}
	if r := must(t, tgt, in, first); !r.Changed || !r.Facts.ExpiresAt.IsZero() {
		t.Errorf("without expiry: %+v", r)
	}

	in = intent(sdk.Rotate)
	in.Identity = made.Facts.Identity
	r := must(t, tgt, in, second)
	if !r.Facts.PasswordChangedAt.After(made.Facts.PasswordChangedAt) {
		t.Errorf("the password was set at %s, and before at %s", r.Facts.PasswordChangedAt, made.Facts.PasswordChangedAt)
	}
	wantLogin(t, d, "alice", first, false)
	wantLogin(t, d, "alice", second, true)

	in.Action = sdk.Disable
	if r := must(t, tgt, in, ""); !r.Facts.Locked || !r.Changed {
		t.Error("disabled and not locked")
	}
	wantLogin(t, d, "alice", second, false)
	if r := must(t, tgt, in, ""); r.Changed {
		t.Error("disabling again changed something")
	}
	in.Action = sdk.Enable
	must(t, tgt, in, "")
	wantLogin(t, d, "alice", second, true)

	in.Action = sdk.Deprovision
	must(t, tgt, in, "")
	if e := entry(t, d, "alice"); e != nil {
		t.Errorf("after deprovision: %s", e.DN)
	}
	if r := must(t, tgt, in, ""); r.Changed || r.Facts.Exists {
		t.Errorf("deprovision again: %+v", r)
	}
	for _, action := range []sdk.Action{sdk.Rotate, sdk.Disable, sdk.Enable} {
		in.Action = action
		_, err := apply(t.Context(), tgt, in, second)
		wantClass(t, string(action)+" of an absent account", err, sdk.ClassNotFound)
	}
	if strings.Contains(d.Logs(), canary) {
		t.Error("a password is in the server's log")
	}
}

func TestPasswordBeforeTheLastIsDeadAtOnce_C11(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{Config: []string{"old password allowed period = 60"}}) // as in every domain
	tgt := target(d)
	must(t, tgt, intent(sdk.Provision), first)
	must(t, tgt, intent(sdk.Rotate), second)
	wantLogin(t, d, "alice", first, false)
	wantLogin(t, d, "alice", second, true)
	// A single reset, as others do it, leaves the one before it valid; else the test above proves nothing.
	if err := d.SetPassword(t.Context(), "alice", "Third-98765"); err != nil {
		t.Fatal(err)
	}
	wantLogin(t, d, "alice", second, true)
}

func TestOtherBitsOfUserAccountControlStay(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	in := intent(sdk.Provision)
	in.Identity = must(t, tgt, in, first).Facts.Identity
	const kept = 0x200 | 0x10000 | 0x100000
	set(t, d, entry(t, d, "alice").DN, "userAccountControl", strconv.Itoa(kept))
	for _, c := range []struct {
		action sdk.Action
		want   int
	}{{sdk.Disable, kept | 2}, {sdk.Rotate, kept | 2}, {sdk.Enable, kept}, {sdk.Provision, kept}} {
		in.Action = c.action
		password := ""
		if c.action == sdk.Rotate || c.action == sdk.Provision {
			password = second
		}
		must(t, tgt, in, password)
		if got := entry(t, d, "alice").GetAttributeValue("userAccountControl"); got != strconv.Itoa(c.want) {
			t.Errorf("after %s: %s, want %d", c.action, got, c.want)
		}
	}
}

func TestLockoutIsLiftedByRotateAndEnable(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	must(t, tgt, intent(sdk.Provision), first)
	for action, password := range map[sdk.Action]string{sdk.Enable: "", sdk.Rotate: first} {
		for range 6 {
			wantLogin(t, d, "alice", "wrong", false)
		}
		f, err := connector{}.Inspect(t.Context(), tgt, "alice")
		if err != nil || !f.Locked || f.Attributes["locked_out"] != "yes" || f.Attributes["disabled"] != "" {
			t.Errorf("before %s: %+v, %v", action, f, err)
		}
		if r := must(t, tgt, intent(action), password); r.Facts.Locked || !r.Changed {
			t.Errorf("%s: %+v", action, r)
		}
		wantLogin(t, d, "alice", first, true)
	}
}

func TestSomebodyElsesAccountIsNotTouched(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	if err := d.AddAccount(t.Context(), "alice", "Theirs-1234"); err != nil {
		t.Fatal(err)
	}
	before, err := snapshot(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	for _, action := range []sdk.Action{sdk.Provision, sdk.Rotate, sdk.Disable, sdk.Enable, sdk.Deprovision} {
		for _, identity := range []string{"", "01234567-89ab-cdef-0123-456789abcdef"} {
			in := intent(action)
			in.Identity = identity
			_, err := apply(t.Context(), tgt, in, first)
			wantClass(t, string(action), err, sdk.ClassExists)
		}
	}
	if after, err := snapshot(t.Context(), d); err != nil || after != before {
		t.Errorf("changed, or: %v", err)
	}

	// An account made anew under the same name is another one.
	in := intent(sdk.Provision)
	in.Account = "bob"
	in.Identity = must(t, tgt, in, first).Facts.Identity
	if err := d.Delete(t.Context(), entry(t, d, "bob").DN); err != nil {
		t.Fatal(err)
	}
	if err := d.AddAccount(t.Context(), "bob", "Theirs-1234"); err != nil {
		t.Fatal(err)
	}
	in.Action = sdk.Deprovision
	_, err = apply(t.Context(), tgt, in, "")
	wantClass(t, "deprovision of an account made anew", err, sdk.ClassExists)

	// One that was adopted by its identity is worked on, also when it is moved and has a name that needs escapes.
	f, err := connector{}.Inspect(t.Context(), tgt, "alice")
	if err != nil {
		t.Fatal(err)
	}
	e := entry(t, d, "alice")
	conn, err := d.AsAdministrator(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.ModifyDN(newName(e.DN, `O'Brien, "Al" <y>#+=;\ é`, testlab.QuarantineOU)); err != nil {
		t.Fatal(err)
	}
	in = intent(sdk.Rotate)
	in.Identity = f.Identity
	must(t, tgt, in, second)
	wantLogin(t, d, "alice", second, true)
	in.Action = sdk.Deprovision
	must(t, tgt, in, "")
}

func TestNamesThatAreTakenByOtherObjects(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	ctx := t.Context()
	for dn, attributes := range map[string]map[string][]string{
		"CN=alice," + testlab.AccountsOU: {"objectClass": {"user"}, "sAMAccountName": {"other"}},
		"CN=x," + testlab.AccountsOU:     {"objectClass": {"user"}, "sAMAccountName": {"y"}, "userPrincipalName": {"bob@lab.test"}},
		"CN=z," + testlab.AccountsOU:     {"objectClass": {"group"}, "sAMAccountName": {"carol"}},
	} {
		if dn[3] == 'z' {
			dn = "CN=z," + testlab.GroupsOU
		}
		if err := d.Add(ctx, dn, attributes); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"alice", "bob", "carol"} {
		in := intent(sdk.Provision)
		in.Account = name
		_, err := apply(ctx, target(d), in, first)
		wantClass(t, name, err, sdk.ClassExists)
	}
}

func TestRemovedAccountsAreKeptInQuarantine(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{Config: []string{"old password allowed period = 60"}})
	tgt := target(d)
	tgt.Options[optionQuarantine] = testlab.QuarantineOU
	helpdesk := addGroup(t, d, "helpdesk", "helpdesk")
	foreign := "CN=foreign,CN=Users," + testlab.DomainDN // whose members the management account may not change
	if err := d.Add(t.Context(), foreign, map[string][]string{"objectClass": {"group"}, "sAMAccountName": {"foreign"}}); err != nil {
		t.Fatal(err)
	}
	in := intent(sdk.Provision)
	made := must(t, tgt, in, first)
	set(t, d, helpdesk, "member", "CN=alice,"+testlab.AccountsOU)
	set(t, d, foreign, "member", "CN=alice,"+testlab.AccountsOU)

	in.Action = sdk.Deprovision
	r := must(t, tgt, in, "")
	if r.Facts.Exists || !r.Changed || len(r.Residue) != 1 || !strings.Contains(r.Residue[0], foreign) {
		t.Errorf("deprovision: %+v", r)
	}
	kept, err := d.Find(t.Context(), "(extensionName=reeve:acct_1)")
	if err != nil || kept == nil {
		t.Fatalf("it is not kept: %v", err)
	}
	if kept.GetAttributeValue("userAccountControl") != "514" || !strings.HasSuffix(kept.DN, ","+testlab.QuarantineOU) ||
		kept.GetAttributeValue("cn") != "alice "+made.Facts.Identity || kept.GetAttributeValue("userPrincipalName") != "" ||
		slices.Contains(kept.GetAttributeValues("memberOf"), helpdesk) {
		t.Errorf("kept: %s %v", kept.DN, kept.Attributes)
	}
	// Nobody can log in to it, even if it is enabled by somebody.
	set(t, d, kept.DN, "userAccountControl", "512")
	wantLogin(t, d, kept.GetAttributeValue("sAMAccountName"), first, false)
	if r := must(t, tgt, in, ""); r.Changed {
		t.Error("deprovision again changed something")
	}
	// The name is free again.
	in.Action, in.AccountID = sdk.Provision, "acct_2"
	if again := must(t, tgt, in, first); again.Facts.Identity == made.Facts.Identity {
		t.Error("the account came back")
	}
	// A removal that ended between moving and renaming is finished by the next one.
	conn, err := d.AsAdministrator(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.ModifyDN(newName(entry(t, d, "alice").DN, "alice", testlab.QuarantineOU)); err != nil {
		t.Fatal(err)
	}
	in.Action = sdk.Deprovision
	if r := must(t, tgt, in, ""); !r.Changed || entry(t, d, "alice") != nil {
		t.Errorf("deprovision of one that was moved: %+v", r)
	}
	if f, err := (connector{}).Probe(t.Context(), tgt); err != nil || len(f.MissingRights) != 0 {
		t.Errorf("probe: %q, %v", f.MissingRights, err)
	}
}

func TestStartTLSWorksAsLDAPS(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	tgt.Port, tgt.Options[optionStartTLS] = 389, "yes"
	must(t, tgt, intent(sdk.Provision), first)
	wantLogin(t, d, "alice", first, true)
	wantVerdict(t, tgt, "alice", first, sdk.VerdictOK)
	wantVerdict(t, tgt, "alice", second, sdk.VerdictBadCredential)
	tgt.Trust.CAPEM = otherAuthority
	_, err := connector{}.Probe(t.Context(), tgt)
	wantClass(t, "another authority", err, sdk.ClassHostKeyChanged)
	tgt.Trust = sdk.Trust{}
	_, err = connector{}.Probe(t.Context(), tgt)
	wantClass(t, "no authority", err, sdk.ClassHostKeyUnknown)

	tgt = target(d)
	tgt.Options[optionStartTLS] = "yes"
	_, err = connector{}.Probe(t.Context(), tgt)
	wantClass(t, "StartTLS on port 636", err, sdk.ClassInvalid)
	tgt.Port, tgt.Options[optionStartTLS] = 389, "no"
	_, err = connector{}.Probe(t.Context(), tgt)
	if c := sdk.ClassOf(err); c != sdk.ClassUnreachable && c != sdk.ClassProtocol {
		t.Errorf("LDAPS on port 389: %v", err)
	}
}

func TestUserPrincipalNamesMayHaveAnotherSuffix(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	tgt.Options[optionSuffix] = "people.example"
	must(t, tgt, intent(sdk.Provision), first)
	if got := entry(t, d, "alice").GetAttributeValue("userPrincipalName"); got != "alice@people.example" {
		t.Errorf("userPrincipalName %q", got)
	}
	for _, name := range []string{"alice", "alice@people.example", `LAB\alice`, "CN=alice," + testlab.AccountsOU} {
		wantVerdict(t, tgt, name, first, sdk.VerdictOK)
	}
}

func TestManagementAccountDoesNotTakeAwayItself(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	for _, action := range []sdk.Action{sdk.Disable, sdk.Deprovision} {
		in := intent(action)
		in.Account = "Reeve"
		for _, as := range []string{"reeve", `LAB\reeve`, "reeve@lab.test"} {
			tgt.Management.Username = as
			_, err := apply(t.Context(), tgt, in, "")
			wantClass(t, fmt.Sprint(action, " as ", as), err, sdk.ClassInvalid)
		}
		e := entry(t, d, "reeve")
		tgt.Management.Username = e.DN
		f, err := connector{}.Inspect(t.Context(), tgt, "reeve")
		if err != nil {
			t.Fatal(err)
		}
		in.Identity = f.Identity
		_, err = apply(t.Context(), tgt, in, "")
		wantClass(t, fmt.Sprint(action, " as ", e.DN), err, sdk.ClassInvalid)
	}
	wantLogin(t, d, "reeve", d.ManagementPassword, true)
}
