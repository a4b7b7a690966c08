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
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// What one leader asked of a key is answered to the next, by way of a follower, once.
func TestAChallengeForAKeyHoldsOverALeaderChange(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Nodes: 3})
	ctx, api := t.Context(), c.Client(follower(c))
	s := &story{t: t, c: c, api: api}
	const site = "https://reeve.example.com"
	must[client.SecurityKeys](s)(api.ConfigureSecurityKeys(ctx, nil, client.SecurityKeysRequest{Urls: []string{site}}))
	must[client.User](s)(api.AddUser(ctx, nil, client.UserRequest{Name: "ada"}))
	invitation, password := must[client.CreatedInvitation](s)(api.InviteUser(ctx, "ada")).Secret, canary+" lantern walrus"
	must[struct{}](s)(api.AcceptInvitation(ctx, client.AcceptRequest{Invitation: &invitation, Password: &password}))
	first := must[client.CreatedSession](s)(api.SignIn(ctx, client.SignInRequest{Name: "ada", Password: &password}))
	as := func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+first.Secret)
		return nil
	}
	kind, key := client.Webauthn, webauthntest.New(t, site)
	key.Counterless = true // so that nothing but the challenge stops a replay
	made := must[client.CreatedFactor](s)(api.AddFactor(ctx, client.FactorRequest{Kind: &kind}, as))
	answer := key.Enrol(t, made.Challenge.Options)
	must[client.RecoveryCodes](s)(api.ConfirmFactor(ctx, made.Factor.Id, client.ConfirmRequest{Answer: &answer}, as))
	begun := must[client.KeyChallenge](s)(api.BeginSignIn(ctx, client.SignInChallengeRequest{Name: "ada", Password: &password}))
	was := c.Leader()
	if code, _, raw := do(t, c.HTTP(), "POST", c.URL(was)+"/v1/cluster/transfer", "{}", authorized(c)); code != http.StatusNoContent {
		t.Fatalf("%d %s", code, raw)
	}
	c.Eventually("another leads", func() (bool, string) { return c.Leader() != was, "it is the old one" })
	answer = key.Answer(t, begun.Options)
	in := client.SignInRequest{Name: "ada", Password: &password, Answer: &answer}
	must[client.CreatedSession](s)(c.Client(follower(c)).SignIn(ctx, in))
	if _, err := fleet.Answer[client.CreatedSession](c.Client(c.Leader()).SignIn(ctx, in)); err == nil || !strings.Contains(err.Error(), "second_factor_wrong") {
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
