package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

func TestFaultInTheMiddleOfAChangeIsAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct {
		do, undo func(*testlab.DomainController) error
	}{
		"hang": {(*testlab.DomainController).Hang, (*testlab.DomainController).Resume},
		"crash": {
			func(d *testlab.DomainController) error { d.Crash(); return nil },
			(*testlab.DomainController).Restart,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := testlab.SambaAD(t, testlab.SambaOptions{})
			addGroup(t, d, "helpdesk", "helpdesk")
			tgt := target(d)
			for _, at := range []string{"create", "password", "grant-1", "enable"} {
				in := intent(sdk.Provision)
				in.Account = strings.ReplaceAll(name+"_"+at, "-", "_")
				in.AccountID = "acct_" + in.Account
				in.Role, in.Params = role(t, "ad-helpdesk"), map[string]string{"Group": "helpdesk"}
				ctx, cancel := context.WithCancel(t.Context())
				_, err := applyWith(ctx, tgt, in, first, func(e sdk.Event) {
					if e.Step == at && e.State == sdk.StepStarted {
						if err := fault.do(d); err != nil {
							t.Error(err)
						}
						time.AfterFunc(200*time.Millisecond, cancel)
					}
				})
				cancel()
				wantClass(t, "provision with a fault at "+at, err, sdk.ClassUnknownOutcome)
				if err := fault.undo(d); err != nil {
					t.Fatal(err)
				}
				r := must(t, tgt, in, first)
				if r.Facts.Locked || len(r.Facts.Groups) != 2 {
					t.Errorf("after the second try: %+v", r.Facts)
				}
				wantLogin(t, d, in.Account, first, true)
			}
		})
	}
}

func TestAccountThatCannotBeFinishedIsRemovedAgain(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	in := intent(sdk.Provision)
	in.Role = role(t, "ad-domain-admin") // more than the management account may give
	_, err := apply(t.Context(), tgt, in, first)
	wantClass(t, "provision", err, sdk.ClassNotPermitted)
	if e := entry(t, d, "alice"); e != nil {
		t.Errorf("%s is there", e.DN)
	}
	in.Role = sdk.Role{}
	_, err = apply(t.Context(), tgt, in, "lower-case only")
	wantClass(t, "a password against the domain's policy", err, sdk.ClassPolicyRejected)
	if e := entry(t, d, "alice"); e != nil {
		t.Errorf("%s is there", e.DN)
	}
	in.Role = custom(sdk.PhaseGrant, `add-to-group "CN=nobody,`+testlab.GroupsOU+`"`)
	_, err = apply(t.Context(), tgt, in, first)
	wantClass(t, "a group that is not there", err, sdk.ClassInvalid)
	// An account from an earlier call stays.
	in.Role = sdk.Role{}
	must(t, tgt, in, first)
	in.Role = role(t, "ad-domain-admin")
	_, err = apply(t.Context(), tgt, in, first)
	wantClass(t, "provision of an existing account", err, sdk.ClassNotPermitted)
	_, err = apply(t.Context(), tgt, intent(sdk.Rotate), "lower-case only")
	wantClass(t, "rotate against the domain's policy", err, sdk.ClassPolicyRejected)
	wantLogin(t, d, "alice", first, true)
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	made := must(t, tgt, intent(sdk.Provision), first)
	dn := entry(t, d, "alice").DN
	if v := wantVerdict(t, tgt, "alice", first, sdk.VerdictOK); v.Identity != made.Facts.Identity {
		t.Errorf("identity %q, want %q", v.Identity, made.Facts.Identity)
	}
	wantVerdict(t, tgt, "alice", second, sdk.VerdictBadCredential)
	wantVerdict(t, tgt, "alice", "", sdk.VerdictBadCredential) // a server would take it for an anonymous login
	wantVerdict(t, tgt, "nobody", first, sdk.VerdictBadCredential)
	for _, c := range []struct {
		attribute, value, back string
		want                   sdk.VerdictKind
		says                   string
	}{
		{"userAccountControl", "514", "512", sdk.VerdictDisabled, "disabled"},
		{"accountExpires", testlab.FileTime(time.Now().Add(-time.Hour)), "0", sdk.VerdictExpired, "expired"},
		{"pwdLastSet", "0", "-1", sdk.VerdictMustChange, "must be changed"},
		{"logonHours", strings.Repeat("\x00", 21), strings.Repeat("\xff", 21), sdk.VerdictUnknown, "at this time"},
	} {
		set(t, d, dn, c.attribute, c.value)
		if v := wantVerdict(t, tgt, "alice", first, c.want); !strings.Contains(v.Message, c.says) {
			t.Errorf("%s %q: %q, want %q in it", c.attribute, c.value, v.Message, c.says)
		}
		// Who has a wrong password is not told.
		wantVerdict(t, tgt, "alice", second, sdk.VerdictBadCredential)
		set(t, d, dn, "lockoutTime", "0")
		set(t, d, dn, c.attribute, c.back)
	}
	for range 5 {
		wantVerdict(t, tgt, "alice", second, sdk.VerdictBadCredential)
	}
	wantVerdict(t, tgt, "alice", first, sdk.VerdictLocked)
	wantVerdict(t, tgt, "alice", second, sdk.VerdictLocked) // it is not even tried

	// The name of one that is gone is the user principal name of another.
	if err := d.AddAccount(t.Context(), "mallory", first); err != nil {
		t.Fatal(err)
	}
	set(t, d, "CN=mallory,"+testlab.AccountsOU, "userPrincipalName", "ghost@lab.test")
	if v := wantVerdict(t, tgt, "ghost", first, sdk.VerdictUnknown); !strings.Contains(v.Message, "another account") {
		t.Errorf("%+v", v)
	}
	d.Crash()
	wantVerdict(t, tgt, "alice", first, sdk.VerdictUnreachable)
}

