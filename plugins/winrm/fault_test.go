package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	emu "github.com/reeve-pam/reeve/internal/emu/winrm"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

func TestTroubleBeforeAnythingWasSentIsNotAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at   string
		what emu.Trouble
		want sdk.Class
	}{
		{"accept", emu.Drop, sdk.ClassUnreachable},
		{"Create", emu.Drop, sdk.ClassUnreachable},
		{"Create", emu.Empty, sdk.ClassProtocol},
		{"Create", emu.Malformed, sdk.ClassProtocol},
		{"Create", emu.Unending, sdk.ClassProtocol},
		{"Create", emu.Oversized, sdk.ClassProtocol},
		{"Create", emu.Other, sdk.ClassProtocol},
		{"Create", emu.Quota, sdk.ClassBusy},
		{"Create", emu.Down, sdk.ClassBusy},
		{"Command", emu.Quota, sdk.ClassBusy},
		{"Receive", emu.Empty, sdk.ClassProtocol}, // of the script that reads
		{"Receive", emu.Malformed, sdk.ClassProtocol},
		{"Receive", emu.Unending, sdk.ClassProtocol},
		{"Receive", emu.Oversized, sdk.ClassProtocol},
		{"Receive", emu.Endless, sdk.ClassProtocol},
		{"Receive", emu.EndlessErr, sdk.ClassProtocol},
		{"Receive", emu.Other, sdk.ClassProtocol},
		{"login", emu.Drop, sdk.ClassUnreachable},
		{"Signal", emu.Drop, sdk.ClassUnreachable},
	} {
		t.Run(string(c.what)+" at "+c.at, func(t *testing.T) {
			t.Parallel()
			s := emu.Start(t, emu.Options{})
			before := s.Host.Snapshot()
			s.Trouble(c.at, c.what)
			_, err := apply(t.Context(), target(s), intent(sdk.Provision), first)
			wantFix(t, "provision", err, c.want)
			if s.Host.Snapshot() != before {
				t.Error("something was changed")
			}
			s.Trouble(c.at, emu.None)
			must(t, target(s), intent(sdk.Provision), first)
		})
	}
}

func TestTroubleInTheMiddleOfAChangeIsAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	for _, what := range []emu.Trouble{emu.Drop, emu.Hang, emu.HalfHang, emu.Empty, emu.Malformed, emu.Unending, emu.Oversized, emu.Other, emu.Quota, emu.Down} {
		for _, place := range [][2]string{{"create", "Send"}, {"create", "Receive"}, {"grant-1", "Receive"}, {"enable", "Send"}, {"enable", "Signal"}} {
			if place[1] == "Signal" && (what == emu.Quota || what == emu.Other) {
				continue // the command has ended; that it cannot be tidied up harms nobody
			}
			t.Run(string(what)+" at "+place[0]+" "+place[1], func(t *testing.T) {
				t.Parallel()
				s := emu.Start(t, emu.Options{})
				in := intent(sdk.Provision)
				in.Role = role(t, "win-rdp-user")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				_, err := applyWith(ctx, target(s), in, first, func(e sdk.Event) {
					if e.Step == place[0] && e.State == sdk.StepStarted {
						s.Trouble(place[1], what)
						if what == emu.Hang || what == emu.HalfHang {
							time.AfterFunc(100*time.Millisecond, cancel)
						}
					}
				})
				wantFix(t, "provision", err, sdk.ClassUnknownOutcome)
				s.Trouble(place[1], emu.None)
				if r := must(t, target(s), in, first); r.Facts.Locked || len(r.Facts.Groups) != 1 {
					t.Errorf("after the second try: %+v", r.Facts)
				}
				if ok, err := plainLogin(t.Context(), s, "alice", first); !ok || err != nil {
					t.Errorf("login: %t, %v", ok, err)
				}
			})
		}
	}
}

