package main

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/emu/oracle"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

func TestSomethingElseAtThePortIsNamedAndNothingIsSentToIt(t *testing.T) {
	t.Parallel()
	certificate := serverCertificate(t)
	within := func(serve func(net.Conn)) func(net.Conn) {
		return func(conn net.Conn) {
			serve(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}))
		}
	}
	const ssh = "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"
	html := "HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n" + strings.Repeat("<p>", 30000)
	silent := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	for name, c := range map[string]struct {
		serve  func(net.Conn) // nil: nobody listens
		legacy bool
		want   sdk.Class
		fix    string
	}{
		"nobody":                        {nil, false, sdk.ClassUnreachable, "listener runs"},
		"hangs up":                      {func(net.Conn) {}, false, sdk.ClassUnreachable, "TCPS"},
		"never answers":                 {silent, false, sdk.ClassUnreachable, "TCPS"},
		"sshd":                          {direct.Answer(ssh), false, sdk.ClassUnsupported, "TCPS"},
		"a web server":                  {direct.Answer(html), false, sdk.ClassUnsupported, "TCPS"},
		"a web server, TLS":             {within(direct.Answer(html)), false, sdk.ClassProtocol, "Oracle listener"},
		"hangs up after TLS":            {within(func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }), false, sdk.ClassUnreachable, "listener runs"},
		"never answers after TLS":       {within(silent), false, sdk.ClassUnreachable, "listener runs"},
		"a packet without an end":       {within(direct.Answer("\x00\x20\x00\x00\x02\x00\x00\x00")), false, sdk.ClassUnreachable, "listener runs"},
		"a packet of no length":         {within(direct.Answer("\x00\x00\x00\x00\x02\x00\x00\x00")), false, sdk.ClassProtocol, "Oracle listener"},
		"an accept that is none":        {within(direct.Answer("\x00\x0a\x00\x00\x02\x00\x00\x00\x01\x3d")), false, "", ""},
		"nobody, legacy":                {nil, true, sdk.ClassUnreachable, "listener runs"},
		"sshd, legacy":                  {direct.Answer(ssh), true, sdk.ClassProtocol, "Oracle listener"},
		"never answers, legacy":         {silent, true, sdk.ClassUnreachable, "listener runs"},
		"hangs up, legacy":              {func(net.Conn) {}, true, sdk.ClassUnreachable, "listener runs"},
		"a packet of no length, legacy": {direct.Answer("\x00\x00\x00\x00\x02\x00\x00\x00"), true, sdk.ClassProtocol, "Oracle listener"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tgt := target(oracle.Start(t, oracle.Options{}))
			tgt.Trust = sdk.Trust{
				CAPEM:      string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})),
				ServerName: "db",
			}
			if c.legacy {
				tgt.Options[optionLegacy] = yes
			}
			if c.serve == nil {
				closed := oracle.Start(t, oracle.Options{})
				tgt.Port = closed.Port
				closed.Close()
			} else {
				tgt.Port = direct.Listen(t, c.serve)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			_, err := connector{}.Probe(ctx, tgt)
			if c.want == "" { // the driver crashes or waits, as it likes
				if class := sdk.ClassOf(err); class != sdk.ClassProtocol && class != sdk.ClassUnreachable {
					t.Errorf("%v", err)
				}
				return
			}
			wantClass(t, "probe", err, c.want)
			if e, ok := err.(*sdk.Error); !ok || !strings.Contains(e.Fix, c.fix) { //nolint:errorlint // it is not wrapped
				t.Errorf("the fix %q is not about %s", e.Fix, c.fix)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("it took %s", took)
			}
			_, err = apply(ctx, tgt, intent(sdk.Provision), first)
			if class := sdk.ClassOf(err); class != c.want && class != sdk.ClassUnreachable {
				t.Errorf("provision: %v", err)
			}
		})
	}
}
