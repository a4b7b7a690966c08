package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/emu/oracle"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// statementsOfProvision are what a provision with the role oracle-monitor sends, by step.
var statementsOfProvision = map[string]string{
	"create": "CREATE USER", "mark": "CREATE OR REPLACE SYNONYM", "session": "GRANT CREATE SESSION", "grant-2": "GRANT SELECT_CATALOG_ROLE",
	"password": `ALTER USER "ALICE" IDENTIFIED`, "unlock": `ALTER USER "ALICE" ACCOUNT UNLOCK`,
}

func monitor(t *testing.T) sdk.Intent {
	t.Helper()
	in := intent(sdk.Provision)
	in.Role = role(t, "oracle-monitor")
	return in
}

// withGrants is a server whose management account may pass on what oracle-monitor grants.
func withGrants(t *testing.T, o oracle.Options) *oracle.Server {
	t.Helper()
	o.Rights = append(oracle.ManagementRights(), "SELECT_CATALOG_ROLE TO REEVE WITH ADMIN OPTION")
	return oracle.Start(t, o)
}

func TestFaultInTheMiddleOfAChangeIsAnUnknownOutcomeAndTheNextTrySucceeds(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(string) oracle.Faults{
		"dropped before": func(s string) oracle.Faults { return oracle.Faults{DropBefore: s} },
		"dropped after":  func(s string) oracle.Faults { return oracle.Faults{DropAfter: s} },
		"hangs":          func(s string) oracle.Faults { return oracle.Faults{HangIn: s, IgnoreBreak: true} },
		"hangs in the answer": func(s string) oracle.Faults {
			return oracle.Faults{HangInAnswer: s}
		},
		"oversized": func(s string) oracle.Faults { return oracle.Faults{Oversize: s} },
		"garbage":   func(s string) oracle.Faults { return oracle.Faults{Garbage: s} },
	} {
		for at, statement := range statementsOfProvision {
			t.Run(name+" at "+at, func(t *testing.T) {
				t.Parallel()
				s := withGrants(t, oracle.Options{})
				tgt := target(s)
				s.SetFaults(fault(statement))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				_, err := applyWith(ctx, tgt, monitor(t), first, func(e sdk.Event) {
					if e.Step == at && e.State == sdk.StepStarted {
						time.AfterFunc(200*time.Millisecond, cancel)
					}
				})
				wantClass(t, "provision", err, sdk.ClassUnknownOutcome)
				s.SetFaults(oracle.Faults{})
				r := must(t, tgt, monitor(t), first)
				if r.Facts.Locked || len(r.Facts.Grants) != 1 || len(r.Facts.Groups) != 1 {
					t.Errorf("after the second try: %+v", r.Facts)
				}
				wantLogin(t, s, "ALICE", first, true)
				if strings.Count(s.DB.Snapshot(), "synonym") != 1 {
					t.Errorf("marks: %s", s.DB.Snapshot())
				}
			})
		}
	}
}

// Between the statement that creates the account and its mark, the account says itself whose it is.
func TestAccountOfACrashedProvisionIsOursAndNobodyElses(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{Faults: oracle.Faults{DropAfter: "CREATE USER"}})
	_, err := apply(t.Context(), target(s), intent(sdk.Provision), first)
	wantClass(t, "provision", err, sdk.ClassUnknownOutcome)
	if s.DB.Status("ALICE") != "LOCKED" {
		t.Fatalf("the account is %q", s.DB.Status("ALICE"))
	}
	s.SetFaults(oracle.Faults{})
	in := intent(sdk.Provision)
	in.AccountID = "acct_2"
	_, err = apply(t.Context(), target(s), in, second)
	wantClass(t, "provision for another id", err, sdk.ClassExists)
	in = intent(sdk.Deprovision)
	must(t, target(s), in, "")
	if s.DB.Exists("ALICE") {
		t.Error("the account of the crashed provision was not removed")
	}
}

