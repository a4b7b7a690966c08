package systemtest_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// A lockout, and the limit for a network, are the cluster's: the next leader knows them.
func TestALockoutOutlivesTheLeader_CVE_2025_6004(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Nodes: 3, Processes: true}) // which end by kill -9
	ctx := t.Context()
	right, wrong := "Canary ferret umbrella quartz 7", "wrong"
	for _, name := range []string{"ada", "bob"} {
		systemtest.Call[client.User](c, func(api *client.Client) (*http.Response, error) {
			return api.AddUser(ctx, nil, client.UserRequest{Name: name})
		})
		inv := systemtest.Call[client.CreatedInvitation](c, func(api *client.Client) (*http.Response, error) { return api.InviteUser(ctx, name) }).Secret
		systemtest.Call[struct{}](c, func(api *client.Client) (*http.Response, error) {
			return api.AcceptInvitation(ctx, client.AcceptRequest{Invitation: &inv, Password: &right})
		})
	}
	signIn := func(name string, password *string) string {
		_, err := systemtest.Try[client.CreatedSession](c, func(api *client.Client) (*http.Response, error) {
			return api.SignIn(ctx, client.SignInRequest{Name: name, Password: password})
		})
		if p, ok := errors.AsType[*fleet.ErrProblem](err); ok {
			return p.Code
		}
		if err != nil {
			t.Fatal(err)
		}
		return ""
	}
	nextLeader := func() {
		old := c.Leader()
		c.Kill(old)
		if now := c.Leader(); now == old {
			t.Fatal("the same node leads")
		}
		c.Restart(old)
		c.AwaitVoters(3)
	}
	for range 8 {
		if got := signIn("ada", &wrong); got != "sign_in_failed" {
			t.Fatalf("a wrong password: %q", got)
		}
	}
	nextLeader()
	if got := signIn("ADA", &right); got != "sign_in_failed" {
		t.Errorf("the right password, at the next leader, while ada must wait: %q", got)
	}
	if got := signIn("bob", &right); got != "" {
		t.Errorf("bob must not wait: %q", got)
	}
	systemtest.Call[client.User](c, func(api *client.Client) (*http.Response, error) { return api.UnlockUser(ctx, "ada", nil) })
	if got := signIn("ada", &right); got != "" {
		t.Errorf("unlocked: %q", got)
	}
	for range 60 {
		if signIn("nobody", &wrong) == "sign_ins_too_many" {
			break
		}
	}
	nextLeader()
	if got := signIn("bob", &right); got != "sign_ins_too_many" {
		t.Errorf("from a network of too many failures, at the next leader: %q", got)
	}
}
