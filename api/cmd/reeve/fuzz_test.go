package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/reeve-pam/reeve/api/client"
)

// body answers every request with the same bytes.
type body struct {
	status int
	bytes  []byte
}

func (b body) Do(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: b.status, Status: http.StatusText(b.status), Body: io.NopCloser(bytes.NewReader(b.bytes)), Request: r}, nil
}

// Whatever a controller, or who passes for one, sends as a live log is read to its end, and printed so that it steers no terminal.
func FuzzLogStream(f *testing.F) {
	for _, s := range []string{"event: log\nid: 1\ndata: {\"step\":\"a\",\"state\":\"done\"}\n\n", "event: end\ndata: {\"id\":\"job_1\",\"state\":\"done\"}\n\n", "event: gap\ndata: 5\n\n", "event:log\ndata:\x1b[2J\n\n", "event: end\ndata: [\n\n", ":\n\n\n",
		"id: \x00\nevent: log\r\ndata: x\r\n\r\n", "data: \xff\u202e\nevent: log\n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		c, err := client.NewClient("https://192.0.2.1", client.WithHTTPClient(body{http.StatusOK, stream}))
		if err != nil {
			t.Fatal(err)
		}
		var terminal bytes.Buffer
		a := &app{stdio: stdio{out: printable{&terminal}, err: printable{&terminal}}}
		_, _, _ = streamLog(t.Context(), &api{Client: c}, "job_1", true, "", a.linePrinter(a.err, "web1"))
		shown(t, terminal.Bytes())
	})
}

// shown fails if a terminal would do anything with a text but show it.
func shown(t *testing.T, text []byte) {
	t.Helper()
	if !utf8.Valid(text) {
		t.Fatalf("%q is not text", text)
	}
	for _, r := range string(text) {
		if r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Bidi_Control, unicode.Zl, unicode.Zp) {
			t.Fatalf("%q steers a terminal", text)
		}
	}
}

// An answer that is no problem document is told as one that is none, and what is one shows nothing but its text.
func FuzzProblem(f *testing.F) {
	for _, s := range []string{`{"code":"sealed","detail":"it is","status":503}`, `{"code":""}`, `{`, `[]`, `null`, `{"code":"x","detail":"\u001b[31m","fix":"\u202e"}`, "\xff"} {
		f.Add([]byte(s), 503)
	}
	f.Fuzz(func(t *testing.T, raw []byte, status int) {
		status = 300 + (status%300+300)%300
		resp, err := body{status, raw}.Do(nil)
		if err != nil {
			t.Fatal(err)
		}
		err = problem(resp)
		if err == nil || err.Error() == "" {
			t.Fatalf("%d %q is no failure", status, raw)
		}
		var terminal bytes.Buffer
		_, _ = printable{&terminal}.Write([]byte(err.Error()))
		shown(t, terminal.Bytes())
	})
}

// A role's file is read whole or refused; what is read can be written and read again.
func FuzzRoleFile(f *testing.F) {
	for _, s := range []string{"name: a\nconnector: ssh\n", "name: a\nphases:\n  provision: [\"x\"]\n", "a: &x [*x]\n", "name: {a: b}\n", "!!binary x", "- a\n", "name: a\nname: b\n", "\t", "---\nname: a\n---\nname: b\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "role.yaml")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		a := &app{stdio: stdio{in: strings.NewReader("")}}
		file, err := a.readRole(path)
		if err == nil {
			_, _ = file.params(), file.phases()
		}
	})
}
