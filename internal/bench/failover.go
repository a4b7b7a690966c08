package main

import (
	"context"
	"fmt"
	"time"

	"github.com/reeve-pam/reeve/internal/fleet"
)

// failoverRows: a leader dies by kill -9, and at the same moment somebody starts a command that writes. The clock stops
// when that command has its acknowledgement: detection, election, the client's search for the new leader, a start of a
// process, and the write itself.
func failoverRows() []row {
	var rows []row
	for _, p := range []struct {
		name, timing string
		limit        float64
	}{{"default", "", 3}, {"lan", "lan", 1}} {
		rows = append(rows, row{
			name: "failover-" + p.name,
			work: fmt.Sprintf("kill -9 of the leader → next acknowledged write, %s timing, p99", p.name),
			unit: "s", require: p.limit, total: p99,
			prepare: func(ctx context.Context, e *env) (*sides, error) { return failoverSides(ctx, e, p.timing) },
		})
	}
	return rows
}

// killsPerRun times runsPerRow kills make a 99th percentile worth the name.
const killsPerRun = 5

func failoverSides(ctx context.Context, e *env, timing string) (*sides, error) {
	f, err := e.startFleet(ctx, timing)
	if err != nil {
		return nil, err
	}
	kills := 0
	var all []float64
	return &sides{
		reeve: func(ctx context.Context) ([]float64, error) {
			var took []float64
			for range e.few(killsPerRun) {
				kills++
				d, err := failover(ctx, f, fmt.Sprintf("after-kill-%d", kills))
				if err != nil {
					f.Tails(e.stderr, 20)
					return nil, err
				}
				took = append(took, d.Seconds())
			}
			all = append(all, took...)
			return took, nil
		},
		note: func() string {
			return fmt.Sprintf("%d kills: median %.2f s, p90 %.2f s, longest %.2f s", len(all), median(all), quantile(all, 0.9), quantile(all, 1))
		},
		close: func() error { f.Kill(); return nil },
	}, nil
}

// failover kills the leader and returns how long a write took from then on. Afterwards all controllers vote again.
func failover(ctx context.Context, f *fleet.Fleet, site string) (time.Duration, error) {
	leader, err := f.Leader(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	leader.Kill()
	if err := f.CLI(ctx, "", nil, "site", "add", site); err != nil {
		return 0, err
	}
	took := time.Since(began)
	if err := leader.Start(); err != nil {
		return 0, err
	}
	return took, fleet.Eventually(ctx, time.Minute, f.AllVote)
}
