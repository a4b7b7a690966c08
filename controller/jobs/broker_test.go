package jobs

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// bubble runs a test in fake time.
func bubble(t *testing.T, fn func(t *testing.T, r *rig)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		synctest.Wait() // it leads
		fn(t, r)
	})
}

func TestJobIsLeasedWorkedAndDone(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(4)
		j := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true, Work: &agentv1.Work{Operation: "rotate", PlanHash: "h"}})
		got := a.takeOne()
		if got.GetWork().GetPlanHash() != "h" || got.GetAttempt() != 1 || got.GetFence() == 0 || got.GetConnectorSha256()[0] != "d1" ||
			got.GetLease().AsDuration() != LeaseTerm || got.GetTimeout().AsDuration() != 2*time.Minute || got.GetLogLimit() != LogLimit {
			t.Fatalf("delivered %v", got)
		}
		if l := r.expect(j.ID, StateLeased).Lease; l.Agent != a.id || l.Fence != got.GetFence() {
			t.Fatalf("lease %+v", l)
		}
		if stale := a.report(got, reeve.Done, ""); stale {
			t.Fatal("report was stale")
		}
		r.expect(j.ID, StateDone)
		if diff := cmp.Diff([]string{"done done"}, r.handled); diff != "" {
			t.Fatalf("handler calls (-want +got):\n%s", diff)
		}
	})
}

func TestAgentWithoutTheConnectorGetsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(4)
		r.enqueue(Spec{SiteID: "site_1", Connector: "mysql"})
		if got := a.took(); len(got) != 0 {
			t.Fatalf("took %v", got)
		}
	})
}

func TestCreditsAndLimitsBoundWhatIsHandedOut(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		for range 2 * PerAsset {
			r.enqueue(Spec{SiteID: "site_1", AssetID: "asset_1"})
			r.enqueue(Spec{SiteID: "site_1"})
		}
		a := r.agent("site_1").attach(6)
		first := a.took()
		if len(first) != 6 {
			t.Fatalf("took %d jobs with 6 credits", len(first))
		}
		for _, j := range first {
			a.report(j, reeve.Done, "")
		}
		if n := len(a.took()); n != 0 {
			t.Fatalf("took %d jobs without credits", n)
		}
		a.stop()
		n := len(r.agent("site_1").attach(32).took())
		assets := 0
		if err := r.store.View(t.Context(), func(tx *store.Tx) error {
			page, _, err := List(tx, Filter{Asset: "asset_1", State: StateLeased}, "", 100)
			assets = len(page)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if assets > PerAsset || n < 7 {
			t.Fatalf("%d jobs at work on one asset, %d in all", assets, n)
		}
	})
}

// A7: when the job arrives, the ledger names every secret in it. A2: it opens with the
// key of the agent that was given it alone.
func TestSecretsAreSealedToOneAgentAndInTheLedger_A7(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		ref := r.secret("canary-71f0")
		a, other := r.agent("site_1").attach(1), r.agent("site_1")
		j := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true, Secrets: []SecretRef{ref}})
		got := a.takeOne()
		if len(got.GetSecrets()) != 1 {
			t.Fatalf("delivered %v", got)
		}
		s := got.GetSecrets()[0]
		b := envelope.Binding{Cluster: cluster, Site: "site_1", Agent: a.id, Job: j.ID, Fence: got.GetFence(), Connector: "ssh"}
		er := envelope.Ref{Slot: s.GetSlot(), Secret: reeve.SecretID(s.GetSecret()), Version: s.GetVersion()}
		if v, err := envelope.Open(a.key, b, er, s.GetEnc(), s.GetCiphertext()); err != nil || v.Reveal() != "canary-71f0" {
			t.Fatalf("the agent cannot open its secret: %v", err)
		}
		if _, err := envelope.Open(other.key, b, er, s.GetEnc(), s.GetCiphertext()); err == nil {
			t.Fatal("another agent's key opens the secret")
		}
		var seen []Exposure
		if err := r.store.View(t.Context(), func(tx *store.Tx) error {
			for e, err := range ExposedTo(tx, a.id, time.Time{}) {
				if err != nil {
					return err
				}
				seen = append(seen, *e)
			}
			for e, err := range ExposuresOf(tx, ref.Secret) {
				if err != nil {
					return err
				}
				seen = append(seen, *e)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		want := Exposure{Agent: a.id, Secret: ref.Secret, Version: ref.Version, Job: j.ID, Fence: got.GetFence(),
			Slot: "candidate", At: r.job(j.ID).Deliveries[0].At}
		if diff := cmp.Diff([]Exposure{want, want}, seen); diff != "" {
			t.Fatalf("ledger (-want +got):\n%s", diff)
		}
	})
}

