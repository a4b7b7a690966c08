package directory

import (
	"encoding/pem"
	"net"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/internal/reeve"
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

// Whatever a directory says of somebody's account, it is read in one way, and what is not a number shuts nobody out.
func FuzzShut(f *testing.F) {
	for _, s := range [][2]string{{"512", "0"}, {"514", ""}, {"", "9223372036854775807"}, {"-2147483646", "1"}, {"0x2", "-1"}, {" 514", "99999999999999999999"}, {"+514", "133000000000000000"}, {"\xff", "1e9"}} {
		f.Add(s[0], s[1])
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, control, expires string) {
		why := shut(control, expires, now)
		flags, errFlags := strconv.ParseInt(control, 10, 64)
		at, errAt := strconv.ParseInt(expires, 10, 64)
		disabled := errFlags == nil && flags&2 != 0
		// Seconds from 1601 to 1970, and on to now.
		expired := errAt == nil && at > 0 && at/10_000_000 < 11_644_473_600+now.Unix()
		switch {
		case disabled != (why == "disabled"), !disabled && expired && why != "expired", why == "expired" && (errAt != nil || at > 0 && at/10_000_000 > 11_644_473_600+now.Unix()):
			t.Fatalf("%q %q: %q", control, expires, why)
		}
	})
}

// A directory that is accepted is dialled at a host and a port, and asked with a filter that asks for a name.
func FuzzSettings(f *testing.F) {
	for _, s := range [][4]string{{"dc1.example.com", "CN=a,DC=b", "DC=b", "(uid=%Name%)"}, {"ldap://x", "x", "", "(|(uid=%Name%)(mail=%Name%))"}, {"[::1]:636", "=", "DC=b", "%Name%"}, {"a:b:c", "CN=\\", "DC=\x00", "(%Name%=x)"},
		{"::1", "CN=a", "DC=b", "(uid=%Name%"}, {"host:port", "CN=a+CN=b", "DC=b", ")(%Name%"}} {
		f.Add(s[0], s[1], s[2], s[3])
	}
	server := httptest.NewTLSServer(nil) // for its certificate
	authority := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	server.Close()
	f.Fuzz(func(t *testing.T, address, bind, base, filter string) {
		d := Directory{Name: "corp", Address: address, CA: authority, BindDN: bind, UserBase: base, UserFilter: filter}
		if err := d.complete(); err != nil {
			if reeve.KindOf(err) != reeve.Invalid {
				t.Fatal(err)
			}
			return
		}
		if host, port, err := net.SplitHostPort(d.Address); err != nil || host == "" || port == "" && !strings.HasSuffix(address, ":") {
			t.Fatalf("%q is dialled at %q: %v", address, d.Address, err)
		}
		for _, name := range []string{"ada", "*", ")(uid=*"} {
			text, err := userFilter(d.UserFilter, name)
			if err != nil {
				t.Fatalf("%q: %v", d.UserFilter, err)
			}
			if _, err := ldap.CompileFilter(text); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
		}
	})
}
