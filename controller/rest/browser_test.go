package rest_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity/oidc/oidctest"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

const origin = "https://reeve.example.com"

// browser is one that has a page of origin open, which is whatever node it is pointed at.
// It keeps cookies as RFC 6265bis says, and says where its requests come from.
type browser struct {
	t       *testing.T
	c       *systemtest.Cluster
	node    int
	cookies map[string]*http.Cookie
	seen    []string // values of cookies, for canaries
}

func newBrowser(t *testing.T, c *systemtest.Cluster, node int) *browser {
	return &browser{t: t, c: c, node: node, cookies: map[string]*http.Cookie{}}
}

// answered is what a browser was answered.
type answered struct {
	*http.Response
	body    string
	problem client.Problem
}

// fetch is a call of a script of the page.
func (b *browser) fetch(method, path, body string) answered {
	return b.send(method, path, body, http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {origin}, "Accept": {"application/json"}}, false)
}

// come is a navigation that another site begins.
func (b *browser) come(path string) answered {
	return b.send("GET", path, "", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Accept": {"text/html,*/*;q=0.8"}}, true)
}

// send waits while nobody leads. What a callback did that nobody knows of is not tried again.
func (b *browser) send(method, path, body string, header http.Header, foreign bool) (out answered) {
	b.t.Helper()
	b.c.Eventually(method+" "+path+" is served", func() (bool, string) {
		out = b.try(method, path, body, header, foreign)
		again := out.StatusCode == http.StatusServiceUnavailable || out.StatusCode == http.StatusGatewayTimeout && !strings.Contains(path, "/callback")
		return !again, out.body
	})
	return out
}

// through begins, signs in at the provider and comes back, from the beginning if it is not
// known what became of it.
func (b *browser) through(at *oidctest.Browser, path, body, person, more string) (page answered, back *url.URL, asked bool) {
	b.t.Helper()
	b.c.Eventually("a whole sign-in", func() (bool, string) {
		back, asked = at.Open(b.t, b.begin(path, body), person)
		page = b.come(back.RequestURI() + more)
		return page.StatusCode != http.StatusGatewayTimeout, page.body
	})
	return page, back, asked
}

func (b *browser) try(method, path, body string, header http.Header, foreign bool) answered {
	t := b.t
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b.c.CA)
	at := strings.TrimPrefix(b.c.URL(b.node), "https://")
	host, _, _ := net.SplitHostPort(at)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, ServerName: host}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", at)
		}}
	r, err := http.NewRequestWithContext(t.Context(), method, origin+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if r.Header = header.Clone(); r.Header == nil {
		r.Header = http.Header{}
	}
	if body == "" {
		r.Body = http.NoBody
	} else {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, c := range b.cookies {
		if !foreign || c.SameSite == http.SameSiteLaxMode && method == http.MethodGet {
			r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
		}
	}
	resp, err := tr.RoundTrip(r) // a redirect would be an answer
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range resp.Cookies() {
		if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteStrictMode && c.SameSite != http.SameSiteLaxMode {
			t.Errorf("%s %s sets a cookie that is not well kept: %s secure %t, script %t, path %s, domain %q, same site %d", method, path, c.Name, c.Secure, !c.HttpOnly, c.Path, c.Domain, c.SameSite)
		}
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
			continue
		}
		b.cookies[c.Name] = c
		b.seen = append(b.seen, c.Value)
		if strings.Contains(string(raw), c.Value) {
			t.Errorf("%s %s: a script can read the cookie %s", method, path, c.Name)
		}
	}
	out := answered{Response: resp, body: string(raw)}
	if strings.Contains(resp.Header.Get("Content-Type"), "problem") {
		_ = json.Unmarshal(raw, &out.problem)
	}
	return out
}

// json reads an answer that has to be a success.
func (a answered) json(t *testing.T, into any) {
	t.Helper()
	if a.StatusCode >= 300 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), into); err != nil {
		t.Fatal(err)
	}
}

// begin has the page begin, and returns the provider's address.
func (b *browser) begin(path, body string) string {
	b.t.Helper()
	var begun client.BrowserBegun
	b.fetch("POST", path, body).json(b.t, &begun)
	return begun.Url
}

// provider is a real one that browsers at origin can sign in at as ada.
func provider(t *testing.T, c *systemtest.Cluster) *oidctest.Provider {
	t.Helper()
	p := oidctest.Start(t, oidctest.Options{Redirects: []string{origin + "/v1/browser/oidc/corp/callback"},
		People: map[string]oidctest.Person{"sub-ada": {"preferred_username": "ada"}, "sub-eve": {"preferred_username": "eve"}}})
	origins := []string{origin}
	for _, user := range []string{"ada", "eve"} {
		systemtest.Call[client.User](c, func(api *client.Client) (*http.Response, error) {
			return api.AddUser(t.Context(), nil, client.UserRequest{Name: user})
		})
	}
	systemtest.Call[client.OIDCProvider](c, func(api *client.Client) (*http.Response, error) {
		return api.AddOIDCProvider(t.Context(), client.OIDCProviderRequest{Name: "corp", Issuer: p.Issuer, ClientId: p.ClientID, ClientSecret: &p.ClientSecret,
			Authority: &p.Authority, UserClaim: client.PreferredUsername, Origins: &origins})
	})
	return p
}

// A browser signs in at a real provider whatever controller it comes to, and whoever leads
// in between; its session is in a cookie alone. It proves itself again, and signs out.
func TestABrowserSignsInAtAnyController(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Nodes: 3})
	p := provider(t, c)
	b := newBrowser(t, c, follower(c))
	at := p.Browser()
	const to = `{"return_to":"/console/jobs?state=dead"}`
	back, _ := at.Open(t, b.begin("/v1/browser/oidc/corp", to), "sub-ada")

	// Another one leads now, and the browser comes back to one that does not.
	old := c.Leader()
	systemtest.Call[struct{}](c, func(api *client.Client) (*http.Response, error) {
		return api.TransferLeadership(t.Context(), client.TransferRequest{})
	})
	c.Eventually("another leads", func() (bool, string) { return c.Leader() != old, "" })
	b.node = follower(c)
	page := b.come(back.RequestURI())
	if page.StatusCode == http.StatusGatewayTimeout { // leadership was lost at that very moment
		page, back, _ = b.through(at, "/v1/browser/oidc/corp", to, "sub-ada", "")
	}
	code := back.Query().Get("code")
	if page.StatusCode != http.StatusOK || !strings.Contains(page.body, `url=/console/jobs?state=dead"`) || !strings.Contains(page.body, "as ada, by corp") || strings.Contains(page.body, code) ||
		!strings.HasPrefix(page.Header.Get("Content-Type"), "text/html") || page.Header.Get("Referrer-Policy") != "no-referrer" || page.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v %s", page.StatusCode, page.Header, page.body)
	}
	if s := b.cookies["__Host-reeve-session"]; s == nil || s.SameSite != http.SameSiteStrictMode || s.MaxAge != 0 || !s.Expires.IsZero() || b.cookies["__Host-reeve-oidc"] != nil {
		t.Fatalf("cookies: %+v", b.cookies)
	}
	var me client.Principal
	b.fetch("GET", "/v1/whoami", "").json(t, &me)
	if me.Name != "ada" {
		t.Errorf("%+v", me)
	}
	if again := b.come(back.RequestURI()); again.StatusCode != http.StatusUnauthorized || !strings.Contains(again.body, "oidc_login_unknown") {
		t.Errorf("once more: %d %s", again.StatusCode, again.body)
	}

	// A proof: the provider must ask who it is, though it remembers.
	before := b.cookies["__Host-reeve-session"].Value
	page, mine, asked := b.through(at, "/v1/browser/step-up", `{}`, "sub-ada", "")
	if page.StatusCode != http.StatusOK || !asked || !strings.Contains(page.body, "It is you: ada") || b.cookies["__Host-reeve-session"].Value != before {
		t.Errorf("asked %t: %d %s", asked, page.StatusCode, page.body)
	}
	if page, back, _ = b.through(p.Browser(), "/v1/browser/step-up", `{}`, "sub-eve", ""); page.StatusCode != http.StatusUnauthorized || !strings.Contains(page.body, "step_up_other_user") {
		t.Errorf("somebody else: %d %s", page.StatusCode, page.body)
	}

	// A bearer token counts before a cookie, and works as ever.
	if a := b.send("GET", "/v1/whoami", "", http.Header{"Authorization": {"Bearer " + c.RootToken.Reveal()}}, false); !strings.Contains(a.body, `"root"`) {
		t.Errorf("with a token: %s", a.body)
	}
	if a := b.fetch("DELETE", "/v1/sessions/current", ""); a.StatusCode != http.StatusNoContent || len(b.cookies) != 0 {
		t.Errorf("sign out: %d %s, cookies %v", a.StatusCode, a.body, b.cookies)
	}
	b.cookies["__Host-reeve-session"] = &http.Cookie{Name: "__Host-reeve-session", Value: before}
	if a := b.fetch("GET", "/v1/whoami", ""); a.problem.Code != "session_ended" {
		t.Errorf("after it: %s", a.body)
	}
	nothingShown(t, c, append(b.seen, code, mine.Query().Get("code"), back.Query().Get("code"), back.Query().Get("state"), "eyJhbGciOi")...) // the last: how tokens begin
	for _, value := range b.seen {
		state, verifier, _ := strings.Cut(value, ".")
		if verifier != "" {
			nothingShown(t, c, state, verifier)
		}
	}
}

// Row 16 of the list of others' mistakes: a browser that did not begin a sign-in cannot be
// made to finish it, so that nobody is signed in as somebody else, and the page repeats
// nothing of what it was asked with.
func TestNobodyIsTalkedIntoASignIn_CVE_2026_33757_CVE_2026_33758(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Nodes: 3})
	p := provider(t, c)
	eve, ada := newBrowser(t, c, follower(c)), newBrowser(t, c, follower(c))
	back, _ := p.Browser().Open(t, eve.begin("/v1/browser/oidc/corp", `{}`), "sub-eve")
	before := head(t, c)
	hostile := url.QueryEscape(`"><script>alert(1)</script>` + canary)
	state := url.QueryEscape(back.Query().Get("state"))
	for what, try := range map[string]string{
		"eve's answer":             back.RequestURI(),
		"of a state that is not":   back.Path + "?code=x&state=" + hostile,
		"with a hostile error":     back.Path + "?state=" + state + "&error=" + hostile + "&error_description=" + hostile,
		"with a hostile parameter": back.RequestURI() + "&session_state=" + hostile,
		"without a state":          back.Path + "?code=" + hostile,
		"without anything":         back.Path,
		"both":                     back.RequestURI() + "&error=" + hostile,
		"a hostile provider":       "/v1/browser/oidc/" + url.QueryEscape(`"><script>`+canary) + "/callback?code=x&state=" + state,
		"two codes":                back.RequestURI() + "&code=" + hostile,
	} {
		for _, has := range []string{"nothing", "a sign-in of her own"} {
			if has != "nothing" {
				ada.begin("/v1/browser/oidc/corp", `{"return_to":"/console/"}`)
			}
			got := ada.come(try)
			if got.StatusCode < 400 || ada.cookies["__Host-reeve-session"] != nil {
				t.Errorf("%s, ada has %s: %d, cookies %v", what, has, got.StatusCode, ada.cookies)
			}
			if low := strings.ToLower(got.body); strings.Contains(low, "script") || strings.Contains(low, strings.ToLower(canary)) || !strings.HasPrefix(got.Header.Get("Content-Type"), "text/html") ||
				strings.Contains(low, "refresh") || got.Header.Get("Content-Security-Policy") != "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'" {
				t.Errorf("%s: %v %s", what, got.Header, got.body)
			}
			if as := ada.send("GET", try, "", http.Header{"Accept": {"application/json"}}, true); as.problem.Code == "" {
				t.Errorf("%s, not in a browser: %s", what, as.body)
			}
		}
	}
	if after := head(t, c); after != before {
		t.Error("something was recorded, so anybody can fill the trail and use up the tries of a network")
	}
	// It is still good for who began it; and a provider may add what it likes.
	got := eve.come(back.RequestURI() + "&session_state=x&scope=")
	if got.StatusCode == http.StatusGatewayTimeout {
		got, _, _ = eve.through(p.Browser(), "/v1/browser/oidc/corp", `{}`, "sub-eve", "&session_state=x&scope=")
	}
	if got.StatusCode != http.StatusOK {
		t.Errorf("eve herself: %d %s", got.StatusCode, got.body)
	}
	nothingShown(t, c, eve.seen...)
}

// No page of another origin, sibling or not, has a browser do anything with the session of
// whoever sits at it: asked of every route that changes something, at leader and follower.
func TestNoOtherOriginActsWithABrowsersSession(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Nodes: 3})
	password := canary + " ferret umbrella"
	systemtest.Call[client.User](c, func(api *client.Client) (*http.Response, error) {
		return api.AddUser(t.Context(), nil, client.UserRequest{Name: "ada"})
	})
	user := "ada"
	systemtest.Call[client.Assignment](c, func(api *client.Client) (*http.Response, error) {
		return api.AddAssignment(t.Context(), nil, client.AssignmentRequest{User: &user, Role: "administrator", Scope: everywhere()})
	})
	invited := systemtest.Call[client.CreatedInvitation](c, func(api *client.Client) (*http.Response, error) { return api.InviteUser(t.Context(), user) })
	systemtest.Call[struct{}](c, func(api *client.Client) (*http.Response, error) {
		return api.AcceptInvitation(t.Context(), client.AcceptRequest{Invitation: &invited.Secret, Password: &password})
	})
	b := newBrowser(t, c, 0)
	sign := `{"name":"ada","password":"` + password + `"}`
	for what, header := range map[string]http.Header{"cross-site": {"Sec-Fetch-Site": {"cross-site"}}, "null": {"Origin": {"null"}}} { // to sign her in as somebody else
		if a := b.send("POST", "/v1/browser/session", sign, header, false); a.problem.Code != "cross_origin" || len(b.cookies) > 0 {
			t.Errorf("a sign-in from elsewhere (%s): %s", what, a.body)
		}
	}
	var in client.Session
	b.fetch("POST", "/v1/browser/session", sign).json(t, &in)
	if in.User != "ada" || b.cookies["__Host-reeve-session"] == nil || b.cookies["__Host-reeve-session"].SameSite != http.SameSiteStrictMode {
		t.Fatalf("%+v %v", in, b.cookies)
	}
	before := head(t, c)
	bearer := http.Header{"Authorization": {"Bearer " + c.RootToken.Reveal()}}
	unsafe := 0
	for _, op := range operations(t) {
		path := op.path + "?nobody-takes=this"
		if op.method == http.MethodGet {
			if a := b.send("GET", path, "", http.Header{"Sec-Fetch-Site": {"same-site"}}, false); a.problem.Code != "cross_origin" && openTo[op.id] == "" {
				t.Errorf("%s is read for a sibling: %d %s", op.id, a.StatusCode, a.body)
			}
			continue
		}
		unsafe++
		for node := range 2 { // at least one of them does not lead
			b.node = node
			for what, header := range map[string]http.Header{
				"cross-site":           {"Sec-Fetch-Site": {"cross-site"}, "Origin": {"https://evil.example.com"}},
				"a sibling":            {"Sec-Fetch-Site": {"same-site"}, "Origin": {"https://blog.example.com"}},
				"another port":         {"Origin": {origin + ":8443"}},
				"an opaque origin":     {"Origin": {"null"}},
				"says nothing":         {},
				"typed by somebody":    {"Sec-Fetch-Site": {"none"}},
				"a word that is none":  {"Sec-Fetch-Site": {"Same-Origin"}},
				"claims two":           {"Sec-Fetch-Site": {"cross-site"}, "Origin": {origin}},
				"claims a forwarder":   {"Sec-Fetch-Site": {"cross-site"}, "X-Reeve-Forwarded-By": {"node_x"}},
				"overrides its method": {"Sec-Fetch-Site": {"cross-site"}, "X-Http-Method-Override": {"GET"}},
			} {
				if a := b.send(op.method, path, "", header, false); a.StatusCode != http.StatusForbidden || a.problem.Code != "cross_origin" {
					t.Errorf("%s, %s: %d %s", op.id, what, a.StatusCode, a.body)
				}
			}
			for what, header := range map[string]http.Header{
				"a page of ours":        {"Sec-Fetch-Site": {"same-origin"}, "Origin": {origin}},
				"one of an old browser": {"Origin": {origin}},
				"a program":             bearer,
			} {
				if a := b.send(op.method, path, "", header, false); a.problem.Code == "cross_origin" || a.problem.Code == "token_missing" || a.problem.Code == "session_ended" {
					t.Errorf("%s, %s: %d %s", op.id, what, a.StatusCode, a.body)
				}
			}
		}
	}
	// Nothing was done. What is on record was refused.
	for _, r := range since(t, c, before) {
		if r.Outcome != string(audit.Denied) {
			t.Errorf("%s was done", r.Action)
		}
	}
	if unsafe < 50 {
		t.Errorf("%d routes were tried", unsafe)
	}
	// What is no session, or there twice, is none.
	for what, cookie := range map[string]string{"a token": "__Host-reeve-session=" + c.RootToken.Reveal(), "another name": "reeve-session=" + b.cookies["__Host-reeve-session"].Value,
		"two": "__Host-reeve-session=" + b.cookies["__Host-reeve-session"].Value + "; __Host-reeve-session=" + rand.Text(), "none": "__Host-reeve-session="} {
		if g := send(t, c, 0, call{method: "GET", path: "/v1/whoami", header: http.Header{"Cookie": {cookie}}}); g.problem.Code != "token_missing" {
			t.Errorf("%s: %d %s", what, g.StatusCode, g.raw)
		}
	}
	nothingShown(t, c, append(b.seen, password)...)
}
