package main

import (
	"context"
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
		do, undo func(*testlab.Database) error
	}{
		"hang": {(*testlab.Database).Hang, (*testlab.Database).Resume},
		"crash": {
			func(d *testlab.Database) error { d.Crash(); return nil },
			(*testlab.Database).Restart,
		},
	} {
		for _, at := range []string{"create", "grant-1", "unlock"} {
			t.Run(name+" at "+at, func(t *testing.T) {
				t.Parallel()
				d := testlab.MariaDB(t, testlab.MariaDBOptions{})
				tgt := target(d)
				in := intent(sdk.Provision)
				in.Role, in.Params = role(t, "mysql-db-rw"), map[string]string{"Database": "app"}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				_, err := applyWith(ctx, tgt, in, first, func(e sdk.Event) {
					if e.Step == at && e.State == sdk.StepStarted {
						if err := fault.do(d); err != nil {
							t.Error(err)
						}
						time.AfterFunc(300*time.Millisecond, cancel)
					}
				})
				wantClass(t, "provision", err, sdk.ClassUnknownOutcome)
				if err := fault.undo(d); err != nil {
					t.Fatal(err)
				}
				r := must(t, tgt, in, first)
				if r.Facts.Locked || len(r.Facts.Grants) != 2 {
					t.Errorf("after the second try: %+v", r.Facts)
				}
				wantLogin(t, d, "alice", first, nil)
			})
		}
	}
}

func TestHungServerIsUnreachableWithinTheDeadline(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	tgt := target(d)
	if err := d.Hang(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := connector{}.Probe(ctx, tgt)
	wantClass(t, "probe", err, sdk.ClassUnreachable)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestReadOnlyServerIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	tgt := target(d)
	in := intent(sdk.Provision)
	in.Identity = must(t, tgt, in, first).Facts.Identity
	if err := d.ReadOnly(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := snapshot(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	for _, action := range []sdk.Action{sdk.Rotate, sdk.Disable, sdk.Deprovision} {
		in.Action = action
		_, err := apply(t.Context(), tgt, in, second)
		wantClass(t, string(action), err, sdk.ClassNotPermitted)
		if err != nil && !strings.Contains(err.Error(), "read-only") {
			t.Errorf("%s: %v", action, err)
		}
	}
	if after, err := snapshot(t.Context(), d); err != nil || after != before {
		t.Errorf("changed, or: %v", err)
	}
	wantLogin(t, d, "alice", first, nil)
}

func TestAccountThatCannotGetItsRightsIsRemovedAgain(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	tgt := target(d)
	in := intent(sdk.Provision)
	in.Role = role(t, "mysql-dba") // more than the management account has
	_, err := apply(t.Context(), tgt, in, first)
	wantClass(t, "provision", err, sdk.ClassNotPermitted)
	if _, there, err := d.GlobalPriv(t.Context(), "alice", "%"); there || err != nil {
		t.Errorf("the account is there: %t, %v", there, err)
	}
	// An account from an earlier call stays.
	in.Role = sdk.Role{}
	must(t, tgt, in, first)
	in.Role = role(t, "mysql-dba")
	_, err = apply(t.Context(), tgt, in, first)
	wantClass(t, "provision of an existing account", err, sdk.ClassNotPermitted)
	wantLogin(t, d, "alice", first, nil)
}

func TestServerThatJudgesPasswordsIsExplained(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{Config: []string{"--plugin-load-add=simple_password_check"}})
	_, err := apply(t.Context(), target(d), intent(sdk.Provision), first)
	wantClass(t, "provision", err, sdk.ClassPolicyRejected)
	asRoot(t, d, "SET GLOBAL strict_password_validation = OFF")
	must(t, target(d), intent(sdk.Provision), first)
	wantLogin(t, d, "alice", first, nil)
	asRoot(t, d, "SET GLOBAL strict_password_validation = ON") // ALTER USER hides why it failed
	_, err = apply(t.Context(), target(d), intent(sdk.Rotate), second)
	wantClass(t, "rotate", err, sdk.ClassPolicyRejected)
	wantLogin(t, d, "alice", first, nil)
}

func TestObjectsOfARemovedAccountAreReported(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	must(t, target(d), intent(sdk.Provision), first)
	asRoot(t, d, "CREATE DEFINER = 'alice'@'%' VIEW app.v AS SELECT 1", "CREATE DEFINER = 'Alice'@'%' VIEW app.w AS SELECT 1",
		"CREATE DEFINER = 'alice'@'%' PROCEDURE app.p() SELECT 1")
	r := must(t, target(d), intent(sdk.Deprovision), "")
	want := []string{"1 routines still name alice@% as DEFINER", "1 views still name alice@% as DEFINER"}
	if !slices.Equal(r.Residue, want) {
		t.Errorf("residue %q, want %q", r.Residue, want)
	}
}

func TestTwoAgentsAtOneAccountTakeTurns_C88(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	tgt := target(d)
	in := intent(sdk.Provision)
	in.Role, in.Params = role(t, "mysql-db-rw"), map[string]string{"Database": "app"}
	errs := make([]error, 4)
	var changed [4]bool
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			var r sdk.Result
			r, errs[i] = apply(t.Context(), tgt, in, first)
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

func TestSessionsOfANameInOtherCaseGoOn(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	must(t, target(d), intent(sdk.Provision), first)
	asRoot(t, d, "CREATE USER 'Alice'@'%' IDENTIFIED BY 'theirs'")
	db, err := d.As("Alice", "theirs")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	var before, after int64
	if err := db.QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&before); err != nil {
		t.Fatal(err)
	}
	must(t, target(d), intent(sdk.Disable), "")
	if err := db.QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&after); err != nil || before != after {
		t.Errorf("connection %d, then %d, %v", before, after, err)
	}
}
