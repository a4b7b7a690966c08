package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

const hostile = `"><script>alert(1)</script>`

// The page the browser comes back to shows the code of the sign-in and nothing it was asked
// with (CVE-2026-33758), to one answer of the sign-in that is waited for.
func TestThePageOfASignInRepeatsNothing_CVE_2026_33758(t *testing.T) {
	t.Parallel()
	const host = "127.0.0.1:40123"
	for name, try := range map[string]struct {
		method, target, host string
		status               int
		counts, code         bool
	}{
		"its answer":           {"GET", "/callback?code=c&state=S&iss=https%3A%2F%2Fa", host, 200, true, true},
		"it was denied":        {"GET", "/callback?error=access_denied&state=S&error_description=" + url.QueryEscape(hostile), host, 200, true, false},
		"odd denial":           {"GET", "/callback?state=S&error=" + url.QueryEscape(hostile), host, 200, true, false},
		"another state":        {"GET", "/callback?code=c&state=" + url.QueryEscape(hostile), host, 400, false, false},
		"no state":             {"GET", "/callback?code=c", host, 400, false, false},
		"two codes":            {"GET", "/callback?code=c&code=d&state=S", host, 400, false, false},
		"two states":           {"GET", "/callback?code=c&state=S&state=S", host, 400, false, false},
		"code and error":       {"GET", "/callback?code=c&error=access_denied&state=S", host, 400, false, false},
		"neither":              {"GET", "/callback?state=S", host, 400, false, false},
		"another path":         {"GET", "/?code=c&state=S", host, 404, false, false},
		"another method":       {"POST", "/callback?code=c&state=S", host, 404, false, false},
		"a rebound name":       {"GET", "/callback?code=c&state=S", "evil.example.com:40123", 404, false, false},
		"another of its ports": {"GET", "/callback?code=c&state=S", "127.0.0.1:1", 404, false, false},
	} {
		got := make(chan callback, 1)
		r := httptest.NewRequestWithContext(t.Context(), try.method, "http://"+host+try.target, nil)
		r.Host = try.host
		w := httptest.NewRecorder()
		callbackPage(host, "S", "ABCD-EFGH", got).ServeHTTP(w, r)
		body := w.Body.String()
		if w.Code != try.status || (len(got) == 1) != try.counts || strings.Contains(body, "ABCD-EFGH") != try.code {
			t.Errorf("%s: %d, counts %v: %s", name, w.Code, len(got) == 1, body)
		}
		if strings.Contains(body, "script") || strings.Contains(body, "S</") || !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: %s %v", name, body, w.Header())
		}
	}
}

func TestADeniedSignInSaysWhyInKnownWordsOnly(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{"access_denied": "access_denied", hostile: "another reason"} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error, 1)
		go func() {
			_, err := awaitCallback(t.Context(), l, "S", "ABCD-EFGH")
			failed <- err
		}()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+"/callback?state=S&error="+url.QueryEscape(given), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err := <-failed; err == nil || err.Error() != "the provider did not let you in: "+want {
			t.Errorf("%q: %v", given, err)
		}
	}
}

func TestASignInThatNobodyAnswersEnds(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := awaitCallback(ctx, l, "S", "ABCD-EFGH"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if c, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("it still listens")
	}
}

func FuzzCallback(f *testing.F) {
	f.Add("code=c&state=S&iss=https%3A%2F%2Fa")
	f.Add("error=access_denied&state=S")
	f.Add("state=S&state=S&code=c;d")
	f.Fuzz(func(t *testing.T, query string) {
		back, err := readCallback(query, "S")
		if err != nil {
			if !errors.Is(err, errNotThis) || !back.code.Empty() {
				t.Errorf("%v %+v", err, back)
			}
			return
		}
		q, err := url.ParseQuery(query)
		if err != nil || len(q["state"]) != 1 || q.Get("state") != "S" || (back.denied == "") == back.code.Empty() || len(q["code"]) > 1 {
			t.Errorf("%q is taken for %+v", query, back)
		}
	})
}
