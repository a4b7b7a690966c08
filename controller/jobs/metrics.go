package jobs

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the broker of this node counted. Gauges are zero where it does not lead.
type metrics struct {
	pickup  prometheus.Histogram
	expired prometheus.Counter
}

// newMetrics publishes the broker's metrics, unless reg is nil.
func newMetrics(reg prometheus.Registerer, b *Broker) *metrics {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "reeve", Subsystem: "jobs", Name: name, Help: help}
	}
	m := &metrics{
		pickup: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "reeve", Subsystem: "jobs", Name: "pickup_seconds",
			Help:    "Time from when a job could be given to an agent until its lease was committed.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 10)}),
		expired: prometheus.NewCounter(prometheus.CounterOpts(opts("leases_expired_total", "Leases that ended without a report."))),
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.pickup, m.expired)
	for p, name := range map[place]string{waiting: "waiting", atWork: "leased", quarantined: "quarantined"} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts(name, "Jobs that are "+name+", on the leader.")),
			func() float64 { return float64(b.count(p)) }))
	}
	return m
}

// pickedUp notes a lease that has just been committed.
func (m *metrics) pickedUp(j *Job, now time.Time) {
	m.pickup.Observe(max(0, now.Sub(j.NotBefore)).Seconds())
}

// count is how many cards lie in a place.
func (b *Broker) count(p place) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.board == nil {
		return 0
	}
	for _, c := range b.board.cards {
		if c.place == p {
			n++
		}
	}
	return n
}
