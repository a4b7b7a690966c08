package main

import (
	"context"
	"errors"
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