func TestAHungHostIsUnreachableWithinTheDeadline(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at   string
		what emu.Trouble
	}{{"accept", emu.Hang}, {"login", emu.Hang}, {"Create", emu.HalfHang}, {"Receive", emu.Hang}, {"Receive", emu.HalfHang}, {"Receive", emu.Idle}} {
		t.Run(string(c.what)+" at "+c.at, func(t *testing.T) {
			t.Parallel()
			s := emu.Start(t, emu.Options{})
			s.Trouble(c.at, c.what)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			began := time.Now()
			_, err := connector{}.Probe(ctx, target(s))
			wantFix(t, "probe", err, sdk.ClassUnreachable)
			if took := time.Since(began); took > 2200*time.Millisecond {
				t.Errorf("it took %s", took)
			}
			v, err := connector{}.Verify(ctx, target(s), sdk.Credential{Username: "alice", Password: secret(first)})
			if err != nil || v.Kind != sdk.VerdictUnreachable {
				t.Errorf("verify: %q, %v", v.Kind, err)
			}
		})
	}
}

func TestAShellIsNotLeftBehindByAFailedRead(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	for _, what := range []emu.Trouble{emu.Drop, emu.Malformed, emu.Quota} {
		s.Trouble("Receive", what)
		if _, err := (connector{}).Inspect(t.Context(), target(s), "alice"); err == nil {
			t.Error("the trouble was not noticed")
		}
		if n := s.Shells(); n != 0 {
			t.Errorf("%s: %d shells are left", what, n)
		}
	}
}

func TestAChangeThatWasCutOffIsNotStoppedInTheMiddle(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	_, err := applyWith(t.Context(), target(s), intent(sdk.Provision), first, func(e sdk.Event) {
		if e.Step == "create" && e.State == sdk.StepStarted {
			s.Trouble("Send", emu.Drop)
		}
	})
	wantClass(t, "provision", err, sdk.ClassUnknownOutcome)
	if s.Asked("Delete") != 0 || s.Shells() != 1 {
		t.Errorf("%d times Delete, %d shells", s.Asked("Delete"), s.Shells())
	}
}

func TestQuotaOfShells(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{MaxShells: 1})
	sh, err := open(t.Context(), target(s), target(s).Management)
	if err != nil {
		t.Fatal(err)
	}
	_, err = connector{}.Probe(t.Context(), target(s))
	wantClass(t, "probe", err, sdk.ClassBusy)
	if e, _ := errors.AsType[*sdk.Error](err); e == nil || !strings.Contains(e.Fix, "MaxShellsPerUser") {
		t.Errorf("it does not say what to do: %v", e)
	}
	sh.close()
	if _, err := (connector{}).Probe(t.Context(), target(s)); err != nil {
		t.Error(err)
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	in := intent(sdk.Provision)
	in.Role = role(t, "win-remote-management")
	must(t, target(s), in, first)
	with, without := target(s), target(s)
	without.Management = sdk.Credential{}
	wantVerdict(t, without, "alice", first, sdk.VerdictOK)
	wantVerdict(t, without, emu.HostName+`\alice`, first, sdk.VerdictOK)
	if n := s.Host.BadLogins("alice"); n != 0 {
		t.Errorf("%d bad logins", n)
	}
	wantVerdict(t, without, "alice", second, sdk.VerdictBadCredential)
	if n := s.Host.BadLogins("alice"); n != 1 {
		t.Errorf("one verify made %d bad logins", n)
	}
	wantVerdict(t, with, "alice", second, sdk.VerdictBadCredential)
	wantVerdict(t, with, "nobody", second, sdk.VerdictBadCredential)
	// Of the management account itself nobody can tell, and another try would count.
	for _, manager := range []string{"alice", "ALICE", `.\alice`, emu.HostName + `\alice`} {
		self := target(s)
		self.Management = sdk.Credential{Username: manager, Password: secret(second)}
		before := s.Host.BadLogins("alice")
		wantVerdict(t, self, `.\alice`, second, sdk.VerdictBadCredential)
		if n := s.Host.BadLogins("alice"); n != before+1 {
			t.Errorf("verify of the management account %s made %d bad logins", manager, n-before)
		}
	}
	if v := wantVerdict(t, with, `CORP\alice`, second, sdk.VerdictBadCredential); v.Identity != "" {
		t.Errorf("an account of a domain was taken for %s", v.Identity)
	}
	wantVerdict(t, with, "alice", first, sdk.VerdictOK)
	for what, want := range map[emu.Trouble]sdk.VerdictKind{
		emu.Down: sdk.VerdictUnknown, emu.Malformed: sdk.VerdictUnknown, emu.Other: sdk.VerdictUnknown, emu.Quota: sdk.VerdictUnknown,
		emu.Drop: sdk.VerdictUnreachable,
	} {
		s.Trouble("Identify", what)
		wantVerdict(t, with, "alice", first, want)
	}
	s.Trouble("Identify", emu.None)
	// Rights to use WinRM are looked at after the password.
	in = intent(sdk.Provision)
	in.Account, in.AccountID, in.Role = "bob", "acct_2", role(t, "win-rdp-user")
	must(t, target(s), in, first)
	wantVerdict(t, without, "bob", first, sdk.VerdictOK)
	wantVerdict(t, without, "bob", second, sdk.VerdictBadCredential)
}

