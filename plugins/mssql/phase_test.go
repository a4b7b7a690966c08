package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/internal/emu/tds"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

func TestCommandsOfARoleRunInTheirPhases(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	r := sdk.Role{Name: "ours", Version: 1, Phases: map[sdk.Phase][]string{
		sdk.PhaseCreate:  {"USE app", "CREATE USER %Username% FOR LOGIN %Username%"},
		sdk.PhaseGrant:   {"USE app", "EXEC sp_addrolemember N'db_datareader', N'%Username%'"},
		sdk.PhaseRotate:  {"USE app", "ALTER ROLE [db_datawriter] ADD MEMBER %Username%"},
		sdk.PhaseEnable:  {"USE app", "ALTER ROLE [db_ddladmin] ADD MEMBER %Username%"},
		sdk.PhaseDisable: {"USE app", "ALTER ROLE [db_datawriter] DROP MEMBER %Username%"},
		sdk.PhaseRevoke:  {"USE app", "ALTER ROLE [db_datareader] DROP MEMBER %Username%"},
		sdk.PhaseRemove:  {"PRINT N'gone %Username%'"},
		sdk.PhaseVerify:  {"SELECT name FROM sys.sql_logins WHERE name = N'%Username%' AND is_disabled = 0"},
		sdk.PhaseFacts: {
			"SELECT name, is_disabled FROM sys.sql_logins WHERE name = N'%Username%'", "USE app",
			"SELECT DB_NAME() AS [db]", "SELECT name FROM sys.sql_logins WHERE name = N'nobody'",
		},
	}}
	if err := (connector{}).Describe().CheckRole(r); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		action   sdk.Action
		password string
		sent     []string // the role's commands, in this order among what else is sent
		learns   bool
	}{
		{sdk.Provision, first, []string{"CREATE LOGIN", "CREATE USER", "sp_addrolemember", "is_disabled = 0", "SELECT name, is_disabled"}, true},
		{sdk.Rotate, second, []string{"ALTER LOGIN", "[db_datawriter] ADD", "is_disabled = 0", "SELECT name, is_disabled"}, true},
		{sdk.Disable, "", []string{"DISABLE", "[db_datawriter] DROP"}, false},
		{sdk.Enable, "", []string{"ENABLE", "[db_ddladmin] ADD", "is_disabled = 0", "SELECT name, is_disabled"}, true},
		{sdk.Deprovision, "", []string{"DISABLE", "[db_datareader] DROP", "DROP USER", "DROP LOGIN", "gone alice"}, false},
	} {
		in := intent(c.action)
		in.Role = r
		before := len(s.Statements())
		res := must(t, target(s), in, c.password)
		rest := s.Statements()[before:]
		for _, want := range c.sent {
			i := slices.IndexFunc(rest, func(statement string) bool { return strings.Contains(statement, want) })
			if i < 0 {
				t.Errorf("%s: %s was not sent in its turn", c.action, want)
				continue
			}
			rest = rest[i+1:]
		}
		want := map[string]string{}
		if c.learns {
			want = map[string]string{"facts-1": "alice\tfalse", "facts-3": "app", "facts-4": ""}
		}
		for _, name := range []string{"facts-1", "facts-2", "facts-3", "facts-4"} {
			got, there := res.Facts.Attributes[name]
			if w, expected := want[name]; got != w || there != expected {
				t.Errorf("%s: %s is %q, %t", c.action, name, got, there)
			}
		}
	}
}

func TestCheckThatFindsNothingTakesANewLoginBack(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	before := s.Snapshot()
	in := intent(sdk.Provision)
	in.Role = sdk.Role{Name: "ours", Version: 1, Phases: map[sdk.Phase][]string{
		sdk.PhaseVerify: {"SELECT name FROM sys.sql_logins WHERE name = N'%Username%' AND is_disabled = 1"},
	}}
	_, err := apply(t.Context(), target(s), in, first)
	wantClass(t, "a check that finds nothing", err, sdk.ClassProtocol)
	if s.Snapshot() != before {
		t.Errorf("left behind: %s", s.Snapshot())
	}
	for _, command := range []string{
		"DROP LOGIN %Username%", "SELECT 1 DROP LOGIN sa", "SELECT 1; SELECT 2", "SELECT 1 AS a INTO t", "SELECT 1 EXEC sp_who", "PRINT N'x'",
	} {
		in.Role.Phases = map[sdk.Phase][]string{sdk.PhaseFacts: {command}}
		_, err = apply(t.Context(), target(s), in, first)
		wantClass(t, command, err, sdk.ClassInvalid)
	}
}

// What could not be undone is told with the error.
func TestWhatAFailedProvisionLeavesIsNamed(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	in := intent(sdk.Provision)
	in.Role = sdk.Role{Name: "ours", Version: 1, Phases: map[sdk.Phase][]string{
		sdk.PhaseGrant: {"USE app", "CREATE USER %Username% FOR LOGIN %Username%", "ALTER ROLE [nothing] ADD MEMBER %Username%"},
	}}
	before := s.Snapshot()
	_, err := apply(t.Context(), target(s), in, first)
	wantClass(t, "a role that is not there", err, sdk.ClassNotPermitted)
	if s.Snapshot() != before {
		t.Errorf("left behind: %s", s.Snapshot())
	}
	s.SetFaults(at(tds.Fault{Kind: tds.Refuse, Err: &tds.Error{Number: 15151, State: 1, Class: 16, Message: first}}, "DROP USER"))
	_, err = apply(t.Context(), target(s), in, first)
	wantClass(t, "the same, and its user stays", err, sdk.ClassNotPermitted)
	e, ok := err.(*sdk.Error) //nolint:errorlint // it is not wrapped
	if !ok || !strings.Contains(e.Details["residue"], "database app") || strings.Contains(e.Details["residue"], first) {
		t.Errorf("residue of %v: %v", err, e.Details)
	}
}
