//go:build linux

package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/identity/oidc/oidctest"
	"github.com/reeve-pam/reeve/internal/cmdline"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// screen is what a program writes, to be read while it runs.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// await returns the first match in what is written.
func (s *screen) await(t *testing.T, what *regexp.Regexp) string {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if m := what.FindStringSubmatch(s.String()); m != nil {
			return m[len(m)-1]
		}
	}
	t.Fatalf("it never says %s: %s", what, s)
	return ""
}

var (
	atProvider = regexp.MustCompile(`(?m)^  (https://\S+)$`)
	codeShown  = regexp.MustCompile(`\b([A-Z2-7]{4}-[A-Z2-7]{4})\b`)
	asked      = regexp.MustCompile(`(?:sign in here as|prove here that you are) (\S+), by corp\?`)
)

// From the command line through a real provider and back: the person says yes to what both
// the terminal and the browser show, or there is no session (CVE-2026-33757).
func TestLoginAtAProviderAsksBeforeItKeepsTheSession_CVE_2026_33757(t *testing.T) {
	t.Parallel()
	c, contextOf := realCluster(t)
	p := oidctest.Start(t, oidctest.Options{People: map[string]oidctest.Person{"sub-1": {"preferred_username": "grace", "groups": []string{"dba"}}}})
	dir := t.TempDir()
	secret, authority, mine := filepath.Join(dir, "secret"), filepath.Join(dir, "ca.pem"), filepath.Join(dir, "mine.yaml")
	for path, text := range map[string]string{secret: p.ClientSecret + "\n", authority: p.Authority} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	admin := func(args ...string) result {
		got := invoke(t.Context(), "", append([]string{"--context", contextOf}, args...)...)
		if got.status != 0 {
			t.Fatalf("%q: %s", args, got.err)
		}
		return got
	}
	admin("group", "add", "dba")
	admin("oidc", "add", "corp", "--issuer", p.Issuer, "--client-id", p.ClientID, "--client-secret-file", secret, "--authority-file", authority,
		"--user-claim", "preferred_username", "--group-claim", "groups", "--scope", "groups", "--allow-create")
	if got := admin("oidc", "list", "-o", "json"); !strings.Contains(got.out, p.Issuer) || strings.Contains(got.out, p.ClientSecret) {
		t.Errorf("the list: %s", got.out)
	}
	raw, err := os.ReadFile(contextOf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mine, regexp.MustCompile(`(?m)^token:.*$`).ReplaceAll(raw, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	browser := p.Browser()
	through := func(says string, args ...string) (status int, shown string) {
		typed, keyboard := io.Pipe()
		var out screen
		ended := make(chan int, 1)
		go func() {
			ended <- cmdline.Run(t.Context(), newRoot(stdio{in: typed, out: &out, err: &out}), append([]string{"--context", mine}, args...))
		}()
		back, atThat := browser.Open(t, out.await(t, atProvider), "sub-1")
		if args[0] == "session" && !atThat {
			t.Error("the provider did not ask who it is")
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, back.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		page, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if code := out.await(t, codeShown); !strings.Contains(string(page), code) || strings.Contains(string(page), back.Query().Get("code")) {
			t.Errorf("the page does not show %s, or what it was asked with: %s", code, page)
		}
		if who := out.await(t, asked); who != "grace" {
			t.Errorf("it asks about %q", who)
		}
		if args[0] == "login" && strings.Contains(fileText(t, mine), "session:") {
			t.Error("the session is kept before anybody said yes")
		}
		if _, err := io.WriteString(keyboard, says+"\n"); err != nil {
			t.Fatal(err)
		}
		status = <-ended
		if found := c.Scan([]byte(back.Query().Get("code"))); len(found) > 0 {
			t.Errorf("the code is in %v", found)
		}
		return status, out.String()
	}
	login := func(says string) (int, string) { return through(says, "login", "--oidc", "corp") }
	sessions := func() int {
		grace := "grace"
		return len(systemtest.Call[client.SessionList](c, func(api *client.Client) (*http.Response, error) {
			return api.ListSessions(context.WithoutCancel(t.Context()), &client.ListSessionsParams{User: &grace})
		}).Items)
	}
	if status, shown := login("no"); status == 0 || !strings.Contains(shown, "not signed in") || sessions() != 0 || strings.Contains(fileText(t, mine), "session:") {
		t.Errorf("no: status %d, %d sessions: %s", status, sessions(), shown)
	}
	if status, shown := login("yes"); status != 0 || sessions() != 1 {
		t.Errorf("yes: status %d, %d sessions: %s", status, sessions(), shown)
	}
	if got := invoke(t.Context(), "", "--context", mine, "whoami"); !strings.Contains(got.out, "grace") {
		t.Errorf("whoami: %+v", got)
	}
	proofs := func() int {
		action := "session.step_up"
		return len(systemtest.Call[client.AuditPage](c, func(api *client.Client) (*http.Response, error) {
			return api.ListAudit(context.WithoutCancel(t.Context()), &client.ListAuditParams{Action: &action})
		}).Items)
	}
	if status, shown := through("no", "session", "step-up"); status == 0 || !strings.Contains(shown, "not proved") || proofs() != 0 {
		t.Errorf("a proof, no: status %d: %s", status, shown)
	}
	if status, shown := through("yes", "session", "step-up"); status != 0 || !strings.Contains(shown, "good for five minutes") || proofs() != 1 {
		t.Errorf("a proof, yes: status %d: %s", status, shown)
	}
	if got := admin("group", "show", "dba"); !strings.Contains(got.out, "grace") {
		t.Errorf("the group: %s", got.out)
	}
	admin("oidc", "remove", "corp")
	if found := c.Scan([]byte(p.ClientSecret)); len(found) > 0 {
		t.Errorf("the client's secret is in %v", found)
	}
}

func fileText(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
