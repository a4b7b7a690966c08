package lifecycle

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// An account that refuses its right password says why and what to do. Its password is
// left alone, and works again when the target lets it.
func TestAnAccountThatRefusesItsPasswordSaysWhy(t *testing.T) {
	for verdict, class := range map[string]reeve.Class{"locked": reeve.ClassLocked, "expired": reeve.ClassExpired,
		"disabled": reeve.ClassDisabled, "must_change": reeve.ClassMustChange} {
		t.Run(verdict, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				_, m := r.asset("web1")
				a := r.provision(request("web1"))
				before := m.password(a.Name)
				m.accounts[a.Name].refuses = verdict
				a = r.act(a.ID, r.Verify)
				r.want(a, Active, Uncertain)
				if e := a.LastError; e == nil || e.Class != class || e.Message == "" || e.Fix == "" {
					t.Errorf("it says %+v", e)
				}
				if m.password(a.Name) != before || len(a.Tried) != 0 {
					t.Error("the password was given up")
				}
				m.accounts[a.Name].refuses = ""
				r.pass(2 * probeAtMost) // by itself
				r.want(r.account(a.ID), Active, InSync)
			})
		})
	}
}

func TestAPasswordThatMustBeChangedIsRotated(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		a := r.provision(request("web1"))
		m.accounts[a.Name].refuses = "must_change"
		a = r.act(a.ID, r.Verify)
		if want := "reeve account rotate " + a.Name + "@web1"; a.LastError == nil || !strings.Contains(a.LastError.Fix, want) {
			t.Errorf("it says %+v, want %q", a.LastError, want)
		}
		a = r.act(a.ID, r.Rotate)
		r.want(a, Active, InSync)
		r.opens(a, m, "after the rotation")
	})
}

// A management account that the target shuts out stops work on its asset, whatever the reason.
func TestAManagementAccountThatIsShutOutStopsItsAsset(t *testing.T) {
	t.Parallel()
	for _, c := range []reeve.Class{reeve.ClassAuthFailed, reeve.ClassLocked, reeve.ClassExpired, reeve.ClassDisabled, reeve.ClassMustChange} {
		if !stopsAsset(opRotate, reeve.NotDone, c, sight{}) {
			t.Errorf("%s stops nothing", c)
		}
		if stopsAsset(opVerify, reeve.NotDone, c, sight{}) || stopsAsset(opRotate, reeve.NotDone, c, sight{vague: "expired"}) {
			t.Errorf("%s of the account itself stops its asset", c)
		}
	}
}

// A login as the account itself gets the management account only where it can be of use.
func TestVerifyGetsTheManagementAccountOnlyToExplain(t *testing.T) {
	for name, c := range map[string]struct {
		protocol uint32
		shutOut  bool
		want     bool
	}{
		"protocol 2": {2, false, true}, "protocol 1": {1, false, false}, "an account that is not verified": {2, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				asset, _ := r.asset("web1")
				a := r.provision(request("web1"))
				r.do(func(tx *store.Tx) error {
					d := proto.CloneOf(describe("ssh"))
					d.Protocol = c.protocol
					if _, err := inventory.RegisterConnector(tx, alice, d, strings.Repeat("b", 64)); err != nil || !c.shutOut {
						return err
					}
					return inventory.RecordAlarm(tx, alice, asset.ID, &inventory.Failure{Class: reeve.ClassExpired, Message: "expired"}, "")
				})
				a = r.act(a.ID, r.Verify)
				r.want(a, Active, InSync)
				r.do(func(tx *store.Tx) error {
					j, err := jobs.Get(tx, a.Job)
					if err != nil {
						return err
					}
					if got := slices.ContainsFunc(j.Secrets, func(s jobs.SecretRef) bool { return s.Slot == slotManagement }); got != c.want {
						t.Errorf("the job has the management account: %t", got)
					}
					return nil
				})
			})
		})
	}
}

// A reason that a newer agent knows and this controller does not decides nothing.
func TestAVerdictOfALaterVersionDecidesNothing(t *testing.T) {
	t.Parallel()
	s := see(&agentv1.Observation{Logins: []*agentv1.LoginAttempt{{Slot: slotCurrent, Version: 1, Verdict: "on_holiday"}}})
	if what, sync := heal(s, 0, true); what != askLater || sync != Uncertain {
		t.Errorf("%s, %s", what, sync)
	}
}
