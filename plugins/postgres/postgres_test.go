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

func target(p *testlab.PostgresServer) sdk.Target {
	return sdk.Target{
		Address:    p.Addr,
		Port:       p.Port,
		Options:    map[string]string{optionDatabase: "postgres", optionLimit: "10", optionLogin: loginSCRAM},
		Trust:      sdk.Trust{CAPEM: p.CAPEM},
		Management: sdk.Credential{Username: testlab.Management, Password: secret(p.ManagementPassword)},
	}
}

func intent(action sdk.Action) sdk.Intent {
	return sdk.Intent{Action: action, Account: "alice", AccountID: "acct_1", Comment: "for alice, ticket 7"}
}

// readApp is an intent with the role that reads the database app.
func readApp(t *testing.T, action sdk.Action) sdk.Intent {
	t.Helper()
	in := intent(action)
	in.Role, in.Params = role(t, "pg-db-ro"), map[string]string{paramDatabase: "app", "Schema": "public"}
	return in
}

func wantLogin(t *testing.T, p *testlab.PostgresServer, user, password string, want error) {
	t.Helper()
	if err := p.Login(t.Context(), user, password); !errors.Is(err, want) {
		t.Errorf("login as %s: %v, want %v", user, err, want)
	}
}

func wantRole(t *testing.T, p *testlab.PostgresServer, name string, want bool) testlab.PostgresRole {
	t.Helper()
	r, there, err := p.Role(t.Context(), name)
	if err != nil || there != want {
		t.Errorf("the role %s is there: %t, want %t (%v)", name, there, want, err)
	}
	return r
}

