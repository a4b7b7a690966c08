package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/emu/tds"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// at makes a fault at the statements that begin with one of the words.
func at(f tds.Fault, prefixes ...string) tds.Faults {
	return tds.Faults{Statement: func(text string) tds.Fault {
		for _, p := range prefixes {
			if strings.HasPrefix(text, p) {
				return f
			}
		}
		return tds.Fault{}
	}}
}

func TestFaultInTheMiddleOfAChangeIsAnUnknownOutcomeAndCanBeRepeated(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]tds.FaultKind{
		"dropped before": tds.DropBefore, "dropped after": tds.DropAfter, "hangs": tds.HangBefore, "hangs inside the answer": tds.HangInside,
		"oversized answer": tds.Oversized, "garbage": tds.Garbage, "fatal error": tds.Fatal,
	} {
		for _, statement := range []string{"CREATE LOGIN", "CREATE USER", "ALTER ROLE"} {
			t.Run(name+" at "+statement, func(t *testing.T) {
				t.Parallel()
				s := emulator(t, tds.Options{})
				in := intent(sdk.Provision)
				in.Role, in.Params = role(t, "mssql-db-owner"), map[string]string{"Database": "app"}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				s.SetFaults(tds.Faults{Statement: func(text string) tds.Fault {
					if !strings.HasPrefix(text, statement) {
						return tds.Fault{}
					}
					if kind == tds.HangBefore || kind == tds.HangInside {
						time.AfterFunc(100*time.Millisecond, cancel)
					}
					return tds.Fault{Kind: kind}
				}})
				_, err := apply(ctx, target(s), in, first)
				wantClass(t, "provision", err, sdk.ClassUnknownOutcome)
				s.SetFaults(tds.Faults{})
				must(t, target(s), in, first)
				wantLogin(t, s, "alice", first, true)
			})
		}
	}
}

func TestRotationThatIsNotAnsweredIsAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]tds.FaultKind{"done": tds.DropAfter, "not done": tds.DropBefore} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := emulator(t, tds.Options{})
			must(t, target(s), intent(sdk.Provision), first)
			s.SetFaults(at(tds.Fault{Kind: kind}, "ALTER LOGIN"))
			_, err := apply(t.Context(), target(s), intent(sdk.Rotate), second)
			wantClass(t, "rotate", err, sdk.ClassUnknownOutcome)
			wantLogin(t, s, "alice", second, kind == tds.DropAfter)
		})
	}
}

func TestFaultBeforeAnyChangeSaysThatNothingWasDone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind tds.FaultKind
		want sdk.Class
	}{
		"dropped": {tds.DropBefore, sdk.ClassUnreachable}, "hangs": {tds.HangBefore, sdk.ClassUnreachable},
		"hangs inside the answer": {tds.HangInside, sdk.ClassUnreachable}, "oversized answer": {tds.Oversized, sdk.ClassProtocol},
		"garbage": {tds.Garbage, sdk.ClassProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := emulator(t, tds.Options{})
			before := s.Snapshot()
			s.SetFaults(tds.Faults{Statement: func(text string) tds.Fault {
				if strings.Contains(text, "sys.sql_logins") {
					return tds.Fault{Kind: c.kind}
				}
				return tds.Fault{}
			}})
			ctx := t.Context()
			if c.kind == tds.HangBefore || c.kind == tds.HangInside {
				limited, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
				defer cancel()
				ctx = limited
			}
			_, err := apply(ctx, target(s), intent(sdk.Provision), first)
			wantClass(t, "provision", err, c.want)
			if s.Snapshot() != before {
				t.Error("the server changed")
			}
		})
	}
}