func TestManagementAccountThatCannotLogInIsExplained(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	dn := entry(t, d, testlab.Management).DN
	for _, c := range []struct {
		attribute, value, back string
		want                   sdk.Class
	}{
		{"userAccountControl", "514", "512", sdk.ClassDisabled},
		{"accountExpires", testlab.FileTime(time.Now().Add(-time.Hour)), "0", sdk.ClassExpired},
		{"pwdLastSet", "0", "-1", sdk.ClassMustChange},
	} {
		set(t, d, dn, c.attribute, c.value)
		_, err := connector{}.Probe(t.Context(), tgt)
		wantClass(t, c.attribute, err, c.want)
		if e, ok := errors.AsType[*sdk.Error](err); !ok || e.Fix == "" {
			t.Errorf("%s: no fix: %v", c.attribute, err)
		}
		set(t, d, dn, c.attribute, c.back)
	}
	for _, c := range []sdk.Credential{{Username: "reeve", Password: secret(canary)}, {Username: "reeve"}, {Password: secret(canary)}} {
		tgt.Management = c
		_, err := connector{}.Inspect(t.Context(), tgt, "alice")
		wantClass(t, "wrong credential", err, sdk.ClassAuthFailed)
	}
}

func TestServerIsTrustedOnlyByItsCertificate(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	tgt.Trust = sdk.Trust{}
	_, err := connector{}.Probe(t.Context(), tgt)
	wantClass(t, "first contact", err, sdk.ClassHostKeyUnknown)
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok || !strings.HasPrefix(e.Details["fingerprint"], "SHA256:") {
		t.Fatalf("details: %v", err)
	}
	tgt.Trust = sdk.Trust{CAPEM: d.CAPEM, ServerName: "dc.example.com"}
	_, err = connector{}.Probe(t.Context(), tgt)
	wantClass(t, "another name", err, sdk.ClassHostKeyChanged)
	tgt.Trust = sdk.Trust{CAPEM: e.Details["host_key"]} // what a person approved
	if _, err = (connector{}).Probe(t.Context(), tgt); err != nil {
		t.Errorf("approved: %v", err)
	}
	tgt.Trust = sdk.Trust{CAPEM: "no PEM"}
	_, err = connector{}.Probe(t.Context(), tgt)
	wantClass(t, "no certificate", err, sdk.ClassInvalid)
}

