package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// peopleRows: what a call costs before its own work, and a sign-in beside the hash of the password, with 100,000 users in
// 10,000 groups. The 99th percentile counts. They are in no package of ours that could be imported: the benchmark stands
// beside what it measures, in controller/identity, and is run from there, once for all rows.
func peopleRows() []row {
	p := &people{}
	var rows []row
	for _, of := range []struct{ name, bench, work string }{
		{"people-call", "authenticate_and_authorize", "token to permission, 100,000 users, 10,000 groups, p99"},
		{"people-refuse", "refuse", "a refusal, 100,000 users, 10,000 groups, p99"},
		{"people-sign-in", "find_for_sign-in", "a sign-in beside the hash, 100,000 users, 10,000 groups, p99"},
	} {
		rows = append(rows, row{name: of.name, work: of.work, unit: "ms", require: 2, prepare: func(_ context.Context, e *env) (*sides, error) {
			runs, p50 := 0, 0.0
			return &sides{
				reeve: func(ctx context.Context) ([]float64, error) {
					got, err := p.run(ctx, e, runs)
					if err != nil {
						return nil, err
					}
					runs++
					figures, ok := got[of.bench]
					if !ok {
						return nil, fmt.Errorf("the benchmark says nothing of %s", of.bench)
					}
					p50 = figures["p50-µs"]
					return []float64{figures["p99-µs"] / 1000}, nil
				},
				note: func() string { return fmt.Sprintf("median %.0f µs", p50) },
			}, nil
		}})
	}
	return rows
}

// people runs the benchmark, each run once for whichever row asks first.
type people struct {
	mu   sync.Mutex
	runs []map[string]map[string]float64 // by benchmark and metric
}

func (p *people) run(ctx context.Context, e *env, n int) (map[string]map[string]float64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.runs) <= n {
		users := "100000"
		if e.quick {
			users = "1000"
		}
		cmd := exec.CommandContext(ctx, "go", "test", "-tags", "nomsgpack", "-run", "^$", "-bench", "^BenchmarkAHundredThousandUsers$", "./controller/identity", "-args", "-users", users) //nolint:gosec // our own
		out, err := cmd.CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%w: %s", err, out)
		}
		p.runs = append(p.runs, figures(string(out)))
	}
	return p.runs[n], nil
}

var benchLine = regexp.MustCompile(`^Benchmark[^/]*/(\S+?)(-\d+)?\s+\d+\s+(.*)$`)

// figures reads what `go test -bench` prints: by benchmark and metric.
func figures(out string) map[string]map[string]float64 {
	all := map[string]map[string]float64{}
	for line := range strings.Lines(out) {
		m := benchLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			continue
		}
		one := map[string]float64{}
		for f := strings.Fields(m[3]); len(f) >= 2; f = f[2:] {
			if v, err := strconv.ParseFloat(f[0], 64); err == nil {
				one[f[1]] = v
			}
		}
		all[m[1]] = one
	}
	return all
}
