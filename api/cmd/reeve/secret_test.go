package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadSecretTakesOneNewlineOffAndNothingElse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ content, want string }{
		"without newline":  {"s3cret", "s3cret"},
		"with newline":     {"s3cret\n", "s3cret"},
		"with CRLF":        {"s3cret\r\n", "s3cret"},
		"two newlines":     {"s3cret\n\n", "s3cret\n"},
		"spaces are kept":  {" s3cret \n", " s3cret "},
		"newline in it":    {"two\nlines\n", "two\nlines"},
		"empty":            {"", ""},
		"a newline alone":  {"\n", ""},
		"a CRLF alone":     {"\r\n", ""},
		"not valid UTF-8 ": {"\xff\xfe\n", "\xff\xfe"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, from := range []string{path, "-"} {
				a := &app{stdio: stdio{in: strings.NewReader(c.content), out: &bytes.Buffer{}, err: &bytes.Buffer{}}}
				got, err := a.readSecret(from, "Password")
				if (c.want == "") != (err != nil) {
					t.Fatalf("error %v", err)
				}
				if err == nil && got.Reveal() != c.want {
					t.Errorf("from %s: %q, want %q", from, got.Reveal(), c.want)
				}
				if err != nil && !strings.Contains(err.Error(), "Password is empty") {
					t.Errorf("from %s: %v", from, err)
				}
			}
		})
	}
}

func TestReadSecretOfAMissingFileIsAUsageError(t *testing.T) {
	t.Parallel()
	got := invoke(t.Context(), "", "whoami", "--address", "192.0.2.1:8443", "--token-file", "/does/not/exist")
	if got.status != 2 || !strings.Contains(got.err, "Token: there is no file /does/not/exist\n  to do: ") {
		t.Errorf("status %d, %s", got.status, got.err)
	}
}

func TestReadSecretIsBounded(t *testing.T) {
	t.Parallel()
	a := &app{stdio: stdio{in: strings.NewReader(strings.Repeat("x", 4<<20)), out: &bytes.Buffer{}, err: &bytes.Buffer{}}}
	got, err := a.readSecret("-", "Password")
	if err != nil || got.Len() > 1<<20 {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
}
