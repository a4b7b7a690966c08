package main

import (
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/idle"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

func keeping() connector { return connector{kept: idle.New((*session).end)} }

// logins counts the logins that the server has let in.
func logins(t *testing.T, p *testlab.PostgresServer, user string) int {
	t.Helper()
	logs, err := p.Logs()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(logs, "connection authorized: user="+user+" ")
}

// Operations of one management account share a connection for the length of a burst; who brings another password does not get
// it, the lock on an account does not outlast its operation, and what proves a password always logs in anew.
func TestConnectionsAreKeptForOneAccountAndItsPassword(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	tgt, c := target(p), keeping()
	in := readApp(t, sdk.Provision)
	plan, err := c.Plan(t.Context(), tgt, in)
	if err != nil {
		t.Fatal(err)
	}
	before := logins(t, p, testlab.Management)
	for range 2 { // the second finds everything done
		if _, err := c.Apply(t.Context(), tgt, sdk.Change{Intent: in, Plan: plan, Password: secret(first)}, func(sdk.Event) {}); err != nil {
			t.Fatal(err)
		}
		var locks int
		if err := p.Root().QueryRow("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").Scan(&locks); err != nil || locks > 0 {
			t.Fatalf("%d locks are left, %v", locks, err)
		}
	}
	for range 3 { // in the database postgres, and for the rights there in the database app
		if f, err := c.Inspect(t.Context(), tgt, "alice"); err != nil || !f.Exists || len(f.Grants) < 3 {
			t.Fatalf("%+v, %v", f, err)
		}
	}
	if n := logins(t, p, testlab.Management) - before; n != 2 {
		t.Errorf("operations one after the other made %d logins", n)
	}
	wrong := tgt
	wrong.Management.Password = secret(canary)
	_, err = c.Inspect(t.Context(), wrong, "alice")
	wantClass(t, "another password", err, sdk.ClassAuthFailed)
	for _, check := range []func() error{
		func() error { _, err := c.Probe(t.Context(), tgt); return err },
		func() error {
			_, err := c.CheckRights(t.Context(), tgt, sdk.Role{}, nil)
			return err
		},
		func() error { _, err := c.Run(t.Context(), tgt, "SELECT 1", &direct.Output{}); return err },
	} {
		before = logins(t, p, testlab.Management)
		if err := check(); err != nil || logins(t, p, testlab.Management) != before+1 {
			t.Errorf("no fresh login, or %v", err)
		}
	}
	before = logins(t, p, "alice")
	for n := range 2 {
		v, err := c.Verify(t.Context(), tgt, sdk.Credential{Username: "alice", Password: secret(first)})
		if err != nil || v.Kind != sdk.VerdictOK {
			t.Fatalf("%+v, %v", v, err)
		}
		if got := logins(t, p, "alice") - before; got != n+1 {
			t.Errorf("%d proofs made %d logins", n+1, got)
		}
	}
}

func TestNothingOfAnOperationStaysWithAKeptConnection(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	tgt, c := target(p), keeping()
	with := func(statements ...string) (pid, state string) {
		s, err := c.manage(t.Context(), tgt, "app")
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		row, err := s.strings(t.Context(), "look", `SELECT concat_ws(' ', pg_backend_pid(), current_setting('search_path'), current_setting('lock_timeout'),
 current_user, (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), pg_my_temp_schema() <> 0
 AND EXISTS (SELECT FROM pg_class WHERE relnamespace = pg_my_temp_schema()))`)
		if err != nil {
			t.Fatal(err)
		}
		for _, statement := range statements {
			if _, err := s.exec(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
		pid, state, _ = strings.Cut(row[0], " ")
		return pid, state
	}
	pid, want := with("SET search_path = public", "SET lock_timeout = 0", "PREPARE p AS SELECT 1", "SELECT pg_advisory_lock(1)",
		"CREATE TEMPORARY TABLE t (i int)", "SET ROLE app_owner")
	again, got := with("BEGIN")
	if again != pid || got != want {
		t.Errorf("it is %s and has %q; it was %s with %q", again, got, pid, want)
	}
	if third, _ := with(); third == pid {
		t.Error("a connection with an open transaction was kept")
	}
}

func TestKeptConnectionThatIsNoLongerGoodIsReplaced(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	tgt, c := target(p), keeping()
	inspect := func() error { _, err := c.Inspect(t.Context(), tgt, "alice"); return err }
	if err := inspect(); err != nil {
		t.Fatal(err)
	}
	p.Crash()
	if err := p.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := inspect(); err != nil {
		t.Errorf("after a crash: %v", err)
	}
	asRoot(t, p, "ALTER ROLE reeve SUPERUSER")
	s, err := c.manage(t.Context(), tgt, "postgres")
	if err != nil {
		t.Fatal(err)
	}
	if !s.super {
		t.Error("it does not know that it is a superuser now")
	}
	s.close()
	asRoot(t, p, "ALTER ROLE reeve NOLOGIN")
	if err := inspect(); err == nil {
		t.Error("an account that may not log in any more is still at work")
	}
}
