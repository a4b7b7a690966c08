package main

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// cluster is what a scripted cluster does with the requests it gets.
type cluster struct {
	answer func(n int, r *http.Request) (*http.Response, error)
	asked  []string // hosts, in order
	bodies []string
}

func (c *cluster) RoundTrip(r *http.Request) (*http.Response, error) {
	c.asked = append(c.asked, r.URL.Host)
	if r.Body != nil {
		raw, _ := io.ReadAll(r.Body)
		c.bodies = append(c.bodies, string(raw))
	}
	return c.answer(len(c.asked), r)
}

func response(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}}
}

var (
	errDial = &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	errRead = &net.OpError{Op: "read", Err: errors.New("connection reset")}
)

func request(t *testing.T, method, body string, headers ...string) *http.Request {
	t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, "https://reeve/v1/x", in)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func TestFailoverGoesOnToTheNextControllerAndStaysThere(t *testing.T) {
	t.Parallel()
	c := &cluster{answer: func(_ int, r *http.Request) (*http.Response, error) {
		if r.URL.Host == "c1" {
			return nil, errDial
		}
		return response(200, ""), nil
	}}
	f := &failover{addresses: []string{"c1", "c2", "c3"}, next: c}
	for range 2 {
		if _, err := f.RoundTrip(request(t, http.MethodPost, "body")); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"c1", "c2", "c2"}, c.asked); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"body", "body", "body"}, c.bodies); diff != "" {
		t.Errorf("every controller gets the whole body: %s", diff)
	}
}

func TestARequestThatMayHaveHadAnEffectIsNotSentTwice(t *testing.T) {
	t.Parallel()
	key := []string{"Idempotency-Key", "k"}
	for name, c := range map[string]struct {
		method  string
		headers []string
		lost    bool // the connection breaks; else 504 outcome_unknown
		want    int  // times it is sent
	}{
		"POST, connection lost":          {http.MethodPost, nil, true, 1},
		"POST, outcome unknown":          {http.MethodPost, nil, false, 1},
		"POST with key, connection lost": {http.MethodPost, key, true, 2},
		"POST with key, outcome unknown": {http.MethodPost, key, false, 2},
		"GET, connection lost":           {http.MethodGet, nil, true, 2},
		"GET, outcome unknown":           {http.MethodGet, nil, false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				k := &cluster{answer: func(n int, _ *http.Request) (*http.Response, error) {
					switch {
					case n > 1:
						return response(200, "{}"), nil
					case c.lost:
						return nil, errRead
					default:
						return response(http.StatusGatewayTimeout, `{"code":"outcome_unknown","status":504}`), nil
					}
				}}
				f := &failover{addresses: []string{"c1"}, next: k}
				resp, err := f.RoundTrip(request(t, c.method, "", c.headers...))
				if len(k.asked) != c.want {
					t.Errorf("sent %d times, want %d (%v)", len(k.asked), c.want, err)
				}
				if c.want == 1 && err == nil && resp.StatusCode == 200 {
					t.Error("it reports success")
				}
			})
		})
	}
}

func TestAClusterBetweenLeadersIsWaitedForAndASealedOneIsNot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body    string
		waits   bool
		finally int
	}{
		"no leader":     {`{"code":"no_leader","status":503}`, true, 503},
		"sealed":        {`{"code":"sealed","status":503}`, false, 503},
		"a proxy's 503": {`<html>`, false, 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				k := &cluster{answer: func(int, *http.Request) (*http.Response, error) { return response(503, c.body), nil }}
				f := &failover{addresses: []string{"c1"}, next: k}
				began := time.Now()
				resp, err := f.RoundTrip(request(t, http.MethodPost, "x"))
				if err != nil || resp.StatusCode != c.finally {
					t.Fatalf("%v, %v", resp, err)
				}
				raw, _ := io.ReadAll(resp.Body)
				if string(raw) != c.body {
					t.Errorf("the answer's body is %q", raw)
				}
				if waited := time.Since(began); (waited >= electionPatience) != c.waits {
					t.Errorf("it waited %s", waited)
				}
			})
		})
	}
}