func TestAgentOfAnotherSiteHasNoPartInAJob_A2(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		x, y := r.agent("site_x"), r.agent("site_y").attach(8)
		j := r.enqueue(Spec{SiteID: "site_x"})
		if got := y.took(); len(got) != 0 {
			t.Fatalf("an agent of site_y took %v", got)
		}
		// A stream whose site is claimed wrongly fails at the registry, inside the grant.
		liar := &testAgent{r: r, id: y.id, site: "site_x"}
		liar.attach(8)
		if got := liar.took(); len(got) != 0 {
			t.Fatalf("an agent of site_y took %v", got)
		}
		liar.stop()
		x.attach(1)
		time.Sleep(time.Second)
		got := x.takeOne()
		if s := y.renew(got); s != "lost" {
			t.Fatalf("renewal of another's lease: %s", s)
		}
		_, err := r.broker.Report(t.Context(), y.id, j.ID, got.GetFence(), &agentv1.Result{Outcome: "done"})
		if reeve.CodeOf(err) != "job_not_found" {
			t.Fatalf("report on another's job: %v", err)
		}
		ack, err := r.broker.AppendLog(t.Context(), y.id, &agentv1.LogChunk{Job: got.GetId(), Attempt: 1, Fence: got.GetFence(),
			Sequence: 1, Data: []byte("x\n")})
		if err != nil || !ack[0].GetRefused() {
			t.Fatalf("log of another's job: %v %v", ack, err)
		}
		r.expect(j.ID, StateLeased)
	})
}

func TestBannedAgentIsNotGranted_A3(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		bad, good := r.agent("site_1").attach(8), r.agent("site_1")
		r.mu.Lock()
		r.banned[bad.id] = true
		r.mu.Unlock()
		r.enqueue(Spec{SiteID: "site_1"})
		if got := bad.took(); len(got) != 0 {
			t.Fatalf("a banned agent took %v", got)
		}
		bad.stop()
		good.attach(1)
		time.Sleep(time.Second)
		good.takeOne()
	})
}

func TestLostLeaseQuarantinesThenDeliversAgain_J3(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(8)
		j := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true})
		other := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true, Class: ClassRevoke})
		// The more urgent one came later, so the first is at work already.
		first := a.takeOne()
		if first.GetId() != string(j.ID) {
			t.Fatalf("took %s", first.GetId())
		}
		for range 5 { // renewed, it lives on
			time.Sleep(20 * time.Second)
			if s := a.renew(first); s != "held" {
				t.Fatalf("renewal: %s", s)
			}
		}
		time.Sleep(LeaseTerm)
		if q := r.expect(j.ID, StateQueued); !q.Quarantined {
			t.Fatal("the job is not in quarantine")
		}
		if s := a.renew(first); s != "lost" {
			t.Fatalf("renewal of a lost lease: %s", s)
		}
		time.Sleep(KillGrace + 2*time.Minute + DriftMargin - time.Second)
		if got := a.took(); len(got) != 0 {
			t.Fatalf("%v was handed out while its account was in quarantine", got)
		}
		time.Sleep(2 * time.Second)
		second := a.takeOne()
		if second.GetId() != string(other.ID) {
			t.Fatal("after quarantine the urgent job goes first")
		}
		if stale := a.report(first, reeve.Done, ""); !stale {
			t.Fatal("a report after the quarantine was used (J1)")
		}
		a.report(second, reeve.Done, "")
		again := a.takeOne()
		if again.GetId() != string(j.ID) || again.GetAttempt() != 2 || again.GetFence() <= first.GetFence() {
			t.Fatalf("delivered again: %v", again)
		}
		a.report(again, reeve.Done, "")
		r.expect(j.ID, StateDone)
	})
}

