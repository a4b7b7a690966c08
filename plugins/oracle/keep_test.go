package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/emu/oracle"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/idle"
)

func keeping() connector { return connector{kept: idle.New((*session).end)} }

// applyOver is apply over a connector that keeps connections, to a server that was probed.
func applyOver(ctx context.Context, c connector, t sdk.Target, in sdk.Intent, password string) (sdk.Result, error) {
	t.Fingerprint = sdk.Fingerprint{Product: product, Version: "19.0"}
	plan, err := c.Plan(ctx, t, in)
	if err != nil {
		return sdk.Result{}, err
	}
	return c.Apply(ctx, t, sdk.Change{Intent: in, Plan: plan, Password: secret(password)}, func(sdk.Event) {})
}

func TestBurstOfWorkIsOneLogin(t *testing.T) {
	t.Parallel()
	s, c := oracle.Start(t, oracle.Options{}), keeping()
	for i := range 5 {
		in := intent(sdk.Provision)
		in.Account, in.AccountID = "U"+strings.Repeat("X", i), "acct_"+strings.Repeat("x", i)
		if _, err := applyOver(t.Context(), c, target(s), in, first); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Inspect(t.Context(), target(s), in.Account); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.DB.Logins(); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	// What proves something, or shows rights, logs in anew.
	if v, err := c.Verify(t.Context(), target(s), target(s).Management); err != nil || v.Kind != sdk.VerdictOK {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := c.Probe(t.Context(), target(s)); err != nil {
		t.Error(err)
	}
	if _, err := c.CheckRights(t.Context(), target(s), sdk.Role{}, nil); err != nil {
		t.Error(err)
	}
	if n := s.DB.Logins(); n != 4 {
		t.Errorf("%d logins, want 4", n)
	}
}

func TestKeptConnectionHoldsNoLock(t *testing.T) {
	t.Parallel()
	s, c := oracle.Start(t, oracle.Options{}), keeping()
	if _, err := applyOver(t.Context(), c, target(s), intent(sdk.Provision), first); err != nil {
		t.Fatal(err)
	}
	if n := s.DB.Sessions(oracle.Management); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
	must(t, target(s), intent(sdk.Rotate), second) // over another connection, which needs the account's lock
}

func TestSessionThatARoleMayHaveChangedIsNotKept(t *testing.T) {
	t.Parallel()
	s, c := oracle.Start(t, oracle.Options{}), keeping()
	in := intent(sdk.Provision)
	in.Role = sdk.Role{Name: "ours", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {"BEGIN NULL; END;"}}}
	for range 2 {
		if _, err := applyOver(t.Context(), c, target(s), in, first); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.DB.Logins(); n != 3 { // the second provision tries the password
		t.Errorf("%d logins, want 3", n)
	}
}

func TestConnectionThatDiedOrWentWrongIsNotUsedAgain(t *testing.T) {
	t.Parallel()
	s, c := oracle.Start(t, oracle.Options{}), keeping()
	inspect := func(what string, want sdk.Class, logins int) {
		t.Helper()
		before := s.DB.Logins()
		_, err := c.Inspect(t.Context(), target(s), "ALICE")
		wantClass(t, what, err, want)
		if n := s.DB.Logins() - before; n != logins {
			t.Errorf("%s: %d logins, want %d", what, n, logins)
		}
	}
	inspect("the first", "", 1)
	inspect("the next", "", 0)
	s.DB.EndSessions(oracle.Management)
	inspect("after the server ended the connection", "", 1)
	s.SetFaults(oracle.Faults{Fail: map[string]int{"SELECT username": 942}})
	inspect("a refusal", sdk.ClassNotPermitted, 0)
	s.SetFaults(oracle.Faults{})
	inspect("after it", "", 1) // a new login has the roles that were granted meanwhile
	tgt := target(s)
	tgt.Management.Password = secret("another-1")
	_, err := c.Inspect(t.Context(), tgt, "ALICE")
	wantClass(t, "another password", err, sdk.ClassAuthFailed)
}

func TestKeptConnectionIsHungUpWithTheOperationThatUsesIt(t *testing.T) {
	t.Parallel()
	s, c := oracle.Start(t, oracle.Options{}), keeping()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := c.Inspect(ctx, target(s), "ALICE"); err != nil {
		t.Fatal(err)
	}
	cancel() // of an operation that is over: it does not matter
	if _, err := c.Inspect(t.Context(), target(s), "ALICE"); err != nil || s.DB.Logins() != 1 {
		t.Fatalf("%d logins, %v", s.DB.Logins(), err)
	}
	s.SetFaults(oracle.Faults{HangIn: "SELECT username", IgnoreBreak: true})
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := c.Inspect(ctx, target(s), "ALICE")
	wantClass(t, "a server that hangs", err, sdk.ClassUnreachable)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}
