package lifecycle

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// afterCrash is longer than a lease, the quarantine after it, and every backoff that
// follows: whatever recovers by itself has.
const afterCrash = 20 * time.Minute

// The agent dies at every step of a rotation; a change that was on its way happens at
// once, late (after the quarantine), or never. Nothing else helps.
func TestRotationSurvivesACrashAtEveryStep_R1_R2_R3_R4(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ row, point, fate string }{
		{"C4", "taken", ""}, {"C5", "before-apply", ""}, {"C6 now", "sent", "now"}, {"C6 late", "sent", "late"},
		{"C6 never", "sent", "never"}, {"C7", "applied", ""}, {"C8", "verified", ""},
	} {
		t.Run(c.row, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				_, m := r.asset("web1")
				a := r.provision(request("web1"))
				old := m.password(a.Name)
				r.agent.crash, r.agent.fate = c.point, c.fate
				a = r.act(a.ID, r.Rotate)
				r.opens(a, m, "right after the crash")
				if a.Rotation == nil {
					t.Fatalf("the rotation ended although nobody reported: %+v", a)
				}
				candidate := a.Rotation.Candidate
				r.pass(jobs.LeaseTerm + time.Second)
				if a = r.account(a.ID); a.Sync != Uncertain {
					t.Errorf("after the lease was lost the account is %s, want uncertain", a.Sync)
				}
				r.pass(afterCrash)
				m.settle()
				a = r.account(a.ID)
				r.opens(a, m, "after recovery")
				a = r.act(a.ID, r.Verify)
				r.want(a, Active, InSync)
				r.settled(a, m)
				all, info := r.kept(a)
				if m.password(a.Name) == old || info.Current != candidate || len(all) != 2 {
					t.Errorf("current is %d of %d versions; the one candidate was %d", info.Current, len(all), candidate)
				}
				if r.agent.logins > loginBudget {
					t.Errorf("R5: %d failed logins in one job", r.agent.logins)
				}
			})
		})
	}
}

func TestALateReportIsTakenOnceOrRefused_C9_C17_R7(t *testing.T) {
	for _, c := range []struct {
		name  string
		wait  time.Duration
		stale bool
	}{
		{"while leased", time.Second, false},
		{"in quarantine", jobs.LeaseTerm + 5*time.Second, false},
		{"after the job went on", afterCrash, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				_, m := r.asset("web1")
				a := r.provision(request("web1"))
				r.agent.mute = true
				a = r.act(a.ID, r.Rotate)
				r.pass(c.wait)
				for range 3 {
					stale, err := r.agent.kept[0]()
					if err != nil || stale != c.stale {
						t.Errorf("stale %v, %v; want stale %v", stale, err, c.stale)
					}
				}
				synctest.Wait()
				a = r.account(a.ID)
				r.want(a, Active, InSync)
				r.settled(a, m)
				if all, info := r.kept(a); len(all) != 2 || info.Current != 2 {
					t.Errorf("current version %d of %d, want 2 of 2", info.Current, len(all))
				}
			})
		})
	}
}

func TestSuccessWithoutALoginIsNotBelieved_R4(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		a := r.provision(request("web1"))
		_, before := r.kept(a)
		r.agent.lie = true
		a = r.act(a.ID, r.Rotate)
		// The engine did not promote; it asked for a login, and that one did prove it.
		r.want(a, Active, InSync)
		r.settled(a, m)
		_, after := r.kept(a)
		if after.Current == before.Current {
			t.Error("the login that followed was not taken as proof")
		}
		r.wantActions(string(a.ID), "account.provision requested", "account.provision ok",
			"account.rotate requested", "account.rotate failed", "account.verify ok")
	})
}

// Each delivery finds a password that somebody else has set, sets the candidate, and has
// spent its budget of logins by then. After the last one the candidate is what to log in
// with, though it was refused just before it was set.
func TestAPasswordThatMayHaveBeenSetIsTriedAgain_R5(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		a := r.provision(request("web1"))
		r.agent.seen = nil
		m.set(a.Name, "somebody's")
		a = r.act(a.ID, r.Rotate)
		for minutes := 0; len(r.agent.seen) < jobs.MaxDeliveries; minutes++ {
			if minutes > 120 {
				t.Fatalf("operations: %v", r.agent.seen)
			}
			m.set(a.Name, "somebody's")
			r.pass(time.Minute)
		}
		r.pass(afterCrash)
		a = r.account(a.ID)
		r.want(a, Active, InSync)
		r.settled(a, m)
		if diff := cmp.Diff([]string{"rotate", "rotate", "rotate", "rotate", "rotate", "verify"}, r.agent.seen); diff != "" {
			t.Errorf("operations (-want +got):\n%s", diff)
		}
		if _, info := r.kept(a); info.Current != 2 {
			t.Errorf("version %d is current, want 2", info.Current)
		}
	})
}

