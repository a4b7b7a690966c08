//go:build linux

package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/identity/webauthntest"
	"github.com/reeve-pam/reeve/internal/cmdline"
)

// terminal is somebody at a command line, with a context file of their own.
type terminal struct {
	t       *testing.T
	context string
	dir     string
}

// invited adds a user, with the PAM role administrator if they are to be one, who sets a
// password.
func invited(t *testing.T, admin, name, password string, administrator bool) terminal {
	t.Helper()
	root := terminal{t, admin, t.TempDir()}
	root.must("user", "add", name)
	if administrator {
		root.must("assignment", "add", "--role", "administrator", "--user", name, "--everything")
	}
	x := terminal{t, filepath.Join(root.dir, "context.yaml"), root.dir}
	x.write("context.yaml", string(regexp.MustCompile(`(?m)^token:.*$`).ReplaceAll([]byte(fileText(t, admin)), nil)))
	x.write("password", password)
	x.must("accept", "--invitation-file", x.write("invitation", root.must("user", "invite", name).out), "--password-file", x.path("password"))
	return x
}

func (x terminal) path(name string) string { return filepath.Join(x.dir, name) }

func (x terminal) write(name, text string) string {
	x.t.Helper()
	if err := os.WriteFile(x.path(name), []byte(strings.TrimSpace(text)+"\n"), 0o600); err != nil {
		x.t.Fatal(err)
	}
	return x.path(name)
}

func (x terminal) run(args ...string) result {
	return invoke(x.t.Context(), "", append([]string{"--context", x.context}, args...)...)
}

func (x terminal) must(args ...string) result {
	x.t.Helper()
	got := x.run(args...)
	if got.status != 0 {
		x.t.Fatalf("%q: %s", args, got.err)
	}
	return got
}

// refused runs what must fail with a code.
func (x terminal) refused(code string, args ...string) {
	x.t.Helper()
	if got := x.run(args...); got.status == 0 || !strings.Contains(got.err, "["+code+"]") {
		x.t.Errorf("%q: status %d, %s %s", args, got.status, got.out, got.err)
	}
}

func (x terminal) into(v any, args ...string) {
	x.t.Helper()
	if err := json.Unmarshal([]byte(x.must(append(args, "-o", "json")...).out), v); err != nil {
		x.t.Fatal(err)
	}
}

var toOpen = regexp.MustCompile(`(?m)^  (http://127\.0\.0\.1:\S+)$`)

// atKey runs a command that asks a security key, which browse answers for.
func (x terminal) atKey(browse func(t *testing.T, address, code string), args ...string) result {
	x.t.Helper()
	var out, problems screen
	ended := make(chan int, 1)
	ctx, cancel := context.WithCancel(x.t.Context())
	defer cancel()
	go func() {
		ended <- cmdline.Run(ctx, newRoot(stdio{in: strings.NewReader(""), out: &out, err: &problems}), append([]string{"--context", x.context}, args...))
	}()
	browse(x.t, problems.await(x.t, toOpen), problems.await(x.t, codeShown))
	select {
	case status := <-ended:
		return result{status: status, out: out.String(), err: problems.String()}
	case <-time.After(time.Minute):
		x.t.Fatalf("it does not end: %s", &problems)
		return result{}
	}
}

// browser is a browser with a security key in software: it goes where it is sent, and back.
func browser(ask func(t testing.TB, options string) string, wants string) func(t *testing.T, address, code string) {
	return func(t *testing.T, address, code string) {
		t.Helper()
		to := get(t, address, http.StatusSeeOther).Header.Get("Location")
		page, behind, _ := strings.Cut(to, "#")
		q, err := url.ParseQuery(behind)
		if err != nil || page != "https://reeve.example.com/security-key" || q.Get("do") != wants || q.Get("code") != code {
			t.Errorf("it is sent to %s", to)
		}
		options, err := base64.RawURLEncoding.DecodeString(q.Get("options"))
		if err != nil {
			t.Fatal(err)
		}
		back := "http://127.0.0.1:" + q.Get("port") + "/callback?"
		answer := base64.RawURLEncoding.EncodeToString([]byte(ask(t, string(options))))
		get(t, back+url.Values{"state": {"AAAA"}, "answer": {answer}}.Encode(), http.StatusBadRequest)
		get(t, back+url.Values{"state": q["state"], "answer": {answer}}.Encode(), http.StatusOK)
	}
}

func get(t *testing.T, address string, want int) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != want {
		t.Errorf("%s: %s %s", address, resp.Status, text)
	}
	return resp
}

