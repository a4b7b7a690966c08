package redact

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/internal/redact/redacttest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func genSecret(t *rapid.T) string {
	return string(rapid.SliceOfN(rapid.Int32Range(0x20, 0x7e), 8, 40).Draw(t, "secret"))
}

// TestNoFormOfASecretSurvivesAnyChunking_J6 cuts texts that hold a secret in a listed
// form at random places and looks for the form in what comes out, as it is and as a
// terminal would show it.
func TestNoFormOfASecretSurvivesAnyChunking_J6(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		secret := genSecret(t)
		all := redacttest.Forms(secret)
		names := make([]string, 0, len(all))
		for n := range all {
			names = append(names, n)
		}
		slices.Sort(names)
		name := rapid.SampledFrom(names).Draw(t, "form")
		form := all[name]
		core := form // what must not survive
		if strings.HasPrefix(name, "base64 at") {
			core = form[3 : 3+len(secret)*4/3-2]
		}
		noise := rapid.SampledFrom([]string{"", "x", "password: ", "\x1b[0m", "\n", "\x1b]0;title\x07", secret[:3], secret[:len(secret)/2]})
		text := noise.Draw(t, "before") + form + noise.Draw(t, "after") + form + noise.Draw(t, "end")
		r := New(reeve.SecretString(secret), reeve.SecretString("another secret"))
		s := r.Stream()
		var out []byte
		for rest := []byte(text); len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "chunk")
			out = append(out, s.Next(rest[:n])...)
			rest = rest[n:]
		}
		out = append(out, s.Flush()...)
		whole := r.Redact(text)
		for what, got := range map[string][]byte{"stream": out, "whole": []byte(whole)} {
			if bytes.Contains(got, []byte(core)) {
				t.Fatalf("%s: %s form survives in %q", what, name, got)
			}
			if shown := Fold(got); bytes.Contains(shown, []byte(secret)) || bytes.Contains(shown, Fold([]byte(core))) {
				t.Fatalf("%s: %s form is shown by a terminal: %q", what, name, shown)
			}
		}
	})
}

// What a Stream lets out early must be what it would have said had it waited.
func TestStreamLosesNothingElse(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		secret := "Tr0ub4dor&3"
		parts := rapid.SliceOf(rapid.SampledFrom([]string{"a", "plain text ", secret, secret[:6], "\x1b[1m", "\n", "é"})).Draw(t, "parts")
		text := strings.Join(parts, "")
		r := New(reeve.SecretString(secret))
		s := r.Stream()
		var out []byte
		for i := 0; i < len(text); {
			n := min(rapid.IntRange(1, 7).Draw(t, "chunk"), len(text)-i)
			out = append(out, s.Next([]byte(text[i:i+n]))...)
			i += n
		}
		out = append(out, s.Flush()...)
		if want := r.Redact(text); string(out) != want {
			t.Fatalf("stream: %q, whole: %q", out, want)
		}
	})
}

