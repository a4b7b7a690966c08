package rest_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/rest"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = flag.Set("test.parallel", "6") // nearly all of a test's time is waiting for disks, elections and logs that end
	}
	code := m.Run()
	systemtest.CleanUp()
	os.Exit(code)
}

// canary is a password in the wrong place.
const canary = "Canary-7f3a1c-hunter2"

// call is a request as no well-behaved client would send it.
type call struct {
	method, path, body string
	header             http.Header
	token              string
}

// got is an answer, read whole.
type got struct {
	*http.Response
	raw     []byte
	problem client.Problem
}

func send(t *testing.T, c *systemtest.Cluster, node int, in call) got {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), in.method, c.URL(node)+in.path, strings.NewReader(in.body))
	if err != nil {
		t.Fatal(err)
	}
	if in.body != "" {
		r.Header.Set("Content-Type", "application/json")
	} else {
		r.Body = http.NoBody
	}
	if in.token != "" {
		r.Header.Set("Authorization", "Bearer "+in.token)
	}
	maps.Copy(r.Header, in.header)
	resp, err := c.HTTP().Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", in.method, in.path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	g := got{Response: resp}
	if g.raw, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode >= 400 && !strings.HasSuffix(in.path, "z") { // but for /livez and /readyz
		if err := json.Unmarshal(g.raw, &g.problem); err != nil || resp.Header.Get("Content-Type") != "application/problem+json" ||
			g.problem.Status != resp.StatusCode || g.problem.Code == "" || g.problem.Detail == "" || g.problem.RequestId == nil ||
			*g.problem.RequestId != resp.Header.Get("X-Request-Id") {
			t.Errorf("%s %s: not a whole problem document: %d %s", in.method, in.path, resp.StatusCode, g.raw)
		}
	}
	return g
}

// head is where the audit trail ends: it moves with every change.
func head(t *testing.T, c *systemtest.Cluster) string {
	t.Helper()
	one := 1
	return systemtest.Call[client.AuditPage](c, func(api *client.Client) (*http.Response, error) {
		return api.ListAudit(t.Context(), &client.ListAuditParams{Limit: &one})
	}).Head
}

// since are the records that came after a head of the chain.
func since(t *testing.T, c *systemtest.Cluster, was string) (later []client.AuditRecord) {
	t.Helper()
	found := false
	for after, more := int64(0), true; more; {
		p := systemtest.Call[client.AuditPage](c, func(api *client.Client) (*http.Response, error) {
			return api.ListAudit(t.Context(), &client.ListAuditParams{After: &after})
		})
		for _, r := range p.Items {
			if found {
				later = append(later, r)
			}
			found, after = found || r.Hash == was, r.Sequence
		}
		more = len(p.Items) > 0
	}
	if !found {
		t.Fatalf("there is no record %s", was)
	}
	return later
}

// operation is one call of the contract, with a path that fits it.
type operation struct {
	id, method, path string
	template         string
	*openapi3.Operation
}

var fill = strings.NewReplacer("{digest}", strings.Repeat("a", 64), "{action}", "verify", "{account}", "a@b",
	"{node}", "x", "{token}", "x", "{site}", "x", "{agent}", "x", "{connector}", "x", "{role}", "x", "{asset}", "x", "{job}", "x",
	"{user}", "x", "{group}", "x", "{asset_group}", "x", "{access_policy}", "x", "{directory}", "x", "{pam_role}", "x", "{assignment}", "x", "{rekey}", "x", "{session}", "x", "{provider}", "x", "{factor}", "x")

func operations(t *testing.T) (out []operation) {
	t.Helper()
	doc, err := rest.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			out = append(out, operation{strings.ToLower(op.OperationID[:1]) + op.OperationID[1:], method, fill.Replace(path), path, op})
		}
	}
	return out
}

// openTo is who may call what without a token. A call that is new and open must be added
// here by somebody who has thought about it.
var openTo = map[string]string{"getStatus": "everybody", "beginSignIn": "everybody", "unsealNode": "everybody", "joinCluster": "everybody", "renewNode": "certificate",
	"signIn": "everybody", "acceptInvitation": "everybody", "beginOIDC": "everybody", "finishOIDC": "everybody",
	"signInBrowser": "everybody", "beginOIDCBrowser": "everybody", "callbackOIDC": "who has the browser's cookie", "finishOIDCBrowser": "who has the browser's cookie",
	"unwrap": "everybody", "lookUpWrap": "everybody"}

