package directory_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity/directory"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/internal/testlab"
)

const canary = "Canary-9-ferret-umbrella"

var by = audit.Actor{Kind: "system", ID: "test"}

// added is a directory as the store keeps it.
func added(t *testing.T, d directory.Directory, password string) *directory.Directory {
	t.Helper()
	st := storetest.New(t)
	var out *directory.Directory
	err := st.Update(t.Context(), func(tx *store.Tx) (err error) {
		out, err = directory.Add(tx, by, d, reeve.SecretString(password))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func openLDAP(t *testing.T, s *testlab.OpenLDAP) *directory.Directory {
	t.Helper()
	return added(t, directory.Directory{Name: "corp", Address: s.Addr, CA: s.CAPEM, BindDN: testlab.SlapdSearcher, UserBase: testlab.SlapdPeople, UserFilter: "(uid=%Name%)"}, s.SearcherPassword)
}

// ask is the reason of a refusal; "" if there was none.
func ask(t *testing.T, d *directory.Directory, name, password string) (*directory.Answer, string) {
	t.Helper()
	a, err := directory.Ask(t.Context(), d, name, reeve.SecretString(password))
	if err == nil {
		return a, ""
	}
	r, ok := errors.AsType[*directory.Refused](err)
	if !ok {
		t.Fatalf("%s: %v", name, err)
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		if strings.Contains(e.Error(), "Canary") {
			t.Errorf("the error shows a password: %v", e)
		}
	}
	return nil, r.Reason
}

func TestOpenLDAPProvesPasswordsOverTLS(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t)
	ctx := t.Context()
	ada, err := s.AddPerson(ctx, "ada", canary)
	if err != nil {
		t.Fatal(err)
	}
	// What a name may hold that means something to a filter or a DN.
	for _, odd := range []string{"*)(uid=*", `a\2a`, "a,ou=x+b=c", "#hash", " lead", `quo"te;<>`} {
		if _, err := s.AddPerson(ctx, odd, canary); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Add(ctx, "cn=dba,"+testlab.SlapdGroups, map[string][]string{"objectClass": {"groupOfNames"}, "member": {ada}}); err != nil {
		t.Fatal(err)
	}
	for mode, d := range map[string]*directory.Directory{"LDAPS": openLDAP(t, s), "StartTLS": added(t, directory.Directory{Name: "corp", Address: s.Addr, StartTLS: true, CA: s.CAPEM,
		BindDN: testlab.SlapdSearcher, UserBase: testlab.SlapdPeople, UserFilter: "(uid=%Name%)"}, s.SearcherPassword)} {
		a, reason := ask(t, d, "ada", canary)
		if reason != "" || a.DN != ada || a.FullName != "The ada" || a.Entry == "" || a.Active || !slices.ContainsFunc(a.Groups, func(g string) bool { return directory.SameGroup(g, "CN=DBA, OU=Groups,DC=lab,DC=test") }) {
			t.Errorf("%s: %+v %s", mode, a, reason)
		}
	}
	d := openLDAP(t, s)
	for _, odd := range []string{"*)(uid=*", `a\2a`, "a,ou=x+b=c", "#hash", `quo"te;<>`} {
		if a, reason := ask(t, d, odd, canary); reason != "" || a.FullName != "The "+odd {
			t.Errorf("%q: %+v %s", odd, a, reason)
		}
	}
	for name, tt := range map[string]struct{ name, password, reason string }{
		"a wrong password":       {"ada", canary + "!", "wrong_password"},
		"an unknown name":        {"nobody", canary, "not_found"},
		"everybody":              {"*", canary, "not_found"},
		"a way out of the term":  {"ada)(|(uid=*)", canary, "not_found"},
		"a NUL":                  {"ada\x00", canary, "not_found"},
		"an escaped NUL":         {`ada\00`, canary, "not_found"},
		"a DN":                   {ada, canary, "not_found"},
		"no name":                {"", canary, "not_found"},
		"bytes that are no text": {"ada\xff", canary, "not_found"},
	} {
		if _, reason := ask(t, d, tt.name, tt.password); reason != tt.reason {
			t.Errorf("%s: %s, want %s", name, reason, tt.reason)
		}
	}
	if strings.Contains(s.Logs(), "Canary") {
		t.Error("the directory's log shows a password")
	}
}

// CVE-2017-8443 is the class: a bind with a name and no password is an anonymous success
// (RFC 4513 section 5.1.2).
func TestAnEmptyPasswordIsRefusedBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a listener of the test
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			asked <- struct{}{}
			_ = c.Close()
		}
	}()
	d := &directory.Directory{Name: "trap", Address: l.Addr().String(), BindDN: "cn=x", Password: []byte("x"), UserBase: "dc=x", UserFilter: "(uid=%Name%)"}
	if _, reason := askEmpty(d); reason != "empty_password" {
		t.Errorf("refused because of %q", reason)
	}
	_ = l.Close()
	select {
	case <-asked:
		t.Error("the directory was asked")
	default:
	}
}

