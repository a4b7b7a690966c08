package sink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func sample() *audit.Entry {
	e := &audit.Entry{Time: time.Date(2026, 5, 1, 12, 0, 0, 123456789, time.UTC), Revision: 9, Action: "account.provision", Object: "acct_1", Outcome: "ok",
		Actor:   audit.Actor{Kind: "user", ID: "prin_1", Name: `a"d]a\`, From: "192.0.2.7", Node: "node_1"},
		Details: map[string]string{"reason": "x=y|z\nforged"}}
	auditchain.Chain(auditchain.Head{}, e)
	return e
}

func TestASyslogMessageIsAsRFC5424Says(t *testing.T) {
	t.Parallel()
	e := sample()
	frame, err := syslogFrame("c0", e)
	if err != nil {
		t.Fatal(err)
	}
	m, err := parse(frame)
	if err != nil {
		t.Fatal(err)
	}
	line, _ := auditchain.Encode(e)
	want := message{pri: "110", at: "2026-05-01T12:00:00.123456Z", host: "c0", id: "account.provision", text: strings.TrimSuffix(string(line), "\n"), params: map[string]string{
		"sequence": "1", "action": "account.provision", "object": "acct_1", "outcome": "ok", "actorKind": "user", "actorId": "prin_1", "actorName": `a"d]a\`,
		"from": "192.0.2.7", "node": "node_1", "hash": e.Hash}}
	if diff := cmp.Diff(want, *m, cmp.AllowUnexported(message{})); diff != "" {
		t.Fatal(diff)
	}
}

func TestACEFMessageIsAsTheFormatSays(t *testing.T) {
	t.Parallel()
	e := sample()
	e.Outcome = audit.Denied
	frame, err := cefFrame("c0", e)
	if err != nil {
		t.Fatal(err)
	}
	m, err := parse(frame)
	if err != nil {
		t.Fatal(err)
	}
	head, values, err := parseCEF(m.text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"CEF:0", "Reeve", "Reeve", reeve.Version, "account.provision", "account.provision", "6"}, head); diff != "" {
		t.Error(diff)
	}
	var more struct{ Details map[string]string }
	if err := json.Unmarshal([]byte(values["msg"]), &more); err != nil || more.Details["reason"] != "x=y|z\nforged" {
		t.Errorf("msg %q: %v", values["msg"], err)
	}
	if values["suser"] != `a"d]a\` || values["src"] != "192.0.2.7" || values["rt"] != "1777636800123" || values["externalId"] != "1" {
		t.Errorf("%v", values)
	}
}

// Whatever a record holds, a frame is one message whose parts are those of the record: no
// text ends its field, its message or its line.
func FuzzFrames(f *testing.F) {
	f.Add("account.provision", "acct_1", "ok", "ada", "192.0.2.7", "reason", "x")
	f.Add("a b", `"] [x y="z"`, "denied\n<110>1", `\`, "|", "=", "\x00\u2028\xff")
	f.Add("", "", "", "", "", "", "")
	f.Add("é", "ö]", "failed", "\\=", "::ffff:1.2.3.4%x", "\r", "a=b c=d")
	f.Fuzz(func(t *testing.T, action, object, outcome, name, from, key, value string) {
		e := &audit.Entry{Time: time.Unix(1_777_636_800, 0), Action: action, Object: object, Outcome: outcome,
			Actor: audit.Actor{Kind: "user", Name: name, From: from}, Details: map[string]string{key: value}}
		auditchain.Chain(auditchain.Head{Sequence: 41, Hash: strings.Repeat("ab", 32)}, e)
		for what, encode := range map[string]func(string, *audit.Entry) ([]byte, error){"syslog": syslogFrame, "cef": cefFrame} {
			frame, err := encode(object, e) // a node's name is odd too, here
			if err != nil {
				t.Fatal(err)
			}
			m, err := parse(frame)
			if err != nil {
				t.Fatalf("%s: %v: %q", what, err, frame)
			}
			for field, want := range map[string]string{"action": action, "object": object, "outcome": outcome, "actorName": name, "from": from, "sequence": "42", "hash": e.Hash} {
				if got := m.params[field]; got != printable(want) {
					t.Fatalf("%s: %s is %q, not %q", what, field, got, want)
				}
			}
			if i := strings.IndexFunc(string(frame), func(r rune) bool { return r < ' ' || r == '\u2028' }); i >= 0 {
				t.Fatalf("%s: a control character at %d of %q", what, i, frame)
			}
			if what == "syslog" {
				var back audit.Entry
				if err := json.Unmarshal([]byte(m.text), &back); err != nil || back.Hash != e.Hash {
					t.Fatalf("the text is not the record: %v", err)
				}
				continue
			}
			head, values, err := parseCEF(m.text)
			if err != nil {
				t.Fatalf("%v: %q", err, m.text)
			}
			if len(head) != 7 || head[4] != printable(action) || values["act"] != printable(action) || values["suser"] != printable(name) || values["cs1"] != printable(object) || values["externalId"] != "42" {
				t.Fatalf("%q %q", head, values)
			}
		}
	})
}

type message struct {
	pri, at, host, id, text string
	params                  map[string]string
}

