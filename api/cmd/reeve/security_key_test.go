package main

import (
	"encoding/base64"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// The program that waits for a security key tells nobody what it asks who does not know the
// address from the terminal, and takes one answer, of this page, to this machine's own name.
func TestWhatWaitsForASecurityKeyTakesOneAnswer(t *testing.T) {
	t.Parallel()
	const host = "127.0.0.1:40123"
	answer := base64.RawURLEncoding.EncodeToString([]byte(`{"id":"` + hostile + `"}`))
	for name, try := range map[string]struct {
		method, target, host string
		status               int
		counts               bool
	}{
		"the address":          {"GET", "/SECRET", host, 303, false},
		"its answer":           {"GET", "/callback?state=S&answer=" + answer, host, 200, true},
		"another state":        {"GET", "/callback?answer=" + answer + "&state=" + url.QueryEscape(hostile), host, 400, false},
		"no state":             {"GET", "/callback?answer=" + answer, host, 400, false},
		"two answers":          {"GET", "/callback?state=S&answer=" + answer + "&answer=" + answer, host, 400, false},
		"no answer":            {"GET", "/callback?state=S", host, 400, false},
		"not base64":           {"GET", "/callback?state=S&answer=%3Cscript%3E", host, 400, false},
		"much":                 {"GET", "/callback?state=S&answer=" + strings.Repeat("AAAA", maxKeyAnswer), host, 400, false},
		"another path":         {"GET", "/", host, 404, false},
		"another method":       {"POST", "/callback?state=S&answer=" + answer, host, 404, false},
		"a rebound name":       {"GET", "/SECRET", "evil.example.com:40123", 404, false},
		"another of its ports": {"GET", "/callback?state=S&answer=" + answer, "127.0.0.1:1", 404, false},
	} {
		p := &keyPrompt{do: proveKey, page: "https://reeve.example.com/security-key", opts: `{"challenge":"AAAA"}`, host: host, path: "/SECRET", state: "S", code: "ABCD-EFGH", answer: make(chan string, 1)}
		r := httptest.NewRequestWithContext(t.Context(), try.method, "http://"+host+try.target, nil)
		r.Host = try.host
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if body := w.Body.String(); w.Code != try.status || (len(p.answer) == 1) != try.counts || strings.Contains(body, "script") || strings.Contains(body, answer) {
			t.Errorf("%s: %d, counts %v: %s", name, w.Code, len(p.answer) == 1, body)
		}
		if to := w.Header().Get("Location"); (to != "") != (try.status == 303) || to != "" && !strings.HasPrefix(to, p.page+"#") {
			t.Errorf("%s: sent to %s", name, to)
		}
	}
}

func FuzzKeyAnswer(f *testing.F) {
	f.Add("state=S&answer=e30")
	f.Add("state=S&state=S&answer=e30")
	f.Add("state=S&answer=e3;0")
	f.Fuzz(func(t *testing.T, query string) {
		got, err := readKeyAnswer(query, "S")
		if err != nil {
			return
		}
		q, err := url.ParseQuery(query)
		if err != nil || len(q["state"]) != 1 || q.Get("state") != "S" || got == "" || len(got) > maxKeyAnswer || base64.RawURLEncoding.EncodeToString([]byte(got)) != q.Get("answer") {
			t.Errorf("%q is taken for %q", query, got)
		}
	})
}
