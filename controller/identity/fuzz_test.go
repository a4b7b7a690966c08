package identity

import (
	"context"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// What is taken as somebody's particulars is text on one line, and an address is one address.
func FuzzProfile(f *testing.F) {
	for _, s := range [][4]string{{"Ada King", "ada@example.com", "navy", "Europe/Berlin"}, {"a\nb", "Ada <ada@example.com>", "\u202e", "../../etc/passwd"}, {"\xff", "\"a\r\n b\"@x", "", "Local"}, {"", "a@b,c@d", "", "UTC\x00"},
		{"", "a@[1.2.3.4]", "", ""}, {"", "\"a b\"@example.com", "", "/usr/share/zoneinfo/UTC"}} {
		f.Add(s[0], s[1], s[2], s[3])
	}
	f.Fuzz(func(t *testing.T, name, email, department, zone string) {
		p := Profile{FullName: name, Email: email, Department: department, TimeZone: zone}
		if err := p.check(); err != nil {
			if reeve.KindOf(err) != reeve.Invalid {
				t.Fatal(err)
			}
			return
		}
		for _, s := range []string{name, email, department, zone} {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp) }) {
				t.Fatalf("%q was taken", s)
			}
		}
		if email != "" && (!strings.Contains(email, "@") || strings.ContainsAny(email, "<>")) {
			t.Fatalf("the address %q was taken", email)
		}
		if strings.Contains(zone, "..") || strings.HasPrefix(zone, "/") {
			t.Fatalf("the time zone %q was taken", zone)
		}
	})
}

// Every secret that is shown has one spelling, and opens nothing of another kind.
func FuzzBearers(f *testing.F) {
	kinds := []bearer{tokenBearer, sessionBearer, invitationBearer}
	for _, k := range kinds {
		secret, _ := k.make()
		f.Add(secret.Reveal())
		f.Add(strings.ToUpper(secret.Reveal()))
		f.Add(strings.Replace(secret.Reveal(), k.prefix, TokenPrefix, 1))
		f.Add(secret.Reveal() + "\n")
	}
	f.Fuzz(func(t *testing.T, text string) {
		read := 0
		for _, k := range kinds {
			raw, err := k.decode(reeve.SecretString(text))
			if err != nil {
				if reeve.KindOf(err) != reeve.Unauthenticated || err.Error() != k.malformed().Error() {
					t.Fatal(err)
				}
				continue
			}
			read++
			if again := k.encode(raw); again.Reveal() != text || len(raw) != bearerBytes {
				t.Fatalf("%q is another spelling of %q", text, again.Reveal())
			}
		}
		if read > 1 {
			t.Fatalf("%q is of %d kinds", text, read)
		}
	})
}

// A password is refused or hashed, whatever its bytes are; and what a client says of itself becomes printable text.
func FuzzPassword(f *testing.F) {
	for _, s := range []string{good, "", "\xff\xfe", strings.Repeat("a", 300), "ｇｏｏｄ ferret umbrella quartz 7", "\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301", strings.Repeat("\U0001f600", 16)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if said := printable(text); len(said) > maxDescription || !utf8.ValidString(said) || strings.ContainsFunc(said, unicode.IsControl) && !strings.ContainsFunc(text, func(r rune) bool { return r >= 0x80 && unicode.IsControl(r) }) {
			t.Fatalf("%q is printed as %q", text, said)
		}
		if len(text) > 2000 {
			return
		}
		h, err := HashPassword(context.Background(), reeve.SecretString(text), minPassword, "ada")
		if err != nil {
			if reeve.KindOf(err) != reeve.Invalid {
				t.Fatal(err)
			}
			_, err = HashPassword(context.Background(), reeve.SecretString(text+"Canary-7f3a"), minPassword, "ada")
			if err != nil && strings.Contains(err.Error(), "Canary") && !strings.Contains(text, "Canary") {
				t.Fatal(err)
			}
			return
		}
		p := &password{Salt: h.salt, Hash: h.hash}
		if yes, err := p.matches(context.Background(), reeve.SecretString(text)); err != nil || !yes {
			t.Fatalf("%q does not match itself: %v", text, err)
		}
		if yes, _ := p.matches(context.Background(), reeve.SecretString(text+"x")); yes {
			t.Fatalf("%q matches more", text)
		}
	})
}