// parse reads a frame strictly, by the grammars of RFC 5425 and RFC 5424.
func parse(frame []byte) (*message, error) {
	length, rest, ok := bytes.Cut(frame, []byte(" "))
	if n, err := strconv.Atoi(string(length)); !ok || err != nil || n != len(rest) || !utf8.Valid(rest) {
		return nil, fmt.Errorf("the frame of %d bytes says %q", len(rest), length)
	}
	head := regexp.MustCompile(`^<(\d{1,3})>1 (\S+) ([!-~]{1,255}) reeve - ([!-~]{1,32}) \[reeve@32473((?: [a-zA-Z]{1,32}="(?:[^"\\\]]|\\["\\\]])*")+)\] `)
	m := head.FindSubmatch(rest)
	if m == nil {
		return nil, fmt.Errorf("not RFC 5424")
	}
	out := &message{pri: string(m[1]), at: string(m[2]), host: string(m[3]), id: string(m[4]), text: string(rest[len(m[0]):]), params: map[string]string{}}
	for _, p := range regexp.MustCompile(` ([a-zA-Z]+)="((?:[^"\\\]]|\\["\\\]])*)"`).FindAllStringSubmatch(string(m[5]), -1) {
		out.params[p[1]] = unescape(p[2])
	}
	return out, nil
}

func unescape(s string) string {
	var b strings.Builder
	escaped := false
	for _, r := range s {
		if r == '\\' && !escaped {
			escaped = true
			continue
		}
		escaped = false
		b.WriteRune(r)
	}
	return b.String()
}

// parseCEF takes a message apart: header fields and values.
func parseCEF(text string) (head []string, values map[string]string, err error) {
	field, escaped, i := "", false, 0
	for ; i < len(text) && len(head) < 7; i++ {
		switch c := text[i]; {
		case escaped || (c != '\\' && c != '|'):
			field, escaped = field+string(c), false
		case c == '\\':
			escaped = true
		default:
			head, field = append(head, field), ""
		}
	}
	for j := range head { // put together byte by byte
		raw := make([]byte, 0, len(head[j]))
		for _, r := range head[j] {
			raw = append(raw, byte(r))
		}
		head[j] = string(raw)
	}
	values = map[string]string{}
	ext := text[i:]
	at := regexp.MustCompile(`(?:^| )([a-zA-Z0-9]+)=`).FindAllStringSubmatchIndex(ext, -1)
	for n, m := range at {
		end := len(ext)
		if n+1 < len(at) {
			end = at[n+1][0]
		}
		key := ext[m[2]:m[3]]
		if _, twice := values[key]; twice || (n == 0 && m[0] != 0) {
			return nil, nil, fmt.Errorf("%s is not one key", key)
		}
		values[key] = unescape(ext[m[1]:end])
	}
	return head, values, nil
}

func TestPrintableHasNoControlCharacters(t *testing.T) {
	t.Parallel()
	got := printable("a\x00b\nc\x7f\u0085\u2028\xff")
	if strings.ContainsFunc(got, unicode.IsControl) || !utf8.ValidString(got) || len([]rune(got)) != 9 {
		t.Fatalf("%q", got)
	}
}

// What is taken as a sink's place is dialled as it was written: one host and port, no name and password, and no address that is local
// unless that was allowed.
func FuzzPlace(f *testing.F) {
	for _, s := range []string{"siem.example.com:6514", "https://siem.example.com/reeve", "https://a:b@x/", "https://127.0.0.1/", "[::1]:6514", "[::ffff:127.0.0.1]:1", "127.0.0.1:0", "https://[fe80::1%25eth0]/", "https://x\\@y/",
		"https://x/#y", "https:///x", "HTTPS://x", "https://x?", ":6514", "x:+1", "x:065514", "../x", "trail.jsonl", "https://[::ffff:169.254.169.254]/", "0:6514", "https://0.0.0.0/", "https://:"} {
		f.Add(s)
	}
	key := reeve.SecretString("whsec_" + strings.Repeat("AAAA", 8))
	f.Fuzz(func(t *testing.T, place string) {
		for _, in := range []New{{Name: "x", Kind: Syslog, Address: place}, {Name: "x", Kind: CEF, Address: place}, {Name: "x", Kind: HTTPS, URL: place, Secret: key}, {Name: "x", Kind: File, File: place}} {
			s, err := in.check()
			if err != nil {
				if reeve.CodeOf(err) != "audit_sink_invalid" {
					t.Fatal(err)
				}
				continue
			}
			host := ""
			switch in.Kind {
			case File:
				if strings.ContainsAny(place, `/\`) || strings.HasPrefix(place, ".") || len(place) > 63 {
					t.Fatalf("the file %q was taken", place)
				}
				continue
			case HTTPS:
				u, err := url.Parse(s.URL)
				if err != nil || u.Scheme != "https" || u.User != nil {
					t.Fatalf("%q: %v", place, err)
				}
				host = u.Hostname()
			default:
				if host, _, err = net.SplitHostPort(s.Address); err != nil {
					t.Fatal(err)
				}
			}
			if ip, err := netip.ParseAddr(host); host == "" || err == nil && (ip.Unmap().IsLoopback() || ip.Unmap().IsLinkLocalUnicast()) {
				t.Fatalf("%q leads to %q", place, host)
			}
		}
	})
}

// The secret of a webhook is taken as Standard Webhooks write it, and never repeated.
func FuzzWebhookSecret(f *testing.F) {
	for _, s := range []string{"whsec_" + strings.Repeat("AAAA", 8), "whsec_", "whsec_%%%%", " whsec_" + strings.Repeat("AAAA", 8) + "\n", "whsec_" + strings.Repeat("AAAA", 99), "WHSEC_AAAA"} {
		f.Add(s)
	}
	_, refused := key(reeve.Secret{})
	f.Fuzz(func(t *testing.T, text string) {
		raw, err := key(reeve.SecretString(text))
		if err == nil && (len(raw) < 24 || len(raw) > 64) {
			t.Fatalf("a key of %d bytes", len(raw))
		}
		if err != nil && err.Error() != refused.Error() {
			t.Fatal(err)
		}
	})
}
