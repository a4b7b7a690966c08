package lifecycle

import (
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// A dead job that its account has moved on from must not come back to life: it would
// make again, on the target, what was removed meanwhile.
func TestAJobTheAccountHasMovedOnFromIsNotRetried(t *testing.T) {
	bubble(t, func(_ *testing.T, r *rig) {
		_, m := r.asset("web1")
		a := r.provision(request("web1"))
		m.down = true
		stuck := r.act(a.ID, r.Disable)
		r.pass(2 * time.Hour) // five deliveries, then the dead letter
		m.down = false
		r.want(r.act(a.ID, r.Verify), Active, InSync)
		r.wantCode("job_superseded", func(tx *store.Tx) error { _, err := r.RetryJob(tx, alice, stuck.Job); return err })
		r.want(r.act(a.ID, r.Deprovision), Removed, Unproven)
		r.wantCode("job_superseded", func(tx *store.Tx) error { _, err := r.RetryJob(tx, alice, stuck.Job); return err })
	})
}

func TestADeadJobIsRetriedWhileItsAccountWaitsForIt(t *testing.T) {
	bubble(t, func(_ *testing.T, r *rig) {
		_, m := r.asset("web1")
		m.down = true
		a := r.provision(request("web1"))
		r.pass(2 * time.Hour)
		m.down = false
		r.do(func(tx *store.Tx) error { _, err := r.RetryJob(tx, alice, r.job(tx, a.ID)); return err })
		r.pass(time.Second)
		r.want(r.account(a.ID), Active, InSync)
	})
}

func (r *rig) job(tx *store.Tx, id reeve.AccountID) reeve.JobID {
	a, err := accounts.Get(tx, string(id))
	if err != nil {
		r.t.Fatal(err)
	}
	return a.Job
}

// An expiry that the target refuses is tried again with pauses, not as fast as jobs go.
func TestAnExpiryThatFailsIsTriedAgainWithPauses(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		in := request("web1")
		in.ExpiresAt = time.Now().Add(time.Hour)
		a := r.provision(in)
		m.accounts[a.Name].owner = "acct_somebody_else" // every change is refused
		r.pass(2 * time.Hour)
		tries := 0
		r.do(func(tx *store.Tx) error {
			all, _, err := jobs.List(tx, jobs.Filter{Account: a.ID}, "", 1000)
			for _, j := range all {
				if j.Operation == opDisable {
					tries++
				}
			}
			return err
		})
		if tries < 2 || tries > int(time.Hour/retryDue)+1 {
			t.Errorf("%d tries to disable in an hour, want one each %s", tries, retryDue)
		}
		m.accounts[a.Name].owner = string(a.ID)
		r.pass(2 * retryDue)
		r.want(r.account(a.ID), Disabled, InSync)
	})
}

// An account Reeve manages must not become what Reeve works with: rotating or removing
// it would lock Reeve out (C8).
func TestAManagedAccountIsNoManagementAccount_C8(t *testing.T) {
	bubble(t, func(_ *testing.T, r *rig) {
		asset, _ := r.asset("web1")
		a := r.provision(request("web1"))
		mine := Management{Username: a.Name, Password: reeve.SecretString("some-password")}
		r.wantCode("name_is_managed", func(tx *store.Tx) error { _, _, err := r.SetManagement(tx, alice, asset.ID, mine); return err })
		r.act(a.ID, r.Deprovision)
		r.do(func(tx *store.Tx) error { _, _, err := r.SetManagement(tx, alice, asset.ID, mine); return err })
	})
}
