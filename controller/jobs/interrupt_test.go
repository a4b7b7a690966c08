package jobs

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// After the state was replaced by an older one no open job is given out again, a change
// that may still be under way keeps its account, and its agent's report counts for nothing.
func TestInterruptedJobsDoNotRunAgain_C16(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(2)
		working := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true, Handler: "test"})
		reading := r.enqueue(Spec{SiteID: "site_1", Handler: "test"})
		taken := a.took()
		if len(taken) != 2 {
			t.Fatalf("took %d", len(taken))
		}
		waiting := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_2", Mutates: true, Handler: "test"})
		asking := r.enqueue(Spec{SiteID: "site_1", Handler: "test"})
		r.stop() // as a restore holds the leader's loops
		busy := false
		err := r.store.Update(t.Context(), func(tx *store.Tx) (err error) {
			if busy, err = AnyAtWork(tx); err != nil {
				return err
			}
			more, err := Interrupt(tx, me, "a snapshot was restored", Terms{})
			if more {
				t.Error("there are more")
			}
			return err
		})
		if err != nil || !busy {
			t.Fatalf("at work %v, %v", busy, err)
		}
		r.lead()
		synctest.Wait()
		b := r.agent("site_1").attach(32)
		next := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true})
		if got := b.took(); len(got) != 0 {
			t.Errorf("given out again, or beside a change that may be under way: %v", got)
		}
		for _, j := range taken {
			// The change is in quarantine, and its report ends that.
			if stale := a.report(j, reeve.Done, ""); stale != (j.GetId() == string(reading.ID)) {
				t.Errorf("the report on %s is stale: %v", j.GetId(), stale)
			}
		}
		for id, want := range map[reeve.JobID]State{working.ID: StateDone, waiting.ID: StateUncertain, asking.ID: StateCancelled, reading.ID: StateCancelled} {
			if got := r.job(id); got.State != want {
				t.Errorf("%s is %s, want %s", id, got.State, want)
			}
		}
		if got := b.took(); len(got) != 1 || got[0].GetId() != string(next.ID) {
			t.Errorf("afterwards: %v", got)
		}
	})
}

// Without a report the account is free again when nothing can happen to it any more.
func TestAnInterruptedChangeEndsAsUncertain_C16(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(1)
		j := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true, Handler: "test"})
		a.takeOne()
		r.stop()
		if err := r.store.Update(t.Context(), func(tx *store.Tx) error {
			_, err := Interrupt(tx, me, "a snapshot was restored", Terms{})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		r.lead()
		time.Sleep(Settling(Terms{}))
		if got := r.job(j.ID); got.State != StateUncertain || len(r.handled) != 1 || r.handled[0] != "uncertain unknown" {
			t.Errorf("%s, the handler was told %v", got.State, r.handled)
		}
	})
}
