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

// Until COMMIT is sent nothing has changed, and the error says so; from then on it says
// that nobody knows. Either way the next try succeeds.
func TestFaultInTheMiddleOfAChangeIsToldTruthfully(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct {
		do, undo func(*testlab.PostgresServer) error
	}{
		"hang": {(*testlab.PostgresServer).Hang, (*testlab.PostgresServer).Resume},
		"crash": {
			func(p *testlab.PostgresServer) error { p.Crash(); return nil },
			(*testlab.PostgresServer).Restart,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := testlab.Postgres(t, testlab.PostgresOptions{})
			broken := func(action sdk.Action, at string, allowed ...sdk.Class) sdk.Intent {
				in := readApp(t, action)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				password := map[bool]string{true: first}[action == sdk.Provision]
				_, err := applyWith(ctx, target(p), in, password, func(e sdk.Event) {
					if e.Step == at && e.State == sdk.StepStarted {
						if err := fault.do(p); err != nil {
							t.Error(err)
						}
						time.AfterFunc(300*time.Millisecond, cancel)
					}
				})
				if !slices.Contains(allowed, sdk.ClassOf(err)) {
					t.Errorf("%s at %s: %v, want one of %s", action, at, err, allowed)
				}
				if err := fault.undo(p); err != nil {
					t.Fatal(err)
				}
				return in
			}
			for _, at := range []string{"create", "grant-2", "commit"} {
				allowed := []sdk.Class{sdk.ClassCancelled, sdk.ClassUnreachable}
				if at == "commit" {
					allowed = []sdk.Class{sdk.ClassUnknownOutcome}
				}
				in := broken(sdk.Provision, at, allowed...)
				if at != "commit" {
					wantRole(t, p, "alice", false)
				}
				if r := must(t, target(p), in, first); r.Facts.Locked || len(r.Facts.Grants) != 3 {
					t.Errorf("after the second try: %+v", r.Facts)
				}
				wantLogin(t, p, "alice", first, nil)
				asRoot(t, p, "app: DROP OWNED BY alice", "DROP ROLE alice")
			}
			for _, at := range []string{"terminate", "owned", "drop", "commit-2"} {
				must(t, target(p), readApp(t, sdk.Provision), first)
				in := broken(sdk.Deprovision, at, sdk.ClassUnknownOutcome)
				must(t, target(p), in, "")
				wantRole(t, p, "alice", false)
			}
		})
	}
}

func TestHungServerIsUnreachableWithinTheDeadline(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	if err := p.Hang(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := connector{}.Probe(ctx, target(p))
	wantClass(t, "probe", err, sdk.ClassUnreachable)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestReadOnlyServerIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	tgt := target(p)
	in := readApp(t, sdk.Provision)
	in.Identity = must(t, tgt, in, first).Facts.Identity
	if err := p.ReadOnly(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := snapshot(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	for _, action := range []sdk.Action{sdk.Rotate, sdk.Disable, sdk.Deprovision} {
		in.Action = action
		password := map[bool]string{true: second}[action == sdk.Rotate]
		_, err := apply(t.Context(), tgt, in, password)
		wantClass(t, string(action), err, sdk.ClassNotPermitted)
		if err != nil && !strings.Contains(err.Error(), "read-only") {
			t.Errorf("%s: %v", action, err)
		}
	}
	if after, err := snapshot(t.Context(), p); err != nil || after != before {
		t.Errorf("changed, or: %v", err)
	}
	if f, err := (connector{}).Probe(t.Context(), tgt); err != nil || f.Attributes["read_only"] != "yes" {
		t.Errorf("probe: %+v, %v", f, err)
	}
	wantLogin(t, p, "alice", first, nil)
}

func TestAccountThatCannotGetItsRightsIsNotMade(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{Grants: []string{"ALTER ROLE " + testlab.Management + " CREATEROLE"}})
	tgt := target(p)
	for _, c := range []struct {
		role   string
		params map[string]string
		class  sdk.Class
	}{
		{"pg-superuser", nil, sdk.ClassNotPermitted},
		{"pg-backup", map[string]string{paramDatabase: "app"}, sdk.ClassNotPermitted}, // a mere warning to the server
		{"ours", nil, sdk.ClassInvalid},
	} {
		in := intent(sdk.Provision)
		in.Role = sdk.Role{Name: "ours", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {"GRANT nobody_at_all TO %Username%"}}}
		if in.Params = c.params; c.role != "ours" {
			in.Role = role(t, c.role)
		}
		_, err := apply(t.Context(), tgt, in, first)
		wantClass(t, c.role, err, c.class)
		wantRole(t, p, "alice", false)
	}
	// An account from an earlier call stays as it is.
	in := intent(sdk.Provision)
	must(t, tgt, in, first)
	in.Role = role(t, "pg-superuser")
	_, err := apply(t.Context(), tgt, in, second)
	wantClass(t, "provision of an existing account", err, sdk.ClassNotPermitted)
	wantLogin(t, p, "alice", first, nil)
}

func TestManagementAccountWithoutRightsIsTold(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{Grants: []string{}})
	asRoot(t, p, `CREATE ROLE "we""ak" LOGIN PASSWORD 'weak-1'`)
	for user, password := range map[string]string{testlab.Management: p.ManagementPassword, `we"ak`: "weak-1"} {
		tgt := target(p)
		tgt.Management = sdk.Credential{Username: user, Password: secret(password)}
		f, err := connector{}.Probe(t.Context(), tgt)
		who := `"` + strings.ReplaceAll(user, `"`, `""`) + `"`
		want := []string{"ALTER ROLE " + who + " CREATEROLE", "GRANT pg_signal_backend TO " + who}
		if err != nil || !slices.Equal(f.MissingRights, want) {
			t.Errorf("%s: missing %q (%v), want %q", user, f.MissingRights, err, want)
		}
		asRoot(t, p, f.MissingRights...) // the very statements
		if f, err := (connector{}).Probe(t.Context(), tgt); err != nil || len(f.MissingRights) != 0 {
			t.Errorf("%s: still missing %q (%v)", user, f.MissingRights, err)
		}
		in := intent(sdk.Provision)
		must(t, tgt, in, first)
		in.Action = sdk.Deprovision
		must(t, tgt, in, "")
	}
	asRoot(t, p, "ALTER ROLE "+testlab.Management+" NOCREATEROLE")
	_, err := apply(t.Context(), target(p), intent(sdk.Provision), first)
	wantClass(t, "provision without CREATEROLE", err, sdk.ClassNotPermitted)
	wantRole(t, p, "alice", false)
}

func TestTwoAgentsAtOneAccountTakeTurns_C88(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	in := readApp(t, sdk.Provision)
	errs := make([]error, 4)
	var changed [4]bool
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			var r sdk.Result
			r, errs[i] = apply(t.Context(), target(p), in, first)
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

// Others who grant at the same moment make the server refuse one of the two; that is said
// as something to try again, and the account is not there.
func TestGrantsOfOthersAtTheSameMomentAreBusy(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	tx, err := p.App().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), "GRANT SELECT ON item TO pg_monitor"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		await(t, p, "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'reeve' AND wait_event_type = 'Lock'")
		_ = tx.Commit()
	})
	_, err = apply(t.Context(), target(p), readApp(t, sdk.Provision), first)
	wg.Wait()
	wantClass(t, "provision", err, sdk.ClassBusy)
	wantRole(t, p, "alice", false)
	must(t, target(p), readApp(t, sdk.Provision), first)
}
