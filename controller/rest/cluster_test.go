package rest_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/auditchain/checkpoint"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// records are the audit records of an action, oldest first.
func records(t *testing.T, c *systemtest.Cluster, action string) []client.AuditRecord {
	t.Helper()
	return systemtest.Call[client.AuditPage](c, func(api *client.Client) (*http.Response, error) {
		return api.ListAudit(t.Context(), &client.ListAuditParams{Action: &action})
	}).Items
}

func follower(c *systemtest.Cluster) int { return (c.Leader() + 1) % c.Nodes() }

// from is an HTTP client with an address of its own.
func from(t *testing.T, c *systemtest.Cluster, ip string) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.CA)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true,
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).DialContext}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// asController is an HTTP client with the certificate of a node.
func asController(t *testing.T, c *systemtest.Cluster, node int) *http.Client {
	t.Helper()
	id, err := pki.OpenNodeIdentity(filepath.Join(c.Config(node).DataDir, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	conf, err := id.ForwardTLS()
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: conf}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func do(t *testing.T, hc *http.Client, method, url, body string, header http.Header) (int, http.Header, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body == "" {
		r.Body = http.NoBody
	}
	r.Header = header
	resp, err := hc.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, raw
}

func authorized(c *systemtest.Cluster, more ...string) http.Header {
	h := http.Header{"Authorization": {"Bearer " + c.RootToken.Reveal()}, "Content-Type": {"application/json"}}
	for i := 0; i < len(more); i += 2 {
		h.Set(more[i], more[i+1])
	}
	return h
}

func TestFollowersForwardWithTheCallersIdentityAndAddress(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Nodes: 3, Shamir: true})
	f := follower(c)
	caller := from(t, c, "127.0.0.77")

	// A stranger cannot claim another address, neither at a follower nor at the leader,
	// nor that he is a controller that forwards.
	for i, node := range []int{f, c.Leader()} {
		code, h, raw := do(t, caller, "POST", c.URL(node)+"/v1/sites", fmt.Sprintf(`{"name":"site%d"}`, i),
			authorized(c, "X-Forwarded-For", "203.0.113.7", "X-Reeve-Forwarded-By", "node_x", "X-Request-Id", "chosen"))
		if code != http.StatusCreated {
			t.Fatalf("%d %s", code, raw)
		}
		for _, name := range []string{"X-Request-Id", "Cache-Control", "X-Content-Type-Options", "Strict-Transport-Security", "Content-Security-Policy", "Content-Type"} {
			if v := h.Values(name); len(v) != 1 || v[0] == "chosen" {
				t.Errorf("node %d: %s is %q", node, name, v)
			}
		}
	}
	leader, err := c.Status(c.Leader())
	if err != nil {
		t.Fatal(err)
	}
	made := records(t, c, "site.add")
	if len(made) != 2 {
		t.Fatalf("%d sites were made", len(made))
	}
	for _, r := range made {
		if r.Actor["from"] != "127.0.0.77" || r.Actor["name"] != "root" || r.Actor["node"] != leader.Node || !strings.HasPrefix(r.Actor["session"], "tok_") {
			t.Errorf("the actor is %v", r.Actor)
		}
	}
	if code, _, raw := do(t, caller, "GET", c.URL(f)+"/v1/sites", "", http.Header{"Authorization": {"Bearer x"}}); code != http.StatusUnauthorized {
		t.Errorf("a follower let a stranger in: %d %s", code, raw)
	}

	// The log of both nodes names the request alike.
	_, h, _ := do(t, caller, "GET", c.URL(f)+"/v1/sites/nowhere", "", authorized(c))
	if id := h.Get("X-Request-Id"); !bytes.Contains(c.Log.Bytes(), []byte(id)) {
		t.Errorf("request %s is not in the leader's log", id)
	}

	// What one controller has forwarded another does not forward on.
	if code, _, raw := do(t, asController(t, c, c.Leader()), "GET", c.URL(f)+"/v1/sites", "", authorized(c, "X-Reeve-Forwarded-By", leader.Node)); code != http.StatusServiceUnavailable ||
		!bytes.Contains(raw, []byte(`"no_leader"`)) {
		t.Errorf("forwarded twice: %d %s", code, raw)
	}

	// A renewal is never forwarded: the follower's certificate would count as the caller's.
	id, err := pki.OpenNodeIdentity(filepath.Join(c.Config(f).DataDir, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	csr, err := id.Request()
	if err != nil {
		t.Fatal(err)
	}
	body, _ := json.Marshal(client.RenewNodeRequest{Csr: csr, RaftAddress: "192.0.2.1:1", ApiAddress: "192.0.2.1:2", AgentAddress: "192.0.2.1:3"})
	if code, _, raw := do(t, caller, "POST", c.URL(f)+"/v1/cluster/renew", string(body), http.Header{"Content-Type": {"application/json"}}); code != http.StatusUnauthorized {
		t.Errorf("renewed by a stranger: %d %s", code, raw)
	}
	if code, _, raw := do(t, asController(t, c, f), "POST", c.URL(c.Leader())+"/v1/cluster/renew", string(body),
		http.Header{"Content-Type": {"application/json"}, "X-Reeve-Forwarded-By": {"node_x"}}); code != http.StatusUnauthorized {
		t.Errorf("renewed through another: %d %s", code, raw)
	}

	sealOneNode(t, c, f)
	loseQuorum(t, c)
}

// sealOneNode seals the node that is asked, and no other.
func sealOneNode(t *testing.T, c *systemtest.Cluster, f int) {
	t.Helper()
	if code, _, raw := do(t, c.HTTP(), "POST", c.URL(f)+"/v1/seal/seal", "", http.Header{"Authorization": {"Bearer x"}}); code != http.StatusUnauthorized {
		t.Errorf("a stranger sealed: %d %s", code, raw)
	}
	_, _, raw := do(t, c.HTTP(), "POST", c.URL(f)+"/v1/seal/seal", "", authorized(c))
	var st client.Status
	if err := json.Unmarshal(raw, &st); err != nil || !st.Sealed || st.Name != c.Config(f).Name {
		t.Fatalf("%s", raw)
	}
	for i := range c.Nodes() {
		if s, err := c.Status(i); err != nil || s.Sealed != (i == f) {
			t.Errorf("node %d: sealed %v, %v", i, s.Sealed, err)
		}
	}
	if r := records(t, c, "node.seal"); len(r) != 1 || r[0].Object != st.Node {
		t.Errorf("%+v", r)
	}
	if code, _, raw := do(t, c.HTTP(), "GET", c.URL(f)+"/v1/whoami", "", authorized(c)); code != http.StatusOK {
		t.Errorf("a sealed follower does not forward: %d %s", code, raw)
	}
	c.Unseal(f)
}

// loseQuorum stops two of three: nothing is answered as if it had happened.
func loseQuorum(t *testing.T, c *systemtest.Cluster) {
	t.Helper()
	l := c.Leader()
	c.Stop((l + 1) % 3)
	c.Stop((l + 2) % 3)
	var g got
	c.Eventually("the last node steps down", func() (bool, string) {
		g = send(t, c, l, call{method: "POST", path: "/v1/sites", body: `{"name":"lost"}`, token: c.RootToken.Reveal()})
		return g.problem.Code == "no_leader", string(g.raw)
	})
	if g.StatusCode != http.StatusServiceUnavailable || g.Header.Get("Retry-After") == "" || g.problem.Fix == nil {
		t.Errorf("%d %v %s", g.StatusCode, g.Header, g.raw)
	}
	if s, err := c.Status(l); err != nil || s.Leader || s.LeaderAddress != nil {
		t.Errorf("%+v %v", s, err)
	}
	if g := send(t, c, l, call{method: "GET", path: "/readyz"}); !strings.Contains(string(g.raw), "no leader") {
		t.Errorf("%s", g.raw)
	}
}

func TestASealedNodeAnswersOnlyStatusAndUnseal(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Shamir: true})
	if g := send(t, c, 0, call{method: "POST", path: "/v1/seal/seal", token: c.RootToken.Reveal()}); g.StatusCode != http.StatusOK {
		t.Fatalf("%s", g.raw)
	}
	if g := send(t, c, 0, call{method: "GET", path: "/readyz"}); g.StatusCode != http.StatusServiceUnavailable || string(g.raw) != "sealed\n" {
		t.Errorf("%d %s", g.StatusCode, g.raw)
	}
	for _, op := range operations(t) {
		if op.id == "getStatus" || op.id == "unsealNode" || op.id == "renewNode" {
			continue // the last asks for a certificate first
		}
		in := call{method: op.method, path: op.path, token: c.RootToken.Reveal()}
		if op.RequestBody != nil {
			in.body = "{}"
		}
		// Sealed while it led it may also have given leadership up.
		if g := send(t, c, 0, in); g.StatusCode != http.StatusServiceUnavailable || (g.problem.Code != "sealed" && g.problem.Code != "no_leader") {
			t.Errorf("%s: %d %s", op.id, g.StatusCode, g.raw)
		} else if g.problem.Code == "sealed" && g.Header.Get("Retry-After") != "" {
			t.Errorf("%s: a sealed node says when to try again", op.id)
		}
	}
	wrong := strings.Replace(c.Shares[0].Reveal(), c.Shares[0].Reveal()[20:30], "AAAAAAAAAA", 1)
	if g := send(t, c, 0, call{method: "POST", path: "/v1/seal/unseal", body: `{"share":"` + wrong + `"}`}); g.StatusCode != http.StatusUnprocessableEntity ||
		bytes.Contains(g.raw, []byte(wrong)) || bytes.Contains(c.Log.Bytes(), []byte(wrong)) {
		t.Errorf("%d %s", g.StatusCode, g.raw)
	}
	c.Unseal(0)
	for _, s := range c.Shares {
		if found := c.Scan(s.Bytes()); len(found) > 0 {
			t.Errorf("a share is in %v", found)
		}
	}
	c.AddSite("dmz")
}

