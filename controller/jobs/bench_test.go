package jobs

import (
	"fmt"
	"testing"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// One cycle is a job from Enqueue over its lease to its accepted report, with four
// agents of four sites that take 32 jobs at a time. The floor is one small committed
// write, made by as many goroutines.
func BenchmarkCycle(b *testing.B) {
	b.Run("job", func(b *testing.B) {
		r := newRig(b, "")
		r.waiters, r.early = map[reeve.JobID]chan struct{}{}, map[reeve.JobID]bool{}
		sites := make([]reeve.SiteID, 4)
		for i := range sites {
			sites[i] = reeve.NewSiteID()
			a := r.agent(sites[i])
			p := attachWhenLeading(b, r, a)
			for range PerAgent {
				go func() {
					for {
						m, err := p.Next(b.Context())
						if err != nil {
							return
						}
						j := m.GetJob()
						if _, err := r.broker.Report(b.Context(), a.id, reeve.JobID(j.GetId()), j.GetFence(), &agentv1.Result{Outcome: "done"}); err != nil {
							return
						}
						p.AddCredits(1)
					}
				}()
			}
			p.AddCredits(PerAgent)
		}
		b.SetParallelism(64)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for n := 0; pb.Next(); n++ {
				done := make(chan struct{})
				stop := r.onDone(r.enqueue(Spec{SiteID: sites[n%4], AccountID: reeve.NewAccountID(), Mutates: true}).ID, done)
				<-done
				stop()
			}
		})
	})
	b.Run("floor", func(b *testing.B) {
		r := newRig(b, "")
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				r.update(func(tx *store.Tx) error {
					_, err := r.vault.Create(tx, "password", fmt.Sprint(b.N))
					return err
				})
			}
		})
	})
}

func attachWhenLeading(b *testing.B, r *rig, a *testAgent) *Pull {
	for {
		p, err := r.broker.Attach(Puller{ID: a.id, SiteID: a.site, Connectors: []string{"ssh"}})
		if err == nil {
			return p
		}
		if reeve.CodeOf(err) != "not_leader" {
			b.Fatal(err)
		}
	}
}

// A pass over a queue of 100,000 jobs that are all blocked: the worst it can meet.
func BenchmarkPickBlocked(b *testing.B) {
	board := newBoard()
	for n := range 100_000 {
		c := waitingCard(fmt.Sprintf("f%06d", n), "flood", ClassRevoke, 0)
		c.asset = "asset_1"
		board.set(c, epoch)
	}
	board.assets["asset_1"] = PerAsset
	for b.Loop() {
		if got := board.pick(epoch, []*taker{takerIn("flood", 32)}, maxBatch); len(got) != 0 {
			b.Fatal("picked a blocked job")
		}
	}
}