func TestProvisioningSurvivesACrashAtEveryStep_R1_R2(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ point, fate string }{
		{"taken", ""}, {"before-apply", ""}, {"sent", "now"}, {"sent", "late"}, {"sent", "never"}, {"applied", ""}, {"verified", ""},
	} {
		t.Run(c.point+" "+c.fate, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				_, m := r.asset("web1")
				r.agent.crash, r.agent.fate = c.point, c.fate
				a := r.provision(request("web1"))
				r.pass(afterCrash)
				m.settle()
				a = r.account(a.ID)
				if a.State == Provisioning { // the crash hit the plan job
					t.Fatalf("still provisioning: %+v", a.LastError)
				}
				r.want(a, Active, InSync)
				r.opens(a, m, "after recovery")
				r.settled(a, m)
				if a.Identity == "" {
					t.Error("nobody noted who the account is on the target")
				}
			})
		})
	}
}

func TestARefusedPasswordIsReplacedOnlyAfterTheOldOneWasSeen_C12(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		a := r.provision(request("web1"))
		m.refuse = 2
		r.agent.seen = nil
		a = r.act(a.ID, r.Rotate)
		r.want(a, Active, InSync)
		r.settled(a, m)
		want := "[rotate verify rotate verify rotate]"
		if got := fmt.Sprint(r.agent.seen); got != want {
			t.Errorf("operations %s, want %s", got, want)
		}
		all, info := r.kept(a)
		if len(all) != 4 || info.Current != 4 || info.Candidate != 0 {
			t.Errorf("%d versions, current %d, candidate %d; refused ones are kept", len(all), info.Current, info.Candidate)
		}
	})
}

func TestThreeRefusedPasswordsStopTheRotation_C3(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		a := r.provision(request("web1"))
		m.refuse = 99
		r.agent.seen = nil
		a = r.act(a.ID, r.Rotate)
		r.pass(afterCrash)
		a = r.account(a.ID)
		r.want(a, Active, InSync) // with the old password
		r.settled(a, m)
		if a.LastError == nil || a.LastError.Class != reeve.ClassPolicyRejected || a.LastError.Message != "BAD PASSWORD: it is based on a dictionary word" {
			t.Errorf("last error %+v, want the target's own words", a.LastError)
		}
		if got := fmt.Sprint(r.agent.seen); got != "[rotate verify rotate verify rotate verify]" {
			t.Errorf("operations %s", got)
		}
		m.refuse = 0
		r.want(r.act(a.ID, r.Rotate), Active, InSync)
	})
}

func TestAfterARefusalAnOldPasswordThatFailsIsHealed_C12_C13(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		a := r.provision(request("web1"))
		m.set(a.Name, "changed by hand")
		m.refuse = 1
		a = r.act(a.ID, r.Rotate)
		// Neither worked, so the candidate must not have been given up.
		_, info := r.kept(a)
		if all, _ := r.kept(a); len(all) != 2 {
			t.Errorf("%d versions (candidate %d): a candidate was made although the old password does not work", len(all), info.Candidate)
		}
		r.want(a, Active, InSync) // the management account set the same candidate
		r.settled(a, m)
	})
}

func TestHealingFindsAnOlderPassword_C13(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		a := r.provision(request("web1"))
		first := m.password(a.Name)
		for range 3 {
			a = r.act(a.ID, r.Rotate)
		}
		m.set(a.Name, first) // somebody restored a backup of the target
		a = r.act(a.ID, r.Verify)
		r.want(a, Active, OutOfSync)
		if got := m.bad[a.Name]; got != loginBudget {
			t.Errorf("R5: %d failed logins, budget %d", got, loginBudget)
		}
		r.pass(loginWindow - 2*time.Second)
		if got := m.bad[a.Name]; got != loginBudget {
			t.Errorf("R5: %d failed logins within the window", got)
		}
		r.pass(5 * time.Second)
		a = r.account(a.ID)
		r.want(a, Active, InSync)
		r.settled(a, m)
		if all, info := r.kept(a); info.Current != 1 || len(all) != 4 {
			t.Errorf("current version %d of %d, want the first of 4", info.Current, len(all))
		}
		r.want(r.act(a.ID, r.Rotate), Active, InSync)
	})
}

