package systemtest_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/emu/oracle"
	"github.com/reeve-pam/reeve/internal/emu/tds"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// A role that people wrote in their database's language goes from the API to the target as it stands, with its meaning, and its
// account lives from provision to removal. A command of old is taken as written, and today's form is offered.
func TestRolesInTheTargetsOwnLanguage_A2_8(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	c.Agent("lab", systemtest.AgentOptions{Connectors: []string{"mssql", "oracle"}})
	t.Run("all", func(t *testing.T) {
		t.Run("mssql", func(t *testing.T) {
			t.Parallel()
			s := tds.Start(t, tds.Options{})
			const sample = `CALL master..sp_addsrvrolemember @loginame = N'%Username%', @rolename = N'sysadmin'`
			role := spoken{
				asset: client.AssetRequest{Name: "mssql", Site: "lab", Connector: "mssql", Address: "127.0.0.1", Port: &s.Port, CaPem: &s.CAPEM,
					ManagementAccount: managementAccount("sa", tds.Administrator)},
				phases: map[client.RolePhaseRequestPhase][]string{
					"grant":  {sample},
					"verify": {"SELECT name FROM sys.sql_logins WHERE name = N'%Username%' AND is_disabled = 0"},
				},
				account: "alice",
				has: func(t *testing.T, there, usable bool) {
					t.Helper()
					l, ok := s.Login("alice")
					if ok != there || ok && (l.Disabled == usable || !slices.Equal(l.Roles, []string{"sysadmin"})) {
						t.Errorf("the login is there: %t, %+v", ok, l)
					}
				},
			}
			made := role.lives(t, c.For(t))
			if made.Advice == nil || len(*made.Advice) != 1 || (*made.Advice)[0].Command != sample ||
				(*made.Advice)[0].Modern != "ALTER SERVER ROLE [sysadmin] ADD MEMBER %Username%" {
				t.Errorf("advice %+v", made.Advice)
			}
			if !slices.ContainsFunc(s.Statements(), func(text string) bool {
				return text == "EXEC master..sp_addsrvrolemember @loginame = N'alice', @rolename = N'sysadmin'"
			}) {
				t.Error("the command was not sent as it was written")
			}
		})
		t.Run("oracle", func(t *testing.T) {
			t.Parallel()
			s := oracle.Start(t, oracle.Options{Rights: append(oracle.ManagementRights(), "DBA TO REEVE WITH ADMIN OPTION")})
			role := spoken{
				asset: client.AssetRequest{Name: "oracle", Site: "lab", Connector: "oracle", Address: s.Addr, Port: &s.Port, CaPem: &s.CAPEM,
					Options:           &map[string]string{"service_name": oracle.Service},
					ManagementAccount: managementAccount(oracle.Management, oracle.ManagementPassword)},
				phases: map[client.RolePhaseRequestPhase][]string{
					"grant":  {"GRANT DBA TO %Username%;"},
					"revoke": {"REVOKE DBA FROM %Username%"},
					"verify": {"SELECT granted_role FROM dba_role_privs WHERE grantee = '%Username%' AND granted_role = 'DBA'"},
				},
				account: "ALICE",
				has: func(t *testing.T, there, usable bool) {
					t.Helper()
					if got, want := s.DB.Status("ALICE"), map[bool]string{true: "OPEN", false: "LOCKED"}[usable]; there != (got != "") || there && got != want {
						t.Errorf("the account is %q", got)
					}
				},
			}
			role.lives(t, c.For(t))
			if !slices.ContainsFunc(s.DB.Log(), func(text string) bool { return text == `GRANT DBA TO "ALICE"` }) {
				t.Error("the command was not sent")
			}
			if strings.Contains(s.DB.Snapshot(), "ALICE") {
				t.Errorf("left behind: %s", s.DB.Snapshot())
			}
		})
	})
}

func managementAccount(name, password string) *client.ManagementAccountRequest {
	return &client.ManagementAccountRequest{Username: name, Password: &password}
}

// spoken is a role in the language of a target, and an account that gets it.
type spoken struct {
	asset   client.AssetRequest
	phases  map[client.RolePhaseRequestPhase][]string
	account string
	has     func(t *testing.T, there, usable bool) // looks at the target itself
}

// lives makes the role, and leads an account with it through its life.
func (s spoken) lives(t *testing.T, c *systemtest.Cluster) client.Role {
	t.Helper()
	once := func(what string) *string { w := slug("dialect", what, s.asset.Name); return &w }
	var phases []client.RolePhaseRequest
	for phase, commands := range s.phases {
		phases = append(phases, client.RolePhaseRequest{Phase: phase, Commands: commands})
	}
	role := systemtest.Call[client.Role](c, func(api *client.Client) (*http.Response, error) {
		return api.AddRole(t.Context(), &client.AddRoleParams{IdempotencyKey: once("role")},
			client.RoleRequest{Name: slug("our", s.asset.Name), Title: "Ours", Connector: s.asset.Connector, Phases: &phases})
	})
	systemtest.Call[client.Asset](c, func(api *client.Client) (*http.Response, error) {
		return api.AddAsset(t.Context(), &client.AddAssetParams{IdempotencyKey: once("asset")}, s.asset)
	})
	c.Eventually("the management account is verified", func() (bool, string) {
		a := c.Asset(s.asset.Name)
		return a.ManagementAccount.Verified, fmt.Sprintf("alert %v, management %+v", a.Alert, *a.ManagementAccount)
	})
	account := systemtest.Call[client.Batch](c, func(api *client.Client) (*http.Response, error) {
		return api.ProvisionAccounts(t.Context(), &client.ProvisionAccountsParams{IdempotencyKey: once("order")},
			client.ProvisionRequest{Name: s.account, Role: role.Name, Assets: []string{s.asset.Name}})
	}).Accounts[0].Id
	c.AwaitSync(account)
	s.has(t, true, true)
	for _, step := range []struct {
		action, state string
		there, usable bool
	}{{"rotate", "active", true, true}, {"disable", "disabled", true, false}, {"enable", "active", true, true}, {"deprovision", "removed", false, false}} {
		job := c.Act(account, step.action, "")
		if j := c.AwaitJob(job, "ends", systemtest.Final); j.State != client.JobStateDone {
			t.Fatalf("%s is %s: %+v", step.action, j.State, j.Error)
		}
		c.AwaitAccount(account, "is "+step.state, func(a client.Account) bool { return a.State == step.state })
		s.has(t, step.there, step.usable)
	}
	return role
}