// states are those in which an account refuses its right password, each as somebody at the console brings it about.
var states = map[sdk.VerdictKind]func(s *emu.Server, name string) error{
	sdk.VerdictDisabled: func(s *emu.Server, name string) error {
		s.Host.Change(name, func(a *emu.Account) { a.Enabled = false })
		return nil
	},
	sdk.VerdictExpired: func(s *emu.Server, name string) error {
		s.Host.Change(name, func(a *emu.Account) { a.Expires = time.Now().Add(-time.Minute) })
		return nil
	},
	sdk.VerdictMustChange: func(s *emu.Server, name string) error {
		s.Host.Change(name, func(a *emu.Account) { a.MustChange, a.NeverExpires = true, false })
		return nil
	},
	sdk.VerdictLocked: func(s *emu.Server, name string) error {
		for range s.Host.LockoutThreshold {
			if ok, err := plainLogin(context.Background(), s, name, "Wrong.0000"); ok || err != nil {
				return fmt.Errorf("a wrong password: %t, %w", ok, err)
			}
		}
		return nil
	},
}

func TestAnAccountThatRefusesItsRightPasswordIsSaidToBeSo(t *testing.T) {
	t.Parallel()
	for kind, set := range states {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			s := emu.Start(t, emu.Options{})
			in := intent(sdk.Provision)
			in.Role = role(t, "win-administrator")
			must(t, target(s), in, first)
			with, without := target(s), target(s)
			without.Management = sdk.Credential{}
			if err := set(s, "alice"); err != nil {
				t.Fatal(err)
			}
			before := s.Host.BadLogins("alice")
			for _, name := range []string{"alice", `.\alice`} {
				v := wantVerdict(t, with, name, first, kind)
				if v.Message == "" || v.Fix == "" || !strings.HasPrefix(v.Identity, "S-1-5-21-") {
					t.Errorf("%+v", v)
				}
			}
			// WinRM does not tell; nor can a management account that cannot look.
			v := wantVerdict(t, without, "alice", first, sdk.VerdictBadCredential)
			for _, word := range []string{"disabled", "locked out", "expired", "must change"} {
				if !strings.Contains(v.Message, word) || !strings.Contains(v.Fix, word) {
					t.Errorf("%+v does not say that it may be %s", v, word)
				}
			}
			blind := helped(s, "helper")
			wantVerdict(t, blind, "alice", first, sdk.VerdictBadCredential)
			blind.Management.Password = secret(second)
			wantVerdict(t, blind, "alice", first, sdk.VerdictBadCredential)
			// As management account it is a login that is refused, once.
			tgt := target(s)
			tgt.Management = sdk.Credential{Username: "alice", Password: secret(first)}
			_, err := connector{}.Probe(t.Context(), tgt)
			wantFix(t, "probe", err, sdk.ClassAuthFailed)
			asked := s.Asked("Create")
			wantVerdict(t, tgt, `.\alice`, first, sdk.VerdictBadCredential)
			if s.Asked("Create") != asked || s.Host.BadLogins("alice") != before {
				t.Errorf("%d failed logins, want %d", s.Host.BadLogins("alice"), before)
			}
			// Enable and rotate make it what it was.
			in.Action = sdk.Enable
			must(t, with, in, "")
			in.Action = sdk.Rotate
			must(t, with, in, second)
			wantVerdict(t, with, "alice", second, sdk.VerdictOK)
		})
	}
}

