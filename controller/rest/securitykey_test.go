//nolint:bodyclose // must and Answer close every one
package rest_test

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/identity/webauthntest"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// What one leader asked of a key is answered to the next, once.
func TestAChallengeForAKeyHoldsOverALeaderChange(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Nodes: 3})
	ctx, once, again := t.Context(), key(), key()
	const site = "https://reeve.example.com"
	systemtest.Call[client.SecurityKeys](c, func(api *client.Client) (*http.Response, error) {
		return api.ConfigureSecurityKeys(ctx, &client.ConfigureSecurityKeysParams{IdempotencyKey: once}, client.SecurityKeysRequest{Urls: []string{site}})
	})
	systemtest.Call[client.User](c, func(api *client.Client) (*http.Response, error) {
		return api.AddUser(ctx, &client.AddUserParams{IdempotencyKey: again}, client.UserRequest{Name: "ada"})
	})
	invitation := systemtest.Call[client.CreatedInvitation](c, func(api *client.Client) (*http.Response, error) { return api.InviteUser(ctx, "ada") }).Secret
	password := canary + " lantern walrus"
	systemtest.Call[struct{}](c, func(api *client.Client) (*http.Response, error) {
		return api.AcceptInvitation(ctx, client.AcceptRequest{Invitation: &invitation, Password: &password})
	})
	signIn := func(answer *string) (client.CreatedSession, error) {
		return systemtest.Try[client.CreatedSession](c, func(api *client.Client) (*http.Response, error) {
			return api.SignIn(ctx, client.SignInRequest{Name: "ada", Password: &password, Answer: answer})
		})
	}
	first, err := signIn(nil)
	if err != nil {
		t.Fatal(err)
	}
	as := func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+first.Secret)
		return nil
	}
	kind, yubi := client.Webauthn, webauthntest.New(t, site)
	yubi.Counterless = true // so that nothing but the challenge stops a replay
	made := systemtest.Call[client.CreatedFactor](c, func(api *client.Client) (*http.Response, error) {
		return api.AddFactor(ctx, client.FactorRequest{Kind: &kind}, as)
	})
	answer := yubi.Enrol(t, made.Challenge.Options)
	systemtest.Call[client.RecoveryCodes](c, func(api *client.Client) (*http.Response, error) {
		return api.ConfirmFactor(ctx, made.Factor.Id, client.ConfirmRequest{Answer: &answer}, as)
	})
	begun := systemtest.Call[client.KeyChallenge](c, func(api *client.Client) (*http.Response, error) {
		return api.BeginSignIn(ctx, client.SignInChallengeRequest{Name: "ada", Password: &password})
	})
	was := c.Leader()
	if code, _, raw := do(t, c.HTTP(), "POST", c.URL(was)+"/v1/cluster/transfer", "{}", authorized(c)); code != http.StatusNoContent {
		t.Fatalf("%d %s", code, raw)
	}
	c.Eventually("another leads", func() (bool, string) { return c.Leader() != was, "it is the old one" })
	answer = yubi.Answer(t, begun.Options)
	if _, err := signIn(&answer); err != nil {
		t.Errorf("to the next leader: %v", err)
	}
	if _, err := signIn(&answer); err == nil || !strings.Contains(err.Error(), "second_factor_wrong") {
		t.Errorf("the answer again: %v", err)
	}
}

// Every controller serves the page, sealed or not leading, to anybody: it holds nothing. It
// runs its own script, and none that stands in it.
func TestThePageForSecurityKeysRunsItsOwnScriptOnly(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	for path, kind := range map[string]string{"/security-key": "text/html", "/security-key.js": "text/javascript", "/security-key.css": "text/css"} {
		g := send(t, c, 0, call{method: "GET", path: path})
		policy := g.Header.Get("Content-Security-Policy")
		if g.StatusCode != http.StatusOK || !strings.HasPrefix(g.Header.Get("Content-Type"), kind) || g.Header.Get("X-Content-Type-Options") != "nosniff" || g.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", path, g.StatusCode, g.Header)
		}
		for _, word := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"} {
			if !strings.Contains(policy, word) {
				t.Errorf("%s: the policy lacks %s: %s", path, word, policy)
			}
		}
		if strings.Contains(policy, "unsafe") || regexp.MustCompile(`(?i)<script(?:>| [^>]*>[^<])| on[a-z]+=|javascript:|innerHTML|eval\(`).Match(g.raw) {
			t.Errorf("%s: %s %s", path, policy, g.raw)
		}
	}
	if g := send(t, c, 0, call{method: "GET", path: "/security-key.txt"}); g.StatusCode != http.StatusNotFound {
		t.Errorf("%d", g.StatusCode)
	}
}
