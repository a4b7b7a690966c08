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

// Z4: whatever is taken away, and by whatever way, is gone at the next call, at the leader and at a follower, and a log
// that was being followed ends within seconds.
func TestWhatIsTakenAwayIsGoneAtTheNextCall_Z4(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Nodes: 3})
	nodes := []int{c.Leader(), follower(c)}
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
			t.Parallel()
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
			gone(ctx, t, c, nodes, read, func() { tc.take(user, group, role, given.Id, made.Token.Id) })
		})
	}
}

// gone fails unless a job can be read, and its log followed, until something is taken away.
func gone(ctx context.Context, t *testing.T, c *systemtest.Cluster, nodes []int, read call, take func()) {
	t.Helper()
	var ended []<-chan struct{}
	for _, node := range nodes {
		if g := send(t, c, node, read); g.StatusCode != http.StatusOK {
			t.Fatalf("before: %d %s", g.StatusCode, g.raw)
		}
		ended = append(ended, followed(ctx, t, c, node, read.path+"/log", read.token))
	}
	take()
	for _, node := range nodes {
		if g := send(t, c, node, read); g.StatusCode < 401 || g.StatusCode > 404 {
			t.Fatalf("the next call, at node %d of %v: %d %s", node, nodes, g.StatusCode, g.raw)
		}
	}
	for i, done := range ended {
		select {
		case <-done:
		case <-time.After(systemtest.Patience):
			t.Errorf("the log goes on at node %d of %v", nodes[i], nodes)
		}
	}
}

// Z4: likewise for somebody who signed in, and for what leaves their scope.
func TestASessionAndAScopeEndAtTheNextCall_Z4(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Nodes: 3})
	nodes := []int{c.Leader(), follower(c)}
	c.RegisterConnectors()
	ctx := t.Context()
	c.Agent("quiet", systemtest.AgentOptions{}).Stop() // its jobs wait
	first, second, tags := canary+" ferret umbrella", canary+" lantern walrus", map[string]string{"team": "web"}
	jobs := map[string]string{}
	for _, name := range []string{"held", "moved"} {
		systemtest.Call[client.Asset](c, func(api *client.Client) (*http.Response, error) {
			return api.AddAsset(ctx, nil, client.AssetRequest{Name: name, Site: "quiet", Connector: "ssh", Address: "192.0.2.1", Tags: &tags,
				ManagementAccount: &client.ManagementAccountRequest{Username: "root", Password: &first}})
		})
		jobs[name] = systemtest.Call[client.JobRef](c, func(api *client.Client) (*http.Response, error) { return api.VerifyAsset(ctx, name, nil) }).Job
	}
	systemtest.Call[client.PAMRole](c, func(api *client.Client) (*http.Response, error) {
		return api.AddPAMRole(ctx, nil, client.PAMRoleRequest{Name: "reader", Privileges: []string{"job.read"}})
	})
	do := func(call func(*client.Client) (*http.Response, error)) {
		t.Helper()
		if _, err := systemtest.Try[any](c, call); err != nil && !strings.Contains(err.Error(), "EOF") {
			t.Fatal(err)
		}
	}
	invite := func(user string) *string {
		made := systemtest.Call[client.CreatedInvitation](c, func(api *client.Client) (*http.Response, error) { return api.InviteUser(ctx, user) })
		return &made.Secret
	}
	accept := func(invitation, password *string) {
		do(func(api *client.Client) (*http.Response, error) {
			return api.AcceptInvitation(ctx, client.AcceptRequest{Invitation: invitation, Password: password})
		})
	}
	for name, take := range map[string]func(user string, in client.CreatedSession){
		"the session is ended in itself": func(_ string, in client.CreatedSession) {
			if g := send(t, c, nodes[1], call{method: "DELETE", path: "/v1/sessions/current", token: in.Secret}); g.StatusCode != http.StatusNoContent {
				t.Errorf("%d %s", g.StatusCode, g.raw)
			}
		},
		"the session is ended by an administrator": func(_ string, in client.CreatedSession) {
			do(func(api *client.Client) (*http.Response, error) { return api.EndSession(ctx, in.Session.Id) })
		},
		"the password is changed in another session": func(user string, _ client.CreatedSession) {
			other := systemtest.Call[client.CreatedSession](c, func(api *client.Client) (*http.Response, error) {
				return api.SignIn(ctx, client.SignInRequest{Name: user, Password: &first})
			})
			g := send(t, c, nodes[1], call{method: "POST", path: "/v1/password", token: other.Secret, body: `{"current":"` + first + `","password":"` + second + `"}`})
			if g.StatusCode != http.StatusNoContent {
				t.Errorf("%d %s", g.StatusCode, g.raw)
			}
		},
		"the password is replaced through an invitation": func(user string, _ client.CreatedSession) { accept(invite(user), &second) },
		"the user is disabled": func(user string, _ client.CreatedSession) {
			do(func(api *client.Client) (*http.Response, error) { return api.DisableUser(ctx, user, nil) })
		},
		"the user is removed": func(user string, _ client.CreatedSession) {
			do(func(api *client.Client) (*http.Response, error) { return api.RemoveUser(ctx, user, nil) })
		},
		"the asset loses its label": func(string, client.CreatedSession) {
			do(func(api *client.Client) (*http.Response, error) {
				return api.LabelAsset(ctx, "moved", nil, client.TagsRequest{Tags: map[string]string{"team": "db"}})
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job := jobs["held"]
			if strings.Contains(name, "label") {
				job = jobs["moved"]
			}
			user := "u-" + strings.ReplaceAll(name, " ", "-")
			do(func(api *client.Client) (*http.Response, error) {
				return api.AddUser(ctx, nil, client.UserRequest{Name: user})
			})
			do(func(api *client.Client) (*http.Response, error) {
				return api.AddAssignment(ctx, nil, client.AssignmentRequest{Role: "reader", User: &user, Scope: client.Scope{Tags: &tags}})
			})
			accept(invite(user), &first)
			in := systemtest.Call[client.CreatedSession](c, func(api *client.Client) (*http.Response, error) {
				return api.SignIn(ctx, client.SignInRequest{Name: user, Password: &first})
			})
			gone(ctx, t, c, nodes, call{method: "GET", path: "/v1/jobs/" + job, token: in.Secret}, func() { take(user, in) })
		})
	}
}

// followed follows a log that does not end, and says when it does.
func followed(ctx context.Context, t *testing.T, c *systemtest.Cluster, node int, path, token string) <-chan struct{} {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL(node)+path, nil)
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