func TestLateReportInQuarantineIsTaken(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(8)
		j := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true})
		got := a.takeOne()
		time.Sleep(LeaseTerm + time.Second)
		if stale := a.report(got, reeve.Done, ""); stale {
			t.Fatal("nobody else had the account, but the report was refused")
		}
		r.expect(j.ID, StateDone)
	})
}

func TestRepeatedReportIsAcknowledgedWithoutEffect_J2(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(8)
		j := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true})
		got := a.takeOne()
		for range 3 {
			if stale := a.report(got, reeve.NotDone, reeve.ClassUnreachable); stale {
				t.Fatal("an acknowledged report became stale")
			}
		}
		if diff := cmp.Diff([]string{"queued not_done"}, r.handled); diff != "" {
			t.Fatalf("handler calls (-want +got):\n%s", diff)
		}
		time.Sleep(time.Second)
		again := a.takeOne()
		a.report(again, reeve.Done, "")
		if stale := a.report(got, reeve.NotDone, reeve.ClassUnreachable); stale {
			t.Fatal("the first report is stale now, though it was acknowledged")
		}
		r.expect(j.ID, StateDone)
		time.Sleep(time.Hour)
		if got := a.took(); len(got) != 0 {
			t.Fatalf("a done job was handed out again: %v", got)
		}
	})
}

func TestReportWithALostCommitCanBeRepeated_J2(t *testing.T) {
	for name, fate := range map[string]storetest.Fate{"committed after all": storetest.CommitUnknown, "lost": storetest.Lose, "refused": storetest.Refuse} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				a := r.agent("site_1").attach(8)
				j := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true})
				got := a.takeOne()
				r.faults.Next(fate)
				if _, err := r.broker.Report(t.Context(), a.id, j.ID, got.GetFence(), &agentv1.Result{Outcome: "done"}); !heals(err) {
					t.Fatalf("report: %v", err)
				}
				if stale := a.report(got, reeve.Done, ""); stale {
					t.Fatal("the repeated report is stale")
				}
				if d := r.expect(j.ID, StateDone); d.Attempt != 1 {
					t.Fatalf("delivered %d times", d.Attempt)
				}
			})
		})
	}
}

func TestCancelledBeforeItWasSentNeverReachesTheAgent(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1")
		p, err := r.broker.Attach(Puller{ID: a.id, SiteID: a.site, Connectors: []string{"ssh"}})
		if err != nil {
			t.Fatal(err)
		}
		p.AddCredits(1)
		j := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true})
		r.expect(j.ID, StateLeased) // granted, but the stream has not taken it
		if _, err := r.broker.Cancel(t.Context(), me, j.ID); err != nil {
			t.Fatal(err)
		}
		r.expect(j.ID, StateCancelled)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if m, err := p.Next(ctx); err == nil {
			t.Fatalf("the agent was sent %v", m)
		}
		p.Close()
	})
}

func TestJobSentLateCarriesWhatIsLeftOfItsLease(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1")
		p, err := r.broker.Attach(Puller{ID: a.id, SiteID: a.site, Connectors: []string{"ssh"}})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		p.AddCredits(2)
		r.enqueue(Spec{SiteID: "site_1"})
		synctest.Wait()
		time.Sleep(40 * time.Second)
		m, err := p.Next(t.Context())
		if err != nil || m.GetJob().GetLease().AsDuration() != 20*time.Second {
			t.Fatalf("sent %v, %v", m, err)
		}
	})
}

func TestNewLeaderExtendsEveryLeaseByAFullTerm(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(8)
		j := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true})
		got := a.takeOne()
		r.stop()
		synctest.Wait()
		if reeve.CodeOf(a.ended) != "not_leader" {
			t.Fatalf("the stream ended with %v", a.ended)
		}
		if _, err := r.broker.RenewLeases(a.id, nil); reeve.CodeOf(err) != "not_leader" {
			t.Fatalf("renewal without a leader: %v", err)
		}
		time.Sleep(10 * time.Minute) // nobody leads: leases ran out long ago
		r.lead()
		time.Sleep(LeaseTerm - time.Second)
		r.expect(j.ID, StateLeased)
		if s := a.renew(got); s != "held" {
			t.Fatalf("renewal at the new leader: %s", s)
		}
		time.Sleep(LeaseTerm - time.Second)
		r.expect(j.ID, StateLeased)
		time.Sleep(2 * time.Second)
		if q := r.expect(j.ID, StateQueued); !q.Quarantined {
			t.Fatal("the unrenewed lease did not end in quarantine")
		}
	})
}