func askEmpty(d *directory.Directory) (*directory.Answer, string) {
	a, err := directory.Ask(context.Background(), d, "ada", reeve.Secret{})
	r, _ := errors.AsType[*directory.Refused](err)
	return a, r.Reason
}

func TestOnlyTheDirectoryItselfIsTalkedTo(t *testing.T) {
	t.Parallel()
	s, other := testlab.Slapd(t), testlab.Slapd(t)
	if _, err := s.AddPerson(t.Context(), "ada", canary); err != nil {
		t.Fatal(err)
	}
	base := directory.Directory{Name: "corp", Address: s.Addr, CA: s.CAPEM, BindDN: testlab.SlapdSearcher, UserBase: testlab.SlapdPeople, UserFilter: "(uid=%Name%)"}
	for name, tt := range map[string]struct {
		change       func(*directory.Directory)
		password     string
		reason, code string
	}{
		"another authority":              {func(d *directory.Directory) { d.CA = other.CAPEM }, s.SearcherPassword, "untrusted", "directory_untrusted"},
		"another authority, StartTLS":    {func(d *directory.Directory) { d.CA, d.StartTLS = other.CAPEM, true }, s.SearcherPassword, "untrusted", "directory_untrusted"},
		"no TLS":                         {func(d *directory.Directory) { d.Address += ":389" }, s.SearcherPassword, "unreachable", "directory_unreachable"},
		"StartTLS where TLS is":          {func(d *directory.Directory) { d.Address += ":636"; d.StartTLS = true }, s.SearcherPassword, "unreachable", "directory_unreachable"},
		"a bind account that is refused": {func(*directory.Directory) {}, "wrong", "login_refused", "directory_login_refused"},
		"a base that is not there":       {func(d *directory.Directory) { d.UserBase = "ou=none," + testlab.SlapdDN }, s.SearcherPassword, "search_failed", "directory_search_failed"},
		"a filter that finds two":        {func(d *directory.Directory) { d.UserFilter = "(|(uid=%Name%)(objectClass=organizationalUnit))" }, s.SearcherPassword, "ambiguous", ""},
	} {
		d := base
		tt.change(&d)
		if d.Address == base.Address && d.StartTLS {
			d.Address += ":389"
		}
		in := added(t, d, tt.password)
		if _, reason := ask(t, in, "ada", canary); reason != tt.reason {
			t.Errorf("%s: %s, want %s", name, reason, tt.reason)
		}
		if _, err := directory.Look(t.Context(), in, ""); reeve.CodeOf(err) != tt.code {
			t.Errorf("%s: the test says %v, want %s", name, err, tt.code)
		}
	}
	if a, err := directory.Look(t.Context(), openLDAP(t, s), "ada"); err != nil || a.FullName != "The ada" {
		t.Errorf("%+v %v", a, err)
	}
	if _, err := directory.Look(t.Context(), openLDAP(t, s), "bob"); reeve.CodeOf(err) != "directory_user_not_found" {
		t.Error(err)
	}
}

func TestADirectoryThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t)
	d := openLDAP(t, s)
	if err := s.Hang(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, reason := ask(t, d, "ada", canary); reason != "unreachable" {
		t.Error(reason)
	}
	if took := time.Since(began); took < directory.Patience-time.Second || took > 2*directory.Patience {
		t.Errorf("it took %s", took)
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if _, reason := ask(t, d, "ada", canary); reason != "not_found" {
		t.Errorf("when it is back: %s", reason)
	}
}

func TestActiveDirectorySaysWhyAndKnowsGroupsInGroups(t *testing.T) {
	t.Parallel()
	dc := testlab.SambaAD(t, testlab.SambaOptions{})
	ctx := t.Context()
	d := added(t, directory.Directory{Name: "ad", Address: dc.Addr, CA: dc.CAPEM, BindDN: "CN=" + testlab.Management + ",CN=Users," + testlab.DomainDN, UserBase: testlab.DomainDN}, dc.ManagementPassword)
	for name, change := range map[string]map[string][]string{
		"ada": nil, "off": {"userAccountControl": {"514"}}, "old": {"accountExpires": {testlab.FileTime(time.Now().Add(-time.Hour))}}, "stale": {"pwdLastSet": {"0"}}, "locked": nil,
	} {
		if err := dc.AddAccount(ctx, name, canary); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			if err := dc.Replace(ctx, "CN="+name+","+testlab.AccountsOU, change); err != nil {
				t.Fatal(err)
			}
		}
	}
	inner, outer := `CN=DBA\, inner (x)*,`+testlab.GroupsOU, "CN=Everything,"+testlab.GroupsOU
	if err := dc.Add(ctx, inner, map[string][]string{"objectClass": {"group"}, "sAMAccountName": {"dba"}, "member": {"CN=ada," + testlab.AccountsOU}}); err != nil {
		t.Fatal(err)
	}
	if err := dc.Add(ctx, outer, map[string][]string{"objectClass": {"group"}, "sAMAccountName": {"everything"}, "member": {inner}}); err != nil {
		t.Fatal(err)
	}
	a, reason := ask(t, d, "ADA", canary)
	if reason != "" || !a.Active || len(a.Entry) != 32 || len(a.Groups) != 2 {
		t.Fatalf("%+v %s", a, reason)
	}
	for _, g := range []string{inner, strings.ToLower(outer)} {
		if !slices.ContainsFunc(a.Groups, func(has string) bool { return directory.SameGroup(has, g) }) {
			t.Errorf("%s is missing in %q", g, a.Groups)
		}
	}
	for range 5 {
		_, _ = ask(t, d, "locked", "wrong")
	}
	for name, want := range map[string]string{"off": "disabled", "old": "expired", "stale": "must_change", "locked": "locked", "nobody": "not_found", "a*": "not_found"} {
		if _, reason := ask(t, d, name, canary); reason != want {
			t.Errorf("%s: %s, want %s", name, reason, want)
		}
	}
	if _, reason := ask(t, d, "off", "wrong"); reason != "wrong_password" {
		t.Errorf("a disabled account and a wrong password: %s", reason)
	}
}

func TestADirectoryThatCannotWorkIsRefused(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	good := directory.Directory{Name: "corp", Address: "ldap.example.com", CA: ca, BindDN: "cn=x,dc=y", UserBase: "dc=y"}
	for what, change := range map[string]func(*directory.Directory){
		"a URL":                   func(d *directory.Directory) { d.Address = "ldap://ldap.example.com" },
		"no authority":            func(d *directory.Directory) { d.CA = "" },
		"no bind account":         func(d *directory.Directory) { d.BindDN = "" },
		"a name as bind account":  func(d *directory.Directory) { d.BindDN = "administrator" },
		"no base":                 func(d *directory.Directory) { d.UserBase = "" },
		"a filter for everybody":  func(d *directory.Directory) { d.UserFilter = "(uid=*)" },
		"a filter that is broken": func(d *directory.Directory) { d.UserFilter = "(uid=%Name%" },
		"an odd attribute":        func(d *directory.Directory) { d.GroupAttribute = "member of" },
	} {
		d := good
		change(&d)
		err := s.Update(t.Context(), func(tx *store.Tx) error { _, err := directory.Add(tx, by, d, reeve.SecretString("x")); return err })
		if reeve.CodeOf(err) != "directory_invalid" {
			t.Errorf("%s: %v", what, err)
		}
	}
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		if _, err := directory.Add(tx, by, good, reeve.Secret{}); reeve.CodeOf(err) != "directory_invalid" {
			t.Errorf("an empty password: %v", err)
		}
		if _, err := directory.Add(tx, by, good, reeve.SecretString("x")); err != nil {
			return err
		}
		_, err := directory.Add(tx, by, good, reeve.SecretString("x"))
		return err
	})
	if reeve.CodeOf(err) != "directory_name_taken" {
		t.Errorf("a name twice: %v", err)
	}
}