// The host's clock decides, and not the agent's.
func TestAnAccountIsExpiredByTheHostsClock(t *testing.T) {
	t.Parallel()
	a := account{Name: "alice", SID: "S-1-5-21-1", Enabled: true, Expires: time.Now().Unix() + 60}
	for now, want := range map[int64]sdk.VerdictKind{a.Expires - 1: sdk.VerdictBadCredential, a.Expires: sdk.VerdictExpired} {
		if v := (&host{Now: now, Accounts: []account{a}}).explain("alice"); v.Kind != want {
			t.Errorf("at %d: %s, want %s", now-a.Expires, v.Kind, want)
		}
	}
}

// A connection that breaks between challenge and proof is no wrong password.
func TestACutLoginIsNotAWrongPassword(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	must(t, target(s), intent(sdk.Provision), first)
	s.Trouble("login", emu.Drop)
	wantVerdict(t, target(s), "alice", first, sdk.VerdictUnreachable)
}

func TestAServerThatAsksNobodyProvesNothing(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/soap+xml")
		_, _ = io.WriteString(w, `<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body>`+
			`<i:IdentifyResponse xmlns:i="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"/></s:Body></s:Envelope>`)
	}))
	defer s.Close()
	at := s.Listener.Addr().(*net.TCPAddr)
	wantVerdict(t, sdk.Target{
		Address: "127.0.0.1", Port: at.Port, Options: map[string]string{optionAuth: authNTLM},
		Trust: sdk.Trust{CAPEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))},
	}, "alice", first, sdk.VerdictUnknown)
}

func TestWaysToLogIn(t *testing.T) {
	t.Parallel()
	t.Run("basic", func(t *testing.T) {
		t.Parallel()
		s := emu.Start(t, emu.Options{Basic: true, NoNegotiate: true})
		tgt := target(s)
		_, err := connector{}.Probe(t.Context(), tgt)
		wantClass(t, "NTLM where there is none", err, sdk.ClassUnsupported) // and never Basic instead
		tgt.Options[optionAuth] = authBasic
		if _, err := (connector{}).Probe(t.Context(), tgt); err != nil {
			t.Error(err)
		}
		tgt.Management.Password = secret(second)
		_, err = connector{}.Probe(t.Context(), tgt)
		wantClass(t, "a wrong password", err, sdk.ClassAuthFailed)
	})
	t.Run("channel binding", func(t *testing.T) {
		t.Parallel()
		s := emu.Start(t, emu.Options{RequireBinding: true})
		if _, err := (connector{}).Probe(t.Context(), target(s)); err != nil {
			t.Error(err)
		}
		// A proof for another connection is of no use.
		l, err := dial(t.Context(), target(s), target(s).Management)
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()
		l.binding[0] ^= 1
		_, err = l.post(t.Context(), "log in", identifyMessage, false)
		wantClass(t, "a proof with another binding", err, sdk.ClassAuthFailed)
	})
	t.Run("legacy", func(t *testing.T) {
		t.Parallel()
		s := emu.Start(t, emu.Options{HTTP: true})
		tgt := target(s)
		_, err := connector{}.Probe(t.Context(), tgt)
		wantClass(t, "TLS where there is none", err, sdk.ClassUnsupported)
		tgt.Options[optionLegacy] = "yes"
		if f, err := (connector{}).Probe(t.Context(), tgt); err != nil || f.Attributes["tls"] != "false" {
			t.Errorf("%v, %v", f.Attributes, err)
		}
		must(t, tgt, intent(sdk.Provision), first)
		tgt.Options[optionAuth] = authBasic
		_, err = connector{}.Probe(t.Context(), tgt)
		wantClass(t, "basic without TLS", err, sdk.ClassInvalid)
	})
	t.Run("encryption demanded", func(t *testing.T) {
		t.Parallel()
		s := emu.Start(t, emu.Options{HTTP: true, Encrypted: true})
		tgt := target(s)
		tgt.Options[optionLegacy] = "yes"
		_, err := connector{}.Probe(t.Context(), tgt)
		wantClass(t, "plain messages where they are refused", err, sdk.ClassUnsupported)
	})
}

