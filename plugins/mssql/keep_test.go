package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/emu/tds"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/idle"
)

func keeping() connector { return connector{kept: idle.New((*session).end)} }

// applyOver is applyWith over a connector that keeps connections.
func applyOver(ctx context.Context, c connector, t sdk.Target, in sdk.Intent, password string) (sdk.Result, error) {
	plan, err := c.Plan(ctx, t, in)
	if err != nil {
		return sdk.Result{}, err
	}
	return c.Apply(ctx, t, sdk.Change{Intent: in, Plan: plan, Password: secret(password)}, func(sdk.Event) {})
}

func TestBurstOfWorkIsOneLogin(t *testing.T) {
	t.Parallel()
	s, c := emulator(t, tds.Options{}), keeping()
	before := s.Logins()
	for i := range 5 {
		in := intent(sdk.Provision)
		in.Account, in.AccountID = "u"+strings.Repeat("x", i), "acct_"+strings.Repeat("x", i)
		if _, err := applyOver(t.Context(), c, target(s), in, first); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Inspect(t.Context(), target(s), in.Account); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.Logins() - before; n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	// What proves something, or shows rights, logs in anew.
	before = s.Logins()
	if v, err := c.Verify(t.Context(), target(s), target(s).Management); err != nil || v.Kind != sdk.VerdictOK {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := c.Probe(t.Context(), target(s)); err != nil {
		t.Error(err)
	}
	if _, err := c.CheckRights(t.Context(), target(s), sdk.Role{}, nil); err != nil {
		t.Error(err)
	}
	if n := s.Logins() - before; n != 3 {
		t.Errorf("%d logins, want 3", n)
	}
}

func TestKeptConnectionHoldsNoLockAndNoState(t *testing.T) {
	t.Parallel()
	s, c := emulator(t, tds.Options{}), keeping()
	if _, err := applyOver(t.Context(), c, target(s), intent(sdk.Provision), first); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	must(t, target(s), intent(sdk.Rotate), second) // over another connection, which needs the account's lock
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it waited %s for the lock", took)
	}
	if !slices.ContainsFunc(s.Statements(), func(text string) bool { return text == "SELECT @@SPID" }) {
		t.Error("the connection was not brought into its first state")
	}
}

func TestConnectionThatDiedOrWentWrongIsNotUsedAgain(t *testing.T) {
	t.Parallel()
	s, c := emulator(t, tds.Options{}), keeping()
	inspect := func(what string, want sdk.Class) {
		t.Helper()
		_, err := c.Inspect(t.Context(), target(s), "alice")
		wantClass(t, what, err, want)
	}
	inspect("the first", "")
	s.EndSessions(manager)
	inspect("after the server ended the connection", "")
	if n := s.Sessions(manager); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
	s.SetFaults(at(tds.Fault{Kind: tds.Refuse, Err: &tds.Error{Number: 229, State: 1, Class: 14, Message: "no"}}, "SELECT name, sid"))
	inspect("a refusal", sdk.ClassNotPermitted)
	s.SetFaults(tds.Faults{})
	before := s.Logins()
	inspect("after it", "") // a new login may show what was granted meanwhile
	if n := s.Logins() - before; n != 1 {
		t.Errorf("%d logins after a refusal, want 1", n)
	}
	before = s.Logins()
	tgt := target(s)
	tgt.Management.Password = secret("another-Password-1")
	_, err := c.Inspect(t.Context(), tgt, "alice")
	wantClass(t, "another password", err, sdk.ClassAuthFailed)
	if n := s.Logins() - before; n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
}

func TestKeptConnectionIsHungUpWithTheOperationThatUsesIt(t *testing.T) {
	t.Parallel()
	s, c := emulator(t, tds.Options{}), keeping()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := c.Inspect(ctx, target(s), "alice"); err != nil {
		t.Fatal(err)
	}
	cancel() // of an operation that is over: it does not matter
	if _, err := c.Inspect(t.Context(), target(s), "alice"); err != nil || s.Sessions(manager) != 1 {
		t.Fatalf("%d sessions, %v", s.Sessions(manager), err)
	}
	s.SetFaults(at(tds.Fault{Kind: tds.HangBefore}, "SELECT name, sid"))
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := c.Inspect(ctx, target(s), "alice")
	wantClass(t, "a server that hangs", err, sdk.ClassUnreachable)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}
