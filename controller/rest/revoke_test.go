package rest_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// Z4: whatever is taken away, and by whatever way, is gone at the next call, and a log
// that was being followed ends within seconds.
func TestWhatIsTakenAwayIsGoneAtTheNextCall_Z4(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	c.RegisterConnectors()
	ctx := t.Context()
	c.Agent("quiet", systemtest.AgentOptions{}).Stop() // its jobs wait
	password := canary
	systemtest.Call[client.Asset](c, func(api *client.Client) (*http.Response, error) {
		return api.AddAsset(ctx, nil, client.AssetRequest{Name: "held", Site: "quiet", Connector: "ssh", Address: "192.0.2.1",
			ManagementAccount: &client.ManagementAccountRequest{Username: "root", Password: &password}})
	})
	job := systemtest.Call[client.JobRef](c, func(api *client.Client) (*http.Response, error) { return api.VerifyAsset(ctx, "held", nil) }).Job
	do := func(call func(*client.Client) (*http.Response, error)) {
		t.Helper()
		if _, err := systemtest.Try[any](c, call); err != nil && !strings.Contains(err.Error(), "EOF") {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name string
		take func(user, group, role, assignment, token string)
	}{
		{"the PAM role is edited", func(_, _, role, _, _ string) {
			do(func(api *client.Client) (*http.Response, error) {
				return api.EditPAMRole(ctx, role, nil, client.PAMRoleText{Privileges: []string{"site.read"}})
			})
		}},
		{"the assignment is deleted", func(_, _, _, assignment, _ string) {
			do(func(api *client.Client) (*http.Response, error) { return api.DeleteAssignment(ctx, assignment, nil) })
		}},
		{"the user leaves the group", func(user, group, _, _, _ string) {
			do(func(api *client.Client) (*http.Response, error) { return api.RemoveGroupMember(ctx, group, user, nil) })
		}},
		{"an access policy hides it", func(user, _, _, _, _ string) {
			do(func(api *client.Client) (*http.Response, error) {
				return api.CreateAccessPolicy(ctx, nil, client.AccessPolicyRequest{Name: user, Users: &[]string{user}, Scope: client.Scope{Types: &[]string{"mysql"}}})
			})
		}},
		{"the asset leaves the asset group", func(user, _, _, _, _ string) {
			do(func(api *client.Client) (*http.Response, error) {
				return api.RemoveGroupedAsset(ctx, user, "held", nil)
			})
		}},
		{"the group is removed", func(_, group, _, _, _ string) {
			do(func(api *client.Client) (*http.Response, error) { return api.RemoveGroup(ctx, group, nil) })
		}},
		{"the user is disabled", func(user, _, _, _, _ string) {
			do(func(api *client.Client) (*http.Response, error) { return api.DisableUser(ctx, user, nil) })
		}},
		{"the user is removed", func(user, _, _, _, _ string) {
			do(func(api *client.Client) (*http.Response, error) { return api.RemoveUser(ctx, user, nil) })
		}},
		{"the token is revoked", func(_, _, _, _, token string) {
			do(func(api *client.Client) (*http.Response, error) { return api.RevokeToken(ctx, token, nil) })
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			word := strings.ReplaceAll(tc.name, " ", "-")
			user, group, role, service := "u-"+strings.ToLower(word), "g-"+strings.ToLower(word), "r-"+strings.ToLower(word), true
			systemtest.Call[client.User](c, func(api *client.Client) (*http.Response, error) {
				return api.AddUser(ctx, nil, client.UserRequest{Name: user, Service: &service})
			})
			do(func(api *client.Client) (*http.Response, error) {
				return api.AddGroup(ctx, nil, client.GroupRequest{Name: group})
			})
			do(func(api *client.Client) (*http.Response, error) { return api.AddGroupMember(ctx, group, user, nil) })
			do(func(api *client.Client) (*http.Response, error) {
				return api.AddPAMRole(ctx, nil, client.PAMRoleRequest{Name: role, Privileges: []string{"job.read", "site.read"}})
			})
			do(func(api *client.Client) (*http.Response, error) {
				return api.CreateAssetGroup(ctx, nil, client.AssetGroupRequest{Name: user})
			})
			do(func(api *client.Client) (*http.Response, error) { return api.AddGroupedAsset(ctx, user, "held", nil) })
			given := systemtest.Call[client.Assignment](c, func(api *client.Client) (*http.Response, error) {
				return api.AddAssignment(ctx, nil, client.AssignmentRequest{Role: role, Group: &group, Scope: client.Scope{AssetGroups: &[]string{user}}})
			})
			made := systemtest.Call[client.CreatedToken](c, func(api *client.Client) (*http.Response, error) {
				return api.CreateToken(ctx, client.TokenRequest{Name: user, Principal: &user})
			})
			read := call{method: "GET", path: "/v1/jobs/" + job, token: made.Secret}
			if g := send(t, c, 0, read); g.StatusCode != http.StatusOK {
				t.Fatalf("before: %d %s", g.StatusCode, g.raw)
			}
			ended := followed(ctx, t, c, read.path+"/log", made.Secret)
			tc.take(user, group, role, given.Id, made.Token.Id)
			if g := send(t, c, 0, read); g.StatusCode < 401 || g.StatusCode > 404 {
				t.Errorf("the next call: %d %s", g.StatusCode, g.raw)
			}
			select {
			case <-ended:
			case <-time.After(20 * time.Second): // seconds, on a busy machine
				t.Error("the log goes on")
			}
		})
	}
}

// followed follows a log that does not end, and says when it does.
func followed(ctx context.Context, t *testing.T, c *systemtest.Cluster, path, token string) <-chan struct{} {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL(0)+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.HTTP().Do(r) //nolint:bodyclose // by the one who reads it
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the log: %d", resp.StatusCode)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer resp.Body.Close()
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); { //nolint:revive // until it is over
		}
	}()
	return ended
}

