package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// manager makes a management account that may log in and nothing else.
func manager(t *testing.T, p *testlab.PostgresServer, name string) sdk.Target {
	t.Helper()
	asRoot(t, p, "CREATE ROLE "+name+" LOGIN PASSWORD '"+canary+"'")
	tgt := target(p)
	tgt.Management = sdk.Credential{Username: name, Password: secret(canary)}
	return tgt
}

// administrator runs statements as they stand, with the server's own client.
func administrator(t *testing.T, p *testlab.PostgresServer) func(statements ...string) {
	t.Helper()
	asRoot(t, p, "CREATE ROLE dba LOGIN SUPERUSER PASSWORD '"+canary+"'")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte(p.CAPEM), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(statements ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "psql", "-XAtq", "-v", "ON_ERROR_STOP=1")
		cmd.Stdin = strings.NewReader(strings.Join(statements, "\n") + "\n")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PGHOST=" + p.Addr, "PGUSER=dba", "PGPASSWORD=" + canary,
			"PGDATABASE=postgres", "PGSSLMODE=verify-full", "PGSSLROOTCERT=" + ca}
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%q: %v: %s", statements, err, out)
		}
	}
}

func lacking(t *testing.T, tgt sdk.Target, r sdk.Role, params map[string]string) (names, statements []string) {
	t.Helper()
	rights, err := connector{}.CheckRights(t.Context(), tgt, r, params)
	if err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	if len(rights) < 2 {
		t.Errorf("%s: %+v", r.Name, rights)
	}
	for _, r := range rights {
		if r.Name == "" || r.Reason == "" || r.Held != (r.Grant == "") {
			t.Errorf("%+v", r)
		}
		if !r.Held {
			names, statements = append(names, r.Name), append(statements, r.Grant)
		}
	}
	return names, statements
}

// live takes an account through its life, with a session open and something of its own.
func live(t *testing.T, p *testlab.PostgresServer, tgt sdk.Target, in sdk.Intent) error {
	t.Helper()
	if _, err := apply(t.Context(), tgt, in, first); err != nil {
		return err
	}
	conn, err := p.As(t.Context(), in.Account, first, "app")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	asRoot(t, p, "app: CREATE TABLE t_"+in.Account+" (i int)", "app: ALTER TABLE t_"+in.Account+" OWNER TO "+in.Account)
	for _, action := range []sdk.Action{sdk.Rotate, sdk.Disable, sdk.Enable, sdk.Deprovision} {
		password := ""
		if in.Action = action; action == sdk.Rotate {
			password = second
		}
		if _, err := apply(t.Context(), tgt, in, password); err != nil {
			return err
		}
	}
	return nil
}

// What the check says is what the server does: its statements, as they stand, are enough for the whole life of an account
// with each role, and none is too many.
func TestTheStatementsOfTheRightsCheckAreEnough(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	dba := administrator(t, p)
	asRoot(t, p, `CREATE ROLE "The Heir"`)
	params := map[string]string{paramDatabase: "app", "Schema": "public", "Owner": "app_owner"}
	tried := map[string]bool{}
	for _, r := range roles() {
		name := strings.ReplaceAll(r.Name, "-", "_")
		name = "x" + strings.TrimPrefix(name, "pg")
		tgt := manager(t, p, name)
		tgt.Options[optionCustodian] = "The Heir"
		if major(t, p) < since[r.Name] {
			_, err := connector{}.CheckRights(t.Context(), tgt, r, params)
			wantClass(t, r.Name, err, sdk.ClassInvalid)
			continue
		}
		in := intent(sdk.Provision)
		in.Role, in.Account, in.AccountID = r, "u"+name, "acct_"+r.Name
		if len(r.Params) > 0 {
			in.Params = params
		}
		names, statements := lacking(t, tgt, r, in.Params)
		wantClass(t, r.Name+" without any right", live(t, p, tgt, in), sdk.ClassNotPermitted)
		dba(statements...)
		if names, _ := lacking(t, tgt, r, in.Params); len(names) > 0 {
			t.Errorf("%s: still missing %q", r.Name, names)
		}
		if err := live(t, p, tgt, in); err != nil {
			t.Errorf("%s with all that was missing: %v", r.Name, err)
		}
		if slices.Contains(names, "SUPERUSER") || tried[strings.Join(names, "\n")] { // which is everything
			continue
		}
		tried[strings.Join(names, "\n")] = true
		for i, missing := range names {
			less := manager(t, p, fmt.Sprintf("%s_%d", name, i))
			less.Options = tgt.Options
			for k, s := range statements {
				if k != i {
					dba(strings.ReplaceAll(s, " "+name, fmt.Sprintf(" %s_%d", name, i)))
				}
			}
			in.Account, in.AccountID = fmt.Sprintf("u%s_%d", name, i), fmt.Sprintf("acct_%s_%d", r.Name, i)
			if err := live(t, p, less, in); err == nil {
				t.Errorf("%s: it works without %s", r.Name, missing)
			}
		}
	}
}

