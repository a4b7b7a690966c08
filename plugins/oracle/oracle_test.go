package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	goora "github.com/sijms/go-ora/v2"

	"github.com/reeve-pam/reeve/internal/emu/oracle"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

// canary is in every password of these tests.
const canary = "Canary-41cf"

const first, second = canary + `-1 '\$%;--` + "`", canary + "-2 ünï"

var rig = direct.Rig{Connector: connector{}, Canary: canary}

var (
	apply     = rig.Apply
	applyWith = rig.ApplyWith
	must      = rig.Must
	wantClass = rig.WantClass
	role      = rig.Role
	secret    = direct.Secret
)

func target(s *oracle.Server) sdk.Target {
	options := map[string]string{}
	for _, o := range (connector{}).Describe().Options {
		options[o.Name] = o.Default
	}
	options[optionService] = oracle.Service
	return sdk.Target{
		Address:    s.Addr,
		Port:       s.Port,
		Options:    options,
		Trust:      sdk.Trust{CAPEM: s.CAPEM},
		Management: sdk.Credential{Username: oracle.Management, Password: secret(oracle.ManagementPassword)},
	}
}

func intent(action sdk.Action) sdk.Intent {
	return sdk.Intent{Action: action, Account: "ALICE", AccountID: "acct_1", Comment: "for alice, ticket 7"}
}

// open makes a login with the bare driver.
func open(s *oracle.Server, user, password string) (*sql.DB, error) {
	c, _ := goora.NewConnector(goora.BuildUrl(s.Addr, s.Port, oracle.Service, user, password,
		map[string]string{"SSL": "TRUE", "TIMEOUT": "20"})).(*goora.OracleConnector)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.CAPEM))
	c.WithTLSConfig(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(1)
	err := db.PingContext(context.Background())
	if err != nil {
		_ = db.Close()
	}
	return db, err
}

func loginWorks(_ context.Context, s *oracle.Server, user, password string) (bool, error) {
	db, err := open(s, user, password)
	switch number(err) {
	case errDenied, 28000, 28001, 1045:
		return false, nil
	}
	if err == nil {
		err = db.Close()
	}
	return err == nil, err
}

func wantLogin(t *testing.T, s *oracle.Server, user, password string, want bool) {
	t.Helper()
	if got, err := loginWorks(t.Context(), s, user, password); err != nil || got != want {
		t.Errorf("login as %s: %t, %v, want %t", user, got, err, want)
	}
}

func TestAccountLivesFromProvisionToDeprovision(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	tgt := target(s)

	in := intent(sdk.Provision)
	in.Role = role(t, "oracle-connect")
	made := must(t, tgt, in, first)
	if !made.Changed || !made.Facts.Exists || made.Facts.Locked || !made.Facts.HasPassword {
		t.Errorf("provision: %+v", made)
	}
	if !slices.Equal(made.Facts.Grants, []string{"CREATE SESSION"}) || time.Since(made.Facts.PasswordChangedAt).Abs() > time.Minute {
		t.Errorf("facts: %+v", made.Facts)
	}
	wantLogin(t, s, "ALICE", first, true)
	if again := must(t, tgt, in, first); again.Changed || again.Facts.Identity != made.Facts.Identity {
		t.Errorf("provision again: changed %t, identity %s, before %s", again.Changed, again.Facts.Identity, made.Facts.Identity)
	}
	if other := must(t, tgt, in, second); !other.Changed {
		t.Error("provisioning with another password changed nothing")
	}
	wantLogin(t, s, "ALICE", first, false)

	in = intent(sdk.Rotate)
	in.Identity = made.Facts.Identity
	must(t, tgt, in, first)
	wantLogin(t, s, "ALICE", second, false)
	wantLogin(t, s, "ALICE", first, true)

	in.Action = sdk.Disable
	if r := must(t, tgt, in, ""); !r.Facts.Locked {
		t.Error("disabled and not locked")
	}
	wantLogin(t, s, "ALICE", first, false)
	if r := must(t, tgt, in, ""); r.Changed {
		t.Error("disabling again changed something")
	}
	in.Action = sdk.Enable
	must(t, tgt, in, "")
	wantLogin(t, s, "ALICE", first, true)

	in.Action = sdk.Deprovision
	must(t, tgt, in, "")
	if s.DB.Exists("ALICE") || strings.Contains(s.DB.Snapshot(), "synonym") {
		t.Errorf("after deprovision: %s", s.DB.Snapshot())
	}
	if r := must(t, tgt, in, ""); r.Changed || r.Facts.Exists {
		t.Errorf("deprovision again: %+v", r)
	}
	for _, action := range []sdk.Action{sdk.Rotate, sdk.Disable, sdk.Enable} {
		in.Action = action
		_, err := apply(t.Context(), tgt, in, second)
		wantClass(t, string(action)+" of an absent account", err, sdk.ClassNotFound)
	}
}

