package jointoken_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/internal/jointoken"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func token() jointoken.Token {
	return jointoken.Token{Cluster: "prod", CASPKIHash: [32]byte{1, 2, 3}, Addresses: []string{"c1.example:7443", "[::1]:7443"},
		Secret: reeve.SecretString("0123456789abcdef0123456789abcdef")}
}

func encode(t testing.TB, tok jointoken.Token) reeve.Secret {
	t.Helper()
	s, err := tok.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTokenSurvivesTheRoundTrip(t *testing.T) {
	t.Parallel()
	want := token()
	text := encode(t, want)
	got, err := jointoken.Parse(reeve.SecretString("  " + text.Reveal() + "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.Comparer(reeve.Secret.Equal)); d != "" {
		t.Fatal(d)
	}
}

func TestEveryDamagedTokenIsRefusedWithoutQuotingIt(t *testing.T) {
	t.Parallel()
	text := encode(t, token()).Reveal()
	damaged := map[string]string{"empty": "", "prefix only": jointoken.Prefix, "other prefix": "x" + text,
		"too long": text + strings.Repeat("A", jointoken.MaxText), "inner newline": text[:40] + "\n" + text[40:]}
	for i := range len(text) {
		damaged[fmt.Sprintf("cut at %d", i)] = text[:i]
		c := byte('A')
		if text[i] == c {
			c = 'B'
		}
		damaged[fmt.Sprintf("byte %d changed", i)] = text[:i] + string(c) + text[i+1:]
	}
	for name, s := range damaged {
		_, err := jointoken.Parse(reeve.SecretString(s))
		if reeve.CodeOf(err) != "join_token_invalid" {
			t.Errorf("%s: %v", name, err)
		} else if len(s) > 20 && strings.Contains(err.Error(), s[10:20]) {
			t.Errorf("%s: the error quotes the token: %v", name, err)
		}
	}
}

func TestIncompleteTokensAreNotEncoded(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*jointoken.Token){
		"no cluster":    func(t *jointoken.Token) { t.Cluster = "" },
		"no hash":       func(t *jointoken.Token) { t.CASPKIHash = [32]byte{} },
		"no address":    func(t *jointoken.Token) { t.Addresses = nil },
		"many":          func(t *jointoken.Token) { t.Addresses = make([]string, jointoken.MaxAddresses+1) },
		"no port":       func(t *jointoken.Token) { t.Addresses = []string{"host"} },
		"port 0":        func(t *jointoken.Token) { t.Addresses = []string{"host:0"} },
		"no secret":     func(t *jointoken.Token) { t.Secret = reeve.Secret{} },
		"giant secret":  func(t *jointoken.Token) { t.Secret = reeve.NewSecret(make([]byte, 300)) },
		"giant cluster": func(t *jointoken.Token) { t.Cluster = strings.Repeat("x", 300) },
	} {
		tok := token()
		spoil(&tok)
		if _, err := tok.Encode(); reeve.CodeOf(err) != "join_token_invalid" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTokenPrintsRedacted(t *testing.T) {
	t.Parallel()
	tok := token()
	out := fmt.Sprintf("%v %+v %s %#v", tok, tok, encode(t, tok), tok)
	raw := base64.RawURLEncoding.EncodeToString(tok.Secret.Bytes())
	if strings.Contains(out, tok.Secret.Reveal()) || strings.Contains(out, raw) {
		t.Fatal("a printed token shows its secret")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(encode(f, token()).Bytes())
	f.Add([]byte(jointoken.Prefix))
	f.Fuzz(func(t *testing.T, b []byte) {
		tok, err := jointoken.Parse(reeve.NewSecret(bytes.Clone(b)))
		if err != nil {
			return
		}
		again, err := jointoken.Parse(encode(t, tok))
		if err != nil || !cmp.Equal(tok, again, cmp.Comparer(reeve.Secret.Equal)) {
			t.Fatalf("accepted %q, but it does not survive the round trip: %v", b, err)
		}
	})
}
