package directory

import (
	"testing"
	"unicode/utf8"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// Whatever a name holds, the filter asks for that name and for nothing else.
func FuzzUserFilter(f *testing.F) {
	for _, s := range []string{"ada", "*", "*)(uid=*", `\00`, "a\x00b", `CN=a\,b,DC=c`, "ü", "\xff", ")(|(a=b", `\`, `%Name%`, "&", "a:=b"} {
		f.Add(s)
	}
	const pattern = "(&(objectClass=person)(sAMAccountName=%Name%)(!(cn=x)))"
	f.Fuzz(func(t *testing.T, name string) {
		text, err := userFilter(pattern, name)
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		p, err := ldap.CompileFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		if p.Tag != ldap.FilterAnd || len(p.Children) != 3 {
			t.Fatalf("%q is another filter: %s", name, text)
		}
		term := p.Children[1]
		if term.Tag != ldap.FilterEqualityMatch || string(value(term.Children[0])) != "sAMAccountName" || string(value(term.Children[1])) != name {
			t.Fatalf("%q: %s", name, text)
		}
	})
}

// A distinguished name in a filter stays a value, and the same name in whatever spelling
// is the same group.
func FuzzMemberFilter(f *testing.F) {
	for _, s := range []string{"CN=a,DC=b", `CN=a\,b \(c\)*,DC=d`, "*)(cn=*", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		p, err := ldap.CompileFilter(memberFilter(name))
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if p.Tag != ldap.FilterExtensibleMatch || len(p.Children) < 3 || string(value(p.Children[2])) != name {
			t.Fatalf("%q: %s", name, memberFilter(name))
		}
		if !utf8.ValidString(name) || name == "" {
			return
		}
		dn := "CN=" + ldap.EscapeDN(name) + ",DC=b"
		if parsed, err := ldap.ParseDN(dn); err != nil || len(parsed.RDNs) != 2 || parsed.RDNs[0].Attributes[0].Value != name {
			t.Fatalf("%q: %s %v", name, dn, err)
		}
		if !SameGroup(dn, "cn="+ldap.EscapeDN(name)+", dc=B") {
			t.Fatalf("%q is not the same as itself", dn)
		}
	})
}

func value(p *ber.Packet) []byte { return p.Data.Bytes() }
