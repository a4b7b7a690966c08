package main

import (
	"bufio"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	emu "github.com/reeve-pam/reeve/internal/emu/winrm"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

func TestAWrongPortIsSaidToBeSo(t *testing.T) {
	t.Parallel()
	web := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Location", "/login")
			if status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Basic realm="intranet"`)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	const page = "<!DOCTYPE html><title>Intranet</title>"
	for name, c := range map[string]struct {
		words  string           // of a server of another kind
		web    http.HandlerFunc // of a web server
		legacy bool
		want   sdk.Class
	}{
		"SSH":                         {words: "SSH-2.0-OpenSSH_9.2\r\n", want: sdk.ClassUnsupported},
		"SSH, asked without TLS":      {words: "SSH-2.0-OpenSSH_9.2\r\n", legacy: true, want: sdk.ClassProtocol},
		"a web server without WinRM":  {web: web(http.StatusNotFound, "text/html", page), want: sdk.ClassUnsupported},
		"a page for everything":       {web: web(http.StatusOK, "text/html", page), want: sdk.ClassProtocol},
		"a page that says it is SOAP": {web: web(http.StatusOK, "application/soap+xml", page), want: sdk.ClassProtocol},
		"another web service":         {web: web(http.StatusUnauthorized, "text/html", page), want: sdk.ClassUnsupported},
		"a portal":                    {web: web(http.StatusFound, "text/html", page), want: sdk.ClassProtocol},
		"a proxy without its server":  {web: web(http.StatusBadGateway, "text/html", page), want: sdk.ClassProtocol},
		"a web server that wants TLS": {words: "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", legacy: true, want: sdk.ClassProtocol},
		"nobody":                      {want: sdk.ClassUnreachable},
		"nobody, asked without TLS":   {legacy: true, want: sdk.ClassUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tgt := target(emu.Start(t, emu.Options{}))
			switch {
			case c.web != nil:
				s := httptest.NewUnstartedServer(c.web)
				s.Config.ErrorLog = log.New(io.Discard, "", 0)
				s.StartTLS()
				t.Cleanup(s.Close)
				tgt.Port = s.Listener.Addr().(*net.TCPAddr).Port
				tgt.Trust.CAPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
			case c.words != "":
				tgt.Port = direct.Listen(t, func(conn net.Conn) {
					_, _ = io.WriteString(conn, c.words)
					_ = conn.(*net.TCPConn).CloseWrite()
					_, _ = io.Copy(io.Discard, conn) // until the client goes: closed sooner, its words could be lost
				})
			default:
				tgt.Port = 1 // of a service that nobody has (tcpmux)
			}
			if c.legacy {
				tgt.Options[optionLegacy] = "yes"
			}
			_, err := connector{}.Probe(t.Context(), tgt)
			wantFix(t, "probe", err, c.want)
			_, err = apply(t.Context(), tgt, intent(sdk.Provision), first)
			wantFix(t, "provision", err, c.want)
			v, err := connector{}.Verify(t.Context(), tgt, sdk.Credential{Username: "alice", Password: secret(first)})
			if v.Kind == sdk.VerdictOK || v.Kind == sdk.VerdictBadCredential {
				t.Errorf("verify: %q, %v", v.Kind, err)
			}
		})
	}
}

// hostile answers every request of every connection with the same bytes, the last of them for ever if it should.
func hostile(t *testing.T, words, forEver string) sdk.Target {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				for in := bufio.NewReader(c); ; {
					req, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					_, err = io.WriteString(c, words)
					for forEver != "" && err == nil {
						_, err = io.WriteString(c, forEver)
					}
				}
			}()
		}
	}()
	return sdk.Target{
		Address: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, Options: map[string]string{optionAuth: authNTLM, optionLegacy: "yes"},
		Management: sdk.Credential{Username: "helper", Password: secret(first)},
	}
}

func TestHostileHTTPIsRefused(t *testing.T) {
	t.Parallel()
	refusal := func(offer string) string {
		return "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: " + offer + "\r\nContent-Length: 0\r\n\r\n"
	}
	negotiate := func(message []byte) string { return refusal("Negotiate " + base64.StdEncoding.EncodeToString(message)) }
	good := challenge([]byte{2, 0, 2, 0, 'X', 0}, []byte{0, 0, 0, 0})
	long := strings.Repeat("x", 32<<10)
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/soap+xml\r\n"
	for name, c := range map[string]struct {
		words, forEver string
		want           sdk.Class
	}{
		"a head without an end":         {"HTTP/1.1 200 OK\r\n", "X: " + long + "\r\n", sdk.ClassProtocol},
		"a line without an end":         {"HTTP/1.1 200 ", long, sdk.ClassProtocol},
		"a body without an end":         {head + "\r\n", long, sdk.ClassProtocol},
		"chunks without an end":         {head + "Transfer-Encoding: chunked\r\n\r\n", "8000\r\n" + long + "\r\n", sdk.ClassProtocol},
		"a chunk that is none":          {head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "", sdk.ClassProtocol},
		"an impossible length":          {head + "Content-Length: -7\r\n\r\n", "", sdk.ClassProtocol},
		"two lengths":                   {head + "Content-Length: 7\r\nContent-Length: 8\r\n\r\n", "", sdk.ClassProtocol},
		"go on, for ever":               {"HTTP/1.1 100 Continue\r\n\r\n", "", sdk.ClassProtocol},
		"XML in XML in XML":             {head + "Content-Length: 600000\r\n\r\n" + strings.Repeat("<a>", 200000), "", sdk.ClassProtocol},
		"a challenge that is no text":   {refusal("Negotiate !!!"), "", sdk.ClassProtocol},
		"a challenge that is too short": {negotiate([]byte("NTLMSSP")), "", sdk.ClassProtocol},
		"a challenge cut off":           {negotiate(good[:len(good)-4]), "", sdk.ClassProtocol},
		"a challenge again and again":   {negotiate(good), "", sdk.ClassAuthFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tgt := hostile(t, c.words, c.forEver)
			_, err := connector{}.Probe(t.Context(), tgt)
			wantFix(t, "probe", err, c.want)
			_, err = apply(t.Context(), tgt, intent(sdk.Provision), first)
			wantFix(t, "provision", err, c.want)
			if err != nil && strings.Contains(err.Error(), long[:64]) {
				t.Error("the error quotes the server")
			}
		})
	}
}