func TestNothingIsStuckBeyondDeadlineAndQuarantine_J3(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		waits := r.enqueue(Spec{SiteID: "site_empty", Deadline: time.Now().Add(10 * time.Minute)})
		a := r.agent("site_1").attach(8)
		reads := r.enqueue(Spec{SiteID: "site_1", Deadline: time.Now().Add(10 * time.Minute)})
		changes := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true, Deadline: time.Now().Add(10 * time.Minute)})
		got := a.took()
		for range 40 { // the agent renews for ever and never reports
			time.Sleep(15 * time.Second)
			for _, j := range got {
				a.renew(j)
			}
		}
		r.expect(waits.ID, StateDead)
		r.expect(reads.ID, StateDead)
		if q := r.expect(changes.ID, StateQueued); !q.Quarantined {
			t.Fatal("the change is not in quarantine")
		}
		time.Sleep(KillGrace + 2*time.Minute + DriftMargin)
		if d := r.expect(changes.ID, StateDead); !d.Doubtful {
			t.Fatal("the change may have happened")
		}
	})
}

func TestDeadLetterIsRetriedByItsOwner(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(32)
		j := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true, Deadline: time.Now().Add(24 * time.Hour)})
		for range MaxDeliveries {
			a.report(a.takeOne(), reeve.NotDone, reeve.ClassUnreachable)
			synctest.Wait()
			time.Sleep(time.Until(r.job(j.ID).NotBefore))
		}
		if d := r.expect(j.ID, StateDead); d.Owner != me.ID {
			t.Fatalf("owner %q", d.Owner)
		}
		r.update(func(tx *store.Tx) error { _, err := Retry(tx, me, j.ID); return err })
		a.report(a.takeOne(), reeve.Done, "")
		r.expect(j.ID, StateDone)
		err := r.store.Update(t.Context(), func(tx *store.Tx) error { _, err := Retry(tx, me, j.ID); return err })
		if reeve.CodeOf(err) != "job_not_dead" {
			t.Fatalf("retry of a done job: %v", err)
		}
	})
}

func TestCancellation(t *testing.T) {
	for name, c := range map[string]struct {
		outcome reeve.Outcome
		class   reeve.Class
		state   State
	}{
		"nothing done":  {reeve.NotDone, reeve.ClassCancelled, StateCancelled},
		"it was done":   {reeve.Done, "", StateDone},
		"nobody knows":  {reeve.OutcomeUncertain, reeve.ClassUnknownOutcome, StateUncertain},
		"agent is gone": {"", "", StateUncertain},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				a := r.agent("site_1").attach(8)
				j := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true})
				got := a.takeOne()
				if _, err := r.broker.Cancel(t.Context(), me, j.ID); err != nil {
					t.Fatal(err)
				}
				r.expect(j.ID, StateLeased)
				if diff := cmp.Diff([]string{string(j.ID)}, a.cancels); diff != "" {
					t.Fatalf("cancellations delivered (-want +got):\n%s", diff)
				}
				if s := a.renew(got); s != "cancel" {
					t.Fatalf("renewal says %s", s)
				}
				if c.outcome != "" {
					a.report(got, c.outcome, c.class)
				}
				time.Sleep(LeaseTerm + KillGrace + 2*time.Minute + DriftMargin)
				r.expect(j.ID, c.state)
				if _, err := r.broker.Cancel(t.Context(), me, j.ID); reeve.CodeOf(err) != "job_finished" {
					t.Fatalf("cancel of an ended job: %v", err)
				}
			})
		})
	}
	t.Run("waiting", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			j := r.enqueue(Spec{SiteID: "site_1"})
			if _, err := r.broker.Cancel(t.Context(), me, j.ID); err != nil {
				t.Fatal(err)
			}
			r.expect(j.ID, StateCancelled)
			if diff := cmp.Diff([]string{"cancelled not_done"}, r.handled); diff != "" {
				t.Fatalf("handler calls (-want +got):\n%s", diff)
			}
		})
	})
}

func TestJobThatNoStreamTookGoesBackAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1")
		p, err := r.broker.Attach(Puller{ID: a.id, SiteID: a.site, Connectors: []string{"ssh"}})
		if err != nil {
			t.Fatal(err)
		}
		p.AddCredits(1)
		j := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true, Secrets: []SecretRef{r.secret("canary-11aa")}})
		r.expect(j.ID, StateLeased)
		p.Close()
		if _, err := p.Next(t.Context()); reeve.CodeOf(err) != "pull_closed" {
			t.Fatalf("next of a closed pull: %v", err)
		}
		r.expect(j.ID, StateQueued)
		if got := a.attach(1).takeOne(); got.GetAttempt() != 2 || len(got.GetSecrets()) != 1 {
			t.Fatalf("delivered again: %v", got)
		}
	})
}

func TestUnusableSecretFailsTheJobAlone(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		bad := r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true,
			Secrets: []SecretRef{{Slot: "candidate", Kind: "password", Secret: "sec_gone", Version: 1}}})
		good := r.enqueue(Spec{SiteID: "site_1"})
		a := r.agent("site_1").attach(8)
		if got := a.takeOne(); got.GetId() != string(good.ID) {
			t.Fatalf("took %v", got)
		}
		r.expect(bad.ID, StateFailed)
	})
}

func TestResultThatCannotBeHandledBuriesTheJob_J3(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(8)
		j := r.enqueue(Spec{SiteID: "site_1"})
		got := a.takeOne()
		r.fail = reeve.Errorf(reeve.Unavailable, "later", "later")
		if _, err := r.broker.Report(context.Background(), a.id, j.ID, got.GetFence(), &agentv1.Result{Outcome: "done"}); reeve.CodeOf(err) != "later" {
			t.Fatalf("report: %v", err)
		}
		r.expect(j.ID, StateLeased)
		r.fail = reeve.Errorf(reeve.Conflict, "account_gone", "gone")
		if stale := a.report(got, reeve.Done, ""); stale {
			t.Fatal("stale")
		}
		if d := r.expect(j.ID, StateDead); d.Failure != "the controller could not take the result: account_gone" {
			t.Fatalf("failure %q", d.Failure)
		}
	})
}

// A newer agent may know classes that this controller does not: what it says must not be lost.
func TestAClassOfALaterVersionIsKept(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(8)
		j := r.enqueue(Spec{SiteID: "site_1"})
		got := a.takeOne()
		if stale, err := r.broker.Report(t.Context(), a.id, j.ID, got.GetFence(),
			&agentv1.Result{Outcome: "not_done", Class: "on_holiday", Message: "it is on holiday"}); err != nil || stale {
			t.Fatal(stale, err)
		}
		if d := r.expect(j.ID, StateFailed); d.Failure != "it is on holiday" || d.Deliveries[0].Class != "on_holiday" {
			t.Fatalf("job %+v", d)
		}
	})
}

func TestNonsenseIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(8)
		j := r.enqueue(Spec{SiteID: "site_1"})
		got := a.takeOne()
		for _, res := range []*agentv1.Result{nil, {Outcome: "fine"}, {Outcome: "not_done"}, {Outcome: "unknown", Class: "Oops; <b>"}} {
			if _, err := r.broker.Report(t.Context(), a.id, j.ID, got.GetFence(), res); reeve.CodeOf(err) != "result_invalid" {
				t.Errorf("result %v: %v", res, err)
			}
		}
		r.expect(j.ID, StateLeased)
	})
}

// sealable is a cipher that a test can seal.
type sealable struct {
	store.Cipher
	sealed atomic.Bool
}

func (s *sealable) Open(aad, sealed []byte) ([]byte, error) {
	if s.sealed.Load() {
		return nil, reeve.Errorf(reeve.Sealed, "sealed", "this node is sealed")
	}
	return s.Cipher.Open(aad, sealed)
}

