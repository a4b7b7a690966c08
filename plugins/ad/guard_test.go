package main

import (
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// TestALostAttemptChangesNothingMore has an attempt stand still before each of its steps while another one does its whole
// work, then go on.
func TestALostAttemptChangesNothingMore_C88(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	addGroup(t, d, "helpdesk", "helpdesk")
	n := 0
	for _, c := range []struct {
		lost, next sdk.Action
		at         []string // before these steps of the lost one
	}{
		{sdk.Provision, sdk.Provision, []string{"settings", "password", "grant-1", "grant-2", "enable"}},
		{sdk.Provision, sdk.Disable, []string{"settings", "password", "grant-1", "grant-2", "enable"}},
		{sdk.Provision, sdk.Deprovision, []string{"password", "grant-1", "grant-2", "enable"}},
		{sdk.Provision, sdk.Rotate, []string{"password", "grant-1", "enable"}},
		{sdk.Rotate, sdk.Rotate, []string{"password"}},
		{sdk.Rotate, sdk.Deprovision, []string{"password"}},
		{sdk.Enable, sdk.Rotate, []string{"enable"}},
	} {
		for _, at := range c.at {
			for _, when := range []sdk.StepState{sdk.StepStarted, sdk.StepFailed} { // before it is undone
				broken := when == sdk.StepFailed
				if broken && (at != "grant-1" || c.next == sdk.Deprovision) {
					continue
				}
				n++
				what := string(c.lost) + " before " + at + ", then " + string(c.next)
				in := intent(c.lost)
				in.Account, in.AccountID = "lost_"+strconv.Itoa(n), "acct_"+strconv.Itoa(n)
				next := in
				next.Action = c.next
				if c.lost != sdk.Provision {
					made := in
					made.Action = sdk.Provision
					must(t, tgt, made, first)
					if c.lost == sdk.Enable {
						made.Action = sdk.Disable
						must(t, tgt, made, "")
					}
				} else {
					in.Role = custom(sdk.PhaseGrant, "set-flag not-delegated", "add-to-group name helpdesk")
					if broken {
						in.Role = custom(sdk.PhaseGrant, "add-to-group name nobody")
					}
				}
				var after string
				_, err := applyWith(t.Context(), tgt, in, first, func(e sdk.Event) {
					if e.Step == at && e.State == when && after == "" {
						r := must(t, tgt, next, second)
						if r.Facts.Exists != (c.next != sdk.Deprovision) {
							t.Errorf("%s: %+v", what, r.Facts)
						}
						after = state(t, d, in.Account)
					}
				})
				wantClass(t, what, err, sdk.ClassUnknownOutcome)
				if got := state(t, d, in.Account); got != after {
					t.Errorf("%s: the lost attempt changed the account\n%s\nwas\n%s", what, got, after)
				}
				if c.next == sdk.Rotate && c.lost == sdk.Rotate || c.next == sdk.Provision {
					wantLogin(t, d, in.Account, second, true)
				}
			}
		}
	}
}

// state is what a connector changes of an account.
func state(t *testing.T, d *testlab.DomainController, name string) string {
	t.Helper()
	e := entry(t, d, name)
	if e == nil {
		return "gone"
	}
	var out string
	for _, a := range []string{"distinguishedName", "userAccountControl", "pwdLastSet", "memberOf", "extensionName", "accountExpires"} {
		values := e.GetAttributeValues(a)
		slices.Sort(values)
		out += a + " " + strconv.Quote(e.GetAttributeValue(a)) + "\n"
		for _, v := range values {
			out += "\t" + v + "\n"
		}
	}
	return out
}

func TestALostAttemptChangesNoAdoptedAccountForTheFirstTime(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	if err := d.AddAccount(t.Context(), "alice", "Theirs-1234"); err != nil {
		t.Fatal(err)
	}
	f, err := connector{}.Inspect(t.Context(), target(d), "alice")
	if err != nil {
		t.Fatal(err)
	}
	in := intent(sdk.Rotate)
	in.AccountID, in.Identity = "", f.Identity
	_, err = applyWith(t.Context(), target(d), in, first, func(e sdk.Event) {
		if e.Step == "password" && e.State == sdk.StepStarted {
			must(t, target(d), in, second)
		}
	})
	wantClass(t, "the lost attempt", err, sdk.ClassUnknownOutcome)
	wantLogin(t, d, "alice", second, true)
	must(t, target(d), in, first) // and the next one works
	wantLogin(t, d, "alice", first, true)
	if got := revisionsOf(entry(t, d, "alice").GetAttributeValues(attributeMark)); len(got) != 1 {
		t.Errorf("revisions %q", got)
	}
}

func TestAttemptsAtTheSameTimeAgreeOnOne_C88(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	addGroup(t, d, "helpdesk", "helpdesk")
	in := intent(sdk.Provision)
	in.Role, in.Params = role(t, "ad-helpdesk"), map[string]string{"Group": "helpdesk"}
	for range 3 {
		for _, in.Action = range []sdk.Action{sdk.Provision, sdk.Rotate} {
			errs := make([]error, 4)
			var wg sync.WaitGroup
			password := func(i int) string { return first + strconv.Itoa(i) + string(in.Action) }
			for i := range errs {
				in := in
				wg.Go(func() { _, errs[i] = apply(t.Context(), target(d), in, password(i)) })
			}
			wg.Wait()
			succeeded, works := 0, 0
			for i, err := range errs {
				if err != nil {
					wantClass(t, string(in.Action), err, sdk.ClassUnknownOutcome)
				}
				set(t, d, entry(t, d, "alice").DN, "lockoutTime", "0") // wrong ones count
				if d.Login(t.Context(), in.Account, password(i)) == nil {
					works++
					if err != nil {
						t.Errorf("%s: the password of a failed attempt is the account's: %v", in.Action, err)
					}
				}
				if err == nil {
					succeeded++
				}
			}
			if succeeded == 0 || works != 1 {
				t.Errorf("%s: %d attempts succeeded, %d passwords work: %v", in.Action, succeeded, works, errs)
			}
		}
		in.Action = sdk.Deprovision
		must(t, target(d), in, "")
	}
}

func TestWhatAnAttemptLeftInTheMiddleOfUndoingIsRemoved(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	in := intent(sdk.Provision)
	made := must(t, target(d), in, first)
	set(t, d, entry(t, d, "alice").DN, "extensionName", "reeve:acct_1", givenUp+"X")
	again := must(t, target(d), in, second)
	if again.Facts.Identity == made.Facts.Identity {
		t.Error("the account that was given up is used")
	}
	wantLogin(t, d, "alice", second, true)
}
