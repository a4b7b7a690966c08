package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/internal/emu/oracle"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

func paramsOf(r sdk.Role) map[string]string {
	if len(r.Params) == 0 {
		return nil
	}
	return map[string]string{"Tablespace": "USERS", paramQuota: "5G"}
}

func missingRights(t *testing.T, s *oracle.Server, r sdk.Role) (missing []sdk.Right) {
	t.Helper()
	all, err := connector{}.CheckRights(t.Context(), target(s), r, paramsOf(r))
	if err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	for _, right := range all {
		if right.Name == "" || right.Reason == "" || right.Held != (right.Grant == "") {
			t.Errorf("%s: %+v", r.Name, right)
		}
		if !right.Held {
			missing = append(missing, right)
		}
	}
	return missing
}

// life makes an account with the role, logs in as it, and removes it.
func life(t *testing.T, s *oracle.Server, r sdk.Role) error {
	t.Helper()
	in := intent(sdk.Provision)
	in.Role, in.Params = r, paramsOf(r)
	if _, err := apply(t.Context(), target(s), in, first); err != nil {
		return err
	}
	db, err := open(s, "ALICE", first)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	in.Action = sdk.Deprovision
	_, err = apply(t.Context(), target(s), in, "")
	return err
}

// neededAlways is how many rights every role needs.
const neededAlways = 8

func rightless(t *testing.T) *oracle.Server {
	t.Helper()
	return oracle.Start(t, oracle.Options{Rights: []string{"CREATE SESSION TO REEVE"}})
}

// A management account without any right gets exactly what CheckRights says. Then the role works; without one of the statements it does not.
func TestStatementsOfTheRightsCheckAreEnoughAndNeeded(t *testing.T) {
	t.Parallel()
	for _, r := range roles() {
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			s := rightless(t)
			missing := missingRights(t, s, r)
			for _, right := range missing {
				s.Exec(right.Grant)
			}
			if left := missingRights(t, s, r); len(left) > 0 {
				t.Errorf("still missing: %+v", left)
			}
			if err := life(t, s, r); err != nil {
				t.Errorf("nothing is missing, and %v", err)
			}
			for i, left := range missing {
				if i < neededAlways && r.Name != "oracle-connect" {
					continue
				}
				s := rightless(t)
				for _, right := range missing {
					if right != left {
						s.Exec(right.Grant)
					}
				}
				wantClass(t, "without "+left.Name, life(t, s, r), sdk.ClassNotPermitted)
			}
		})
	}
}

func TestRightsOfAnAdministratorLackNothing(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{Rights: []string{
		"DBA TO REEVE", "SYSBACKUP TO REEVE", "EXECUTE ON SYS.DBMS_LOCK TO REEVE",
	}})
	for _, r := range roles() {
		if missing := missingRights(t, s, r); len(missing) > 0 {
			t.Errorf("%s: %+v", r.Name, missing)
		}
	}
}

