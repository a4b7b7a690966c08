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