func TestServerErrorsHaveTheirClasses(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	before := s.Snapshot()
	for n, want := range map[int]sdk.Class{
		1205: sdk.ClassBusy, 1222: sdk.ClassBusy, 9002: sdk.ClassBusy, 15115: sdk.ClassPolicyRejected, 15118: sdk.ClassPolicyRejected,
		15247: sdk.ClassNotPermitted, 3906: sdk.ClassNotPermitted, 15433: sdk.ClassExists, 102: sdk.ClassInvalid, 50000: sdk.ClassProtocol,
	} {
		s.SetFaults(at(tds.Fault{Kind: tds.Refuse, Err: &tds.Error{Number: n, State: 1, Class: 16, Message: "in '" + first + "'"}}, "CREATE LOGIN"))
		_, err := apply(t.Context(), target(s), intent(sdk.Provision), first)
		wantClass(t, "provision", err, want)
		if e, ok := errors.AsType[*sdk.Error](err); !ok || strings.Contains(e.Message+e.Fix, first) {
			t.Errorf("error %d: the server's words are told: %v", n, err)
		}
	}
	if s.Snapshot() != before {
		t.Error("the server changed")
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	must(t, target(s), intent(sdk.Provision), first)
	refuse := func(n int, state byte) func(string) *tds.Error {
		return func(string) *tds.Error { return &tds.Error{Number: n, State: state, Class: 14, Message: first} }
	}
	for name, c := range map[string]struct {
		change   func(*tds.Login)
		login    func(string) *tds.Error
		password string
		want     sdk.VerdictKind
	}{
		"right":                {want: sdk.VerdictOK},
		"wrong":                {password: second, want: sdk.VerdictBadCredential},
		"disabled":             {change: func(l *tds.Login) { l.Disabled = true }, want: sdk.VerdictDisabled},
		"disabled, and wrong":  {change: func(l *tds.Login) { l.Disabled = true }, password: second, want: sdk.VerdictBadCredential},
		"locked, and wrong":    {change: func(l *tds.Login) { l.LockedOut = true }, password: second, want: sdk.VerdictLocked},
		"expired, and wrong":   {change: func(l *tds.Login) { l.Expired = true }, password: second, want: sdk.VerdictBadCredential},
		"locked out":           {change: func(l *tds.Login) { l.LockedOut = true }, want: sdk.VerdictLocked},
		"must change":          {change: func(l *tds.Login) { l.MustChange = true }, want: sdk.VerdictMustChange},
		"expired":              {change: func(l *tds.Login) { l.Expired = true }, want: sdk.VerdictMustChange},
		"18456 state 1":        {login: refuse(18456, 1), want: sdk.VerdictBadCredential},
		"18456 state 5":        {login: refuse(18456, 5), want: sdk.VerdictBadCredential},
		"18456 state 8":        {login: refuse(18456, 8), want: sdk.VerdictBadCredential},
		"18456 state 7":        {login: refuse(18456, 7), want: sdk.VerdictDisabled},
		"18456 state 11":       {login: refuse(18456, 11), want: sdk.VerdictUnknown},
		"18456 state 18":       {login: refuse(18456, 18), want: sdk.VerdictMustChange},
		"too many connections": {login: refuse(17809, 1), want: sdk.VerdictUnknown},
		"single user mode":     {login: refuse(18461, 1), want: sdk.VerdictUnknown},
	} {
		s.Change("alice", func(l *tds.Login) {
			*l = tds.Login{}
			if c.change != nil {
				c.change(l)
			}
		})
		s.SetFaults(tds.Faults{Login: c.login})
		if c.password == "" {
			c.password = first
		}
		logins := s.Logins()
		v, err := connector{}.Verify(t.Context(), target(s), sdk.Credential{Username: "alice", Password: secret(c.password)})
		if err != nil || v.Kind != c.want || strings.Contains(v.Message+v.Fix, first) || v.Kind != sdk.VerdictOK && (v.Message == "" || v.Fix == "") {
			t.Errorf("%s: %+v, %v; want %s", name, v, err, c.want)
		}
		if n := s.Logins() - logins; n != 1 {
			t.Errorf("%s: %d logins", name, n)
		}
	}
}

func TestManagementAccountThatCannotLogInIsToldWhy(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	for name, c := range map[string]struct {
		change func(*tds.Login)
		want   sdk.Class
	}{
		"disabled":    {func(l *tds.Login) { l.Disabled = true }, sdk.ClassDisabled},
		"locked out":  {func(l *tds.Login) { l.LockedOut = true }, sdk.ClassLocked},
		"expired":     {func(l *tds.Login) { l.Expired = true }, sdk.ClassMustChange},
		"must change": {func(l *tds.Login) { l.MustChange = true }, sdk.ClassMustChange},
	} {
		s.Change(manager, func(l *tds.Login) { *l = tds.Login{}; c.change(l) })
		_, err := connector{}.Probe(t.Context(), target(s))
		wantClass(t, name, err, c.want)
		if e, ok := errors.AsType[*sdk.Error](err); !ok || e.Fix == "" {
			t.Errorf("%s: no fix: %v", name, err)
		}
	}
	windows := target(s)
	windows.Management.Username = `DOM\manager`
	_, err := connector{}.Probe(t.Context(), windows)
	wantClass(t, "an account of Windows", err, sdk.ClassInvalid)
}

func TestServerThatHangsIsUnreachableWithinTheDeadline(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]tds.Faults{
		"after accept": {HangAtAccept: true}, "at login": {HangAtLogin: true}, "after login": at(tds.Fault{Kind: tds.HangBefore}, "SELECT"),
		"in an answer": at(tds.Fault{Kind: tds.HangInside}, "SELECT"),
	} {
		for _, encrypt := range []string{"true", "strict"} {
			t.Run(name+" encrypt="+encrypt, func(t *testing.T) {
				t.Parallel()
				s := emulator(t, tds.Options{})
				s.SetFaults(f)
				tgt := target(s)
				tgt.Options[optionEncrypt] = encrypt
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				began := time.Now()
				_, err := connector{}.Probe(ctx, tgt)
				wantClass(t, "probe", err, sdk.ClassUnreachable)
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("it took %s", took)
				}
			})
		}
	}
}