func TestAnIdempotencyKeyHoldsOverALeaderChange(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Nodes: 3})
	key := "one-and-the-same"
	add := func(node int, name string) (client.Site, error) {
		return fleet.Answer[client.Site](c.Client(node).AddSite(context.Background(), &client.AddSiteParams{IdempotencyKey: &key}, client.SiteRequest{Name: name})) //nolint:bodyclose // Answer closes it
	}
	var g sync.WaitGroup
	sites := make([]client.Site, 12)
	errs := make([]error, len(sites))
	for i := range sites { // at the same time, at all nodes
		g.Go(func() { sites[i], errs[i] = add(i%3, "dmz") })
	}
	g.Wait()
	for i := range sites {
		if errs[i] != nil || sites[i].Id != sites[0].Id {
			t.Errorf("call %d: %+v %v", i, sites[i], errs[i])
		}
	}
	was := c.Leader()
	if code, _, raw := do(t, c.HTTP(), "POST", c.URL(was)+"/v1/cluster/transfer", "{}", authorized(c)); code != http.StatusNoContent {
		t.Fatalf("%d %s", code, raw)
	}
	c.Eventually("another leads", func() (bool, string) { return c.Leader() != was, "it is the old one" })
	again, err := add(c.Leader(), "dmz")
	if d := cmp.Diff(sites[0], again); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	if _, err := add(c.Leader(), "lan"); err == nil || !strings.Contains(err.Error(), "idempotency_key_reused") {
		t.Errorf("%v", err)
	}
	if r := records(t, c, "site.add"); len(r) != 1 {
		t.Errorf("it happened %d times", len(r))
	}
}