func TestSomebodyElsesAccountIsNotTouched(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	tgt := target(s)
	s.Exec("CREATE USER ALICE IDENTIFIED BY theirs", "GRANT CREATE SESSION TO ALICE")
	before := s.DB.Snapshot()
	for _, action := range []sdk.Action{sdk.Provision, sdk.Rotate, sdk.Disable, sdk.Enable, sdk.Deprovision} {
		for _, identity := range []string{"", "ALICE#7@20200101000000"} {
			in := intent(action)
			in.Identity = identity
			_, err := apply(t.Context(), tgt, in, first)
			wantClass(t, string(action), err, sdk.ClassExists)
		}
	}
	if d := cmp.Diff(before, s.DB.Snapshot()); d != "" {
		t.Error(d)
	}

	// An account made anew under the same name is another one, whatever mark is left of the first.
	s.Exec("DROP USER ALICE")
	in := intent(sdk.Provision)
	in.Identity = must(t, tgt, in, first).Facts.Identity
	s.Exec("DROP USER ALICE", "CREATE USER ALICE IDENTIFIED BY theirs", "GRANT CREATE SESSION TO ALICE")
	for _, identity := range []string{in.Identity, ""} {
		in.Identity = identity
		_, err := apply(t.Context(), tgt, in, first)
		wantClass(t, "an account made anew", err, sdk.ClassExists)
	}
	wantLogin(t, s, "ALICE", "theirs", true)

	// One that was adopted by its identity is worked on.
	f, err := connector{}.Inspect(t.Context(), tgt, "ALICE")
	if err != nil {
		t.Fatal(err)
	}
	in.Action, in.Identity = sdk.Rotate, f.Identity
	must(t, tgt, in, second)
	wantLogin(t, s, "ALICE", second, true)

	// A role may bear the name as well.
	s.DB.AddRole("BOB")
	in = intent(sdk.Provision)
	in.Account = "BOB"
	_, err = apply(t.Context(), tgt, in, first)
	wantClass(t, "the name of a role", err, sdk.ClassExists)
}

func TestSessionsEndWithTheAccount_C17_C24(t *testing.T) {
	t.Parallel()
	for _, action := range []sdk.Action{sdk.Disable, sdk.Deprovision} {
		for _, kill := range []string{"alter_system", rds} {
			t.Run(string(action)+" "+kill, func(t *testing.T) {
				t.Parallel()
				s := oracle.Start(t, oracle.Options{RDS: kill == rds})
				tgt := target(s)
				tgt.Options[optionKill] = kill
				must(t, tgt, intent(sdk.Provision), first)
				db, err := open(s, "ALICE", first)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = db.Close() }()
				if f, err := (connector{}).Inspect(t.Context(), tgt, "ALICE"); err != nil || f.Sessions != 1 {
					t.Fatalf("%d sessions, %v", f.Sessions, err)
				}
				var notes []string
				r, err := applyWith(t.Context(), tgt, intent(action), "", func(e sdk.Event) {
					if e.State == sdk.StepInfo {
						notes = append(notes, e.Message)
					}
				})
				if err != nil || s.DB.Sessions("ALICE") != 0 {
					t.Fatalf("%d sessions, %v", s.DB.Sessions("ALICE"), err)
				}
				if !slices.Contains(notes, "sessions ended: 1") || len(r.Residue) != 0 {
					t.Errorf("reported %q, residue %q", notes, r.Residue)
				}
			})
		}
	}
}

