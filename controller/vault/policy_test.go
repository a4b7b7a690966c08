package vault

import (
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/internal/reeve"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

func TestGeneratedPasswordsSatisfyTheirPolicy_C34(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := Policy{
			MinLength: rapid.IntRange(8, 20).Draw(t, "min"),
			Lower:     rapid.IntRange(0, 2).Draw(t, "lower"),
			Upper:     rapid.IntRange(0, 2).Draw(t, "upper"),
			Digits:    rapid.IntRange(0, 2).Draw(t, "digits"),
			Symbols:   rapid.IntRange(0, 2).Draw(t, "symbols"),
			Excluded:  rapid.StringMatching(`[a-f2-5!#%]{0,8}`).Draw(t, "excluded"),
		}
		p.Length = p.MinLength + rapid.IntRange(4, 40).Draw(t, "longer")
		p.MaxLength = p.Length + rapid.IntRange(0, 9).Draw(t, "slack")
		s, err := Generate(p)
		if err != nil {
			t.Fatalf("%+v: %v", p, err)
		}
		if err := p.Check(s); err != nil {
			t.Fatalf("generated password is refused: %v", err)
		}
		text := s.Reveal()
		counts := map[string]int{}
		for _, r := range text {
			switch {
			case unicode.IsLower(r):
				counts["lower"]++
			case unicode.IsUpper(r):
				counts["upper"]++
			case unicode.IsDigit(r):
				counts["digit"]++
			default:
				counts["symbol"]++
			}
			if r < '!' || r > '~' || strings.ContainsRune(p.Excluded, r) {
				t.Fatalf("character %q", r)
			}
		}
		if len(text) != p.Length || text[0] == '-' || text[0] == '*' || counts["lower"] < p.Lower ||
			counts["upper"] < p.Upper || counts["digit"] < p.Digits || counts["symbol"] < p.Symbols {
			t.Fatalf("length %d, classes %v, policy %+v", len(text), counts, p)
		}
	})
}

// Every character of the alphabet must be as likely as any other: with 40 000 draws
// from 77 characters each comes 519 times, give or take 23; six times that is never seen.
func TestGeneratedCharactersAreUniform(t *testing.T) {
	t.Parallel()
	alphabet := lowers + uppers + digits + symbols
	counts := map[byte]int{}
	const draws = 40_000
	for _, b := range draw(alphabet, draws) {
		counts[b]++
	}
	want := float64(draws) / float64(len(alphabet))
	for i := range len(alphabet) {
		if got := float64(counts[alphabet[i]]); got < want*0.75 || got > want*1.25 {
			t.Errorf("%q was drawn %.0f times, expected about %.0f", alphabet[i], got, want)
		}
	}
}

func TestCheckRefusesWhatTargetsMisread_C34(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy()
	for name, password := range map[string]string{
		"newline":         "Abcdefgh1234!\nroot:x",
		"carriage return": "Abcdefgh1234!\r",
		"nul":             "Abcdefgh\x001234!",
		"tab":             "Abcdefgh\t1234!",
		"delete":          "Abcdefgh\x7f1234!",
		"C1 control":      "Abcdefgh\u00851234!",
		"line separator":  "Abcdefgh\u20281234!",
		"not UTF-8":       "Abcdefgh\xff1234!",
		"space before":    " Abcdefgh1234!",
		"space after":     "Abcdefgh1234! ",
		"no-break space":  "Abcdefgh1234!\u00a0",
		"leading dash":    "-Abcdefgh1234!",
		"leading star":    "*Abcdefgh1234!",
		"short":           "Abc123!",
		"long":            strings.Repeat("Abcdefgh1234!", 10),
		"no lower":        "ABCDEFGH1234!",
		"no upper":        "abcdefgh1234!",
		"no digit":        "Abcdefghijkl!",
		"no symbol":       "Abcdefgh12345",
		"empty":           "",
	} {
		err := p.Check(reeve.SecretString(password))
		if reeve.CodeOf(err) != "password_policy" {
			t.Errorf("%s: %v, want password_policy", name, err)
		}
		if err != nil && len(password) > 4 && strings.Contains(err.Error(), password) {
			t.Errorf("%s: the error quotes the password", name)
		}
	}
	for _, password := range []string{"Abcdefgh1234!", "pass: wörd; 'A1' $(id)", `A"b'c\d;e&f|g#1`, "日本語のパスワードaA1!"} {
		if err := p.Check(reeve.SecretString(password)); err != nil {
			t.Errorf("%q: %v", password, err)
		}
	}
}

func TestPolicyWithinAConnectorsRule(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy().Within(&connectorv1.PasswordRule{MinLength: 14, MaxLength: 16, Excluded: "@:"})
	if p.Length != 16 || p.MinLength != 14 || p.MaxLength != 16 {
		t.Errorf("%+v", p)
	}
	if err := p.Check(reeve.SecretString("Abcdefgh1234@x!")); err == nil {
		t.Error("an excluded character was accepted")
	}
	ascii := DefaultPolicy().Within(&connectorv1.PasswordRule{AsciiOnly: true})
	if ascii.Check(reeve.SecretString("Abcdefgh1234-wörd")) == nil || ascii.Check(reeve.SecretString("Abcdefgh1234-word")) != nil {
		t.Error("a letter beyond ASCII was accepted, or others were not")
	}
	if p := DefaultPolicy().Within(nil); p != DefaultPolicy() {
		t.Errorf("no rule changes the policy: %+v", p)
	}
}

func TestImpossiblePoliciesAreRefused(t *testing.T) {
	t.Parallel()
	base := DefaultPolicy()
	for name, change := range map[string]func(*Policy){
		"too short to redact":    func(p *Policy) { p.MinLength, p.Length = 4, 4 },
		"shorter than minimum":   func(p *Policy) { p.Length = p.MinLength - 1 },
		"longer than maximum":    func(p *Policy) { p.Length = p.MaxLength + 1 },
		"asks for more than fit": func(p *Policy) { p.Digits = p.Length },
		"class wholly excluded":  func(p *Policy) { p.Excluded = digits },
		"practically impossible": func(p *Policy) { p.Digits = p.Length - 3 },
	} {
		p := base
		change(&p)
		if _, err := Generate(p); reeve.CodeOf(err) != "policy_invalid" {
			t.Errorf("%s: %v, want policy_invalid", name, err)
		}
	}
}

func FuzzPasswordCheck(f *testing.F) {
	f.Add([]byte("Abcdefgh1234!"))
	f.Add([]byte("x\nroot:hacked"))
	f.Add([]byte{0xff, 0xfe, ' '})
	f.Fuzz(func(t *testing.T, b []byte) {
		p := DefaultPolicy()
		if p.Check(reeve.NewSecret(b)) != nil {
			return
		}
		if strings.ContainsFunc(string(b), unicode.IsControl) || strings.TrimSpace(string(b)) != string(b) || b[0] == '-' || b[0] == '*' {
			t.Errorf("accepted %q", b)
		}
	})
}