// Checkpoints that different leaders signed are of one history, with the key that the
// cluster began with, and what comes after each is covered by the next leader at once.
func TestATrailIsProvenOverALeaderChange_U2(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Nodes: 3})
	signed := func() client.AuditCheckpointPage {
		return systemtest.Call[client.AuditCheckpointPage](c, func(api *client.Client) (*http.Response, error) {
			return api.ListAuditCheckpoints(t.Context(), nil)
		})
	}
	var first client.AuditCheckpointPage
	c.Eventually("the first checkpoint is signed", func() (bool, string) { first = signed(); return first.Newest != nil, "there is none" })
	systemtest.Call[client.Site](c, func(api *client.Client) (*http.Response, error) {
		return api.AddSite(t.Context(), nil, client.SiteRequest{Name: "dmz"})
	})
	added := records(t, c, "site.add")[0].Sequence
	was := c.Leader()
	if code, _, raw := do(t, c.HTTP(), "POST", c.URL(was)+"/v1/cluster/transfer", "{}", authorized(c)); code != http.StatusNoContent {
		t.Fatalf("%d %s", code, raw)
	}
	c.Eventually("the next leader signs the rest", func() (bool, string) {
		n := signed().Newest.Sequence
		return n > added, fmt.Sprintf("signed up to %d, not %d", n, added)
	})
	trail := systemtest.Call[[]byte](c, func(api *client.Client) (*http.Response, error) { return api.ExportAudit(t.Context(), nil) })
	now := signed()
	if *now.Key != *first.Key {
		t.Errorf("the key was %s and is %s", *first.Key, *now.Key)
	}
	if made := records(t, c, "audit_key.create"); len(made) != 1 || (*made[0].After)["key"] != *now.Key {
		t.Errorf("%+v", made)
	}
	var points []*checkpoint.Checkpoint
	for _, item := range now.Items {
		p, err := checkpoint.Open([]byte(item.Note), *first.Key)
		if err != nil {
			t.Fatal(err)
		}
		points = append(points, p)
	}
	rep, err := checkpoint.Verify(bytes.NewReader(trail), points, auditchain.Options{})
	if err != nil || len(rep.Checkpoints) < 2 || rep.Checkpoints[len(rep.Checkpoints)-1] < uint64(added) {
		t.Fatalf("%+v %v", rep, err)
	}
}