// serve answers every connection with what talk does.
func serve(t *testing.T, address string, talk func(net.Conn)) int {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				talk(c)
			})
		}
	})
	return l.Addr().(*net.TCPAddr).Port
}

func TestServersThatAreNoDomainControllersAreExplained(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	say := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = io.WriteString(c, text)
			_, _ = io.Copy(io.Discard, c)
		}
	}
	const refuses = "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x34\x04\x00\x04\x00" // result 52
	for name, c := range map[string]struct {
		startTLS string
		talk     func(net.Conn)
		want     sdk.Class
	}{
		"garbage":                {"no", say("SSH-2.0-OpenSSH_9.2\r\n"), sdk.ClassProtocol},
		"silence":                {"no", say(""), sdk.ClassUnreachable},
		"hanging up":             {"no", func(net.Conn) {}, sdk.ClassUnreachable},
		"StartTLS refused":       {"yes", say(refuses), sdk.ClassUnsupported},
		"StartTLS, garbage":      {"yes", say("HTTP/1.1 400 Bad Request\r\n"), sdk.ClassUnsupported},
		"StartTLS, oversized":    {"yes", say("\x30\x84\x7f\xff\xff\xff"), sdk.ClassUnsupported},
		"StartTLS, hanging up":   {"yes", func(net.Conn) {}, sdk.ClassUnreachable},
		"StartTLS, then garbage": {"yes", say("\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00garbage"), sdk.ClassProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tgt := target(d)
			tgt.Options[optionStartTLS] = c.startTLS
			tgt.Address, tgt.Port = "127.0.0.1", serve(t, "127.0.0.1", c.talk)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_, err := connector{}.Probe(ctx, tgt)
			wantClass(t, name, err, c.want)
			if e, ok := errors.AsType[*sdk.Error](err); !ok || e.Fix == "" {
				t.Errorf("no fix: %v", err)
			}
		})
	}
}

// TestAnswersThatAreWrongAreNoSuccess has a server with a certificate that is trusted and answers that are not LDAP, too
// long, or to another question.
func TestAnswersThatAreWrongAreNoSuccess(t *testing.T) {
	t.Parallel()
	pair, authority := certificate(t)
	const end, bound = "\x30\x0c\x02\x01\x01\x65\x07\x0a\x01\x00\x04\x00\x04\x00", // of a search without entries
		"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00" // a bind that succeeded
	for name, c := range map[string]struct {
		answer string
		want   []sdk.Class
	}{
		"garbage":        {"\x01\x02\x03garbage", []sdk.Class{sdk.ClassUnreachable, sdk.ClassProtocol}},
		"oversized":      {"\x30\x84\x7f\xff\xff\xff\x02\x01\x01", []sdk.Class{sdk.ClassUnreachable, sdk.ClassProtocol}},
		"cut short":      {end[:9], []sdk.Class{sdk.ClassUnreachable}},
		"another answer": {bound, []sdk.Class{sdk.ClassUnreachable, sdk.ClassProtocol}},
		"no rootDSE":     {end, []sdk.Class{sdk.ClassProtocol}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tgt := sdk.Target{
				Address: "127.0.0.1", Options: map[string]string{optionOU: testlab.AccountsOU}, Trust: sdk.Trust{CAPEM: authority},
				Management: sdk.Credential{Username: "reeve", Password: secret(canary)},
			}
			tgt.Port = serve(t, "127.0.0.1", func(raw net.Conn) {
				conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{pair}})
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = io.WriteString(conn, c.answer)
				_, _ = io.Copy(io.Discard, conn)
			})
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_, err := connector{}.Probe(ctx, tgt)
			if !slices.Contains(c.want, sdk.ClassOf(err)) {
				t.Errorf("class %q (%v), want %q", sdk.ClassOf(err), err, c.want)
			}
		})
	}
}
