package jobs

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// world is the model's view: what was handed out and what was acknowledged.
type world struct {
	*rig
	agents []*testAgent
	jobs   []reeve.JobID
	held   map[*agentv1.Job]*testAgent // handed out, by the message
	order  []*agentv1.Job
	done   map[reeve.JobID]uint32 // deliveries when done was acknowledged
}

// J1, J2, J3 under any order of leases, renewals, reports (also late and repeated),
// cancellations, lost commits, agents that vanish, and changes of leader.
func TestFencesAreUniqueAndOutcomesStay_J1_J2_J3(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		rapid.Check(noDeadline{t}, func(rt *rapid.T) {
			w := &world{rig: r, held: map[*agentv1.Job]*testAgent{}, done: map[reeve.JobID]uint32{}}
			site := reeve.NewSiteID()
			accounts := []reeve.AccountID{reeve.NewAccountID(), reeve.NewAccountID()}
			for range 2 {
				w.agents = append(w.agents, r.agent(site).attach(32))
			}
			rt.Repeat(map[string]func(*rapid.T){
				"": func(rt *rapid.T) { w.check(rt, accounts) },
				"enqueue": func(rt *rapid.T) {
					w.jobs = append(w.jobs, r.enqueue(Spec{SiteID: site, AccountID: rapid.SampledFrom(accounts).Draw(rt, "account"),
						Mutates: rapid.Bool().Draw(rt, "mutates"), Class: ClassRevoke + Class(rapid.IntRange(0, 4).Draw(rt, "class")), //nolint:gosec // small
						Deadline: time.Now().Add(30 * time.Minute)}).ID)
				},
				"wait": func(rt *rapid.T) {
					time.Sleep(time.Duration(rapid.IntRange(1, 180).Draw(rt, "seconds")) * time.Second)
				},
				"renew": func(*rapid.T) {
					for m, a := range w.held {
						a.renew(m)
					}
				},
				"report": func(rt *rapid.T) { w.reportSome(rt) },
				"cancel": func(rt *rapid.T) {
					if len(w.jobs) > 0 {
						_, err := r.broker.Cancel(t.Context(), me, rapid.SampledFrom(w.jobs).Draw(rt, "job"))
						if err != nil && reeve.CodeOf(err) != "job_finished" {
							rt.Fatalf("cancel: %v", err)
						}
					}
				},
				"reconnect": func(rt *rapid.T) {
					a := rapid.SampledFrom(w.agents).Draw(rt, "agent")
					a.stop()
					a.attach(32)
				},
				"next leader": func(*rapid.T) {
					r.stop()
					r.lead()
					synctest.Wait()
					for _, a := range w.agents {
						a.stop()
						a.attach(32)
					}
				},
				"lose a commit": func(rt *rapid.T) {
					r.faults.Next(rapid.SampledFrom([]storetest.Fate{storetest.CommitUnknown, storetest.Lose, storetest.Refuse}).Draw(rt, "fate"))
					r.broker.poke()
					// Use it up, should the broker have nothing to commit.
					_ = r.store.Update(t.Context(), func(tx *store.Tx) error {
						_, err := r.vault.Create(tx, "password", "acct_spare")
						return err
					})
				},
			})
			for _, a := range w.agents {
				a.stop()
			}
			time.Sleep(30*time.Minute + LeaseTerm + KillGrace + 2*time.Minute + DriftMargin + time.Second)
			synctest.Wait()
			for _, id := range w.jobs {
				if j := r.job(id); !j.State.Final() {
					rt.Fatalf("J3: job is %s after deadline and quarantine: %+v", j.State, j)
				}
			}
		})
	})
}

// reportSome reports any job message ever handed out, as any outcome.
func (w *world) reportSome(rt *rapid.T) {
	if len(w.order) == 0 {
		return
	}
	m := rapid.SampledFrom(w.order).Draw(rt, "message")
	a := w.held[m]
	id := reeve.JobID(m.GetId())
	before := w.job(id)
	out := rapid.SampledFrom([]struct {
		o reeve.Outcome
		c reeve.Class
	}{{reeve.Done, ""}, {reeve.NotDone, reeve.ClassBusy}, {reeve.NotDone, reeve.ClassNotPermitted},
		{reeve.OutcomeUncertain, reeve.ClassUnknownOutcome}, {reeve.NotDone, reeve.ClassCancelled}}).Draw(rt, "outcome")
	stale, err := w.broker.Report(w.t.Context(), a.id, id, m.GetFence(), &agentv1.Result{Outcome: string(out.o), Class: string(out.c)})
	if err != nil {
		rt.Fatalf("report: %v", err)
	}
	after := w.job(id)
	if after.Revision != before.Revision && (stale || !before.Live(m.GetFence())) {
		rt.Fatalf("J1: a report under a dead fence (stale: %v) changed the job:\n%+v\n%+v", stale, before, after)
	}
	if stale && before.Live(m.GetFence()) {
		rt.Fatal("a report under the live fence is stale")
	}
	if after.State == StateDone {
		if _, known := w.done[id]; !known {
			w.done[id] = after.Attempt
		}
	}
}

func (w *world) check(rt *rapid.T, accounts []reeve.AccountID) {
	for _, a := range w.agents {
		for _, m := range a.took() {
			w.held[m], w.order = a, append(w.order, m)
		}
	}
	live := map[reeve.AccountID][]*Job{}
	for _, id := range w.jobs {
		j := w.job(id)
		if j.Live(j.Lease.Fence) {
			live[j.AccountID] = append(live[j.AccountID], j)
		}
		if !slices.IsSortedFunc(j.Deliveries, func(x, y Delivery) int { return int(x.Fence) - int(y.Fence) }) { //nolint:gosec // small
			rt.Fatalf("J1: fences do not grow: %+v", j.Deliveries)
		}
		if n, ok := w.done[id]; ok && (j.State != StateDone || j.Attempt != n) {
			rt.Fatalf("J2: a done job was delivered again: %+v", j)
		}
	}
	for _, acct := range accounts {
		js := live[acct]
		if len(js) > 1 && slices.ContainsFunc(js, func(j *Job) bool { return j.Mutates }) {
			rt.Fatalf("J1: %d live fences on one account, one of them of a change", len(js))
		}
	}
}