func TestPagesWalkEverythingOnce(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	c.RegisterConnectors()
	var sites, tokens []string
	for i := range 7 {
		sites = append(sites, c.AddSite(fmt.Sprintf("site%d", i)).Id)
		made := systemtest.Call[client.CreatedToken](c, func(api *client.Client) (*http.Response, error) {
			return api.CreateToken(t.Context(), client.TokenRequest{Name: fmt.Sprintf("token%d", i)})
		})
		tokens = append(tokens, made.Token.Id)
	}
	walk := func(path string) (ids []string) {
		t.Helper()
		cursor := ""
		for pages := 0; pages < 50; pages++ {
			g := send(t, c, 0, call{method: "GET", path: path + "limit=2" + cursor, token: c.RootToken.Reveal()})
			var page struct {
				Items []struct {
					ID, Name, Connector string
					Sequence            json.Number
				}
				Next json.RawMessage
			}
			if err := json.Unmarshal(g.raw, &page); err != nil || g.StatusCode != http.StatusOK || len(page.Items) > 2 {
				t.Fatalf("%d %s %v", g.StatusCode, g.raw, err)
			}
			for _, it := range page.Items {
				ids = append(ids, it.ID+it.Sequence.String()+it.Connector+"/"+it.Name)
			}
			if len(page.Next) == 0 {
				return ids
			}
			name := "cursor"
			if strings.Contains(path, "audit") {
				name = "after"
			}
			cursor = "&" + name + "=" + strings.Trim(string(page.Next), `"`)
		}
		t.Fatal("the pages do not end")
		return nil
	}
	for path, want := range map[string][]string{"/v1/sites?": sites, "/v1/tokens?": tokens} {
		got := walk(path)
		for _, id := range want {
			if n := len(slices.DeleteFunc(slices.Clone(got), func(s string) bool { return !strings.HasPrefix(s, id) })); n != 1 {
				t.Errorf("%s: %s is there %d times", path, id, n)
			}
		}
	}
	for _, path := range []string{"/v1/roles?", "/v1/connectors?", "/v1/audit?", "/v1/agents?", "/v1/assets?", "/v1/accounts?", "/v1/jobs?"} {
		got := walk(path)
		if !slices.IsSorted(got) && !strings.Contains(path, "audit") {
			t.Errorf("%s: %v", path, got)
		}
		slices.Sort(got)
		if len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Errorf("%s: something is there twice: %v", path, got)
		}
	}
}

func TestATokensSecretIsShownOnce_U1(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	made := systemtest.Call[client.CreatedToken](c, func(api *client.Client) (*http.Response, error) {
		return api.CreateToken(t.Context(), client.TokenRequest{Name: "ci"})
	})
	joined := systemtest.Call[client.JoinToken](c, func(api *client.Client) (*http.Response, error) {
		return api.CreateNodeJoinToken(t.Context(), client.NodeJoinTokenRequest{Name: "c7"})
	})
	if who, err := fleet.Answer[client.Principal](c.Stranger(0, made.Secret).Whoami(t.Context())); err != nil || who.Name != "root" { //nolint:bodyclose // Answer closes it
		t.Fatalf("%+v %v", who, err)
	}
	for _, path := range []string{"/v1/tokens", "/v1/audit", "/v1/audit/export", "/v1/cluster", "/v1/cluster/snapshot", "/metrics", "/v1/status"} {
		g := send(t, c, 0, call{method: "GET", path: path, token: c.RootToken.Reveal()})
		for _, secret := range []string{made.Secret, joined.Token, c.RootToken.Reveal()} {
			if g.StatusCode != http.StatusOK || bytes.Contains(g.raw, []byte(secret)) {
				t.Errorf("%s: %d, or shows a secret", path, g.StatusCode)
			}
		}
	}
	nothingShown(t, c, made.Secret, joined.Token, c.RootToken.Reveal())
}

func TestASlowHeaderIsGivenUp(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.CA)
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}}).
		DialContext(t.Context(), "tcp", strings.TrimPrefix(c.URL(0), "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	began := time.Now()
	if _, err := io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Slow: "); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(began.Add(systemtest.Patience))
	if _, err := bufio.NewReader(conn).ReadString(0); err == nil || time.Since(began) > 30*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}
