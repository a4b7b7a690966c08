package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

// canary is in every password of these tests.
const canary = "Canary-41cf"

const first, second = canary + `-1 '"\$%;--` + "`", canary + "-2 ünï"

var rig = direct.Rig{Connector: connector{}, Canary: canary}

var (
	apply     = rig.Apply
	applyWith = rig.ApplyWith
	must      = rig.Must
	wantClass = rig.WantClass
	role      = rig.Role
	secret    = direct.Secret
)

func target(d *testlab.Database) sdk.Target {
	return sdk.Target{
		Address:    d.Addr,
		Port:       d.Port,
		Options:    map[string]string{optionHost: "%", optionTLS: "yes"},
		Trust:      sdk.Trust{CAPEM: d.CAPEM},
		Management: sdk.Credential{Username: testlab.Management, Password: secret(d.ManagementPassword)},
	}
}

func intent(action sdk.Action) sdk.Intent {
	return sdk.Intent{Action: action, Account: "alice", AccountID: "acct_1", Comment: "for alice, ticket 7"}
}

func wantLogin(t *testing.T, d *testlab.Database, user, password string, want error) {
	t.Helper()
	if err := d.Login(t.Context(), user, password); !errors.Is(err, want) {
		t.Errorf("login as %s: %v, want %v", user, err, want)
	}
}

func asRoot(t *testing.T, d *testlab.Database, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if err := d.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func TestAccountLivesFromProvisionToDeprovision(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	tgt := target(d)

	in := intent(sdk.Provision)
	in.Role, in.Params = role(t, "mysql-db-ro"), map[string]string{"Database": "app"}
	made := must(t, tgt, in, first)
	if !made.Changed || !made.Facts.Exists || made.Facts.Locked || !made.Facts.HasPassword {
		t.Errorf("provision: %+v", made)
	}
	wantLogin(t, d, "alice", first, nil)
	if again := must(t, tgt, in, first); again.Changed || again.Facts.Identity != made.Facts.Identity {
		t.Errorf("provision again: changed %t, identity %s, before %s", again.Changed, again.Facts.Identity, made.Facts.Identity)
	}

	in = intent(sdk.Rotate)
	in.Identity = made.Facts.Identity
	must(t, tgt, in, second)
	wantLogin(t, d, "alice", first, testlab.ErrRefused)
	wantLogin(t, d, "alice", second, nil)

	in.Action = sdk.Disable
	if r := must(t, tgt, in, ""); !r.Facts.Locked {
		t.Error("disabled and not locked")
	}
	wantLogin(t, d, "alice", second, testlab.ErrRefused)
	if r := must(t, tgt, in, ""); r.Changed {
		t.Error("disabling again changed something")
	}
	in.Action = sdk.Enable
	must(t, tgt, in, "")
	wantLogin(t, d, "alice", second, nil)

	in.Action = sdk.Deprovision
	must(t, tgt, in, "")
	if _, ok, err := d.GlobalPriv(t.Context(), "alice", "%"); ok || err != nil {
		t.Errorf("after deprovision: there %t, %v", ok, err)
	}
	if r := must(t, tgt, in, ""); r.Changed || r.Facts.Exists {
		t.Errorf("deprovision again: %+v", r)
	}
	for _, action := range []sdk.Action{sdk.Rotate, sdk.Disable, sdk.Enable} {
		in.Action = action
		_, err := apply(t.Context(), tgt, in, second)
		wantClass(t, string(action)+" of an absent account", err, sdk.ClassNotFound)
	}
	logs, err := d.Logs()
	if err != nil || strings.Contains(logs, canary) {
		t.Errorf("a password is in the server's logs, or: %v", err)
	}
	if !strings.Contains(logs, hash(secret(second))) {
		t.Error("the server's logs do not hold the statements; the test above proves nothing")
	}
}

func TestSomebodyElsesAccountIsNotTouched(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	tgt := target(d)
	asRoot(t, d, "CREATE USER 'alice'@'%' IDENTIFIED BY 'theirs'")
	before, _, _ := d.GlobalPriv(t.Context(), "alice", "%")
	for _, action := range []sdk.Action{sdk.Provision, sdk.Rotate, sdk.Disable, sdk.Enable, sdk.Deprovision} {
		for _, identity := range []string{"", "alice@%#4000000000"} {
			in := intent(action)
			in.Identity = identity
			_, err := apply(t.Context(), tgt, in, first)
			wantClass(t, string(action), err, sdk.ClassExists)
		}
	}
	if after, _, _ := d.GlobalPriv(t.Context(), "alice", "%"); !cmp.Equal(before, after) {
		t.Error(cmp.Diff(before, after))
	}

	// An account made anew under the same name is another one.
	asRoot(t, d, "DROP USER 'alice'@'%'")
	in := intent(sdk.Provision)
	in.Identity = must(t, tgt, in, first).Facts.Identity
	asRoot(t, d, "DROP USER 'alice'@'%'", "CREATE USER 'alice'@'%' IDENTIFIED BY 'theirs'")
	in.Action = sdk.Deprovision
	_, err := apply(t.Context(), tgt, in, "")
	wantClass(t, "deprovision of an account made anew", err, sdk.ClassExists)
	wantLogin(t, d, "alice", "theirs", nil)

	// One that was adopted by its identity is worked on.
	f, err := connector{}.Inspect(t.Context(), tgt, "alice")
	if err != nil {
		t.Fatal(err)
	}
	in.Action, in.Identity = sdk.Rotate, f.Identity
	must(t, tgt, in, second)
	wantLogin(t, d, "alice", second, nil)
}

func TestOnlyOurHostEntriesAreRemoved_C20(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	tgt := target(d)
	asRoot(t, d, "CREATE USER 'alice'@'192.0.2.1' IDENTIFIED BY 'theirs'")
	tgt.Options[optionHost] = "10.%"
	must(t, tgt, intent(sdk.Provision), first)
	tgt.Options[optionHost] = "%" // the asset's option is changed, the old entry stays
	must(t, tgt, intent(sdk.Provision), first)
	must(t, tgt, intent(sdk.Deprovision), "")
	for host, want := range map[string]bool{"10.%": false, "%": false, "192.0.2.1": true} {
		if _, there, err := d.GlobalPriv(t.Context(), "alice", host); err != nil || there != want {
			t.Errorf("alice@%s is there: %t, want %t (%v)", host, there, want, err)
		}
	}
}

func TestDatabaseGrantsOpenNoOtherDatabase_C21(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{Grants: []string{"CREATE USER, PROCESS, CONNECTION ADMIN, SELECT ON *.*"}})
	asRoot(t, d, "CREATE DATABASE app_1", "CREATE TABLE app_1.t (a INT)", "CREATE DATABASE appx1", "CREATE TABLE appx1.t (a INT)")
	in := intent(sdk.Provision)
	in.Role, in.Params = role(t, "mysql-db-ro"), map[string]string{"Database": "app_1"}
	must(t, target(d), in, first)
	db, err := d.As("alice", first)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), "SELECT * FROM app_1.t"); err != nil {
		t.Errorf("app_1: %v", err)
	}
	if _, err := db.ExecContext(t.Context(), "SELECT * FROM appx1.t"); number(err) != 1142 {
		t.Errorf("appx1: %v, want error 1142", err)
	}
}