func TestServerThatHangsIsUnreachableWithinTheDeadline(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string]oracle.Faults{
		"after accept": {HangAfterAccept: true},
		"at login":     {HangAtLogin: true},
		"in a query":   {HangIn: "SELECT SYS_CONTEXT", IgnoreBreak: true},
		"in an answer": {HangInAnswer: "SELECT SYS_CONTEXT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := oracle.Start(t, oracle.Options{Faults: faults})
			for _, cancelled := range []bool{false, true} {
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				want := sdk.ClassUnreachable
				if cancelled {
					ctx, cancel = context.WithCancel(t.Context())
					time.AfterFunc(300*time.Millisecond, cancel)
					want = sdk.ClassCancelled
				}
				began := time.Now()
				_, err := connector{}.Probe(ctx, target(s))
				cancel()
				wantClass(t, "probe", err, want)
				if took := time.Since(began); took > 2*time.Second+300*time.Millisecond {
					t.Errorf("it took %s", took)
				}
			}
			for s.DB.Sessions(oracle.Management) > 0 { // the connection is hung up
				time.Sleep(time.Millisecond)
			}
		})
	}
}

func TestAnswerThatIsNoneDoesNotEndTheConnector(t *testing.T) {
	t.Parallel()
	huge := oracle.Start(t, oracle.Options{Faults: oracle.Faults{Oversize: "SELECT SYS_CONTEXT"}})
	_, err := connector{}.Probe(t.Context(), target(huge))
	wantClass(t, "a packet of 2 GB", err, sdk.ClassProtocol)
	s := oracle.Start(t, oracle.Options{Faults: oracle.Faults{Garbage: "SELECT SYS_CONTEXT"}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // the driver may wait for the rest
	defer cancel()
	_, err = connector{}.Probe(ctx, target(s))
	if c := sdk.ClassOf(err); c != sdk.ClassProtocol && c != sdk.ClassUnreachable {
		t.Errorf("class %q: %v", c, err)
	}
}

func TestAccountThatCannotGetItsRightsIsRemovedAgain(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	tgt := target(s)
	before := s.DB.Snapshot()
	in := intent(sdk.Provision)
	in.Role = role(t, "oracle-dba") // more than the management account has
	_, err := apply(t.Context(), tgt, in, first)
	wantClass(t, "provision", err, sdk.ClassNotPermitted)
	if s.DB.Snapshot() != before {
		t.Errorf("left behind: %s", s.DB.Snapshot())
	}
	// An account from an earlier call stays.
	in.Role = sdk.Role{}
	must(t, tgt, in, first)
	in.Role = role(t, "oracle-dba")
	_, err = apply(t.Context(), tgt, in, first)
	wantClass(t, "provision of an existing account", err, sdk.ClassNotPermitted)
	wantLogin(t, s, "ALICE", first, true)
	// One that cannot be removed either is told of.
	in.Account, in.AccountID = "BOB", "acct_2"
	s.SetFaults(oracle.Faults{Fail: map[string]int{`DROP USER "BOB"`: 1031}})
	_, err = apply(t.Context(), tgt, in, first)
	wantClass(t, "provision that cannot be undone", err, sdk.ClassUnknownOutcome)
}

func TestRulesOfTheProfileAreKept(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	tgt := target(s)
	s.DB.SetProfile("DEFAULT", oracle.Profile{
		Rejects: func(p string) bool { return strings.Contains(p, "weak") }, NoReuse: true, Rollover: true,
	})
	before := s.DB.Snapshot()
	_, err := apply(t.Context(), tgt, intent(sdk.Provision), canary+"-weak")
	wantClass(t, "a weak password", err, sdk.ClassPolicyRejected)
	_, err = apply(t.Context(), tgt, intent(sdk.Provision), canary+"-éééééééééé") // 22 letters, 32 bytes
	wantClass(t, "a password of too many bytes", err, sdk.ClassPolicyRejected)
	if s.DB.Snapshot() != before {
		t.Errorf("left behind: %s", s.DB.Snapshot())
	}
	must(t, tgt, intent(sdk.Provision), first)
	must(t, tgt, intent(sdk.Rotate), second)
	if r := must(t, tgt, intent(sdk.Rotate), second); r.Changed { // the server says ORA-28007, the login says it is so already
		t.Error("setting the same password again changed something")
	}
	if s.DB.Status("ALICE") != "OPEN" {
		t.Errorf("the old password is still good: %s", s.DB.Status("ALICE"))
	}
	_, err = apply(t.Context(), tgt, intent(sdk.Rotate), first)
	wantClass(t, "a former password", err, sdk.ClassPolicyRejected)
	wantLogin(t, s, "ALICE", second, true)
	must(t, tgt, intent(sdk.Disable), "")
	_, err = apply(t.Context(), tgt, intent(sdk.Rotate), first)
	wantClass(t, "a former password of a locked account", err, sdk.ClassPolicyRejected)
}

func TestTwoAgentsAtOneAccountTakeTurns_C88(t *testing.T) {
	t.Parallel()
	s := withGrants(t, oracle.Options{})
	errs := make([]error, 4)
	var changed [4]bool
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			var r sdk.Result
			r, errs[i] = apply(t.Context(), target(s), monitor(t), first)
			changed[i] = r.Changed
		})
	}
	wg.Wait()
	n := 0
	for i := range errs {
		if errs[i] != nil {
			t.Error(errs[i])
		}
		if changed[i] {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d of them say that they changed something, want 1", n)
	}
}

