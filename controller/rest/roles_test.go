//nolint:bodyclose // must closes every one
package rest_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/systemtest"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

const sample = "CALL master..sp_addsrvrolemember @loginame = N'%Username%', @rolename = N'sysadmin'"

// oldSQL describes a connector for SQL Server that may be told to do without TLS.
func oldSQL(t *testing.T) client.ConnectorRequest {
	t.Helper()
	raw, err := proto.Marshal(sdk.DescriptionToProto(sdk.Description{
		Name: "old-sql", Title: "SQL Server", Version: "1.0.0", Category: sdk.Database, DefaultPort: 1433, Dialect: "tsql",
		NameRule: sdk.NameRule{Pattern: "^[a-z]+$", MaxBytes: 8, Help: "small letters"}, PasswordRule: sdk.PasswordRule{MinLength: 8, MaxLength: 64},
		Options: []sdk.Option{{Name: "legacy", Default: "no", Allowed: []string{"yes", "no"}, Help: "whether to do without TLS"}},
		Roles:   []sdk.Role{{Name: "old-sql-login", Title: "A login", Version: 1}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	return client.ConnectorRequest{Sha256: strings.Repeat("5", 64), Description: raw}
}

func granting(commands ...string) *[]client.RolePhaseRequest {
	return &[]client.RolePhaseRequest{{Phase: client.RolePhaseRequestPhaseGrant, Commands: commands}}
}

// roles adds, clones, edits and retires a custom role.
func (s *story) roles() {
	t, c, api := s.t, s.c, s.api
	t.Helper()
	ctx := t.Context()
	must[client.Connector](s)(api.RegisterConnector(ctx, nil, oldSQL(t)))
	added := must[client.Role](s)(api.AddRole(ctx, &client.AddRoleParams{IdempotencyKey: key()},
		client.RoleRequest{Name: "our-sysadmin", Connector: "old-sql", Title: "Ours", Phases: granting(sample)}))
	const modern = "ALTER SERVER ROLE [sysadmin] ADD MEMBER %Username%"
	if added.Predefined || added.Version != 1 || added.Phases[0].Commands[0] != sample || added.Advice == nil || (*added.Advice)[0].Modern != modern {
		t.Errorf("%+v", added)
	}
	edited := must[client.Role](s)(api.EditRole(ctx, "our-sysadmin", &client.EditRoleParams{IdempotencyKey: key()},
		client.RoleEdit{Version: 1, Title: "Ours", Phases: granting(modern)}))
	if edited.Version != 2 || edited.Advice != nil {
		t.Errorf("%+v", edited)
	}
	first := int64(1)
	if old := must[client.Role](s)(api.GetRole(ctx, "our-sysadmin", &client.GetRoleParams{Version: &first})); old.RetiredAt == nil || old.Phases[0].Commands[0] != sample {
		t.Errorf("%+v", old)
	}
	must[client.Role](s)(api.CloneRole(ctx, "our-sysadmin", nil, client.RoleCloneRequest{Name: "our-copy"}))
	must[struct{}](s)(api.RetireRole(ctx, "our-copy", nil))

	before := head(t, c)
	for code, resp := range map[string]func() (*http.Response, error){
		"placeholder_unsafe": func() (*http.Response, error) {
			return api.AddRole(ctx, nil, client.RoleRequest{Name: "bad", Connector: "old-sql", Title: "Bad", Phases: granting("SELECT 1", "SELECT 2 -- "+canary+" %Username%")})
		},
		"placeholder_unknown": func() (*http.Response, error) {
			return api.EditRole(ctx, "our-sysadmin", nil, client.RoleEdit{Version: 2, Title: "Bad", Phases: granting("PRINT '" + canary + " %Who%'")})
		},
		"command_malformed": func() (*http.Response, error) {
			return api.EditRole(ctx, "our-sysadmin", nil, client.RoleEdit{Version: 2, Title: "Bad", Phases: granting("PRINT '" + canary)})
		},
		"role_phase_unsupported": func() (*http.Response, error) {
			return api.EditRole(ctx, "our-sysadmin", nil, client.RoleEdit{Version: 2, Title: "Bad",
				Phases: &[]client.RolePhaseRequest{{Phase: "facts", Commands: []string{"SELECT 1"}}}})
		},
		"role_changed": func() (*http.Response, error) {
			return api.EditRole(ctx, "our-sysadmin", nil, client.RoleEdit{Version: 1, Title: "Late", Phases: granting(sample)})
		},
		"role_predefined": func() (*http.Response, error) { return api.RetireRole(ctx, "old-sql-login", nil) },
		"role_taken": func() (*http.Response, error) {
			return api.CloneRole(ctx, "old-sql-login", nil, client.RoleCloneRequest{Name: "our-sysadmin"})
		},
		"role_not_found": func() (*http.Response, error) { return api.GetRole(ctx, "nobody", nil) },
	} {
		_, err := fleet.Answer[client.Role](resp())
		if err == nil || !strings.Contains(err.Error(), code) || strings.Contains(err.Error(), canary) {
			t.Errorf("want %s: %v", code, err)
		}
		if code == "placeholder_unsafe" && !strings.Contains(err.Error(), "phase grant, command 2, character ") {
			t.Errorf("without the place: %v", err)
		}
	}
	if head(t, c) != before {
		t.Error("what was refused changed something")
	}
	if got := len(records(t, c, "role.add")) + len(records(t, c, "role.edit")) + len(records(t, c, "role.clone")) + len(records(t, c, "role.retire")); got != 4 {
		t.Errorf("%d records of 4 changes", got)
	}
}

// legacy: an asset that may do without TLS says so wherever it is shown.
func (s *story) legacy() {
	t, api := s.t, s.api
	t.Helper()
	ctx := t.Context()
	for name, option := range map[string]string{"old": "yes", "new": "no"} {
		must[client.Asset](s)(api.AddAsset(ctx, nil, client.AssetRequest{Name: name, Site: "dmz", Connector: "old-sql", Address: "192.0.2.7",
			Options: &map[string]string{"legacy": option}}))
		if got := must[client.Asset](s)(api.GetAsset(ctx, name)); got.Legacy != (name == "old") {
			t.Errorf("%s is shown as legacy %t", name, got.Legacy)
		}
	}
	var marked []string
	for _, a := range must[client.AssetPage](s)(api.ListAssets(ctx, nil)).Items {
		if a.Legacy {
			marked = append(marked, a.Name)
		}
	}
	// Its jobs and accounts say so too.
	password := "canary-never-used-1"
	must[client.Asset](s)(api.SetManagementAccount(ctx, "old", nil, client.ManagementAccountRequest{Username: "sa", Password: &password}))
	for _, j := range must[client.JobPage](s)(api.ListJobs(ctx, nil)).Items {
		if j.Legacy != (j.Asset != nil && *j.Asset == "old") {
			t.Errorf("job %+v is shown as legacy %t", j, j.Legacy)
		}
	}
	if !slices.Equal(marked, []string{"old"}) {
		t.Errorf("listed as legacy: %v", marked)
	}
}

// rights: the answer of a check is with its job.
func (s *story) rights(asset string) {
	t, c, api := s.t, s.c, s.api
	t.Helper()
	ref := must[client.JobRef](s)(api.CheckRights(t.Context(), asset, &client.CheckRightsParams{IdempotencyKey: key()}, client.RightsRequest{Role: "linux-admin-sudo"}))
	var job client.Job
	c.Eventually("the rights are known", func() (bool, string) {
		job = systemtest.Call[client.Job](c, func(api *client.Client) (*http.Response, error) { return api.GetJob(t.Context(), ref.Job) })
		return job.State == client.JobStateDone, string(job.State)
	})
	if job.Rights == nil || slices.ContainsFunc(*job.Rights, func(r client.Right) bool { return !r.Held || r.Name == "" || r.Reason == "" }) {
		t.Errorf("root lacks nothing: %+v", job.Rights)
	}
	_, err := fleet.Answer[client.JobRef](api.CheckRights(t.Context(), asset, nil, client.RightsRequest{Role: "linux-backup-operator"}))
	if err == nil || !strings.Contains(err.Error(), "param_missing") {
		t.Errorf("%v", err)
	}
}
