package quote_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/plugins/sdk/quote"
)

var nasty = []string{
	"", "a", "a b", "'", "''", `'"'"'`, `\`, `\'`, "$(id)", "`id`", "${HOME}", "a;b", "a\nb", "\t", "*", "~", "!x", "#", "-n",
	"%s", "\xff\xfe", "ü密🔑", "\\\n", "a'b\"c`d$e", strings.Repeat("'", 100),
}

// printed is what /bin/sh makes of command.
func printed(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", command).Output()
	if err != nil {
		t.Fatalf("sh -c %q: %v", command, err)
	}
	return string(out)
}

func TestShArgIsOneWordToTheShell(t *testing.T) {
	t.Parallel()
	words := make([]string, len(nasty))
	for i, s := range nasty {
		word, err := quote.ShArg(s)
		if err != nil {
			t.Fatal(err)
		}
		words[i] = word
	}
	got := printed(t, `printf '%s\000' `+strings.Join(words, " "))
	if want := strings.Join(nasty, "\x00") + "\x00"; got != want {
		t.Errorf("the shell saw %q, want %q", got, want)
	}
	if _, err := quote.ShArg("a\x00b"); err == nil {
		t.Error("NUL was accepted")
	}
}

func FuzzShArg(f *testing.F) {
	for _, s := range nasty {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		word, err := quote.ShArg(s)
		if err != nil {
			if !strings.Contains(s, "\x00") {
				t.Errorf("%q was refused: %v", s, err)
			}
			return
		}
		if len(s) > 1000 {
			return // the kernel limits arguments
		}
		if got := printed(t, "printf '%s|' "+word+" end"); got != s+"|end|" {
			t.Errorf("the shell saw %q, want %q", got, s+"|end|")
		}
	})
}

func TestMyLitDoublesQuotesOnly(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "''", "o'br\\x": "'o''br\\x'", `"`: `'"'`, "''": "''''''"} {
		if got, err := quote.MyLit(in); err != nil || got != want {
			t.Errorf("MyLit(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"\x00", "\xff"} {
		if _, err := quote.MyLit(in); err == nil {
			t.Errorf("MyLit(%q) was accepted", in)
		}
	}
}

func TestMyIdent(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"a": "`a`", "we`ird": "`we``ird`", "a_b%": "`a_b%`", strings.Repeat("ü", 64): "`" + strings.Repeat("ü", 64) + "`"} {
		if got, err := quote.MyIdent(in); err != nil || got != want {
			t.Errorf("MyIdent(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "a\x00", "a ", "🔑", "\xff", strings.Repeat("a", 65)} {
		if _, err := quote.MyIdent(in); err == nil {
			t.Errorf("MyIdent(%q) was accepted", in)
		}
	}
}

func TestMyGrantDBEscapesWildcards_C21(t *testing.T) {
	t.Parallel()
	if got, err := quote.MyGrantDB("app_1%`x"); err != nil || got != "`app\\_1\\%``x`" {
		t.Errorf("got %s, %v", got, err)
	}
	if _, err := quote.MyGrantDB(`a\_b`); err == nil {
		t.Error("a backslash was accepted")
	}
}

// FuzzMy reads literals and identifiers back the way the server's lexer does with
// NO_BACKSLASH_ESCAPES: the closing quote is the first that is not doubled, and must be
// the last character.
func FuzzMy(f *testing.F) {
	for _, s := range nasty {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, q := range map[string]struct {
			mark  byte
			quote func(string) (string, error)
		}{"MyLit": {'\'', quote.MyLit}, "MyIdent": {'`', quote.MyIdent}} {
			text, err := q.quote(s)
			if err != nil {
				continue
			}
			if got, ok := lex(text, q.mark); !ok || got != s {
				t.Errorf("%s(%q) = %s, which reads as %q", name, s, text, got)
			}
		}
	})
}

func lex(text string, mark byte) (string, bool) {
	if len(text) < 2 || text[0] != mark {
		return "", false
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		if text[i] != mark {
			b.WriteByte(text[i])
			continue
		}
		if i+1 < len(text) && text[i+1] == mark {
			b.WriteByte(mark)
			i++
			continue
		}
		return b.String(), i == len(text)-1
	}
	return "", false
}
