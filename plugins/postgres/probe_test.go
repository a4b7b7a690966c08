package main

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

func TestServerIsTrustedOnlyByItsCertificate(t *testing.T) {
	t.Parallel()
	p, other := testlab.Postgres(t, testlab.PostgresOptions{}), testlab.Postgres(t, testlab.PostgresOptions{})
	tgt := target(p)
	f, err := connector{}.Probe(t.Context(), tgt)
	if err != nil || f.Product != product || !strings.HasPrefix(f.Version, strconv.Itoa(major(t, p))+".") || len(f.MissingRights) != 0 {
		t.Errorf("probe: %+v, %v", f, err)
	}
	if _, err := (connector{}).Probe(t.Context(), rig.Trusts(t, tgt, other.CAPEM)); err != nil {
		t.Errorf("approved: %v", err)
	}

	tgt = target(p)
	tgt.Management.Password = secret(canary)
	_, err = connector{}.Probe(t.Context(), tgt)
	wantClass(t, "a wrong password", err, sdk.ClassAuthFailed)
	logs, err := p.Logs()
	if err != nil || strings.Count(logs, "password authentication failed") != 1 {
		t.Errorf("a login was tried at a server that is not trusted, or: %v", err)
	}
}

func TestPlainServerIsRefused(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{Plain: true, Access: []string{"hostnossl all all 127.0.0.0/8 scram-sha-256"}})
	_, err := connector{}.Probe(t.Context(), target(p))
	wantClass(t, "probe", err, sdk.ClassUnsupported)
	if err != nil && !strings.Contains(err.Error(), "TLS") {
		t.Error(err)
	}
}