func TestHealingReconcilesThroughTheManagementAccount_C13(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		a := r.provision(request("web1"))
		m.set(a.Name, "changed by hand")
		a = r.act(a.ID, r.Verify)
		r.want(a, Active, InSync)
		r.settled(a, m)
		if m.password(a.Name) == "changed by hand" {
			t.Error("the password was not set")
		}
	})
}

func TestWithoutTheRightToChangeThePasswordTheAccountIsStranded_A3_6(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		in := request("web1")
		in.RotationEnabled = false
		a := r.provision(in)
		r.wantCode("rotation_disabled", func(tx *store.Tx) error { _, err := r.Rotate(tx, alice, a.ID); return err })
		m.set(a.Name, "changed by hand")
		a = r.act(a.ID, r.Verify)
		r.want(a, Active, Stranded)
		if m.password(a.Name) != "changed by hand" || a.LastError == nil || a.LastError.Fix == "" {
			t.Errorf("Reeve changed a password it must not, or does not say what to do: %+v", a.LastError)
		}
		a = r.act(a.ID, r.Reconcile) // a person decides
		r.want(a, Active, InSync)
		r.wantCode("account_in_sync", func(tx *store.Tx) error { _, err := r.Reconcile(tx, alice, a.ID); return err })
	})
}

func TestAManagementAccountThatIsShutOutStrandsTheAccount_C13(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		asset, m := r.asset("web1")
		a := r.provision(request("web1"))
		m.set(a.Name, "changed by hand")
		m.root = "changed as well"
		a = r.act(a.ID, r.Verify)
		if a.Sync != OutOfSync && a.Sync != Stranded {
			t.Errorf("sync %s", a.Sync)
		}
		r.wantCode("management_unverified", func(tx *store.Tx) error { _, err := r.Rotate(tx, alice, a.ID); return err })
		a = r.act(a.ID, r.Verify)
		r.want(a, Active, Stranded)
		r.opensNothing(a, m)
		_ = asset
	})
}

// opensNothing makes sure that a test really took away every kept password.
func (r *rig) opensNothing(a *Account, m *machine) {
	r.t.Helper()
	all, _ := r.kept(a)
	for v, s := range all {
		if s == m.password(a.Name) {
			r.t.Errorf("version %d still works: the test proves nothing", v)
		}
	}
}

func TestAnUnreachableTargetDecidesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		a := r.provision(request("web1"))
		m.down = true
		a = r.act(a.ID, r.Rotate)
		r.pass(time.Hour)
		a = r.account(a.ID)
		if a.Sync != Unreachable && a.Sync != InSync || a.LastError == nil {
			t.Errorf("sync %s, %+v", a.Sync, a.LastError)
		}
		all, info := r.kept(a)
		if len(all) != 2 || info.Candidate != 2 {
			t.Errorf("%d versions, candidate %d: the candidate must be kept, and no other made", len(all), info.Candidate)
		}
		m.down = false
		r.pass(2 * probeAtMost) // by itself
		r.want(r.account(a.ID), Active, InSync)
		a = r.act(a.ID, r.Rotate) // goes on with the same candidate
		r.want(a, Active, InSync)
		if all, info := r.kept(a); len(all) != 2 || info.Current != 2 {
			t.Errorf("current version %d of %d, want 2 of 2", info.Current, len(all))
		}
	})
}

func TestRotateWithALostCommitNeverMakesASecondCandidate_C2(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.asset("web1")
		a := r.provision(request("web1"))
		r.agent.crash = "taken"
		a = r.act(a.ID, r.Rotate)
		for range 3 { // the caller does not know whether it worked, and asks again
			err := r.try(func(tx *store.Tx) error { _, err := r.Rotate(tx, alice, a.ID); return err })
			if reeve.CodeOf(err) != "account_busy" {
				t.Errorf("%v, want account_busy", err)
			}
		}
		if all, info := r.kept(a); len(all) != 2 || info.Candidate != 2 {
			t.Errorf("%d versions, candidate %d", len(all), info.Candidate)
		}
		var v []vault.Version
		if err := r.store.View(context.Background(), func(tx *store.Tx) (err error) {
			v, err = r.Vault.Versions(tx, a.SecretID)
			return err
		}); err != nil || v[1].LeasedAt.IsZero() {
			t.Errorf("%+v %v", v, err)
		}
	})
}
