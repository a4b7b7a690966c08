package main

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

func TestSomethingElseAtThePortIsNamedAndGetsNoPassword(t *testing.T) {
	t.Parallel()
	silent := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	const runs, listens = "server runs", "SQL Server listens"
	for name, c := range map[string]struct {
		serve func(net.Conn) // nil: nobody listens
		want  sdk.Class
		fix   string
	}{
		"nobody":                  {nil, sdk.ClassUnreachable, runs},
		"hangs up":                {func(net.Conn) {}, sdk.ClassUnreachable, runs},
		"never answers":           {silent, sdk.ClassUnreachable, runs},
		"sshd":                    {direct.Answer("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\nand more of it, so that nothing is missing\r\n" + strings.Repeat("x", 60000)), sdk.ClassProtocol, listens},
		"a web server":            {direct.Answer("HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n" + strings.Repeat("<p>", 30000)), sdk.ClassProtocol, listens},
		"a packet of no length":   {direct.Answer("\x04\x01\x00\x00\x00\x00\x01\x00"), sdk.ClassProtocol, listens},
		"a packet without an end": {direct.Answer("\x04\x01\x10\x00\x00\x00\x01\x00\x00"), sdk.ClassUnreachable, runs},
		"options beyond the end":  {direct.Answer("\x04\x01\x00\x0e\x00\x00\x01\x00\x01\xff\xff\x00\x01\xff"), sdk.ClassProtocol, listens},
	} {
		for _, encrypt := range []string{"true", "strict", optionLegacy} {
			t.Run(name+" "+encrypt, func(t *testing.T) {
				t.Parallel()
				var got strings.Builder
				var mu sync.Mutex
				tgt := sdk.Target{
					Address: "127.0.0.1", Options: map[string]string{optionEncrypt: encrypt},
					Management: sdk.Credential{Username: "sa", Password: secret(password)},
				}
				if encrypt == optionLegacy {
					tgt.Options = map[string]string{optionEncrypt: "true", optionLegacy: "yes"}
				}
				if c.serve == nil {
					closed, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
					if err != nil {
						t.Fatal(err)
					}
					tgt.Port = closed.Addr().(*net.TCPAddr).Port
					_ = closed.Close()
				} else {
					tgt.Port = direct.Listen(t, func(conn net.Conn) { c.serve(heard{conn, &mu, &got}) })
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := connector{}.Probe(ctx, tgt)
				if want := c.want; encrypt != "strict" {
					wantClass(t, "probe", err, want)
				} else if class := sdk.ClassOf(err); class != sdk.ClassProtocol && class != sdk.ClassUnreachable { // the handshake fails, or never ends
					t.Errorf("probe: %v", err)
				}
				if e, ok := err.(*sdk.Error); encrypt != "strict" && (!ok || !strings.Contains(e.Fix, c.fix)) { //nolint:errorlint // it is not wrapped
					t.Errorf("the fix %q is not about %s", e.Fix, c.fix)
				}
				_, err = apply(ctx, tgt, intent(sdk.Provision), first)
				if class := sdk.ClassOf(err); class != c.want && class != sdk.ClassUnreachable && class != sdk.ClassProtocol {
					t.Errorf("provision: %v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				if strings.Contains(got.String(), scrambled(password)) {
					t.Error("it was sent the password")
				}
			})
		}
	}
}

// heard keeps what a client sends.
type heard struct {
	net.Conn
	mu  *sync.Mutex
	got *strings.Builder
}

func (h heard) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got.Write(p[:n])
	return n, err
}

// scrambled is how a password stands in a login. [MS-TDS] 2.2.6.4
func scrambled(password string) string {
	var out []byte
	for _, c := range []byte(password) {
		for _, b := range []byte{c, 0} {
			out = append(out, (b<<4|b>>4)^0xA5)
		}
	}
	return string(out)
}

func TestLegacyIsTheOnlyWayWithoutTLS(t *testing.T) {
	t.Parallel()
	s := emulatorWithoutTLS(t)
	for _, encrypt := range []string{"true", "strict"} {
		tgt := target(s)
		tgt.Options[optionEncrypt] = encrypt
		for what, err := range map[string]error{
			"probe":     func() error { _, err := connector{}.Probe(t.Context(), tgt); return err }(),
			"provision": func() error { _, err := apply(t.Context(), tgt, intent(sdk.Provision), first); return err }(),
			"verify":    verifyError(t.Context(), tgt),
		} {
			if class := sdk.ClassOf(err); class != sdk.ClassUnsupported && class != sdk.ClassUnreachable {
				t.Errorf("%s, encrypt=%s: %v", what, encrypt, err)
			}
		}
	}
	if n := s.Logins(); n != 0 {
		t.Errorf("%d logins reached a server without TLS", n)
	}
}

// verifyError is what Verify could not try, or the class of a verdict that says so.
func verifyError(ctx context.Context, tgt sdk.Target) error {
	v, err := connector{}.Verify(ctx, tgt, tgt.Management)
	if err == nil && v.Kind == sdk.VerdictUnreachable {
		err = sdk.Errorf(sdk.ClassUnreachable, "%s", v.Message)
	}
	return err
}