// Who may label assets moves none into where others hold what the mover does not.
func TestLabelsGiveNobodyMoreThanTheLabellerHolds(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	c.RegisterConnectors()
	c.AddSite("inside")
	ctx, service := t.Context(), true
	tagged := func(env string) client.TagsRequest { return client.TagsRequest{Tags: map[string]string{"env": env}} }
	prod := tagged("prod").Tags
	systemtest.Call[client.Asset](c, func(api *client.Client) (*http.Response, error) {
		return api.AddAsset(ctx, nil, client.AssetRequest{Name: "db", Site: "inside", Connector: "ssh", Address: "192.0.2.1", Tags: &prod})
	})
	test := tagged("test").Tags
	for user, given := range map[string]client.AssignmentRequest{
		"labeller": {Role: "asset-manager", Scope: inSites("inside")},
		"tester":   {Role: "lifecycle-operator", Scope: client.Scope{Tags: &test}},
	} {
		systemtest.Call[client.User](c, func(api *client.Client) (*http.Response, error) {
			return api.AddUser(ctx, nil, client.UserRequest{Name: user, Service: &service})
		})
		given.User = &user
		systemtest.Call[client.Assignment](c, func(api *client.Client) (*http.Response, error) { return api.AddAssignment(ctx, nil, given) })
	}
	labeller := "labeller"
	token := systemtest.Call[client.CreatedToken](c, func(api *client.Client) (*http.Response, error) {
		return api.CreateToken(ctx, client.TokenRequest{Name: "label", Principal: &labeller})
	}).Secret
	label := func(env string) error {
		_, err := systemtest.Try[client.Asset](c, func(*client.Client) (*http.Response, error) {
			return c.Stranger(0, token).LabelAsset(ctx, "db", nil, tagged(env))
		})
		return err
	}
	if err := label("test"); err == nil || !strings.Contains(err.Error(), "grant_exceeds") {
		t.Errorf("into the scope of somebody who may do more: %v", err)
	}
	if got := c.Asset("db"); got.Tags == nil || (*got.Tags)["env"] != "prod" {
		t.Errorf("the tags are %v", got.Tags)
	}
	if err := label("spare"); err != nil {
		t.Errorf("where nobody gets anything: %v", err)
	}
}