func TestTLSIsAlwaysVerified(t *testing.T) {
	t.Parallel()
	s, other := emulator(t, tds.Options{}), emulator(t, tds.Options{})
	plain, old := emulatorWithoutTLS(t), emulator(t, tds.Options{TLS12: true})
	change := func(tgt sdk.Target, f func(*sdk.Target)) sdk.Target { f(&tgt); return tgt }
	for _, encrypt := range []string{"true", "strict"} {
		for name, c := range map[string]struct {
			target sdk.Target
			want   sdk.Class
		}{
			"right":      {target(s), ""},
			"TLS 1.2":    {target(old), ""},
			"no trust":   {change(target(s), func(t *sdk.Target) { t.Trust = sdk.Trust{} }), sdk.ClassHostKeyUnknown},
			"other CA":   {change(target(s), func(t *sdk.Target) { t.Trust.CAPEM = other.CAPEM }), sdk.ClassHostKeyChanged},
			"other name": {change(target(s), func(t *sdk.Target) { t.Trust.ServerName = "db.example" }), sdk.ClassHostKeyChanged},
			"its name":   {change(target(s), func(t *sdk.Target) { t.Trust.ServerName = "localhost" }), ""},
			"no PEM":     {change(target(s), func(t *sdk.Target) { t.Trust.CAPEM = "x" }), sdk.ClassInvalid},
		} {
			c.target.Options[optionEncrypt] = encrypt
			_, err := connector{}.Probe(t.Context(), c.target)
			wantClass(t, name+" encrypt="+encrypt, err, c.want)
			if e, ok := errors.AsType[*sdk.Error](err); ok && (c.want == sdk.ClassHostKeyUnknown || c.want == sdk.ClassHostKeyChanged) &&
				(e.Details["fingerprint"] == "" || !strings.Contains(e.Details["host_key"], "BEGIN CERTIFICATE")) {
				t.Errorf("%s: details %v", name, e.Details)
			}
		}
	}
	if _, err := (connector{}).Probe(t.Context(), target(plain)); sdk.ClassOf(err) != sdk.ClassUnsupported || plain.Logins() != 0 {
		t.Errorf("a server without TLS: %v, %d logins", err, plain.Logins())
	}
	strict := target(plain)
	strict.Options[optionEncrypt] = "strict"
	_, err := connector{}.Probe(t.Context(), strict)
	if e, ok := errors.AsType[*sdk.Error](err); !ok || e.Class != sdk.ClassUnreachable || !strings.Contains(e.Fix, "encrypt=true") || plain.Logins() != 0 {
		t.Errorf("a server without TDS 8: %v, %d logins", err, plain.Logins())
	}
	legacy := target(plain)
	legacy.Options[optionLegacy], legacy.Trust = "yes", sdk.Trust{}
	legacy.Management = sdk.Credential{Username: "sa", Password: secret(tds.Administrator)}
	f, err := connector{}.Probe(t.Context(), legacy)
	if err != nil || f.Attributes["tls"] != "none" {
		t.Errorf("a legacy server: %+v, %v", f, err)
	}
}

func emulatorWithoutTLS(t *testing.T) *tds.Server { return tds.Start(t, tds.Options{NoTLS: true}) }

func TestServersThatAreNotSupportedAreNamed(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]tds.Options{
		"Azure SQL Database": {Edition: 5}, "older than SQL Server 2012": {Version: [4]byte{10, 50, 0x10, 0}},
	} {
		_, err := connector{}.Probe(t.Context(), asSA(tds.Start(t, options)))
		wantClass(t, name, err, sdk.ClassUnsupported)
		if err != nil && !strings.Contains(err.Error(), name) {
			t.Error(err)
		}
	}
}

func TestNoSecretIsInErrorsPlansOrTraces(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	var said strings.Builder
	tell := func(err error) {
		if e, ok := errors.AsType[*sdk.Error](err); ok {
			said.WriteString(e.Error() + e.Fix)
		}
	}
	for _, action := range []sdk.Action{sdk.Provision, sdk.Rotate} {
		in := intent(action)
		plan, err := connector{}.Plan(t.Context(), target(s), in)
		tell(err)
		for _, step := range plan.Steps {
			said.WriteString(step.Title + step.Command + step.Compensation)
		}
		_, err = applyWith(t.Context(), target(s), in, second, func(e sdk.Event) { said.WriteString(e.Message) })
		tell(err)
		for _, kind := range []tds.FaultKind{tds.DropAfter, tds.Garbage, tds.Oversized, tds.Fatal} {
			s.SetFaults(at(tds.Fault{Kind: kind}, "CREATE LOGIN", "ALTER LOGIN"))
			_, err = apply(t.Context(), target(s), in, second)
			tell(err)
		}
		s.SetFaults(tds.Faults{})
	}
	for _, canary := range []string{password, first, second} {
		if strings.Contains(said.String(), canary) || strings.Contains(s.Logged(), canary) {
			t.Error("a secret was told")
		}
	}
}
