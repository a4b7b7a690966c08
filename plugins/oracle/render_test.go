package main

import (
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

func TestCommandsAreRenderedAsTheyStand(t *testing.T) {
	t.Parallel()
	params := map[string]string{"Table": "T", "Schema": "HR", "Quota": "5G", "Space": `my space`}
	for command, want := range map[string]string{
		"GRANT DBA TO %Username%":                                `GRANT DBA TO "ALICE"`,
		" GRANT DBA TO %Username% ; ":                            `GRANT DBA TO "ALICE"`,
		`GRANT SELECT ON %Schema%.%Table% TO "%Username%"`:       `GRANT SELECT ON "HR"."T" TO "ALICE"`,
		"ALTER USER %Username% QUOTA %Quota% ON %Space%":         `ALTER USER "ALICE" QUOTA 5G ON "my space"`,
		"BEGIN pkg.enrol('%Username%'); END;":                    `BEGIN pkg.enrol('ALICE'); END;`,
		"COMMENT ON TABLE hr.t IS '100%% of %Username%'":         `COMMENT ON TABLE hr.t IS '100% of ALICE'`,
		"DECLARE x INT := 1; BEGIN pkg.p(x, '%Username%'); END;": `DECLARE x INT := 1; BEGIN pkg.p(x, 'ALICE'); END;`,
	} {
		if got, err := render(command, "ALICE", params); err != nil || got.sql != want {
			t.Errorf("%q: %q, %v, want %q", command, got.sql, err, want)
		}
	}
}

func TestCommandsThatCannotBeSafeAreRefused(t *testing.T) {
	t.Parallel()
	params := map[string]string{"Quota": "5G", "Bad": `x"y`, "Size": "1; DROP USER SYS"}
	for _, command := range []string{
		"", ";", "  ", "GRANT DBA TO %Username%; DROP USER SYS", "GRANT %Missing% TO %Username%", "GRANT DBA TO x%Username%",
		"GRANT DBA TO %Username% -- %Username%", "/* %Username% */ GRANT DBA TO x", "GRANT DBA TO \"%Username%", "GRANT DBA TO '%Username%",
		"GRANT %Bad% TO %Username%", `GRANT "%Bad%" TO %Username%`, "ALTER USER %Username% QUOTA %Size% ON USERS",
		"ALTER USER %Username% QUOTA %Bad% ON USERS", `ALTER USER %Username% IDENTIFIED BY "x"`, "ALTER USER %Username% identified by x",
		"GRANT CREATE SESSION TO %Username% IDENTIFIED BY x", "GRANT DBA TO :1", "SELECT q'[%Username%]' FROM dual", "100% of x",
	} {
		if got, err := render(command, "ALICE", params); err == nil {
			t.Errorf("%q became %q", command, got.sql)
		}
	}
}

func TestRolesOfTheCatalogueAreSafeForEveryName(t *testing.T) {
	t.Parallel()
	params := map[string]string{"Tablespace": "USERS", paramQuota: "5G"}
	for _, r := range roles() {
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
		for _, commands := range r.Phases {
			for _, command := range commands {
				if _, err := render(command, `A'B;--/*#$ %`, params); err != nil {
					t.Errorf("%s: %v", r.Name, err)
				}
				if got, err := render(command, `A" B`, params); err == nil {
					t.Errorf("%s: %s", r.Name, got.sql)
				}
			}
		}
	}
}

func FuzzRenderedCommandsKeepTheirShape(f *testing.F) {
	f.Add("GRANT DBA TO %Username%", "ALICE", "5G")
	f.Add("ALTER USER %Username% QUOTA %Quota% ON USERS", "A", "1M; x")
	f.Add("BEGIN p('%Username%', %Quota%); END;", "a'b", `"`)
	f.Add("ALTER USER QUOTA %Quota%QUOTA", "zq1z", "zq1z")
	f.Fuzz(func(t *testing.T, command, username, value string) {
		harmless, err := render(command, "A", map[string]string{paramQuota: "5G"})
		if err != nil {
			return
		}
		got, err := render(command, username, map[string]string{paramQuota: value})
		if err != nil {
			return
		}
		want, err1 := template.PLSQL.Tokens(harmless.sql)
		have, err2 := template.PLSQL.Tokens(got.sql)
		if err1 != nil || err2 != nil || len(want) != len(have) {
			t.Fatalf("%q and %q are not alike (%v, %v)", harmless.sql, got.sql, err1, err2)
		}
		for i := range want {
			if want[i].Kind != have[i].Kind {
				t.Fatalf("%q and %q are not alike", harmless.sql, got.sql)
			}
		}
	})
}

func FuzzPasswordsStayPasswords(f *testing.F) {
	f.Add("x")
	f.Add(`a"b`)
	f.Add("'; DROP USER SYS; --")
	f.Fuzz(func(t *testing.T, password string) {
		text, err := literal(sdk.NewSecret([]byte(password)))
		if err != nil {
			if password != "" && !strings.ContainsAny(password, "\"\x00\r\n") {
				t.Fatalf("%q is refused", password)
			}
			return
		}
		tokens, err := template.PLSQL.Tokens("ALTER USER X IDENTIFIED BY " + text)
		if err != nil {
			return // not UTF-8
		}
		if last := tokens[len(tokens)-1]; len(tokens) != 11 || last.Kind != template.Name || last.Value != password {
			t.Fatalf("%q became %d tokens, the last %q", password, len(tokens), last.Value)
		}
	})
}

func FuzzWhatTheServerSaysOfItself(f *testing.F) {
	f.Add("318767104", "20261130084700", "+01:00")
	f.Add("202375680", "", "")
	f.Add("-1", "99999999999999", "x")
	f.Fuzz(func(t *testing.T, number, digits, zone string) {
		if s, err := serverOf(number); err == nil {
			if again, err := parsed(product, s.version()); err != nil || again != s {
				t.Fatalf("%s became %+v", s.version(), again)
			}
		}
		if at := stampOf(digits, zone); !at.IsZero() && len(digits) != len(stampLayout) {
			t.Fatalf("%q %q became %s", digits, zone, at)
		}
	})
}

func TestLoginNamesAreWhatPeopleMean(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]string{
		"reeve": "REEVE", "C##reeve": "C##REEVE", `"reeve"`: `"reeve"`, "a b": `"a b"`, "ümit": `"ümit"`,
	} {
		if got, err := managementName(written); err != nil || got != want {
			t.Errorf("%s: %q, %v", written, got, err)
		}
	}
	for _, bad := range []string{"", `"`, `""`, `a"b`, `"a"b"`} {
		if got, err := managementName(bad); err == nil {
			t.Errorf("%s became %s", bad, got)
		}
	}
	for exact, want := range map[string]string{"REEVE": "REEVE", "reeve": `"reeve"`, "a b": `"a b"`} {
		if got, err := exactName(exact); err != nil || got != want {
			t.Errorf("%s: %q, %v", exact, got, err)
		}
	}
}

func TestMarksFitOldServers(t *testing.T) {
	t.Parallel()
	a := account{name: "X", id: "4294967295", created: "20261130084700"}
	if m := markName("acct_" + strings.Repeat("x", 59)); len(m) > shortName || m == markName("acct_1") {
		t.Errorf("mark %s", m)
	}
	if o := a.markObject(); len(o) > shortName {
		t.Errorf("object %s", o)
	}
}

func TestCommandsThatDoNotReadAreRefusedWhenARoleIsSaved(t *testing.T) {
	t.Parallel()
	for command, fits := range map[string]bool{
		"SELECT 1 FROM dual": true, "-- why\nselect 1 FROM dual": true, "GRANT CONNECT TO %Username%": false, "BEGIN NULL; END;": false,
	} {
		for _, phase := range []sdk.Phase{sdk.PhaseVerify, sdk.PhaseFacts} {
			r := sdk.Role{Name: "r", Version: 1, Phases: map[sdk.Phase][]string{phase: {command}}}
			if err := (connector{}).Describe().CheckRole(r); (err == nil) != fits {
				t.Errorf("%q in %s: %v", command, phase, err)
			}
		}
	}
}
