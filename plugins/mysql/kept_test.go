package main

import (
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/idle"
)

// Operations of one management account share connections for the length of a burst; who
// brings another password does not get them, the lock on an account does not outlast its
// operation, and what proves a password always logs in anew.
func TestConnectionsAreKeptForOneAccountAndItsPassword_K1(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	tgt := target(d)
	c := connector{kept: idle.New((*session).end)}
	connects := func(user string) int {
		logs, err := d.Logs()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(logs, "Connect\t"+user+"@")
	}
	in := intent(sdk.Provision)
	in.Role, in.Params = role(t, "mysql-db-rw"), map[string]string{"Database": "app"}
	plan, err := c.Plan(t.Context(), tgt, in)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds everything done
		if _, err := c.Apply(t.Context(), tgt, sdk.Change{Intent: in, Plan: plan, Password: secret(first)}, func(sdk.Event) {}); err != nil {
			t.Fatal(err)
		}
		var free bool
		if err := d.Root().QueryRow("SELECT IS_FREE_LOCK('reeve alice')").Scan(&free); err != nil || !free {
			t.Fatalf("the lock is free: %v, %v", free, err)
		}
	}
	for range 3 {
		if f, err := c.Inspect(t.Context(), tgt, "alice"); err != nil || !f.Exists {
			t.Fatalf("%+v, %v", f, err)
		}
	}
	if n := connects(testlab.Management); n != 1 {
		t.Errorf("operations one after the other made %d logins", n)
	}
	wrong := tgt
	wrong.Management.Password = secret("not-" + d.ManagementPassword)
	if _, err := c.Inspect(t.Context(), wrong, "alice"); sdk.ClassOf(err) != sdk.ClassAuthFailed {
		t.Errorf("another password: %v", err)
	}
	for n := range 2 {
		v, err := c.Verify(t.Context(), tgt, sdk.Credential{Username: "alice", Password: secret(first)})
		if err != nil || v.Kind != sdk.VerdictOK {
			t.Fatalf("%+v, %v", v, err)
		}
		if got := connects("alice"); got != n+1 {
			t.Errorf("%d proofs made %d logins", n+1, got)
		}
	}
}

// A kept connection that died is replaced before anything is sent over it.
func TestKeptConnectionThatDiedIsReplaced(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	c := connector{kept: idle.New((*session).end)}
	if _, err := c.Inspect(t.Context(), target(d), "alice"); err != nil {
		t.Fatal(err)
	}
	d.Crash()
	if err := d.Restart(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Inspect(t.Context(), target(d), "alice"); err != nil {
		t.Error(err)
	}
}
