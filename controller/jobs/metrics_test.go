package jobs

import (
	"testing"
	"time"
)

// metric is the value of a gauge or counter, or how often a histogram was used.
func (r *rig) metric(name string) float64 {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	r.t.Fatalf("there is no metric %s", name)
	return 0
}

func TestMetricsFollowAJobThroughALostLease(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		expect := func(when string, waiting, leased, quarantined, pickups, expired float64) {
			t.Helper()
			for name, want := range map[string]float64{"reeve_jobs_waiting": waiting, "reeve_jobs_leased": leased,
				"reeve_jobs_quarantined": quarantined, "reeve_jobs_pickup_seconds": pickups, "reeve_jobs_leases_expired_total": expired} {
				if got := r.metric(name); got != want {
					t.Errorf("%s: %s is %v, want %v", when, name, got, want)
				}
			}
		}
		a := r.agent("site_1").attach(1)
		r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true})
		a.takeOne()
		r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true})
		time.Sleep(time.Second)
		expect("one at work, one behind it", 1, 1, 0, 1, 0)
		time.Sleep(LeaseTerm)
		expect("after the lease", 1, 0, 1, 1, 1)
		r.stop()
		expect("where nobody leads", 0, 0, 0, 1, 1)
		r.lead()
	})
}