func TestWhenNobodyAnswersTheErrorNamesWhoWasAsked(t *testing.T) {
	t.Parallel()
	f := &failover{addresses: []string{"c1:8443", "c2:8443"}, next: &cluster{answer: func(int, *http.Request) (*http.Response, error) { return nil, errDial }}}
	_, err := f.RoundTrip(request(t, http.MethodGet, ""))
	if err == nil || !strings.Contains(err.Error(), "no controller answers at c1:8443, c2:8443") {
		t.Error(err)
	}
}

// served starts a controller's face and writes a context file for it.
func served(t *testing.T, token string, h http.Handler) (contextPath string, srv *httptest.Server) {
	t.Helper()
	srv = httptest.NewTLSServer(h)
	t.Cleanup(srv.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	contextPath = filepath.Join(t.TempDir(), "context.yaml")
	text := fmt.Sprintf("addresses: [%s]\ntoken: %s\nca: |\n  %s\n", srv.Listener.Addr(), token, strings.ReplaceAll(strings.TrimSpace(string(ca)), "\n", "\n  "))
	if err := os.WriteFile(contextPath, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return contextPath, srv
}

const canary = "reevet_canarycanarycanarycanary"

func TestTheTokenGoesToTheClusterAndNowhereElse(t *testing.T) {
	t.Parallel()
	var got atomic.Value
	context, _ := served(t, canary, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"code":"denied","status":403,"detail":"no","fix":"ask"}`)
	}))
	res := invoke(t.Context(), "", "--context", context, "whoami")
	if got.Load() != "Bearer "+canary {
		t.Errorf("Authorization: %v", got.Load())
	}
	if res.status != 1 || res.err != "reeve: no [denied]\n  to do: ask\n" {
		t.Errorf("status %d, %q", res.status, res.err)
	}
	if strings.Contains(res.out+res.err, canary) {
		t.Error("the token is in the output")
	}
}

func TestAControllerOfAnotherAuthorityIsNotTalkedTo(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	count := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	context, _ := served(t, canary, count)
	// httptest's servers share one certificate: take another authority for theirs.
	raw, err := os.ReadFile(context)
	if err != nil {
		t.Fatal(err)
	}
	other := newAuthority(t)
	before, _, _ := bytes.Cut(raw, []byte("ca: |"))
	if err := os.WriteFile(context, append(before, []byte("ca: |\n  "+strings.ReplaceAll(strings.TrimSpace(other), "\n", "\n  ")+"\n")...), 0o600); err != nil {
		t.Fatal(err)
	}
	res := invoke(t.Context(), "", "--context", context, "account", "reveal", "a@b", "--reason", "x")
	if res.status != 1 || !strings.Contains(res.err, "certificate") || calls.Load() != 0 {
		t.Errorf("status %d, %d calls, %s", res.status, calls.Load(), res.err)
	}
	if strings.Contains(res.err, canary) {
		t.Error("the token is in the error")
	}
}

func TestAContextFileThatIsWrongIsNotQuoted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "context.yaml")
	if err := os.WriteFile(path, []byte("tokn: "+canary+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	res := invoke(t.Context(), "", "--context", path, "whoami")
	if res.status != 2 || strings.Contains(res.err, "canary") || !strings.Contains(res.err, path) {
		t.Errorf("status %d, %s", res.status, res.err)
	}
}

func TestAnAnswerThatIsNoProblemDocumentIsToldByItsStatus(t *testing.T) {
	t.Parallel()
	context, _ := served(t, canary, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, "<html>proxy</html>")
	}))
	if res := invoke(t.Context(), "", "--context", context, "whoami"); res.status != 1 || res.err != "reeve: the controller answered 502 Bad Gateway\n" {
		t.Errorf("status %d, %q", res.status, res.err)
	}
}

func TestPagesAreFollowedToTheLast(t *testing.T) {
	t.Parallel()
	context, _ := served(t, canary, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("cursor") {
		case "":
			_, _ = io.WriteString(w, `{"items":[{"name":"one"}],"next":"c2"}`)
		case "c2":
			_, _ = io.WriteString(w, `{"items":[{"name":"two"}]}`)
		}
	}))
	res := invoke(t.Context(), "", "--context", context, "site", "list", "-o", "json")
	if res.status != 0 || strings.Count(res.out, `"name"`) != 2 || !strings.Contains(res.out, `"two"`) {
		t.Errorf("status %d, %s%s", res.status, res.out, res.err)
	}
}