func TestEveryRouteIsClosedToStrangers_Z1(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	made := systemtest.Call[client.CreatedToken](c, func(api *client.Client) (*http.Response, error) {
		return api.CreateToken(t.Context(), client.TokenRequest{Name: "gone"})
	})
	systemtest.Call[struct{}](c, func(api *client.Client) (*http.Response, error) {
		return api.RevokeToken(t.Context(), made.Token.Id, nil)
	})
	other := "a" // a last character that the token does not have
	if strings.HasSuffix(made.Secret, other) {
		other = "b"
	}
	basic := http.Header{"Authorization": {"Basic " + canary}}
	before := head(t, c)
	seen := map[string]bool{}
	for _, op := range operations(t) {
		class := openTo[op.id]
		seen[op.id] = true
		if declaredOpen := op.Security != nil && len(*op.Security) == 0; declaredOpen != (class != "") {
			t.Errorf("%s is open to %q here, but the contract says security %v", op.id, class, op.Security)
		}
		for _, bad := range []struct {
			call
			code string
		}{
			{call{}, "token_missing"},
			{call{header: basic}, "token_missing"},
			{call{token: canary}, "token_malformed"},
			{call{token: made.Secret[:len(made.Secret)-1] + other}, "token_malformed"},
			{call{token: made.Secret}, "token_unknown"},
		} {
			bad.method, bad.path = op.method, op.path
			if op.RequestBody != nil {
				bad.body = `{"reason":"` + canary + `"}`
			}
			g := send(t, c, 0, bad.call)
			switch class {
			case "":
				if g.StatusCode != http.StatusUnauthorized || g.problem.Code != bad.code || g.Header.Get("WWW-Authenticate") != "Bearer" {
					t.Errorf("%s with %+v: %d %s", op.id, bad.call, g.StatusCode, g.raw)
				}
			default:
				if strings.HasPrefix(g.problem.Code, "token_") {
					t.Errorf("%s asks for a token: %s", op.id, g.raw)
				}
			}
			if bytes.Contains(g.raw, []byte(canary)) {
				t.Errorf("%s shows what was sent: %s", op.id, g.raw)
			}
		}
	}
	for id := range openTo {
		if !seen[id] {
			t.Errorf("%s is not in the contract", id)
		}
	}
	if g := send(t, c, 0, call{method: "POST", path: "/v1/cluster/renew", body: `{"csr":"AAAA","raft_address":"x:1","api_address":"x:1","agent_address":"x:1"}`}); g.problem.Code != "certificate_missing" {
		t.Errorf("renewal without a certificate: %s", g.raw)
	}
	if after := head(t, c); after != before {
		t.Error("something was changed")
	}
	nothingShown(t, c, made.Secret)
}

// nothingShown looks for secrets in the log, on disk and in the metrics.
func nothingShown(t *testing.T, c *systemtest.Cluster, more ...string) {
	t.Helper()
	for _, secret := range append(more, canary) {
		if found := c.Scan([]byte(secret)); len(found) > 0 {
			t.Errorf("a secret is in %v", found)
		}
		for _, page := range []string{"/metrics", "/livez", "/readyz"} {
			g := send(t, c, 0, call{method: "GET", path: page})
			waits := page == "/readyz" && g.StatusCode == http.StatusServiceUnavailable // for a leader
			if bytes.Contains(bytes.ToLower(g.raw), []byte(strings.ToLower(secret))) || g.StatusCode != http.StatusOK && !waits {
				t.Errorf("%s: %d, or shows a secret", page, g.StatusCode)
			}
		}
	}
}

func TestNoPathTakesAnotherMethod(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	takes := map[string][]string{}
	for _, op := range operations(t) {
		takes[op.path] = append(takes[op.path], op.method)
	}
	for path, methods := range takes {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", strings.ToUpper(canary)} {
			if slices.Contains(methods, method) || (method == "GET" && path == "/v1/agents/join-tokens") {
				continue // the latter asks for an agent of that name
			}
			g := send(t, c, 0, call{method: method, path: path, token: c.RootToken.Reveal()})
			if g.StatusCode != http.StatusMethodNotAllowed || g.problem.Code != "method_not_allowed" || g.Header.Get("Allow") == "" {
				t.Errorf("%s %s: %d %s, Allow %q", method, path, g.StatusCode, g.problem.Code, g.Header.Get("Allow"))
			}
		}
	}
	nothingShown(t, c, strings.ToUpper(canary))
}