func TestRightsForRolesOfPeoplesOwn(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	s.DB.AddRole("app role")
	s.Exec(`CREATE USER HR IDENTIFIED BY "hr"`, "GRANT READ ON HR.HELD TO REEVE WITH GRANT OPTION")
	custom := func(command string) sdk.Role {
		return sdk.Role{Name: "ours", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {command}}}
	}
	for command, want := range map[string][]string{
		`GRANT "app role" TO %Username%`:                        {`GRANT "app role" TO REEVE WITH ADMIN OPTION`},
		"GRANT create table, SELECT ON hr.t TO %Username%":      {`GRANT CREATE TABLE ON "HR"."T" TO REEVE WITH GRANT OPTION`, `GRANT SELECT ON "HR"."T" TO REEVE WITH GRANT OPTION`},
		"REVOKE DBA, CREATE VIEW FROM %Username%":               {`GRANT "DBA" TO REEVE WITH ADMIN OPTION`, "GRANT CREATE VIEW TO REEVE WITH ADMIN OPTION"},
		`GRANT READ ON "HR"."HELD" TO %Username%`:               nil,
		"GRANT READ ON mine TO %Username%":                      nil,
		"GRANT CREATE SESSION TO %Username%":                    nil,
		"GRANT ALL PRIVILEGES TO %Username%":                    {"GRANT GRANT ANY PRIVILEGE TO REEVE"},
		"GRANT SYSOPER TO %Username%":                           {"GRANT SYSDBA TO REEVE"},
		"ALTER USER %Username% QUOTA 1G ON USERS":               nil,
		"SELECT username FROM dba_users WHERE username = 'SYS'": nil,
	} {
		var grants []string
		for _, right := range missingRights(t, s, custom(command)) {
			grants = append(grants, right.Grant)
		}
		if !slices.Equal(grants, want) {
			t.Errorf("%s: %q, want %q", command, grants, want)
		}
	}
	s.SetFaults(oracle.Faults{Fail: map[string]int{"SELECT salary": 942}})
	for command, want := range map[string]sdk.Class{
		"BEGIN enrol('%Username%'); END;":           sdk.ClassUnsupported,
		"GRANT READ ON DIRECTORY d TO %Username%":   sdk.ClassUnsupported,
		"GRANT UPDATE (a) ON hr.t TO %Username%":    sdk.ClassUnsupported,
		"CREATE TABLE %Username%.T (I INT)":         sdk.ClassUnsupported,
		"SELECT salary FROM hr.people":              sdk.ClassNotPermitted,
		"GRANT DBA TO %Username% IDENTIFIED BY hmm": sdk.ClassInvalid,
	} {
		_, err := connector{}.CheckRights(t.Context(), target(s), custom(command), nil)
		wantClass(t, command, err, want)
	}
	tgt := target(s)
	tgt.Management.Password = secret(canary)
	_, err := connector{}.CheckRights(t.Context(), tgt, sdk.Role{}, nil)
	wantClass(t, "a wrong password", err, sdk.ClassAuthFailed)
}

// The password file knows who has SYSBACKUP, and only a session that began with it hands it on.
func TestAdministrativePrivilegeIsHandedOnBySessionsThatBeganWithIt(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	in := intent(sdk.Provision)
	in.Role = role(t, "oracle-backup")
	before := s.DB.Snapshot()
	_, err := apply(t.Context(), target(s), in, first)
	wantClass(t, "provision", err, sdk.ClassNotPermitted)
	if e, ok := err.(*sdk.Error); !ok || !strings.Contains(e.Fix, "GRANT SYSBACKUP TO REEVE") { //nolint:errorlint // it is not wrapped
		t.Errorf("the fix: %v", err)
	}
	if s.DB.Snapshot() != before {
		t.Errorf("left behind: %s", s.DB.Snapshot())
	}
	s.Exec("GRANT SYSBACKUP TO REEVE")
	plan, err := connector{}.Plan(t.Context(), target(s), in)
	if err != nil || !slices.ContainsFunc(plan.Steps, func(s sdk.Step) bool { return strings.HasSuffix(s.Title, "AS SYSBACKUP") }) {
		t.Errorf("the plan: %+v, %v", plan, err)
	}
	if r := must(t, target(s), in, first); !slices.Equal(r.Facts.Grants, []string{"CREATE SESSION", "SYSBACKUP"}) {
		t.Errorf("grants %q", r.Facts.Grants)
	}
	in.Action = sdk.Deprovision
	must(t, target(s), in, "")
}

func FuzzReadGrant(f *testing.F) {
	f.Add(`GRANT CREATE SESSION, "a b", dba TO "X" WITH ADMIN OPTION`)
	f.Add(`REVOKE READ, SELECT ON "HR".T FROM x`)
	f.Add("GRANT READ ON DIRECTORY d TO x")
	f.Add("GRANT , TO")
	f.Fuzz(func(t *testing.T, sql string) {
		g, err := readGrant(sql)
		if err == nil && (len(g.items) == 0 || slices.Contains(g.items, item{"", true}) && !strings.Contains(sql, `""`)) {
			t.Errorf("%q is %+v", sql, g)
		}
	})
}