// listen answers every connection with the same words.
func listen(t *testing.T, words string) int {
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
			_, _ = c.Write([]byte(words))
			_ = c.(*net.TCPConn).CloseWrite()
			go func() { // until the client goes: closed sooner, its words could be lost
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

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
				tgt.Port = listen(t, c.words)
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

func TestACertificateForAnotherNameIsSaidToBeSo(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	tgt := target(s)
	tgt.Trust.ServerName = strings.ToLower(emu.HostName)
	if _, err := (connector{}).Probe(t.Context(), tgt); err != nil {
		t.Error(err)
	}
	tgt.Trust.ServerName = "winhost2"
	_, err := connector{}.Probe(t.Context(), tgt)
	wantClass(t, "probe", err, sdk.ClassHostKeyChanged)
	if e, _ := errors.AsType[*sdk.Error](err); e == nil || !strings.Contains(e.Message, "another name") || e.Details["fingerprint"] == "" {
		t.Errorf("%+v", e)
	}
	tgt.Trust.CAPEM = "not PEM"
	_, err = connector{}.Probe(t.Context(), tgt)
	wantClass(t, "trust that is no PEM", err, sdk.ClassInvalid)
}

func TestProbeSaysWhatLacks(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	s.Host.Add(emu.Account{Name: "helper", Password: first, Enabled: true})
	tgt := target(s)
	tgt.Management = sdk.Credential{Username: "helper", Password: secret(first)}
	_, err := connector{}.Probe(t.Context(), tgt)
	wantClass(t, "an account without WinRM", err, sdk.ClassNotPermitted)
	s.Host.Join("helper", "S-1-5-32-544")
	s.Host.Filtered = true
	_, err = connector{}.Probe(t.Context(), tgt)
	wantClass(t, "an administrator whose rights are taken", err, sdk.ClassNotPermitted)
	s.Host.Join("helper", "S-1-5-32-580")
	f, err := connector{}.Probe(t.Context(), tgt)
	if err != nil || len(f.MissingRights) != 1 || !strings.Contains(f.MissingRights[0], "LocalAccountTokenFilterPolicy = 1") {
		t.Errorf("%v, %v", f.MissingRights, err)
	}
	_, err = connector{}.Inspect(t.Context(), tgt, "alice")
	wantClass(t, "inspect without rights", err, sdk.ClassNotPermitted)
	s.Host.Filtered = false
	if f, err := (connector{}).Probe(t.Context(), tgt); err != nil || len(f.MissingRights) != 0 || f.Product != "windows" || f.Version != emu.Version {
		t.Errorf("%+v, %v", f, err)
	}
	s.Host.OldPowerShell = true
	_, err = connector{}.Probe(t.Context(), tgt)
	wantClass(t, "an old PowerShell", err, sdk.ClassUnsupported)
	s.Host.DomainController = true
	_, err = connector{}.Probe(t.Context(), tgt)
	wantClass(t, "a domain controller", err, sdk.ClassUnsupported)
	_, err = apply(t.Context(), tgt, intent(sdk.Provision), first)
	wantClass(t, "provision on a domain controller", err, sdk.ClassUnsupported)
}

func TestAHostThatDoesNotDoWhatItSaysIsNoticed(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	must(t, target(s), intent(sdk.Provision), first)
	reads := 0
	s.Host.BeforeScript = func(name string) string {
		if name == "read" {
			if reads++; reads == 2 { // somebody is faster than the reading back
				s.Host.Change("alice", func(a *emu.Account) { a.Enabled = true })
			}
		}
		return ""
	}
	_, err := apply(t.Context(), target(s), intent(sdk.Disable), "")
	wantClass(t, "disable", err, sdk.ClassUnknownOutcome)
	s.Host.BeforeScript = func(name string) string { return map[string]string{"disable": "AccessDenied"}[name] }
	_, err = apply(t.Context(), target(s), intent(sdk.Disable), "")
	wantClass(t, "disable that is refused", err, sdk.ClassNotPermitted)
}