func TestGrantedServerRoleIsActiveAtLogin_C23(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{Grants: append(testlab.DefaultGrants(), "UPDATE ON mysql.*")})
	asRoot(t, d, "CREATE ROLE readers", "GRANT SELECT ON app.* TO readers",
		"GRANT readers TO '"+testlab.Management+"'@'%' WITH ADMIN OPTION")
	in := intent(sdk.Provision)
	in.Role = sdk.Role{Name: "site-readers", Version: 1, Phases: map[sdk.Phase][]string{
		sdk.PhaseGrant: {"GRANT `readers` TO %Username%"}, sdk.PhaseRevoke: {"REVOKE `readers` FROM %Username%"},
	}}
	r := must(t, target(d), in, first)
	if !slices.Equal(r.Facts.Groups, []string{"readers"}) {
		t.Errorf("groups %v", r.Facts.Groups)
	}
	db, err := d.As("alice", first)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), "SELECT * FROM app.item"); err != nil {
		t.Errorf("with the role: %v", err)
	}
	if r := must(t, target(d), in, first); r.Changed {
		t.Error("provisioning again changed something")
	}
	in.Action = sdk.Deprovision
	must(t, target(d), in, "")
	must(t, target(d), in, "")
}

func TestDefaultRoleNeedsARightOfItsOwn(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{}) // without UPDATE ON mysql.*
	asRoot(t, d, "CREATE ROLE readers", "GRANT readers TO '"+testlab.Management+"'@'%' WITH ADMIN OPTION")
	in := intent(sdk.Provision)
	in.Role = sdk.Role{Name: "site-readers", Version: 1, Phases: map[sdk.Phase][]string{
		sdk.PhaseGrant: {"GRANT `readers` TO %Username%"},
	}}
	_, err := apply(t.Context(), target(d), in, first)
	wantClass(t, "provision", err, sdk.ClassNotPermitted)
	if _, there, err := d.GlobalPriv(t.Context(), "alice", "%"); there || err != nil {
		t.Errorf("the account is there: %t, %v", there, err)
	}
}

