package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	emu "github.com/reeve-pam/reeve/internal/emu/winrm"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// lose begins something and gives it up for lost while one of its scripts is at work on the host.
func lose(t *testing.T, s *emu.Server, in sdk.Intent, password, script string) *emu.Stalled {
	t.Helper()
	stalled := s.Host.Stall(script)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-stalled.Began
		cancel()
	}()
	_, err := apply(ctx, target(s), in, password)
	wantClass(t, "the lost attempt", err, sdk.ClassUnknownOutcome)
	return stalled
}

func TestAnAttemptWaitsForTheScriptOfALostOne(t *testing.T) {
	t.Parallel()
	for _, script := range []string{"create", "role", "enable", "password"} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			s := emu.Start(t, emu.Options{})
			in := intent(sdk.Provision)
			in.Role = role(t, "win-rdp-user")
			if script == "password" {
				must(t, target(s), in, "The-very-First-1")
			}
			stalled := lose(t, s, in, first, script)
			done := len(s.Host.Did())
			ended := make(chan error, 1)
			go func() {
				_, err := apply(t.Context(), target(s), in, second)
				ended <- err
			}()
			select {
			case <-s.Host.Waits():
			case err := <-ended:
				t.Fatalf("it did not wait: %v", err)
			}
			if did := s.Host.Did()[done:]; len(did) > 0 {
				t.Errorf("beside it ran %v", did)
			}
			stalled.Continue()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(strings.Join(s.Host.Did(), " "), "create"); n != 1 {
				t.Errorf("the account was made %d times", n)
			}
			if ok, err := plainLogin(t.Context(), s, "alice", second); !ok || err != nil {
				t.Errorf("login with the password of the second attempt: %t, %v", ok, err)
			}
		})
	}
}

func TestAScriptThatHangsMakesTheNextAttemptBusyUntilItIsGone(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	s.Host.LockWait = 50 * time.Millisecond
	lose(t, s, intent(sdk.Provision), first, "create")
	before := s.Host.Snapshot()
	for _, action := range []sdk.Action{sdk.Provision, sdk.Deprovision} {
		password := ""
		if action == sdk.Provision {
			password = second
		}
		_, err := apply(t.Context(), target(s), intent(action), password)
		wantClass(t, string(action), err, sdk.ClassBusy)
		if e, _ := errors.AsType[*sdk.Error](err); e == nil || !strings.Contains(e.Fix, "powershell.exe") {
			t.Errorf("it does not say what to do: %+v", e)
		}
	}
	if s.Host.Snapshot() != before {
		t.Error("something was changed")
	}
	// Neither somebody who only looks waits, nor work on another account.
	if _, err := (connector{}).Inspect(t.Context(), target(s), "alice"); err != nil {
		t.Error(err)
	}
	in := intent(sdk.Provision)
	in.Account, in.AccountID = "bob", "acct_2"
	must(t, target(s), in, first)
	// The lock is gone with the process, which Windows ends some time after its client.
	s.EndShells()
	s.Host.LockWait = time.Minute
	must(t, target(s), intent(sdk.Provision), second)
	if lockOf("Alice") != lockOf("aLICE") || lockOf("alice") == lockOf("bob") {
		t.Error("it is another lock")
	}
}

func TestTwoAttemptsAtOnceBothSucceed(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	s.Host.LockWait = time.Minute
	in := intent(sdk.Provision)
	in.Role = role(t, "win-rdp-user")
	for range 5 {
		for _, action := range []sdk.Action{sdk.Provision, sdk.Rotate, sdk.Disable, sdk.Enable, sdk.Deprovision} {
			in.Action = action
			passwords := []string{"", ""}
			if action == sdk.Provision || action == sdk.Rotate {
				passwords = []string{first, second}
			}
			ended := make(chan error)
			for _, p := range passwords {
				go func() {
					_, err := apply(t.Context(), target(s), in, p)
					ended <- err
				}()
			}
			for range passwords {
				if err := <-ended; err != nil {
					t.Errorf("%s: %v", action, err)
				}
			}
			a, there := s.Host.Account("alice")
			switch {
			case there == (action == sdk.Deprovision):
				t.Fatalf("after %s the account is there: %t", action, there)
			case there && (a.Description != "reeve acct_1" || a.Enabled == (action == sdk.Disable) || a.Password != first && a.Password != second):
				t.Errorf("after %s: %+v", action, a)
			case there && !slices.Equal(s.Host.Groups("alice"), []string{"S-1-5-32-555"}):
				t.Errorf("after %s: groups %v", action, s.Host.Groups("alice"))
			}
		}
	}
}

// New-LocalUser makes an account and describes it then.
func TestAHostThatDiesWhileItMakesAnAccountLeavesNothingThatIsInTheWay(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"made", "described"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			s := emu.Start(t, emu.Options{})
			before := s.Host.Snapshot()
			in := intent(sdk.Provision)
			in.Role = role(t, "win-rdp-user")
			die := func() {
				s.Host.Crash = at
				_, err := apply(t.Context(), target(s), in, first)
				wantClass(t, "provision", err, sdk.ClassUnknownOutcome)
				half, there := s.Host.Account(temporary("acct_1"))
				if _, alice := s.Host.Account("alice"); alice || !there || half.Enabled {
					t.Fatalf("what is left: %+v, alice: %t", half, alice)
				}
			}
			die()
			other := intent(sdk.Provision)
			other.Account, other.AccountID = "bob", "acct_2"
			must(t, target(s), other, first) // leaves it alone
			other.Action = sdk.Deprovision
			must(t, target(s), other, "")
			if _, there := s.Host.Account(temporary("acct_1")); !there {
				t.Error("work on another account removed it")
			}
			r := must(t, target(s), in, second)
			if ok, err := plainLogin(t.Context(), s, "alice", second); !ok || err != nil || !r.Changed || len(r.Facts.Groups) != 1 {
				t.Errorf("login: %t, %v, %+v", ok, err, r)
			}
			if _, there := s.Host.Account(temporary("acct_1")); there {
				t.Error("the half account is still there")
			}
			in.Action = sdk.Deprovision
			must(t, target(s), in, "")
			in.Action = sdk.Provision
			die()
			in.Action = sdk.Deprovision // without another try
			if r := must(t, target(s), in, ""); !r.Changed || s.Host.Snapshot() != before {
				t.Errorf("%+v; left: %s", r, s.Host.Snapshot())
			}
		})
	}
}

func TestANameThatAGroupHasIsNoAccountsName(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	if id := s.Host.Console("New-LocalGroup -Name 'alice'"); id != "" {
		t.Fatal(id)
	}
	before := s.Host.Snapshot()
	_, err := apply(t.Context(), target(s), intent(sdk.Provision), first)
	wantClass(t, "provision", err, sdk.ClassExists)
	if s.Host.Snapshot() != before {
		t.Error("an account is left")
	}
}
