package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	emu "github.com/reeve-pam/reeve/internal/emu/winrm"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

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
