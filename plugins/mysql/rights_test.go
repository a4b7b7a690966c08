package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// managed is a server with a management account that may do what every role needs, and more as given.
func managed(t *testing.T, d *testlab.Database, name string, more ...string) sdk.Target {
	t.Helper()
	who := "'" + name + "'@'%'"
	asRoot(t, d, "CREATE USER "+who+" IDENTIFIED BY '"+canary+"'",
		"GRANT CREATE USER, PROCESS, CONNECTION ADMIN ON *.* TO "+who, "GRANT SELECT ON mysql.* TO "+who)
	for _, m := range more {
		asRoot(t, d, strings.ReplaceAll(m, "ME", who))
	}
	tgt := target(d)
	tgt.Management = sdk.Credential{Username: name, Password: secret(canary)}
	return tgt
}

func lacking(rights []sdk.Right) (names, statements []string) {
	for _, r := range rights {
		if !r.Held {
			names, statements = append(names, r.Name), append(statements, r.Grant)
		}
	}
	return names, statements
}

// What the check says is what the server does: before, the role is refused; the statements as they stand make it work.
func TestTheStatementsOfTheRightsCheckAreEnough(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	for _, r := range roles() {
		if strings.HasPrefix(r.Name, "mysql8-") {
			continue
		}
		name := strings.ReplaceAll(r.Name, "-", "_")
		tgt := managed(t, d, name)
		in := intent(sdk.Provision)
		in.Role, in.Account, in.AccountID = r, "u_"+name, "acct_"+r.Name
		if len(r.Params) > 0 {
			in.Params = map[string]string{"Database": "a_p-p$"}
		}
		rights, err := connector{}.CheckRights(t.Context(), tgt, r, in.Params)
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		names, statements := lacking(rights)
		if len(names) == 0 {
			t.Errorf("%s: nothing is missing", r.Name)
		}
		_, err = apply(t.Context(), tgt, in, first)
		wantClass(t, r.Name+" without "+strings.Join(names, ", "), err, sdk.ClassNotPermitted)
		asRoot(t, d, statements...)
		if rights, err = (connector{}).CheckRights(t.Context(), tgt, r, in.Params); err != nil || len(rights) < 5 {
			t.Errorf("%s: %d rights, %v", r.Name, len(rights), err)
		}
		if names, _ := lacking(rights); len(names) > 0 {
			t.Errorf("%s: still missing %q", r.Name, names)
		}
		res := must(t, tgt, in, first)
		in.Action, in.Identity = sdk.Deprovision, res.Facts.Identity
		must(t, tgt, in, "")
	}
}

func TestRightsAreFoundWhereverTheyAreHeld(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	asRoot(t, d, "CREATE DATABASE app_1", "CREATE TABLE app_1.t (i INT)", "CREATE ROLE reporting")
	custom := func(commands ...string) sdk.Role {
		return sdk.Role{Name: "ours", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseGrant: commands}}
	}
	readApp := custom("GRANT SELECT ON `app\\_1`.* TO %Username%")
	for name, c := range map[string]struct {
		more    []string
		role    sdk.Role
		missing []string
	}{
		"global":              {[]string{"GRANT SELECT ON *.* TO ME WITH GRANT OPTION"}, readApp, nil},
		"all":                 {[]string{"GRANT ALL PRIVILEGES ON *.* TO ME WITH GRANT OPTION"}, custom("GRANT SELECT, INSERT ON app_1.t TO %Username%"), nil},
		"database":            {[]string{"GRANT ALL ON `app\\_1`.* TO ME WITH GRANT OPTION"}, readApp, nil},
		"pattern":             {[]string{"GRANT SELECT ON `app%`.* TO ME WITH GRANT OPTION"}, readApp, nil},
		"no_option":           {[]string{"GRANT SELECT ON *.* TO ME"}, readApp, []string{"SELECT ON `app\\_1`.* WITH GRANT OPTION"}},
		"other_right":         {[]string{"GRANT INSERT ON *.* TO ME WITH GRANT OPTION"}, readApp, []string{"SELECT ON `app\\_1`.* WITH GRANT OPTION"}},
		"other_database":      {[]string{"GRANT SELECT ON `other`.* TO ME WITH GRANT OPTION"}, readApp, []string{"SELECT ON `app\\_1`.* WITH GRANT OPTION"}},
		"table":               {[]string{"GRANT SELECT ON app_1.t TO ME WITH GRANT OPTION"}, custom("GRANT SELECT ON app_1.t TO %Username%"), nil},
		"table_only":          {[]string{"GRANT SELECT ON app_1.t TO ME WITH GRANT OPTION"}, readApp, []string{"SELECT ON `app\\_1`.* WITH GRANT OPTION"}},
		"role":                {[]string{"GRANT reporting TO ME WITH ADMIN OPTION"}, custom("GRANT reporting TO %Username%"), []string{"UPDATE ON `mysql`.*"}},
		"role_without_option": {[]string{"GRANT reporting TO ME"}, custom("GRANT `reporting` TO %Username%"), []string{"`reporting` WITH ADMIN OPTION", "UPDATE ON `mysql`.*"}},
	} {
		tgt := managed(t, d, name, c.more...)
		rights, err := connector{}.CheckRights(t.Context(), tgt, c.role, nil)
		missing, statements := lacking(rights)
		if err != nil || !slices.Equal(missing, c.missing) {
			t.Errorf("%s: missing %q, %v; want %q", name, missing, err, c.missing)
		}
		asRoot(t, d, statements...)
		in := intent(sdk.Provision)
		in.Role, in.Account, in.AccountID = c.role, "u_"+name, "acct_"+name
		if _, err := apply(t.Context(), tgt, in, first); err != nil {
			t.Errorf("%s: nothing is missing, and %v", name, err)
		}
	}
	for command, want := range map[string]sdk.Class{
		"CREATE TABLE app_1.x (i INT)": sdk.ClassUnsupported,
		"SELECT 1 FROM app_1.t":        sdk.ClassNotPermitted,
		"SELECT 1":                     "",
	} {
		_, err := connector{}.CheckRights(t.Context(), managed(t, d, "m"+string(want)), custom(command), nil)
		wantClass(t, command, err, want)
	}
	tgt := target(d)
	tgt.Management.Password = secret(canary)
	_, err := connector{}.CheckRights(t.Context(), tgt, readApp, nil)
	wantClass(t, "a wrong password", err, sdk.ClassAuthFailed)
}