// asRoot runs statements as the superuser; "app: …" runs in the database app.
func asRoot(t *testing.T, p *testlab.PostgresServer, statements ...string) {
	t.Helper()
	for _, s := range statements {
		db, statement, other := strings.Cut(s, ": ")
		if !other || strings.Contains(db, " ") {
			db, statement = "postgres", s
		}
		if err := p.ExecIn(t.Context(), db, statement); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func TestAccountLivesFromProvisionToDeprovision(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	tgt := target(p)

	in := readApp(t, sdk.Provision)
	in.ExpiresAt = time.Now().UTC().Add(time.Hour)
	made := must(t, tgt, in, first)
	if !made.Changed || !made.Facts.Exists || made.Facts.Locked || !made.Facts.HasPassword || made.Facts.Attributes["comment"] != in.Comment {
		t.Errorf("provision: %+v", made)
	}
	if r := wantRole(t, p, "alice", true); r.ConnectionLimit != 10 || r.Comment != "reeve:acct_1 for alice, ticket 7" || made.Facts.Identity != "alice#"+r.OID {
		t.Errorf("the server has %+v, the facts %s", r, made.Facts.Identity)
	}
	wantLogin(t, p, "alice", first, nil)
	if again := must(t, tgt, in, first); again.Changed || again.Facts.Identity != made.Facts.Identity {
		t.Errorf("provision again: changed %t, identity %s, before %s", again.Changed, again.Facts.Identity, made.Facts.Identity)
	}
	if again := must(t, tgt, in, second); !again.Changed {
		t.Error("provision with another password changed nothing")
	}
	wantLogin(t, p, "alice", second, nil)

	in.Action, in.Identity = sdk.Rotate, made.Facts.Identity
	must(t, tgt, in, first)
	wantLogin(t, p, "alice", second, testlab.ErrRefused)
	wantLogin(t, p, "alice", first, nil)

	in.Action = sdk.Disable
	if r := must(t, tgt, in, ""); !r.Facts.Locked {
		t.Error("disabled and not locked")
	}
	wantLogin(t, p, "alice", first, testlab.ErrRefused)
	if r := must(t, tgt, in, ""); r.Changed {
		t.Error("disabling again changed something")
	}
	in.Action = sdk.Enable
	must(t, tgt, in, "")
	wantLogin(t, p, "alice", first, nil)

	in.Action = sdk.Deprovision
	must(t, tgt, in, "")
	wantRole(t, p, "alice", false)
	if r := must(t, tgt, in, ""); r.Changed || r.Facts.Exists {
		t.Errorf("deprovision again: %+v", r)
	}
	for _, action := range []sdk.Action{sdk.Rotate, sdk.Disable, sdk.Enable} {
		in.Action = action
		_, err := apply(t.Context(), tgt, in, second)
		wantClass(t, string(action)+" of an absent account", err, sdk.ClassNotFound)
	}
	logs, err := p.Logs()
	if err != nil || strings.Contains(logs, canary) {
		t.Errorf("a password is in the server's logs, or: %v", err)
	}
	if !strings.Contains(logs, "PASSWORD 'SCRAM-SHA-256$4096:") {
		t.Error("the server's logs do not hold the statements; the test above proves nothing")
	}
}

func TestSomebodyElsesAccountIsNotTouched(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	tgt := target(p)
	asRoot(t, p, "CREATE ROLE alice LOGIN PASSWORD 'theirs-1'", "COMMENT ON ROLE alice IS 'reeve:acct_2 x'")
	before := wantRole(t, p, "alice", true)
	for _, action := range []sdk.Action{sdk.Provision, sdk.Rotate, sdk.Disable, sdk.Enable, sdk.Deprovision} {
		for _, identity := range []string{"", "alice#1"} {
			in := intent(action)
			in.Identity = identity
			_, err := apply(t.Context(), tgt, in, first)
			wantClass(t, string(action), err, sdk.ClassExists)
		}
	}
	in := intent(sdk.Rotate)
	in.AccountID = ""
	_, err := apply(t.Context(), tgt, in, first)
	wantClass(t, "rotate for nobody", err, sdk.ClassExists)
	if after := wantRole(t, p, "alice", true); !cmp.Equal(before, after) {
		t.Error(cmp.Diff(before, after))
	}

	// An account made anew under the same name is another one, whatever its comment says.
	asRoot(t, p, "DROP ROLE alice")
	in = intent(sdk.Provision)
	in.Identity = must(t, tgt, in, first).Facts.Identity
	asRoot(t, p, "DROP ROLE alice", "CREATE ROLE alice LOGIN PASSWORD 'theirs-1'", "COMMENT ON ROLE alice IS 'reeve:acct_1 x'")
	in.Action = sdk.Deprovision
	_, err = apply(t.Context(), tgt, in, "")
	wantClass(t, "deprovision of an account made anew", err, sdk.ClassExists)
	wantLogin(t, p, "alice", "theirs-1", nil)

	// One that was adopted by its identity is worked on.
	f, err := connector{}.Inspect(t.Context(), tgt, "alice")
	if err != nil {
		t.Fatal(err)
	}
	in.Action, in.Identity, in.AccountID = sdk.Rotate, f.Identity, "acct_3"
	if major(t, p) >= createRoleIsBounded { // then CREATEROLE is for what one has made
		_, err := apply(t.Context(), tgt, in, second)
		wantClass(t, "an account of others", err, sdk.ClassNotPermitted)
		const fix = `GRANT "alice" TO "reeve" WITH ADMIN OPTION`
		if e, ok := errors.AsType[*sdk.Error](err); !ok || e.Fix != fix {
			t.Fatalf("the fix: %v", err)
		}
		asRoot(t, p, fix)
	}
	must(t, tgt, in, second)
	wantLogin(t, p, "alice", second, nil)
}

func TestSessionsEndWithTheAccount_C24(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	for _, action := range []sdk.Action{sdk.Disable, sdk.Deprovision} {
		t.Run(string(action), func(t *testing.T) {
			t.Parallel()
			in := intent(sdk.Provision)
			in.Account, in.AccountID = string("to_"+action), "acct_"+string(action)
			must(t, target(p), in, first)
			conn, err := p.As(t.Context(), in.Account, first, "app")
			if err != nil {
				t.Fatal(err)
			}
			running := make(chan error, 1)
			go func() {
				_, err := conn.Exec(t.Context(), "SELECT pg_sleep(60)")
				running <- err
			}()
			in.Action = action
			var notes []string
			r, err := applyWith(t.Context(), target(p), in, "", func(e sdk.Event) {
				if e.State == sdk.StepInfo {
					notes = append(notes, e.Message)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-running:
				if code(err) != "57P01" {
					t.Errorf("the statement ended by itself: %v", err)
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

func TestObjectsInEveryDatabaseGoToTheCustodian_C18(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	tgt := target(p)
	asRoot(t, p, "CREATE DATABASE other", "GRANT CREATE ON DATABASE other TO PUBLIC", "CREATE ROLE archive NOLOGIN",
		"GRANT archive TO "+testlab.Management)
	in := readApp(t, sdk.Provision)
	in.Identity = must(t, tgt, in, first).Facts.Identity
	asRoot(t, p, "app: GRANT CREATE ON SCHEMA public TO alice", `app: CREATE TABLE "we""ird" (a int)`, `app: ALTER TABLE "we""ird" OWNER TO alice`,
		"app: ALTER DEFAULT PRIVILEGES FOR ROLE app_owner GRANT SELECT ON TABLES TO alice",
		"other: CREATE SCHEMA hers AUTHORIZATION alice", "other: CREATE TABLE hers.t (a int)", "other: ALTER TABLE hers.t OWNER TO alice")
	f, err := connector{}.Inspect(t.Context(), tgt, "alice")
	if err != nil || !slices.Contains(f.Grants, "other: OWNER OF 2 OBJECTS") || !slices.Contains(f.Grants, "app: SELECT ON NEW TABLES OF app_owner") {
		t.Errorf("facts: %q, %v", f.Grants, err)
	}
	in.Action = sdk.Deprovision
	tgt.Options[optionCustodian] = "archive"
	must(t, tgt, in, "")
	wantRole(t, p, "alice", false)
	var owner string
	if err := p.App().QueryRowContext(t.Context(), `SELECT tableowner FROM pg_tables WHERE tablename = 'we"ird'`).Scan(&owner); err != nil || owner != "archive" {
		t.Errorf("the table belongs to %q, %v", owner, err)
	}

	// A custodian the management account is no member of: nothing is given away, the account stays locked.
	asRoot(t, p, "CREATE ROLE closed NOLOGIN SUPERUSER")
	in.Action, in.Identity = sdk.Provision, ""
	in.Identity = must(t, tgt, in, first).Facts.Identity
	asRoot(t, p, "other: CREATE SCHEMA again AUTHORIZATION alice")
	in.Action = sdk.Deprovision
	tgt.Options[optionCustodian] = "closed"
	_, err = apply(t.Context(), tgt, in, "")
	wantClass(t, "a custodian out of reach", err, sdk.ClassNotPermitted)
	if r := wantRole(t, p, "alice", true); r.CanLogin {
		t.Error("the account may log in")
	}
	tgt.Options[optionCustodian] = ""
	must(t, tgt, in, "")
	wantRole(t, p, "alice", false)
}

func TestAccountOfADatabaseThatIsGoneCanBeRemoved(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	tgt := target(p)
	in := readApp(t, sdk.Provision)
	in.Identity = must(t, tgt, in, first).Facts.Identity
	_ = p.App().Close()
	asRoot(t, p, "DROP DATABASE app WITH (FORCE)")
	in.Action = sdk.Rotate
	must(t, tgt, in, second)
	in.Action = sdk.Deprovision
	must(t, tgt, in, "")
	wantRole(t, p, "alice", false)
	in.Action, in.Identity = sdk.Provision, ""
	_, err := apply(t.Context(), tgt, in, first)
	wantClass(t, "provision for a database that is gone", err, sdk.ClassInvalid)
	wantRole(t, p, "alice", false)
}

func TestRoleCommandsOfEveryPhaseRun(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	tgt := target(p)
	asRoot(t, p, "app: CREATE TABLE log (n serial, what text)", "app: ALTER TABLE log OWNER TO app_owner")
	in := intent(sdk.Provision)
	in.Params = map[string]string{paramDatabase: "app", "Text": `we"ird'; DROP TABLE public.log; --`}
	in.Role = sdk.Role{
		Name: "site-all", Version: 1, Params: []sdk.RoleParam{inDatabase, {Name: "Text", Pattern: `^.*$`}},
		Phases: map[sdk.Phase][]string{},
	}
	for _, phase := range []sdk.Phase{sdk.PhaseCreate, sdk.PhaseRotate, sdk.PhaseEnable, sdk.PhaseDisable, sdk.PhaseRevoke, sdk.PhaseRemove} {
		in.Role.Phases[phase] = []string{"INSERT INTO public.log (what) VALUES ('" + string(phase) + " %Text% %Username%')"}
	}
	in.Role.Phases[sdk.PhaseGrant] = []string{"CREATE SCHEMA %Text%", "GRANT USAGE ON SCHEMA %Text% TO %Username%"}
	in.Role.Phases[sdk.PhaseRevoke] = append([]string{"REVOKE USAGE ON SCHEMA absent FROM %Username%"}, in.Role.Phases[sdk.PhaseRevoke]...)
	in.Role.Phases[sdk.PhaseRemove] = append([]string{"DROP SCHEMA %Text%", "DROP SCHEMA %Text%"}, in.Role.Phases[sdk.PhaseRemove]...)
	in.Identity = must(t, tgt, in, first).Facts.Identity
	for _, action := range []sdk.Action{sdk.Rotate, sdk.Disable, sdk.Enable, sdk.Deprovision} {
		in.Action = action
		password := map[bool]string{true: second}[action == sdk.Rotate]
		must(t, tgt, in, password)
	}
	rows, err := p.App().QueryContext(t.Context(), "SELECT what FROM log ORDER BY n")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var got []string
	for rows.Next() {
		var what string
		if err := rows.Scan(&what); err != nil {
			t.Fatal(err)
		}
		got = append(got, what)
	}
	var want []string
	for _, phase := range []sdk.Phase{sdk.PhaseCreate, sdk.PhaseRotate, sdk.PhaseDisable, sdk.PhaseEnable, sdk.PhaseRevoke, sdk.PhaseRemove} {
		want = append(want, string(phase)+" "+in.Params["Text"]+" alice")
	}
	if d := cmp.Diff(want, got); d != "" || rows.Err() != nil {
		t.Error(d, rows.Err())
	}
}

func TestManagementAccountChangesItsOwnPassword_C8(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	tgt := target(p)
	f, err := connector{}.Inspect(t.Context(), tgt, testlab.Management)
	if err != nil {
		t.Fatal(err)
	}
	in := sdk.Intent{Action: sdk.Rotate, Account: testlab.Management, AccountID: "acct_9", Identity: f.Identity}
	must(t, tgt, in, first)
	wantLogin(t, p, testlab.Management, first, nil)
	wantLogin(t, p, testlab.Management, p.ManagementPassword, testlab.ErrRefused)
}

// The server cuts long names instead of refusing them.
func TestLongNamesAreNotCut_C36(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	long := strings.Repeat("a", 63)
	in := intent(sdk.Provision)
	in.Account = long
	must(t, target(p), in, first)
	for name, want := range map[string]bool{long: true, long + "b": false, long[:62]: false, `x' OR '1'='1`: false, `"x"`: false} {
		f, err := connector{}.Inspect(t.Context(), target(p), name)
		if err != nil || f.Exists != want || f.Account != name {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
}
