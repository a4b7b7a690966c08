//go:build linux

package testlab_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/internal/testlab"
)

func wantRefused(t *testing.T, err error, data string) {
	t.Helper()
	if !errors.Is(err, testlab.ErrRefused) || !strings.HasSuffix(err.Error(), "data "+data) {
		t.Errorf("login: %v, want ErrRefused with data %s", err, data)
	}
}

func TestSambaSaysWhyItRefusesALogin(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	if err := d.Login(ctx, testlab.Management, d.ManagementPassword); err != nil {
		t.Errorf("management account: %v", err)
	}
	wantRefused(t, d.Login(ctx, testlab.Management, "wrong"), "52e")
	if err := d.AddAccount(ctx, "alice", "Alice-12345"); err != nil {
		t.Fatal(err)
	}
	if err := d.Login(ctx, "alice", "Alice-12345"); err != nil {
		t.Errorf("alice: %v", err)
	}
	a, err := d.Account(ctx, "alice")
	if err != nil || a == nil || a.GetAttributeValue("userAccountControl") != "512" {
		t.Fatalf("account %v, %v", a, err)
	}
	for data, change := range map[string][2]string{
		"533": {"userAccountControl", "514"},
		"701": {"accountExpires", testlab.FileTime(time.Now().Add(-time.Hour))},
		"773": {"pwdLastSet", "0"},
	} {
		before := a.GetAttributeValue(change[0])
		if change[0] == "pwdLastSet" {
			before = "-1"
		}
		if err := d.Replace(ctx, a.DN, map[string][]string{change[0]: {change[1]}}); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, d.Login(ctx, "alice", "Alice-12345"), data)
		if err := d.Replace(ctx, a.DN, map[string][]string{change[0]: {before}}); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		wantRefused(t, d.Login(ctx, "alice", "wrong"), "52e")
	}
	wantRefused(t, d.Login(ctx, "alice", "Alice-12345"), "775")
	if absent, err := d.Account(ctx, "nobody"); absent != nil || err != nil {
		t.Errorf("an account that is not there: %v, %v", absent, err)
	}
}

func TestSambaManagementAccountMayManageItsUnitOnly(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	conn, err := d.As(t.Context(), testlab.Management, d.ManagementPassword)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	add := func(parent string) error {
		r := ldap.NewAddRequest("CN=bob,"+parent, nil)
		r.Attribute("objectClass", []string{"user"})
		r.Attribute("sAMAccountName", []string{"bob"})
		r.Attribute("userAccountControl", []string{"514"})
		return conn.Add(r)
	}
	if err := add("CN=Users," + testlab.DomainDN); !ldap.IsErrorWithCode(err, ldap.LDAPResultInsufficientAccessRights) {
		t.Errorf("add elsewhere: %v, want insufficient rights", err)
	}
	if err := add(testlab.AccountsOU); err != nil {
		t.Fatalf("add in its unit: %v", err)
	}
	reset := func(dn string) error {
		m := ldap.NewModifyRequest(dn, nil)
		m.Replace("unicodePwd", []string{testlab.UnicodePassword("Bob-1234567")})
		return conn.Modify(m)
	}
	if err := reset("CN=bob," + testlab.AccountsOU); err != nil {
		t.Errorf("reset in its unit: %v", err)
	}
	if err := reset("CN=Administrator,CN=Users," + testlab.DomainDN); !ldap.IsErrorWithCode(err, ldap.LDAPResultInsufficientAccessRights) {
		t.Errorf("reset of the administrator: %v, want insufficient rights", err)
	}
}

func TestSambaFaults(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	if err := d.Hang(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := d.Login(short, testlab.Management, d.ManagementPassword); err == nil || errors.Is(err, testlab.ErrRefused) {
		t.Errorf("login on a hung server: %v", err)
	}
	if err := d.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := d.AddAccount(ctx, "bob", "Bob-1234567"); err != nil {
		t.Errorf("after Resume: %v", err)
	}
	d.Crash()
	if err := d.Login(ctx, testlab.Management, d.ManagementPassword); err == nil {
		t.Error("a crashed server answers")
	}
	if err := d.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := d.Login(ctx, "bob", "Bob-1234567"); err != nil {
		t.Errorf("account made before the crash: %v", err)
	}
}