// An authenticator app from beginning to end: added, confirmed, listed, used, stood in for,
// reset by an administrator who signed in, added again and removed.
func TestTheCommandsOfSecondFactorsOnACluster(t *testing.T) {
	t.Parallel()
	c, admin := realCluster(t)
	const password, theirs = "canary lantern walrus 4711", "canary boss umbrella 4712"
	ada, boss := invited(t, admin, "ada", password, false), invited(t, admin, "boss", theirs, true)
	ada.must("login", "ada", "--password-file", ada.path("password"))
	var made client.CreatedFactor
	ada.into(&made, "factor", "add-totp", "--name", "phone")
	link, err := url.Parse(*made.Uri)
	if err != nil {
		t.Fatal(err)
	}
	app := link.Query().Get("secret")
	code := func(steps int) string {
		c, err := totp.GenerateCode(app, time.Now().Add(time.Duration(steps)*30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		return ada.write("code", c)
	}
	ada.refused("code_wrong", "factor", "confirm", made.Factor.Id, "--code-file", ada.write("code", "000000"))
	var first, fresh client.RecoveryCodes
	ada.into(&first, "factor", "confirm", made.Factor.Id, "--code-file", code(0))
	ada.into(&fresh, "factor", "recovery-codes")
	if len(first.Codes) != 10 || len(fresh.Codes) != 10 {
		t.Errorf("%d and %d recovery codes", len(first.Codes), len(fresh.Codes))
	}
	login := []string{"login", "ada", "--password-file", ada.path("password")}
	ada.refused("second_factor_wrong", append(login, "--code-file", ada.write("recovery", first.Codes[0]))...)
	ada.must(append(login, "--code-file", ada.write("recovery", fresh.Codes[0]))...)
	if got := ada.must("factor", "list"); !strings.Contains(got.out, "phone  totp  yes") || !strings.Contains(got.err, "9 recovery codes are left") {
		t.Errorf("the list: %s %s", got.out, got.err)
	}
	ada.must("session", "step-up", "--password-file", ada.path("password"), "--code-file", code(1))

	terminal{t, admin, ada.dir}.refused("session_needed", "user", "reset-factors", "ada")
	ada.refused("not_permitted", "user", "reset-factors", "boss")
	boss.must("login", "boss", "--password-file", boss.path("password"))
	if got := boss.must("user", "reset-factors", "ada"); !strings.Contains(got.err, "ada is active") || !strings.Contains(got.err, "reeve user invite ada") {
		t.Errorf("the reset: %s", got.err)
	}
	ada.refused("session_ended", "factor", "list")
	ada.must(login...)
	ada.into(&made, "factor", "add-totp")
	if got := ada.must("factor", "list"); !strings.Contains(got.out, "authenticator app  totp  no") {
		t.Errorf("one that waits to be confirmed: %s", got.out)
	}
	ada.must("factor", "remove", made.Factor.Id)
	ada.refused("factor_not_found", "factor", "remove", made.Factor.Id)
	ada.refused("factor_missing", "factor", "recovery-codes")
	for _, secret := range append(append(first.Codes, fresh.Codes...), password, theirs, app) {
		if found := c.Scan([]byte(secret)); len(found) > 0 {
			t.Errorf("a secret is in %v", found)
		}
	}
}

// A security key from beginning to end, through a page that the person opens.
func TestTheCommandsOfSecurityKeysOnACluster(t *testing.T) {
	t.Parallel()
	c, admin := realCluster(t)
	const password, short = "canary lantern walrus 4711", "7uz-Qk!w"
	ada := invited(t, admin, "ada", password, false)
	root := terminal{t, admin, ada.dir}
	login := []string{"login", "ada", "--password-file", ada.path("password")}
	ada.must(login...)
	ada.refused("security_keys_off", "factor", "add-key")
	root.refused("security_keys_address", "security-keys", "configure", "--url", "https://192.0.2.1")
	root.must("security-keys", "configure", "--url", "https://reeve.example.com")
	if got := ada.must("security-keys", "show"); !strings.Contains(got.out, "reeve.example.com") || !strings.Contains(got.out, "yes") {
		t.Errorf("%s", got.out)
	}
	key := webauthntest.New(t, "https://reeve.example.com")
	enrolled := ada.atKey(browser(key.Enrol, "add"), "factor", "add-key", "--name", "yubi")
	codes := strings.Fields(enrolled.out)
	if enrolled.status != 0 || len(codes) != 10 {
		t.Fatalf("%+v", enrolled)
	}
	if got := ada.atKey(browser(key.Answer, "prove"), login...); got.status != 0 || !strings.Contains(got.err, "signed in as ada") {
		t.Errorf("the only factor is a key: %+v", got)
	}
	if got := ada.atKey(browser(key.Answer, "prove"), "session", "step-up", "--key", "--password-file", ada.path("password")); got.status != 0 {
		t.Errorf("%+v", got)
	}
	if got := ada.must("factor", "list"); !strings.Contains(got.out, "yubi  webauthn  yes") {
		t.Errorf("the list: %s", got.out)
	}
	wrong := webauthntest.New(t, "https://reeve.example.com")
	if got := ada.atKey(browser(wrong.Answer, "prove"), append(login, "--key")...); got.status == 0 || !strings.Contains(got.err, "[second_factor_wrong]") {
		t.Errorf("another key: %+v", got)
	}
	ada.must(append(login, "--code-file", ada.write("recovery", codes[0]))...)

	ada.must("session", "password", "--current-file", ada.path("password"), "--new-file", ada.write("short", short))
	var all client.FactorList
	ada.into(&all, "factor", "list")
	ada.refused("password_needs_factor", "factor", "remove", all.Items[0].Id)
	ada.must("session", "password", "--current-file", ada.path("short"), "--new-file", ada.path("password"))
	ada.must("factor", "remove", all.Items[0].Id)
	ada.refused("password_short", "session", "password", "--current-file", ada.path("password"), "--new-file", ada.path("short"))
	for _, secret := range append(codes, password, short) {
		if found := c.Scan([]byte(secret)); len(found) > 0 {
			t.Errorf("a secret is in %v", found)
		}
	}
}
