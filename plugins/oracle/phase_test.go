package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/internal/emu/oracle"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

func TestCommandsOfARoleRunInTheirPhases(t *testing.T) {
	t.Parallel()
	s := withGrants(t, oracle.Options{})
	r := sdk.Role{Name: "ours", Version: 1, Phases: map[sdk.Phase][]string{
		sdk.PhaseCreate:  {"ALTER USER %Username% QUOTA 1M ON USERS"},
		sdk.PhaseGrant:   {"GRANT SELECT_CATALOG_ROLE TO %Username%"},
		sdk.PhaseRotate:  {"ALTER USER %Username% QUOTA 2M ON USERS"},
		sdk.PhaseEnable:  {"ALTER USER %Username% QUOTA 3M ON USERS"},
		sdk.PhaseDisable: {"ALTER USER %Username% QUOTA 4M ON USERS"},
		sdk.PhaseRevoke:  {"REVOKE SELECT_CATALOG_ROLE FROM %Username%"},
		sdk.PhaseRemove:  {"ALTER USER %Username% QUOTA 5M ON USERS"},
		sdk.PhaseVerify:  {"SELECT username FROM dba_users WHERE username = '%Username%' AND account_status = 'OPEN'"},
		sdk.PhaseFacts: {
			"SELECT granted_role, admin_option FROM dba_role_privs WHERE grantee = '%Username%'",
			"SELECT owner FROM dba_objects WHERE owner = '%Username%'",
		},
	}}
	if err := (connector{}).Describe().CheckRole(r); err != nil {
		t.Fatal(err)
	}
	before := 0
	for _, c := range []struct {
		action   sdk.Action
		password string
		sent     []string // the role's commands, in this order among what else is sent
		learns   bool
	}{
		{sdk.Provision, first, []string{"CREATE USER", "QUOTA 1M", "GRANT SELECT_CATALOG_ROLE", "IDENTIFIED BY", "ACCOUNT UNLOCK", "= 'OPEN'", "SELECT granted_role,"}, true},
		{sdk.Rotate, second, []string{"IDENTIFIED BY", "QUOTA 2M", "= 'OPEN'", "SELECT granted_role,"}, true},
		{sdk.Disable, "", []string{"ACCOUNT LOCK", "QUOTA 4M"}, false},
		{sdk.Enable, "", []string{"ACCOUNT UNLOCK", "QUOTA 3M", "= 'OPEN'", "SELECT granted_role,"}, true},
		{sdk.Deprovision, "", []string{"ACCOUNT LOCK", "REVOKE SELECT_CATALOG_ROLE", "QUOTA 5M", "DROP USER"}, false},
	} {
		in := intent(c.action)
		in.Role = r
		res := must(t, target(s), in, c.password)
		rest := s.DB.Log()[before:]
		before += len(rest)
		for _, want := range c.sent {
			i := slices.IndexFunc(rest, func(statement string) bool { return strings.Contains(statement, want) })
			if i < 0 {
				t.Errorf("%s: %s was not sent in its turn", c.action, want)
				continue
			}
			rest = rest[i+1:]
		}
		if got := res.Facts.Attributes["facts-1"]; got != map[bool]string{true: "SELECT_CATALOG_ROLE\tNO"}[c.learns] {
			t.Errorf("%s: learnt %q", c.action, got)
		}
		if _, there := res.Facts.Attributes["facts-2"]; there != c.learns {
			t.Errorf("%s: facts-2 is there: %t", c.action, there)
		}
	}
}

func TestCheckThatFindsNothingTakesANewAccountBack(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	before := s.DB.Snapshot()
	in := intent(sdk.Provision)
	in.Role = sdk.Role{Name: "ours", Version: 1, Phases: map[sdk.Phase][]string{
		sdk.PhaseVerify: {"SELECT granted_role FROM dba_role_privs WHERE grantee = '%Username%'"},
	}}
	_, err := apply(t.Context(), target(s), in, first)
	wantClass(t, "a check that finds nothing", err, sdk.ClassProtocol)
	if s.DB.Snapshot() != before {
		t.Errorf("left behind: %s", s.DB.Snapshot())
	}
	for _, command := range []string{"DROP USER %Username%", "BEGIN NULL; END;", "SELECT 1 FROM dual FOR UPDATE", "WITH x AS (SELECT 1 FROM dual) SELECT 1 FROM x"} {
		in.Role.Phases = map[sdk.Phase][]string{sdk.PhaseFacts: {command}}
		_, err = apply(t.Context(), target(s), in, first)
		wantClass(t, command, err, sdk.ClassInvalid)
	}
}
