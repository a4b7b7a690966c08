package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/internal/emu/tds"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// TestRightsThatARoleNeedsAreSaidAndTheirStatementsAreEnough gives a management account that has nothing exactly what CheckRights says,
// and then does with it what the role is for.
func TestRightsThatARoleNeedsAreSaidAndTheirStatementsAreEnough(t *testing.T) {
	t.Parallel()
	for _, r := range roles() {
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			s := tds.Start(t, tds.Options{Databases: []string{"crm"}})
			asRoot(t, s, "master", "CREATE LOGIN ["+manager+"] WITH PASSWORD = N'"+password+"'")
			params := map[string]string{}
			if len(r.Params) > 0 {
				params["Database"] = "crm"
			}
			missing := func() (lacking []sdk.Right) {
				all, err := connector{}.CheckRights(t.Context(), target(s), r, params)
				if err != nil {
					t.Fatal(err)
				}
				for _, right := range all {
					if right.Name == "" || right.Reason == "" || right.Held != (right.Grant == "") {
						t.Errorf("%+v", right)
					}
					if !right.Held {
						lacking = append(lacking, right)
					}
				}
				return lacking
			}
			in := intent(sdk.Provision)
			in.Role, in.Params = r, params
			for _, right := range missing() {
				if _, err := apply(t.Context(), target(s), in, first); err == nil && right.Name != needed[len(needed)-1] {
					t.Errorf("it works without %s", right.Name)
				}
				asRoot(t, s, "master", right.Grant)
			}
			if left := missing(); len(left) > 0 {
				t.Errorf("still missing: %+v", left)
			}
			must(t, target(s), in, first)
			in.Action = sdk.Deprovision
			must(t, target(s), in, "")
		})
	}
}

func TestRightsOfAnAdministratorLackNothing(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	for _, r := range roles() {
		all, err := connector{}.CheckRights(t.Context(), asSA(s), r, map[string]string{"Database": "app"})
		if err != nil || slices.ContainsFunc(all, func(r sdk.Right) bool { return !r.Held }) {
			t.Errorf("%s: %+v, %v", r.Name, all, err)
		}
	}
	all, err := connector{}.CheckRights(t.Context(), target(s), role(t, "mssql-db-owner"), map[string]string{"Database": "crm"})
	want := "USE [crm]; ALTER ROLE [db_owner] ADD MEMBER [" + manager + "]"
	if err != nil || !slices.ContainsFunc(all, func(r sdk.Right) bool { return r.Grant == want && strings.Contains(r.Name, "db_owner") }) {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestRightsForRolesOfPeoplesOwn(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	custom := func(commands ...string) sdk.Role {
		return sdk.Role{Name: "ours", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseGrant: commands}}
	}
	for name, c := range map[string]struct {
		role sdk.Role
		want []string
	}{
		"old procedure": {custom("CALL master..sp_addsrvrolemember @loginame = N'%Username%', @rolename = N'sysadmin'"),
			[]string{"ALTER SERVER ROLE [sysadmin] ADD MEMBER [" + manager + "]"}},
		"a right in a database": {custom("USE crm", "GRANT EXECUTE TO %Username%"),
			[]string{"USE [crm]; CREATE USER [" + manager + "] FOR LOGIN [" + manager + "]", "USE [crm]; ALTER ROLE [db_owner] ADD MEMBER [" + manager + "]"}},
		"in its own database": {custom("USE app", "GRANT EXECUTE TO %Username%", "DENY SELECT ON SCHEMA::[dbo] TO %Username%"), nil},
		"reading":             {custom("SELECT name FROM sys.sql_logins"), nil},
	} {
		all, err := connector{}.CheckRights(t.Context(), target(s), c.role, nil)
		var grants []string
		for _, right := range all {
			if !right.Held {
				grants = append(grants, right.Grant)
			}
		}
		if err != nil || !slices.Equal(grants, c.want) {
			t.Errorf("%s: %q, %v, want %q", name, grants, err, c.want)
		}
	}
	for command, want := range map[string]sdk.Class{
		"EXEC enrol N'%Username%'": sdk.ClassUnsupported, "GRANT ALTER ON LOGIN::[sa] TO %Username%": sdk.ClassUnsupported,
		"SELECT name FROM msdb.dbo.sysjobs": sdk.ClassNotPermitted,
	} {
		_, err := connector{}.CheckRights(t.Context(), target(s), custom(command), nil)
		wantClass(t, command, err, want)
	}
}