func TestAccountWithObjectsIsNotDroppedSilently(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{Rights: append(oracle.ManagementRights(), "GRANT ANY PRIVILEGE TO REEVE")})
	tgt := target(s)
	in := intent(sdk.Provision)
	in.Role = role(t, "oracle-schema-developer")
	in.Params = map[string]string{"Tablespace": "USERS", paramQuota: "100M"}
	r := must(t, tgt, in, first)
	if !slices.Contains(r.Facts.Grants, "QUOTA 104857600 ON USERS") {
		t.Errorf("grants: %q", r.Facts.Grants)
	}
	s.DB.Own("ALICE", "T", "V")
	in.Action = sdk.Deprovision
	_, err := apply(t.Context(), tgt, in, "")
	wantClass(t, "deprovision", err, sdk.ClassPolicyRejected)
	if err == nil || !strings.Contains(err.Error(), "2 objects") {
		t.Errorf("the error: %v", err)
	}
	if s.DB.Status("ALICE") != "LOCKED" {
		t.Errorf("the account is %q", s.DB.Status("ALICE"))
	}
	in.Params[paramCascade] = yes
	must(t, tgt, in, "")
	if s.DB.Exists("ALICE") {
		t.Error("the account is still there")
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	s.DB.SetProfile("DEFAULT", oracle.Profile{FailedLogins: 3})
	tgt := target(s)
	must(t, tgt, intent(sdk.Provision), first)
	manager := tgt.Management
	tgt.Management = sdk.Credential{}
	check := func(state, user, password string, want sdk.VerdictKind) {
		t.Helper()
		v, err := connector{}.Verify(t.Context(), tgt, sdk.Credential{Username: user, Password: secret(password)})
		if err != nil || v.Kind != want || strings.Contains(v.Message+v.Fix, canary) || v.Kind != sdk.VerdictOK && (v.Message == "" || v.Fix == "") {
			t.Errorf("%s: %+v, %v, want %s", state, v, err, want)
		}
	}
	check("right", "ALICE", first, sdk.VerdictOK)
	check("wrong", "ALICE", second, sdk.VerdictBadCredential)
	check("nobody", "NOBODY", second, sdk.VerdictBadCredential)
	s.Exec("ALTER USER ALICE ACCOUNT LOCK")
	check("locked", "ALICE", first, sdk.VerdictUnknown) // by whom, the server does not tell
	tgt.Management = manager
	check("locked by somebody", "ALICE", first, sdk.VerdictDisabled)
	tgt.Management.Password = secret(canary)
	check("with a management account that cannot log in", "ALICE", first, sdk.VerdictUnknown)
	tgt.Management = sdk.Credential{Username: "alice", Password: secret(first)}
	check("its own management account", "ALICE", first, sdk.VerdictUnknown)
	tgt.Management = manager
	s.Exec("ALTER USER ALICE ACCOUNT UNLOCK PASSWORD EXPIRE")
	check("expired", "ALICE", first, sdk.VerdictMustChange)
	check("expired, and wrong", "ALICE", second, sdk.VerdictBadCredential)
	s.Exec("ALTER USER ALICE ACCOUNT LOCK")
	check("expired and locked", "ALICE", first, sdk.VerdictDisabled)
	s.Exec("ALTER USER ALICE ACCOUNT UNLOCK")
	s.Exec(`ALTER USER ALICE IDENTIFIED BY "` + second + `"`)
	for range 3 {
		check("wrong", "ALICE", first, sdk.VerdictBadCredential)
	}
	check("blocked", "ALICE", second, sdk.VerdictLocked)
	check("blocked, and wrong", "ALICE", first, sdk.VerdictLocked)
	if n := s.DB.FailedLogins("ALICE"); n != 3 {
		t.Errorf("%d failed logins, want 3", n)
	}
	s.Exec("ALTER USER ALICE ACCOUNT UNLOCK")
	s.DB.SetProfile("DEFAULT", oracle.Profile{FailedLogins: 3, LockForever: true})
	for range 3 {
		check("wrong", "ALICE", first, sdk.VerdictBadCredential)
	}
	check("blocked for ever, which looks as if somebody had done it", "ALICE", second, sdk.VerdictLocked)
	s.Exec("ALTER USER ALICE ACCOUNT UNLOCK", "REVOKE CREATE SESSION FROM ALICE")
	check("no right to log in", "ALICE", second, sdk.VerdictUnknown)
	s.Exec(`CREATE USER "alice" IDENTIFIED BY "`+first+`"`, `GRANT CREATE SESSION TO "alice"`)
	check("a name in lower case", "alice", first, sdk.VerdictOK)
	for code, want := range map[int]sdk.VerdictKind{
		1017: sdk.VerdictBadCredential, 28000: sdk.VerdictUnknown, 28001: sdk.VerdictMustChange, 28002: sdk.VerdictMustChange,
		1045: sdk.VerdictUnknown, 1033: sdk.VerdictUnreachable, 18: sdk.VerdictUnknown, 4711: sdk.VerdictUnknown,
	} {
		s.SetFaults(oracle.Faults{FailLogin: map[string]int{"alice": code}})
		check("as the server says", "alice", first, want)
	}
	s.Close()
	check("down", "ALICE", first, sdk.VerdictUnreachable)
}