func TestBadInputChangesNothingAndIsNotShown_K1(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	c.RegisterConnectors()
	c.AddSite("dmz")
	token := c.RootToken.Reveal()
	asset := `{"name":"web1","site":"dmz","connector":"ssh","address":"192.0.2.1"`
	if g := send(t, c, 0, call{method: "POST", path: "/v1/assets", body: asset + `}`, token: token}); g.StatusCode != http.StatusCreated {
		t.Fatalf("%s", g.raw)
	}
	asset = strings.Replace(asset, "web1", "web2", 1)
	before := head(t, c)
	for name, test := range map[string]struct {
		call
		status int
		code   string
	}{
		"unknown field":         {call{method: "POST", path: "/v1/sites", body: `{"name":"a","` + canary + `":1}`}, 422, "unknown_field"},
		"wrong type":            {call{method: "POST", path: "/v1/sites", body: `{"name":["` + canary + `"]}`}, 422, "wrong_type"},
		"missing field":         {call{method: "POST", path: "/v1/sites", body: `{"description":"` + canary + `"}`}, 422, "field_required"},
		"bad name":              {call{method: "POST", path: "/v1/sites", body: `{"name":"` + canary + `;id"}`}, 422, "field_invalid"},
		"not JSON":              {call{method: "POST", path: "/v1/sites", body: `{"name":` + canary}, 422, "malformed_request"},
		"huge":                  {call{method: "POST", path: "/v1/sites", body: `{"name":"` + canary + strings.Repeat("x", 2<<20) + `"}`}, 413, "body_too_large"},
		"deep":                  {call{method: "POST", path: "/v1/sites", body: strings.Repeat(`[`, 1000) + canary}, 422, "body_too_complex"},
		"repeated field":        {call{method: "POST", path: "/v1/sites", body: `{"name":"a","name":"` + canary + `"}`}, 422, "field_repeated"},
		"form":                  {call{method: "POST", path: "/v1/sites", body: "name=" + canary, header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}}, 415, "media_type_unsupported"},
		"odd media type":        {call{method: "POST", path: "/v1/sites", body: "{}", header: http.Header{"Content-Type": {canary + "/;;="}}}, 415, "media_type_unsupported"},
		"body on a GET":         {call{method: "GET", path: "/v1/sites", body: `{"password":"` + canary + `"}`}, 422, "body_unexpected"},
		"number too big":        {call{method: "GET", path: "/v1/audit?after=99999999999999999999"}, 422, "wrong_type"},
		"cursor":                {call{method: "GET", path: "/v1/sites?cursor=" + canary + "!"}, 422, "cursor_invalid"},
		"cursor of no list":     {call{method: "GET", path: "/v1/jobs?cursor=" + canary + "!"}, 422, "cursor_invalid"},
		"state":                 {call{method: "GET", path: "/v1/jobs?state=" + canary}, 422, "field_invalid"},
		"parameter":             {call{method: "GET", path: "/v1/jobs?" + canary + "=1"}, 422, "unknown_parameter"},
		"slash":                 {call{method: "GET", path: "/v1/assets/" + canary + "%2fverify"}, 422, "path_invalid"},
		"dots":                  {call{method: "GET", path: "/v1/assets/" + canary + "/../../status"}, 422, "path_invalid"},
		"log position":          {call{method: "GET", path: "/v1/jobs/x/log", header: http.Header{"Last-Event-Id": {canary}}}, 422, "log_position_invalid"},
		"31st of February":      {call{method: "POST", path: "/v1/accounts", body: `{"name":"a","assets":["web1"],"role":"linux-login","expires_at":"2026-02-31T00:00:00Z","password":"` + canary + `"}`}, 422, "malformed_request"},
		"description":           {call{method: "POST", path: "/v1/connectors", body: `{"sha256":"` + strings.Repeat("a", 64) + `","description":"` + "Q2FuYXJ5LTdmM2Ex" + `"}`}, 422, "description_malformed"},
		"password with newline": {call{method: "POST", path: "/v1/assets", body: asset + `,"management_account":{"username":"root","password":"` + canary + `\nx"}}`}, 422, ""},
		"password and key":      {call{method: "POST", path: "/v1/assets", body: asset + `,"management_account":{"username":"root","password":"` + canary + `","private_key":"` + canary + `"}}`}, 422, ""},
		"key that is none":      {call{method: "POST", path: "/v1/assets", body: asset + `,"management_account":{"username":"root","private_key":"` + canary + `"}}`}, 422, ""},
		"username with newline": {call{method: "POST", path: "/v1/assets", body: asset + `,"management_account":{"username":"ro\not","password":"` + canary + `"}}`}, 422, ""},
		"option":                {call{method: "POST", path: "/v1/assets", body: asset + `,"options":{"nonsense":"` + canary + `"}}`}, 422, ""},
		"host key":              {call{method: "POST", path: "/v1/assets", body: asset + `,"host_keys":["` + canary + `"]}`}, 422, ""},
		"certificate":           {call{method: "POST", path: "/v1/assets", body: asset + `,"ca_pem":"` + canary + `"}`}, 422, ""},
		"unknown site":          {call{method: "POST", path: "/v1/assets", body: strings.Replace(asset, "dmz", "nowhere", 1) + `,"management_account":{"username":"root","password":"` + canary + `"}}`}, 404, "site_not_found"},
		"account, no agents":    {call{method: "POST", path: "/v1/accounts", body: `{"name":"a","assets":["web1"],"role":"linux-login","password":"` + canary + `"}`}, 412, ""},
		"trust of both kinds":   {call{method: "POST", path: "/v1/assets/web1/trust", body: `{"fingerprint":"` + canary + `","ca_pem":"x"}`}, 422, "trust_unclear"},
		"trust of neither":      {call{method: "POST", path: "/v1/assets/web1/trust", body: `{}`}, 422, "trust_unclear"},
		"a share":               {call{method: "POST", path: "/v1/seal/unseal", body: `{"share":"` + canary + `"}`}, 422, "unseal_share_malformed"},
		"no share":              {call{method: "POST", path: "/v1/seal/unseal", body: `{"reset":true}`}, 422, "unknown_field"},
		"join token":            {call{method: "POST", path: "/v1/cluster/join", body: `{"token":"Q2FuYXJ5LTdmM2Ex","csr":"AAAA","raft_address":"192.0.2.1:1","api_address":"192.0.2.1:2","agent_address":"192.0.2.1:3"}`}, 0, ""},
		"ban without a reason":  {call{method: "POST", path: "/v1/agents/x/ban", body: `{"reason":""}`}, 422, "field_invalid"},
		"snapshot":              {call{method: "PUT", path: "/v1/cluster/snapshot", body: canary, header: http.Header{"Content-Type": {"application/octet-stream"}}}, 422, ""},
		"empty snapshot":        {call{method: "PUT", path: "/v1/cluster/snapshot", header: http.Header{"Content-Type": {"application/octet-stream"}}}, 422, ""},
		"token for a minute":    {call{method: "POST", path: "/v1/tokens", body: `{"name":"ci","ttl_seconds":59}`}, 422, "field_invalid"},
		"remove the leader":     {call{method: "DELETE", path: "/v1/cluster/nodes/c0"}, 409, "node_leads"},
		"remove nobody":         {call{method: "DELETE", path: "/v1/cluster/nodes/c9"}, 404, "node_not_found"},
	} {
		test.token = token
		g := send(t, c, 0, test.call)
		if g.StatusCode < 400 || (test.status != 0 && g.StatusCode != test.status) || (test.code != "" && g.problem.Code != test.code) {
			t.Errorf("%s: %d %s, want %d %s: %s", name, g.StatusCode, g.problem.Code, test.status, test.code, g.problem.Detail)
		}
		if g.problem.Fix == nil && g.StatusCode != http.StatusNotFound && g.StatusCode != http.StatusRequestEntityTooLarge {
			t.Logf("%s: %s has no fix", name, g.problem.Code)
		}
		if bytes.Contains(bytes.ToLower(g.raw), []byte(strings.ToLower(canary))) {
			t.Errorf("%s: the answer shows what was sent: %s", name, g.raw)
		}
	}
	if after := head(t, c); after != before {
		t.Error("something was changed")
	}
	nothingShown(t, c)
}

func TestAnswersHaveTheHeadersThatProtectBrowsers(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	for _, path := range []string{"/v1/status", "/v1/sites", "/nothing", "/metrics"} {
		g := send(t, c, 0, call{method: "GET", path: path, header: http.Header{"X-Request-Id": {canary}}})
		for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Strict-Transport-Security": "max-age=31536000",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'", "Referrer-Policy": "no-referrer"} {
			if have := g.Header.Values(name); len(have) != 1 || have[0] != want {
				t.Errorf("%s: %s is %q", path, name, have)
			}
		}
		if id := g.Header.Get("X-Request-Id"); len(id) < 16 || id == canary {
			t.Errorf("%s: request id %q", path, id)
		}
		if g.Header.Get("Server") != "" || g.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %v", path, g.Header)
		}
	}
}