func TestRolesVerifyAndLearn(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	in := intent(sdk.Provision)
	in.Role = sdk.Role{Name: "ours", Version: 1, Phases: map[sdk.Phase][]string{
		sdk.PhaseVerify: {"SELECT 1 FROM mysql.user WHERE User = '%Username%'"},
		sdk.PhaseFacts:  {"SELECT User, plugin, NULL FROM mysql.user WHERE User IN ('%Username%', 'root') ORDER BY User", "SELECT 1 FROM mysql.user WHERE 1 = 0"},
	}}
	res := must(t, target(d), in, first)
	if got := res.Facts.Attributes["facts-1"]; got != "alice\tmysql_native_password\t\nroot\tmysql_native_password\t" {
		t.Errorf("learnt %q", got)
	}
	if got, there := res.Facts.Attributes["facts-2"]; got != "" || !there {
		t.Errorf("learnt %q, %t", got, there)
	}
	if again := must(t, target(d), in, first); again.Changed {
		t.Error("reading changed something")
	}
	in.Action, in.Identity = sdk.Rotate, res.Facts.Identity
	if res = must(t, target(d), in, second); res.Facts.Attributes["facts-1"] == "" {
		t.Error("nothing is learnt after a rotation")
	}
	// A check that finds nothing fails the making of an account, and takes it back.
	in = intent(sdk.Provision)
	in.Account, in.AccountID = "bob", "acct_2"
	in.Role = sdk.Role{Name: "ours", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseVerify: {"SELECT 1 FROM mysql.user WHERE User = 'nobody'"}}}
	_, err := apply(t.Context(), target(d), in, first)
	wantClass(t, "a check that finds nothing", err, sdk.ClassProtocol)
	if _, there, err := d.GlobalPriv(t.Context(), "bob", "%"); there || err != nil {
		t.Errorf("the account is there: %t, %v", there, err)
	}
	in.Role.Phases[sdk.PhaseVerify] = []string{"DROP USER %Username%"}
	_, err = apply(t.Context(), target(d), in, first)
	wantClass(t, "a check that changes something", err, sdk.ClassInvalid)
}

func TestPatternsMatchAsTheServerDoes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"app", "app", true}, {"app", "appx", false}, {"app%", "app", true}, {"%", "", true}, {"", "a", false}, {"a_p", "app", true},
		{`a\_p`, "app", false}, {`a\_p`, "a_p", true}, {"%b%d", "abcd", true}, {"%b%c", "abcd", false}, {`100\%`, "100%", true}, {`100\%`, "1000", false},
		{strings.Repeat("%a", 40), strings.Repeat("a", 64) + "b", false},
	} {
		if got := like(c.pattern, c.name); got != c.want {
			t.Errorf("%q like %q: %t", c.name, c.pattern, got)
		}
	}
}

func FuzzReadGrants(f *testing.F) {
	f.Add("GRANT SELECT (a, b), INSERT ON `x\\_y`.`t` TO `a`@`%` WITH GRANT OPTION")
	f.Add("GRANT `r` TO `a`@`%` WITH ADMIN OPTION")
	f.Add("GRANT EXECUTE ON FUNCTION `x`.`f` TO `a`@`%`")
	f.Add("REVOKE ALL ON *.* FROM")
	f.Fuzz(func(t *testing.T, line string) {
		for _, g := range grantsOf([]string{line}, server{mariaDB, [3]int{10, 11, 0}}) {
			if !g.on.covers(g.on) || len(g.privileges) == 0 && len(g.roles) == 0 {
				t.Errorf("%q is %+v", line, g)
			}
		}
	})
}