func TestTextWithoutSecretsIsLeftAlone(t *testing.T) {
	t.Parallel()
	r := New(reeve.SecretString("correct horse"), reeve.Secret{})
	for _, s := range []string{"", "correct", "horse correct", "\x1b[1mcorrect\x1b[0m hors"} {
		if got := r.Redact(s); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
}

func TestShortSecretsAreFoundAsTheyAre(t *testing.T) {
	t.Parallel()
	r := New(reeve.SecretString("s3c"))
	if got := r.Redact("the password is s3c."); got != "the password is [redacted]." {
		t.Errorf("got %q", got)
	}
	if text := hex.EncodeToString([]byte("s3c")); r.Redact(text) != text || r.Finds("s3c") || r.Long().Redact("s3c") != "s3c" {
		t.Error("a short secret was looked for in more than its raw form")
	}
}

func TestLinesOfAPrivateKeyAreSecretsToo(t *testing.T) {
	t.Parallel()
	key := "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIO0123456789abcdefghij\nklmnopqrstuvwxyzABCDEFGH\n-----END PRIVATE KEY-----\n"
	r := New(reeve.SecretString(key))
	got := r.Redact("line: MC4CAQAwBQYDK2VwBCIEIO0123456789abcdefghij and -----BEGIN PRIVATE KEY-----")
	if got != "line: [redacted] and -----BEGIN PRIVATE KEY-----" {
		t.Errorf("got %q", got)
	}
}

func TestWipedRedactorHoldsNothing(t *testing.T) {
	t.Parallel()
	r := New(reeve.SecretString("correct horse"))
	shared, kept := r.Share(), slices.Clone(r.forms.all)
	r.Wipe()
	r.Wipe()
	if got := r.Redact("correct horse"); got != "correct horse" {
		t.Errorf("a wiped redactor finds something: %q", got)
	}
	if got := shared.Redact("correct horse"); got != "[redacted]" {
		t.Errorf("wiped while somebody else needs it: %q", got)
	}
	shared.Wipe()
	for _, f := range kept {
		if len(bytes.Trim(f.text, "\x00")) > 0 {
			t.Fatal("a form outlives Wipe")
		}
	}
}

// Every match that a search for one form after the other finds is found.
func TestNoFormIsMissed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.StringOfN(rapid.RuneFrom([]rune("ab\x00\x1b[m")), 1, 12, -1)
		fs, texts := newForms(), map[string]bool{}
		for _, s := range rapid.SliceOfN(letters, 1, 9).Draw(t, "forms") {
			fs.add([]byte(s), false)
			texts[s] = true
		}
		b := rapid.StringOfN(rapid.RuneFrom([]rune("ab\x00\x1b[m")), 0, 40, -1).Draw(t, "text")
		want, got := map[span]string{}, map[span]string{}
		for s := range texts {
			for from := 0; from+len(s) <= len(b); from++ {
				if b[from:from+len(s)] == s {
					want[span{from, from + len(s)}] = s
				}
			}
		}
		fs.find([]byte(b), func(f *form, from, to int) { got[span{from, to}] = string(f.text) })
		if len(fs.all) != len(texts) || !maps.Equal(want, got) {
			t.Fatalf("%d forms of %d; found %v, want %v", len(fs.all), len(texts), got, want)
		}
	})
}

func BenchmarkNew(b *testing.B) {
	one, other := reeve.SecretString("gX7#kd92!mQz_p4-WvT8&yLs"), reeve.SecretString("Hu82jd-19sKQ.aa!")
	b.ReportAllocs()
	for b.Loop() {
		New(one, other)
	}
}

func BenchmarkRedact(b *testing.B) {
	r := New(reeve.SecretString("gX7#kd92!mQz_p4-WvT8&yLs"), reeve.SecretString("Hu82jd-19sKQ.aa!"))
	b.ReportAllocs()
	for b.Loop() {
		r.Redact("GRANT SELECT, INSERT, UPDATE, DELETE, EXECUTE ON `app`.* TO 'r1_17'@'%'")
	}
}

// The differential of the streaming redactor against the one for whole texts.
func FuzzStream(f *testing.F) {
	f.Add([]byte("x correct horse y"), uint8(3))
	f.Add([]byte("\x1b[correct\x1b] horse\x07"), uint8(1))
	f.Fuzz(func(t *testing.T, text []byte, size uint8) {
		r := New(reeve.SecretString("correct horse"))
		s := r.Stream()
		var out []byte
		for rest := text; len(rest) > 0; {
			n := min(int(size)+1, len(rest))
			out = append(out, s.Next(rest[:n])...)
			rest = rest[n:]
		}
		out = append(out, s.Flush()...)
		if bytes.Contains(out, []byte("correct horse")) {
			t.Fatalf("secret in %q", out)
		}
	})
}

func BenchmarkRedactLine(b *testing.B) {
	r := New(reeve.SecretString("correct horse battery"), reeve.SecretString("staple, 12345"))
	line := fmt.Sprintf("created user %s on %s", "app_1", "db.example")
	for b.Loop() {
		_ = r.Redact(line)
	}
}