func TestDropIsTriedAgainWhileSessionsGo_C17(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	must(t, target(s), intent(sdk.Provision), first)
	s.SetFaults(oracle.Faults{Fail: map[string]int{"DROP USER": 1940}})
	tries := func() (n int) {
		for _, statement := range s.DB.Log() {
			if strings.HasPrefix(statement, "DROP USER") {
				n++
			}
		}
		return n
	}
	done := make(chan error, 1)
	go func() {
		_, err := apply(t.Context(), target(s), intent(sdk.Deprovision), "")
		done <- err
	}()
	for tries() < 2 {
		time.Sleep(time.Millisecond)
	}
	s.SetFaults(oracle.Faults{})
	if err := <-done; err != nil || s.DB.Exists("ALICE") {
		t.Errorf("deprovision: %v", err)
	}
}

func TestSessionThatDoesNotEndIsReported(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	must(t, target(s), intent(sdk.Provision), first)
	db, err := open(s, "ALICE", first)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	s.SetFaults(oracle.Faults{KillDoesNothing: true})
	r := must(t, target(s), intent(sdk.Disable), "")
	if len(r.Residue) != 1 || !strings.Contains(r.Residue[0], "1 sessions of ALICE") {
		t.Errorf("residue %q", r.Residue)
	}
}

func TestAnswersOfTheServerHaveTheirClasses(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	must(t, target(s), intent(sdk.Provision), first)
	for code, want := range map[int]sdk.Class{
		1031: sdk.ClassNotPermitted, 28003: sdk.ClassPolicyRejected, 28218: sdk.ClassPolicyRejected, 54: sdk.ClassBusy,
		16000: sdk.ClassNotPermitted, 1918: sdk.ClassNotFound, 4711: sdk.ClassProtocol, 922: sdk.ClassInvalid,
		28: sdk.ClassUnknownOutcome, 1013: sdk.ClassUnknownOutcome, 3113: sdk.ClassUnknownOutcome,
	} {
		s.SetFaults(oracle.Faults{Fail: map[string]int{"ALTER USER": code}})
		_, err := apply(t.Context(), target(s), intent(sdk.Rotate), second)
		wantClass(t, fmt.Sprintf("ORA-%05d", code), err, want)
		if e, ok := err.(*sdk.Error); !ok || strings.Contains(e.Message+e.Fix, "as the test wants") { //nolint:errorlint // it is not wrapped
			t.Errorf("ORA-%05d: the server's own words are in %v", code, err)
		}
	}
	for code, want := range map[int]sdk.Class{
		1017: sdk.ClassAuthFailed, 28000: sdk.ClassAuthFailed, 28001: sdk.ClassMustChange, 1045: sdk.ClassNotPermitted,
		1033: sdk.ClassUnreachable, 2391: sdk.ClassBusy, 28009: sdk.ClassNotPermitted,
	} {
		s.SetFaults(oracle.Faults{FailLogin: map[string]int{oracle.Management: code}})
		_, err := apply(t.Context(), target(s), intent(sdk.Rotate), second)
		wantClass(t, fmt.Sprintf("login, ORA-%05d", code), err, want)
		if e, ok := err.(*sdk.Error); !ok || e.Fix == "" { //nolint:errorlint // it is not wrapped
			t.Errorf("login, ORA-%05d: no fix: %v", code, err)
		}
	}
	s.SetFaults(oracle.Faults{})
	wantLogin(t, s, "ALICE", first, true)
}
