package main

import (
	"crypto/rand"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// weak is an account of the domain that nobody gave anything, as management account.
func weak(t *testing.T, d *testlab.DomainController) sdk.Target {
	t.Helper()
	const password = "Weak-12345"
	if err := d.Add(t.Context(), "CN=weak,CN=Users,"+testlab.DomainDN, map[string][]string{
		"objectClass": {"user"}, "sAMAccountName": {"weak"}, "unicodePwd": {testlab.UnicodePassword(password)}, "userAccountControl": {"512"},
	}); err != nil {
		t.Fatal(err)
	}
	tgt := target(d)
	tgt.Management = sdk.Credential{Username: "weak", Password: secret(password)}
	return tgt
}

// lacking is what CheckRights says is missing.
func lacking(t *testing.T, tgt sdk.Target, r sdk.Role, params map[string]string) []sdk.Right {
	t.Helper()
	all, err := connector{}.CheckRights(t.Context(), tgt, r, params)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Error("no right is needed")
	}
	for _, right := range all {
		if right.Name == "" || right.Reason == "" || right.Held != (right.Grant == "") {
			t.Errorf("%+v", right)
		}
	}
	return slices.DeleteFunc(all, func(r sdk.Right) bool { return r.Held })
}

// TestEachRightThatIsSaidToBeMissingIsAndItsCommandGivesIt gives an account that has nothing what CheckRights prints, then
// takes each right away again: that one is missing, something does not work, and the command gives it back.
func TestEachRightThatIsSaidToBeMissingIsAndItsCommandGivesIt(t *testing.T) {
	t.Parallel()
	for name, quarantine := range map[string]string{"delete": "", "quarantine": testlab.QuarantineOU} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := testlab.SambaAD(t, testlab.SambaOptions{})
			tgt := weak(t, d)
			tgt.Options[optionQuarantine] = quarantine
			addGroup(t, d, `help "desk" $x`, "helpdesk")
			r, params := role(t, "ad-service-account"), map[string]string{"DenyLogonGroup": "helpdesk", "SPN": "HTTP/web.lab.test"}
			in := intent(sdk.Provision)
			in.Role, in.Params = r, params
			// life is all that can be done with an account.
			life := func() error {
				in.Comment, in.ExpiresAt = "first", time.Time{}
				for i, step := range []struct {
					action   sdk.Action
					password string
				}{{sdk.Provision, first}, {sdk.Provision, second}, {sdk.Rotate, first}, {sdk.Disable, ""}, {sdk.Enable, ""}, {sdk.Deprovision, ""},
					{sdk.Provision, first}, {sdk.Disable, ""}, {sdk.Deprovision, ""}} {
					in.Action = step.action
					e := entry(t, d, "alice")
					switch {
					case step.action == sdk.Rotate:
						for range 5 {
							wantLogin(t, d, "alice", "wrong", false)
						}
					case i == 8 && quarantine != "":
						// A removal that ended between moving and renaming is finished by the next one.
						conn, err := d.AsAdministrator(t.Context())
						if err != nil {
							return err
						}
						defer func() { _ = conn.Close() }()
						set(t, d, e.DN, "servicePrincipalName")
						if err := conn.ModifyDN(newName(e.DN, rand.Text(), quarantine)); err != nil {
							return err
						}
					}
					if _, err := apply(t.Context(), tgt, in, step.password); err != nil {
						return err
					}
					in.Comment, in.ExpiresAt = "changed", time.Now().Add(time.Hour)
				}
				return nil
			}
			missing := lacking(t, tgt, r, params)
			given := map[string]ace{}
			for i, right := range missing {
				if err := d.Command(t.Context(), right.Grant); err != nil {
					t.Fatal(err)
				}
				if left := lacking(t, tgt, r, params); len(left) != len(missing)-i-1 {
					t.Errorf("after %q are still missing: %+v", right.Grant, left)
				}
				given[right.Name] = accessList(t, d, objectOf(right))[0] // the command puts it first
			}
			if err := life(); err != nil {
				t.Errorf("with every right: %v", err)
			}
			for _, right := range missing {
				takeAway(t, d, objectOf(right), given[right.Name])
				if left := lacking(t, tgt, r, params); len(left) != 1 || left[0] != right {
					t.Errorf("without %q is missing: %+v", right.Name, left)
				}
				if err := life(); err == nil {
					t.Errorf("everything works without %q", right.Name)
				}
				if e := entry(t, d, "alice"); e != nil { // what it could not remove
					if err := d.Delete(t.Context(), e.DN); err != nil {
						t.Fatal(err)
					}
				}
				if err := d.Command(t.Context(), right.Grant); err != nil {
					t.Fatal(err)
				}
			}
			if err := life(); err != nil {
				t.Errorf("with every right: %v", err)
			}
			if f, err := (connector{}).Probe(t.Context(), tgt); err != nil || len(f.MissingRights) != 0 {
				t.Errorf("probe: %q, %v", f.MissingRights, err)
			}
		})
	}
}

