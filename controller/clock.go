package controller

import "github.com/prometheus/client_golang/prometheus"

// watchClock shows in the metrics whether this node believes its clock.
func (c *Controller) watchClock(metrics prometheus.Registerer) {
	metrics.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "reeve_clock_in_doubt", Help: "1 while this controller does not believe its clock.",
		}, func() float64 {
			if _, doubted := c.store.Clock(); doubted {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "reeve_clock_ahead_seconds", Help: "How far a clock in doubt is ahead of the time that goes on; 0 without doubt.",
		}, func() float64 {
			d, _ := c.store.Clock()
			return d.Ahead.Seconds()
		}),
	)
}
