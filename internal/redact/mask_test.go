package redact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/internal/redact/redacttest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// A line of JSON that holds a secret in any form, raw or escaped, has neither after Mask,
// and is otherwise what it was: same length, same lines, still JSON.
func TestMaskLeavesNoFormOfASecretInALogLine_J6(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		secret := genSecret(t)
		r := New(reeve.SecretString(secret))
		for name, form := range redacttest.Forms(secret) {
			if strings.HasPrefix(name, "utf-16") || name == "ldap unicode" {
				continue // JSON text holds no NUL as it is; escaped it is found below
			}
			line, err := json.Marshal(map[string]string{"level": "info", "message": "before " + form + " after"})
			if err != nil {
				t.Fatal(err)
			}
			b := append(append(append(bytes.Clone(line), '\n'), line...), '\n')
			length := len(b)
			if !r.Mask(b) {
				t.Fatalf("%s is not found in %s", name, line)
			}
			var got map[string]string
			for l := range bytes.Lines(b) {
				if err := json.Unmarshal(l, &got); err != nil {
					t.Fatalf("%s: %s is no JSON any more: %v", name, l, err)
				}
				if m := got["message"]; !strings.HasPrefix(m, "before ") || !strings.HasSuffix(m, " after") || strings.Contains(m, secret) || strings.Contains(string(Fold([]byte(m))), secret) {
					t.Fatalf("%s: %q", name, m)
				}
			}
			if len(b) != length || bytes.Count(b, []byte{'\n'}) != 2 || r.Mask(bytes.Clone(b)) {
				t.Fatalf("%s: %q", name, b)
			}
		}
	})
}

func TestMaskFindsUTF16WithEscapedNULs_J6(t *testing.T) {
	t.Parallel()
	const secret = `Str"ange\ Secret1`
	r := New(reeve.SecretString(secret))
	for name, form := range redacttest.Forms(secret) {
		line, err := json.Marshal(form)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Mask(line) {
			t.Errorf("%s is not found in %s", name, line)
		}
	}
}

func TestMaskLeavesOtherTextAlone(t *testing.T) {
	t.Parallel()
	r := New(reeve.SecretString("correct horse"), reeve.SecretString("msg"))
	for _, s := range []string{"", `\`, `\u`, `\u00zz`, `{"msg":"\ud83d\ude00 \"quoted\"\n"}` + "\n", strings.Repeat(`\\`, 50), "correct\\nhors"} {
		b := []byte(s)
		if r.Mask(b) || string(b) != s {
			t.Errorf("%q became %q", s, b)
		}
	}
}

func FuzzMask(f *testing.F) {
	f.Add([]byte(`{"message":"correct\u0020horse"}`))
	f.Add([]byte("correct\x1b[1m horse\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := New(reeve.SecretString("correct horse"))
		was := bytes.Clone(b)
		r.Mask(b)
		if len(b) != len(was) || bytes.Count(b, []byte{'\n'}) != bytes.Count(was, []byte{'\n'}) || bytes.Contains(b, []byte("correct horse")) {
			t.Fatalf("%q became %q", was, b)
		}
	})
}

// What the controller pays for a chunk of a job with three secrets.
func BenchmarkMask(b *testing.B) {
	line := []byte(`{"time":"2026-11-22T17:28:32.123456789Z","level":"info","step":"verify","state":"done","message":"login as alice with the candidate secret, version 2: ok"}` + "\n")
	chunk := bytes.Repeat(line, 8)
	b.ReportAllocs()
	for i := range b.N {
		n := fmt.Sprint(i)
		r := New(reeve.SecretString("kT7#mQ2!vX9@pL4%wZ6^cB8_"+n), reeve.SecretString("hN3(jR5)sD1[gF0]yU7=eA2+"+n), reeve.SecretString("oP9:iK4/tM6.xC8?bV1,nH5~"+n))
		r.Mask(chunk)
		r.Wipe()
	}
}