// objectOf is the object that a printed command is about.
func objectOf(r sdk.Right) string {
	_, dn, _ := strings.Cut(r.Grant, `--objectdn="`)
	dn, _, _ = strings.Cut(dn, `"`)
	return dn
}

const descriptorControl = "1.2.840.113556.1.4.801"

func descriptor(t *testing.T, d *testlab.DomainController, dn string) []byte {
	t.Helper()
	conn, err := d.AsAdministrator(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	r, err := conn.Search(ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)",
		[]string{"nTSecurityDescriptor"}, []ldap.Control{ldap.NewControlString(descriptorControl, true, "\x30\x03\x02\x01\x04")}))
	if err != nil {
		t.Fatal(err)
	}
	return r.Entries[0].GetRawAttributeValue("nTSecurityDescriptor")
}

func accessList(t *testing.T, d *testlab.DomainController, dn string) acl {
	t.Helper()
	l, err := aclOf(descriptor(t, d, dn))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// takeAway takes an entry out of an object's access list, as the administrator.
func takeAway(t *testing.T, d *testlab.DomainController, dn string, e ace) {
	t.Helper()
	raw := descriptor(t, d, dn)
	list := raw[binary.LittleEndian.Uint32(raw[16:]):]
	count := binary.LittleEndian.Uint16(list[4:])
	kept, n := slices.Clone(list[:8]), uint16(0)
	rest := list[8:]
	for range count {
		size := binary.LittleEndian.Uint16(rest[2:])
		if got, _, err := aceOf(rest[:size]); err != nil || got != e {
			kept = append(kept, rest[:size]...)
			n++
		}
		rest = rest[size:]
	}
	if n != count-1 {
		t.Fatalf("%d of %d entries are like %+v", count-n, count, e)
	}
	binary.LittleEndian.PutUint16(kept[2:], uint16(len(kept)))
	binary.LittleEndian.PutUint16(kept[4:], n)
	whole := slices.Concat([]byte{1, 0, raw[2], raw[3]}, make([]byte, 12), []byte{20, 0, 0, 0}, kept)
	conn, err := d.AsAdministrator(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	m := ldap.NewModifyRequest(dn, []ldap.Control{ldap.NewControlString(descriptorControl, true, "\x30\x03\x02\x01\x04")})
	m.Replace("nTSecurityDescriptor", []string{string(whole)})
	if err := conn.Modify(m); err != nil {
		t.Fatal(err)
	}
}

func TestAdministratorLacksNothing(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := asAdministrator(d)
	tgt.Options[optionQuarantine] = testlab.QuarantineOU
	for _, name := range []string{"ad-domain-admin", "ad-service-account"} {
		if left := lacking(t, tgt, role(t, name), map[string]string{"SPN": "HTTP/x", "DenyLogonGroup": "Domain Users"}); len(left) != 0 {
			t.Errorf("%s: %+v", name, left)
		}
	}
	// What account operators may do comes with the class of accounts.
	tgt.Management = weak(t, d).Management
	set(t, d, "CN=Account Operators,CN=Builtin,"+testlab.DomainDN, "member", "CN=weak,CN=Users,"+testlab.DomainDN)
	for _, right := range lacking(t, tgt, role(t, "ad-domain-user"), nil) {
		if !strings.Contains(right.Name, testlab.QuarantineOU) {
			t.Errorf("an account operator lacks %q", right.Name)
		}
	}
}

func TestProtectedGroupsNeedRightsOnWhatProtectsThem(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	r := role(t, "ad-domain-admin")
	const holder = "CN=AdminSDHolder,CN=System," + testlab.DomainDN
	missing := lacking(t, tgt, r, nil)
	var names []string
	for _, right := range missing {
		names = append(names, right.Name)
		if err := d.Command(t.Context(), right.Grant); err != nil {
			t.Error(err)
		}
	}
	want := []string{"write member of CN=Domain Admins,CN=Users," + testlab.DomainDN, "write member of " + holder, "reset passwords of " + holder}
	for _, a := range written {
		want = append(want, "write "+a.attribute+" of "+holder)
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	if left := lacking(t, tgt, r, nil); len(left) != 0 {
		t.Errorf("still missing: %+v", left)
	}
	in := intent(sdk.Provision)
	in.Role = r
	must(t, tgt, in, first)
}

func TestAccessListThatMayNotBeReadIsSaid(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := weak(t, d)
	sid := entry(t, d, "weak").GetRawAttributeValue("objectSid")
	who, err := sidString(sid)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Command(t.Context(), `samba-tool dsacl set --action=deny --objectdn="`+testlab.AccountsOU+`" --sddl="(D;;RC;;;`+who+`)"`); err != nil {
		t.Fatal(err)
	}
	said := func() (hidden int, read sdk.Right) {
		for _, right := range lacking(t, tgt, sdk.Role{}, nil) {
			if strings.Contains(right.Reason, "cannot be known") {
				hidden++
			}
			if strings.HasPrefix(right.Name, "read the access list") {
				read = right
			}
		}
		return hidden, read
	}
	hidden, read := said()
	if hidden < 5 || read.Grant == "" {
		t.Errorf("%d rights cannot be known, %+v", hidden, read)
	}
	if f, err := (connector{}).Probe(t.Context(), tgt); err != nil || len(f.MissingRights) != 1 { // what the server itself says
		t.Errorf("probe: %q, %v", f.MissingRights, err)
	}
	if err := d.Command(t.Context(), read.Grant); err != nil {
		t.Fatal(err)
	}
	if hidden, read = said(); hidden != 0 || read.Name != "" {
		t.Errorf("after %q: %d rights cannot be known", read.Grant, hidden)
	}
}

// TestCommandsForWindows reads what is printed for a domain controller of Windows; nobody has run it there.
func TestCommandsForWindows(t *testing.T) {
	t.Parallel()
	k := rightsCheck{session: &session{root: ldap.NewEntry("", nil)}, who: trustee{"S-1-5-21-1-2-3-1104", "reeve@lab.test"}}
	for want, p := range map[string]permit{
		`dsacls "OU=R\26D,DC=lab,DC=test" /I:T /G "reeve@lab.test:CC;user"`: {inherit: "CI", rights: "CC", object: "user", guid: "g"},
		`dsacls "OU=R\26D,DC=lab,DC=test" /I:S /G "reeve@lab.test:CA;Reset Password;user"`: {
			inherit: "CIIO", rights: "CR", object: "Reset Password", guid: "g", class: "user", classGUID: "c",
		},
		`dsacls "OU=R\26D,DC=lab,DC=test" /I:S /G "reeve@lab.test:RP;;user"`: {inherit: "CIIO", rights: "RP", class: "user", classGUID: "c"},
		`dsacls "OU=R\26D,DC=lab,DC=test" /G "reeve@lab.test:RPWP;member"`:   {rights: "RPWP", object: "member", guid: "g"},
		`dsacls "OU=R\26D,DC=lab,DC=test" /G "reeve@lab.test:RC"`:            {rights: "RC"},
	} {
		if got := k.grant("OU=R&D,DC=lab,DC=test", p); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	for dn, want := range map[string]string{
		`CN=a\"b$(x)%P%` + "`" + `,DC=t`: `CN=a\22b\24\28x\29\25P\25\60,DC=t`, `CN=O'Brien\, A,OU=x+OU=y,DC=t`: `CN=O\27Brien\2C A,OU=x+OU=y,DC=t`,
		"no name": "",
	} {
		if got := plainDN(dn); got != want {
			t.Errorf("%s: %s, want %s", dn, got, want)
		}
	}
}