func TestBrokerWaitsWhileTheNodeIsSealed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &sealable{Cipher: storetest.NewCipher()}
		r := newRig(t, "", storetest.WithCipher(c))
		j := r.enqueue(Spec{SiteID: "site_1"})
		r.stop()
		c.sealed.Store(true)
		r.lead()
		time.Sleep(time.Minute)
		if _, err := r.broker.Attach(Puller{ID: "agent_1", SiteID: "site_1"}); reeve.CodeOf(err) != "not_leader" {
			t.Fatalf("attach while sealed: %v", err)
		}
		c.sealed.Store(false)
		time.Sleep(2 * time.Second)
		if got := r.agent("site_1").attach(1).takeOne(); got.GetId() != string(j.ID) {
			t.Fatalf("took %v", got)
		}
	})
}

func TestJobsAreListedInPagesNewestFirst(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var want []reeve.JobID
		for n := range 7 {
			j := r.enqueue(Spec{SiteID: "site_1", AssetID: "asset_1", Ref: "batch_1", AccountID: reeve.AccountID(fmt.Sprint("acct_", n%2))})
			r.enqueue(Spec{SiteID: "site_2"})
			want = append([]reeve.JobID{j.ID}, want...)
		}
		for name, f := range map[string]Filter{"site": {Site: "site_1"}, "asset": {Asset: "asset_1"}, "ref": {Ref: "batch_1"},
			"state": {State: StateQueued, Asset: "asset_1"}, "scan": {State: StateQueued, Site: "site_1"}} {
			var got []reeve.JobID
			for more := true; more; {
				if err := r.store.View(t.Context(), func(tx *store.Tx) error {
					before := reeve.JobID("")
					if len(got) > 0 {
						before = got[len(got)-1]
					}
					page, m, err := List(tx, f, before, 3)
					for _, j := range page {
						got = append(got, j.ID)
					}
					more = m
					return err
				}); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("by %s (-want +got):\n%s", name, diff)
			}
		}
	})
}

func TestEnqueueRefusesWhatIsNotAJob(t *testing.T) {
	t.Parallel()
	good := func() Spec {
		return Spec{SiteID: "site_1", AccountID: "acct_1", Connector: "ssh", Class: ClassRotation, Mutates: true, Work: &agentv1.Work{Operation: "rotate"}}
	}
	if _, err := good().job(epoch, me); err != nil {
		t.Fatalf("a good one: %v", err)
	}
	for name, spoil := range map[string]func(*Spec){
		"no site":           func(s *Spec) { s.SiteID = "" },
		"no connector":      func(s *Spec) { s.Connector = "" },
		"no work":           func(s *Spec) { s.Work = nil },
		"no class":          func(s *Spec) { s.Class = 0 },
		"unknown class":     func(s *Spec) { s.Class = ClassDiscovery + 1 },
		"change of nothing": func(s *Spec) { s.AccountID = "" },
		"too long":          func(s *Spec) { s.Timeout = MaxTimeout + 1 },
		"over before begun": func(s *Spec) { s.Deadline = epoch },
		"slot twice": func(s *Spec) {
			r := SecretRef{Slot: "current", Secret: "sec_1", Version: 1}
			s.Secrets = []SecretRef{r, r}
		},
		"secret unversioned": func(s *Spec) { s.Secrets = []SecretRef{{Slot: "current", Secret: "sec_1"}} },
	} {
		s := good()
		spoil(&s)
		if _, err := s.job(epoch, me); reeve.CodeOf(err) != "job_invalid" {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := good()
	s.Work.PlanHash = strings.Repeat("x", MaxWork)
	if _, err := s.job(epoch, me); reeve.CodeOf(err) != "job_too_large" {
		t.Errorf("huge: %v", err)
	}
}

// Fresh says that no target can have the secret yet. Whatever was leased once may be live.
func TestOnlyTheFirstLeaseOfASecretIsFresh_R5(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(8)
		r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true, Secrets: []SecretRef{r.secret("canary-secret-1")}})
		for i, fresh := range []bool{true, false, false} {
			j := a.takeOne()
			if j.GetSecrets()[0].GetFresh() != fresh {
				t.Errorf("delivery %d: fresh is %v", i+1, !fresh)
			}
			a.report(j, reeve.NotDone, reeve.ClassUnreachable)
			time.Sleep(30 * time.Second) // longer than any pause between the first deliveries
		}
	})
}