func TestSessionsEndWithTheAccount_C24(t *testing.T) {
	t.Parallel()
	for _, action := range []sdk.Action{sdk.Disable, sdk.Deprovision} {
		t.Run(string(action), func(t *testing.T) {
			t.Parallel()
			d := testlab.MariaDB(t, testlab.MariaDBOptions{})
			tgt := target(d)
			must(t, tgt, intent(sdk.Provision), first)
			db, err := d.As("alice", first)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			running := make(chan error, 1)
			go func() {
				_, err := db.ExecContext(t.Context(), "SELECT SLEEP(60)")
				running <- err
			}()
			for { // until the server shows it
				f, err := connector{}.Inspect(t.Context(), tgt, "alice")
				if err != nil {
					t.Fatal(err)
				}
				if f.Sessions == 1 {
					break
				}
			}
			in := intent(action)
			plan, err := connector{}.Plan(t.Context(), tgt, in)
			if err != nil {
				t.Fatal(err)
			}
			var notes []string
			r, err := connector{}.Apply(t.Context(), tgt, sdk.Change{Intent: in, Plan: plan}, func(e sdk.Event) {
				if e.State == sdk.StepInfo {
					notes = append(notes, e.Message)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-running:
				if err == nil {
					t.Error("the statement ended by itself")
				}
			case <-time.After(10 * time.Second):
				t.Error("the session goes on")
			}
			if !slices.Contains(notes, "sessions ended: 1") || len(r.Residue) != 0 {
				t.Errorf("reported %q, residue %q", notes, r.Residue)
			}
		})
	}
}

func TestShadowedAccountIsExplained_C22(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	tgt := target(d)
	asRoot(t, d, "CREATE USER ''@'127.%' IDENTIFIED BY ''", // shadows the management account as well, unless
		"CREATE USER '"+testlab.Management+"'@'127.%' IDENTIFIED BY '"+d.ManagementPassword+"'",
		"GRANT ALL PRIVILEGES ON *.* TO '"+testlab.Management+"'@'127.%' WITH GRANT OPTION")
	r := must(t, tgt, intent(sdk.Provision), first)
	if want := "''@'127.%'"; r.Facts.Attributes["shadowed_by"] != want || len(r.Residue) != 1 {
		t.Errorf("shadowed by %q, residue %q", r.Facts.Attributes["shadowed_by"], r.Residue)
	}
	v, err := connector{}.Verify(t.Context(), tgt, sdk.Credential{Username: "alice", Password: secret(first)})
	if err != nil || v.Kind != sdk.VerdictBadCredential || !strings.Contains(v.Message, "shadowed_by") {
		t.Errorf("verdict %+v, %v", v, err)
	}
	asRoot(t, d, "DROP USER ''@'127.%'", "CREATE USER 'alice'@'127.%' IDENTIFIED BY PASSWORD '"+hash(secret(first))+"'")
	v, err = connector{}.Verify(t.Context(), tgt, sdk.Credential{Username: "alice", Password: secret(first)})
	if err != nil || v.Kind != sdk.VerdictUnknown || v.Identity != "alice@127.%" {
		t.Errorf("verdict %+v, %v", v, err)
	}
	f, err := connector{}.Probe(t.Context(), tgt)
	if err != nil || f.Attributes["anonymous_accounts"] != "" {
		t.Errorf("probe %+v, %v", f, err)
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{Config: []string{"--max-password-errors=3"}})
	tgt := target(d)
	must(t, tgt, intent(sdk.Provision), first)
	tgt.Management = sdk.Credential{}
	check := func(state, password string, want sdk.VerdictKind) {
		t.Helper()
		v, err := connector{}.Verify(t.Context(), tgt, sdk.Credential{Username: "alice", Password: secret(password)})
		if err != nil || v.Kind != want || strings.Contains(v.Message+v.Fix, canary) || (v.Fix == "") != (want == sdk.VerdictOK) {
			t.Errorf("%s: %+v, %v, want %s", state, v, err, want)
		}
	}
	check("right", first, sdk.VerdictOK)
	check("wrong", second, sdk.VerdictBadCredential)
	asRoot(t, d, "ALTER USER 'alice'@'%' ACCOUNT LOCK")
	check("locked by somebody", first, sdk.VerdictDisabled)
	asRoot(t, d, "ALTER USER 'alice'@'%' ACCOUNT UNLOCK", "ALTER USER 'alice'@'%' PASSWORD EXPIRE")
	check("expired", first, sdk.VerdictMustChange)
	asRoot(t, d, "ALTER USER 'alice'@'%' PASSWORD EXPIRE NEVER")
	for range 3 {
		check("wrong", second, sdk.VerdictBadCredential)
	}
	check("blocked", first, sdk.VerdictLocked)
	d.Crash()
	check("down", first, sdk.VerdictUnreachable)
}