// since is the version from which the server has what roles of the catalogue grant.
var since = map[string]int{"pg-readonly-all": 14, "pg-readwrite-all": 14, "pg-backup": 14, "pg-checkpoint": 15, "pg-maintain": 17}

func major(t *testing.T, p *testlab.PostgresServer) (n int) {
	t.Helper()
	if err := p.Root().QueryRow("SELECT current_setting('server_version_num')::int / 10000").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// What was granted by others than owners goes as well, when the account does.
func TestRemovalTakesAwayWhatOthersGranted(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	asRoot(t, p, "ALTER ROLE reeve SUPERUSER", "CREATE ROLE bob", "GRANT CONNECT ON DATABASE app TO bob WITH GRANT OPTION",
		"app: GRANT USAGE ON SCHEMA public TO bob WITH GRANT OPTION", "app: GRANT ALL ON item TO bob WITH GRANT OPTION",
		"app: CREATE FUNCTION public.one(int) RETURNS int LANGUAGE sql AS 'SELECT 1'", "app: GRANT ALL ON FUNCTION public.one TO bob WITH GRANT OPTION")
	in := readApp(t, sdk.Provision)
	made := must(t, target(p), in, first)
	asRoot(t, p, "app: SET ROLE bob; GRANT CONNECT ON DATABASE app TO alice; GRANT USAGE ON SCHEMA public TO alice; "+
		"GRANT SELECT, UPDATE (name) ON item TO alice; GRANT ALL ON FUNCTION public.one TO alice")
	in.Action, in.Identity = sdk.Deprovision, made.Facts.Identity
	must(t, target(p), in, "")
	wantRole(t, p, "alice", false)
}

func TestRightsAreFoundWhereverTheyAreHeld(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	dba := administrator(t, p)
	asRoot(t, p, "CREATE ROLE people", "app: CREATE SCHEMA s", "app: CREATE TABLE s.t (a int, b int)", "app: CREATE SEQUENCE s.q",
		"app: CREATE FUNCTION s.f(int, text) RETURNS int LANGUAGE sql AS 'SELECT 1'", "app: REVOKE ALL ON FUNCTION s.f FROM PUBLIC")
	const inApp, option = ` in the database "app"`, " WITH GRANT OPTION"
	since16 := func(missing ...string) []string {
		if major(t, p) < 16 {
			return nil
		}
		return missing
	}
	bypass := since16("BYPASSRLS")
	if bypass == nil {
		bypass = []string{"SUPERUSER"}
	}
	usage := `USAGE ON SCHEMA "s"` + inApp
	for i, c := range []struct {
		held    []string // ME is the management account
		command string
		missing []string
	}{
		{nil, "GRANT people TO %Username%", since16(`"people" WITH ADMIN OPTION`)},
		{nil, "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO %Username%", nil},
		{nil, "ALTER ROLE %Username% CONNECTION LIMIT 3 CREATEDB NOINHERIT VALID UNTIL '2100-01-01'", since16("CREATEDB")},
		{nil, "ALTER ROLE %Username% BYPASSRLS", bypass},
		{nil, "GRANT postgres TO %Username%", []string{"SUPERUSER"}},
		{[]string{"app: ALTER SCHEMA s OWNER TO people", "GRANT people TO ME"}, "GRANT ALL ON SCHEMA s TO %Username%", nil},
		{nil, "GRANT SELECT ON s.t TO %Username%", []string{usage, `SELECT ON TABLE "s"."t"` + inApp + option}},
		{[]string{"app: GRANT USAGE ON SCHEMA s TO ME", "app: GRANT SELECT ON s.t TO ME"}, "GRANT SELECT, INSERT (a) ON TABLE s.t TO %Username% WITH GRANT OPTION",
			[]string{`SELECT ON TABLE "s"."t"` + inApp + option, `INSERT ("a") ON TABLE "s"."t"` + inApp + option}},
		{[]string{"app: GRANT USAGE ON SCHEMA s TO ME", "app: GRANT INSERT (a), UPDATE ON s.t TO ME WITH GRANT OPTION"},
			"GRANT INSERT (a), UPDATE (a, b) ON s.T TO %Username%", nil},
		{[]string{"app: GRANT USAGE ON SCHEMA s TO ME"}, "GRANT ALL PRIVILEGES ON SEQUENCE s.q TO %Username%",
			[]string{`USAGE ON SEQUENCE "s"."q"` + inApp + option, `SELECT ON SEQUENCE "s"."q"` + inApp + option, `UPDATE ON SEQUENCE "s"."q"` + inApp + option}},
		{nil, "GRANT EXECUTE ON FUNCTION s.f(int, text) TO %Username%", []string{usage, `EXECUTE ON FUNCTION "s"."f"(int, text)` + inApp + option}},
		{nil, "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA s TO %Username%", []string{usage, `EXECUTE ON ALL FUNCTIONS IN SCHEMA "s"` + inApp + option}},
		{nil, "REVOKE TEMP ON DATABASE app FROM %Username%", []string{`TEMPORARY ON DATABASE "app"` + option}},
	} {
		name := fmt.Sprintf("m%d", i)
		tgt := manager(t, p, name)
		tgt.Options[optionDatabase] = "app"
		dba("ALTER ROLE "+name+" CREATEROLE;", "GRANT pg_signal_backend TO "+name+";")
		for _, h := range c.held {
			asRoot(t, p, strings.ReplaceAll(h, "ME", name))
		}
		in := intent(sdk.Provision)
		in.Account, in.AccountID = "u"+name, "acct_"+name
		in.Role = sdk.Role{Name: "ours", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {c.command}}}
		missing, statements := lacking(t, tgt, in.Role, nil)
		if !slices.Equal(missing, c.missing) {
			t.Errorf("%s: missing %q, want %q", c.command, missing, c.missing)
		}
		dba(statements...)
		if _, err := apply(t.Context(), tgt, in, first); err != nil {
			t.Errorf("%s: nothing is missing, and %v", c.command, err)
		}
	}
	tgt := manager(t, p, "nobody")
	for command, want := range map[string]sdk.Class{
		"CREATE TABLE public.x (i int)":                      sdk.ClassUnsupported,
		"GRANT USAGE ON LANGUAGE sql TO %Username%":          sdk.ClassUnsupported,
		"ALTER ROLE postgres SUPERUSER":                      sdk.ClassUnsupported,
		"ALTER ROLE %Username% SET work_mem = 1":             sdk.ClassUnsupported,
		"GRANT SELECT ON public.nothing TO %Username%":       sdk.ClassInvalid,
		"GRANT nobody_at_all TO %Username%":                  sdk.ClassInvalid,
		"GRANT USAGE ON SCHEMA nothing TO %Username%":        sdk.ClassInvalid,
		"GRANT SELECT ON item TO %Username%":                 sdk.ClassInvalid, // it is not in pg_catalog
		"ALTER ROLE %Username% PASSWORD 'x'":                 sdk.ClassInvalid,
		"GRANT SELECT ON ALL TABLES IN SCHEMA %Schema% TO x": sdk.ClassInvalid,
	} {
		r := sdk.Role{Name: "ours", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {command}}}
		_, err := connector{}.CheckRights(t.Context(), tgt, r, nil)
		wantClass(t, command, err, want)
	}
	tgt.Management.Password = secret(canary + " not")
	_, err := connector{}.CheckRights(t.Context(), tgt, role(t, "pg-monitor"), nil)
	wantClass(t, "a wrong password", err, sdk.ClassAuthFailed)
}

func FuzzNeedOf(f *testing.F) {
	for _, r := range roles() {
		for _, c := range r.Phases[sdk.PhaseGrant] {
			f.Add(c)
		}
	}
	f.Add(`REVOKE GRANT OPTION FOR SELECT ("a b", c) ON TABLE s.t, "S"."T" FROM %Username% CASCADE`)
	f.Add("GRANT EXECUTE ON FUNCTION s.f(int, numeric(3, 1)), g( TO x")
	f.Fuzz(func(t *testing.T, command string) {
		n, err := needOf(command, map[string]string{paramDatabase: "d", "Schema": "s", "Owner": "o"})
		if err == nil && (n.kind == "" || n.command != command || len(n.privileges) == 0 && n.kind != attributes && n.kind != memberships && n.kind != defaultPrivileges) {
			t.Errorf("%q is %+v", command, n)
		}
	})
}