func TestEveryRoleOfTheCatalogueWorks(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{Grants: []string{"ALTER ROLE " + testlab.Management + " SUPERUSER"}})
	tgt := target(p)
	asRoot(t, p, `app: CREATE SCHEMA "we""ird'; --"`, `app: CREATE TABLE "we""ird'; --".t (n serial)`)
	before, err := snapshot(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{paramDatabase: "app", "Schema": `we"ird'; --`, "Owner": "app_owner"}
	want := map[string][]string{
		"pg-superuser":           {"SUPERUSER"},
		"pg-createdb-createrole": {"CREATEDB", "CREATEROLE"},
		"pg-readonly-all":        {"in pg_read_all_data"},
		"pg-readwrite-all":       {"in pg_read_all_data", "in pg_write_all_data"},
		"pg-monitor":             {"in pg_monitor"},
		"pg-signal":              {"in pg_signal_backend"},
		"pg-db-owner":            {"CONNECT ON DATABASE app", "in app_owner"},
		"pg-db-ro": {"CONNECT ON DATABASE app", `app: SELECT ON 1 SEQUENCES IN SCHEMA "we""ird'; --"`,
			`app: SELECT ON 1 TABLES IN SCHEMA "we""ird'; --"`, `app: USAGE ON SCHEMA "we""ird'; --"`},
		"pg-db-rw": {"CONNECT ON DATABASE app", `app: DELETE ON 1 TABLES IN SCHEMA "we""ird'; --"`,
			`app: DELETE ON NEW TABLES OF app_owner IN SCHEMA "we""ird'; --"`, `app: INSERT ON 1 TABLES IN SCHEMA "we""ird'; --"`,
			`app: INSERT ON NEW TABLES OF app_owner IN SCHEMA "we""ird'; --"`, `app: SELECT ON 1 SEQUENCES IN SCHEMA "we""ird'; --"`,
			`app: SELECT ON 1 TABLES IN SCHEMA "we""ird'; --"`, `app: SELECT ON NEW SEQUENCES OF app_owner IN SCHEMA "we""ird'; --"`,
			`app: SELECT ON NEW TABLES OF app_owner IN SCHEMA "we""ird'; --"`, `app: UPDATE ON 1 TABLES IN SCHEMA "we""ird'; --"`,
			`app: UPDATE ON NEW TABLES OF app_owner IN SCHEMA "we""ird'; --"`, `app: USAGE ON 1 SEQUENCES IN SCHEMA "we""ird'; --"`,
			`app: USAGE ON NEW SEQUENCES OF app_owner IN SCHEMA "we""ird'; --"`, `app: USAGE ON SCHEMA "we""ird'; --"`},
		"pg-replication": {"REPLICATION"},
		"pg-checkpoint":  {"in pg_checkpoint"},
		"pg-maintain":    {"in pg_maintain"},
		"pg-backup":      {"CONNECT ON DATABASE app", "in pg_read_all_data", "in pg_read_all_settings"},
	}
	for _, r := range roles() {
		in := intent(sdk.Provision)
		in.Role, in.Account, in.AccountID, in.Params = r, strings.ReplaceAll(r.Name, "pg-", "u-"), "acct_"+r.Name, map[string]string{}
		for _, p := range r.Params {
			in.Params[p.Name] = values[p.Name]
		}
		res, err := apply(t.Context(), tgt, in, first)
		if major(t, p) < since[r.Name] {
			wantClass(t, r.Name, err, sdk.ClassInvalid)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		got := slices.Clone(res.Facts.Grants)
		for _, g := range res.Facts.Groups {
			got = append(got, "in "+g)
		}
		if d := cmp.Diff(want[r.Name], got); d != "" {
			t.Errorf("%s: %s", r.Name, d)
		}
		wantLogin(t, p, in.Account, first, nil)
		if again := must(t, tgt, in, first); again.Changed {
			t.Errorf("%s: provisioning again changed something", r.Name)
		}
		in.Action, in.Identity = sdk.Deprovision, res.Facts.Identity
		must(t, tgt, in, "")
	}
	// Nothing of them is left. An owner's own rights are written out once others have some.
	after, err := snapshot(t.Context(), p)
	if err != nil || strings.Contains(after, "u-db-") || strings.Count(after, "\n") != strings.Count(before, "\n") {
		t.Errorf("left behind: %s, %v", cmp.Diff(before, after), err)
	}
}

func TestHasPasswordIsKnownToSuperusers(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	asRoot(t, p, "CREATE ROLE bare LOGIN", "CREATE ROLE root2 SUPERUSER LOGIN PASSWORD 'root-two'")
	tgt := target(p)
	for user, want := range map[string]bool{testlab.Management: true, "root2": false} {
		if user == "root2" {
			tgt.Management = sdk.Credential{Username: user, Password: secret("root-two")}
		}
		f, err := connector{}.Inspect(t.Context(), target(p), "bare")
		if user == "root2" {
			f, err = connector{}.Inspect(t.Context(), tgt, "bare")
		}
		if err != nil || f.HasPassword != want {
			t.Errorf("%s sees a password: %t, want %t (%v)", user, f.HasPassword, want, err)
		}
	}
}

func TestPlanNeedsNoServer(t *testing.T) {
	t.Parallel()
	tgt := sdk.Target{
		Address: "127.0.0.1", Port: 1, Management: sdk.Credential{Username: "reeve"},
		Options: map[string]string{optionDatabase: "postgres", optionLimit: "10", optionLogin: loginSCRAM},
	}
	in := intent(sdk.Provision)
	in.Comment = "o'brien"
	in.Role, in.Params = role(t, "pg-db-owner"), map[string]string{paramDatabase: "app", "Owner": `app "o"`}
	commands := func(action sdk.Action) (all []string) {
		in.Action = action
		plan, err := connector{}.Plan(t.Context(), tgt, in)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range plan.Steps {
			all = append(all, s.Command)
		}
		return all
	}
	want := map[sdk.Action][]string{
		sdk.Provision: {
			`CREATE ROLE "alice" LOGIN PASSWORD '********' CONNECTION LIMIT 10`, `COMMENT ON ROLE "alice" IS 'reeve:acct_1 o''brien'`,
			`GRANT CONNECT ON DATABASE "app" TO "alice"`, `GRANT "app ""o""" TO "alice"`,
			`ALTER ROLE "alice" PASSWORD '********'`, `ALTER ROLE "alice" LOGIN VALID UNTIL 'infinity'`, "COMMIT",
		},
		sdk.Deprovision: {
			`ALTER ROLE "alice" NOLOGIN`, "COMMIT", "SELECT pg_terminate_backend(pid) (each session of alice)",
			`GRANT "alice" TO CURRENT_USER; REASSIGN OWNED BY "alice" TO CURRENT_USER; DROP OWNED BY "alice"`, `DROP ROLE "alice"`, "COMMIT",
		},
	}
	for action, want := range want {
		if d := cmp.Diff(want, commands(action)); d != "" {
			t.Errorf("%s: %s", action, d)
		}
	}
	for option, param := range map[string]string{"keeper": "", "": "keeper", "other": "keeper"} {
		tgt.Options[optionCustodian], in.Params[paramCustodian] = option, param
		if got := commands(sdk.Deprovision)[3]; !strings.Contains(got, `REASSIGN OWNED BY "alice" TO "keeper"; DROP OWNED`) {
			t.Errorf("option %q, parameter %q: %s", option, param, got)
		}
	}
	in.Account = "reeve"
	for _, action := range []sdk.Action{sdk.Disable, sdk.Deprovision} {
		in.Action = action
		_, err := connector{}.Plan(t.Context(), tgt, in)
		wantClass(t, string(action)+" of the management account", err, sdk.ClassInvalid)
	}
	for _, name := range []string{"pg_alice", "public", "none"} {
		in.Account = name
		_, err := connector{}.Plan(t.Context(), tgt, in)
		wantClass(t, name, err, sdk.ClassInvalid)
	}
	in.Account = "alice"
	for _, limit := range []string{"", "0", "-2", "x", "99999999999"} {
		tgt.Options[optionLimit] = limit
		_, err := connector{}.Plan(t.Context(), tgt, in)
		wantClass(t, "limit "+limit, err, sdk.ClassInvalid)
	}
}
