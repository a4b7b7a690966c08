package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// report is a run of the program.
type report struct {
	Machine machine  `json:"machine"`
	Took    string   `json:"took"`
	Runs    int      `json:"runs,omitempty"`  // of each side; absent in old reports
	Quick   bool     `json:"quick,omitempty"` // one short run of each: the figures mean nothing
	Results []result `json:"results"`
}

// result is a measured row.
type result struct {
	Name     string  `json:"name"`
	Work     string  `json:"work"`
	Unit     string  `json:"unit"`
	More     bool    `json:"more_is_better"`
	Floor    *figure `json:"floor,omitempty"`
	Reeve    figure  `json:"reeve"`
	Ratio    float64 `json:"ratio,omitempty"` // reeve ÷ floor; 0 without a floor
	Required float64 `json:"required"`        // 0: nothing
	OK       bool    `json:"ok"`
	Note     string  `json:"note,omitempty"`
}

// figure is what several runs came to.
type figure struct {
	Value float64   `json:"value"`
	Runs  []float64 `json:"runs"` // the median of each
}

// spread is the distance between the best and the worst run, as a part of the value.
func (f *figure) spread() float64 {
	if f.Value == 0 {
		return 0
	}
	return (slices.Max(f.Runs) - slices.Min(f.Runs)) / f.Value
}

func (r row) figure(runs [][]float64) *figure {
	if len(runs) == 0 {
		return nil
	}
	f := &figure{}
	for _, samples := range runs {
		f.Runs = append(f.Runs, median(samples))
	}
	f.Value = median(f.Runs)
	if r.total != nil {
		f.Value = r.total(runs)
	}
	return f
}

// judge compares.
func (r row) judge(floor, reeve [][]float64) result {
	res := result{Name: r.name, Work: r.work, Unit: r.unit, More: r.more, Required: r.require,
		Floor: r.figure(floor), Reeve: *r.figure(reeve)}
	got := res.Reeve.Value
	if res.Floor != nil {
		res.Ratio = res.Reeve.Value / res.Floor.Value
		got = res.Ratio
	}
	res.OK = got <= r.require
	if r.more || r.require == 0 {
		res.OK = got >= r.require
	}
	return res
}

func (rep *report) missed() (n int) {
	for _, r := range rep.Results {
		if !r.OK {
			n++
		}
	}
	return n
}

// cells are a result as words: row, floor, reeve, ratio, required, verdict.
func (r *result) cells() []string {
	floor, ratio := "–", "–"
	sign, bound := "≤", number(r.Required)+" "+r.Unit
	if r.More {
		sign = "≥"
	}
	if r.Floor != nil {
		floor, ratio, bound = r.Floor.words(r.Unit), fmt.Sprintf("%.2f", r.Ratio), fmt.Sprint(r.Required)
	}
	if r.Required == 0 {
		return []string{r.Work, floor, r.Reeve.words(r.Unit), ratio, "–", "–"}
	}
	verdict := "ok"
	if !r.OK {
		verdict = "MISSED"
	}
	return []string{r.Work, floor, r.Reeve.words(r.Unit), ratio, sign + " " + bound, verdict}
}

var heads = []string{"work", "floor", "reeve", "ratio", "required", "verdict"}

func (f *figure) words(unit string) string {
	return fmt.Sprintf("%s %s ±%.0f%%", number(f.Value), unit, 50*f.spread())
}

// print writes the table for a terminal.
func (rep *report) print(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "%s\n\n", rep.Machine); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	lines := [][]string{append([]string{"row"}, heads...)}
	for _, r := range rep.Results {
		lines = append(lines, append([]string{r.Name}, r.cells()...))
	}
	for _, l := range lines {
		if _, err := fmt.Fprintln(t, strings.Join(l, "\t")); err != nil {
			return err
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range rep.Results {
		if r.Note != "" {
			if _, err := fmt.Fprintf(w, "\n%s: %s", r.Name, r.Note); err != nil {
				return err
			}
		}
	}
	runs := fmt.Sprintf("medians of %d runs of each side in turn", cmp.Or(rep.Runs, runsPerRow))
	if rep.Quick {
		runs = "one short run of each: the figures mean nothing"
	}
	_, err := fmt.Fprintf(w, "\n%d rows, %d missed, %s; %s\n", len(rep.Results), rep.missed(), rep.Took, runs)
	return err
}

func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile is the q-quantile by the nearest rank; of two middle values, their mean.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); q == 0.5 && n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[max(0, int(math.Ceil(q*float64(len(s))))-1)]
}

// p99 is the 99th percentile of all samples of all runs. Of fewer than a hundred it is the largest.
func p99(runs [][]float64) float64 { return quantile(slices.Concat(runs...), 0.99) }

// number writes three digits that mean something.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 1000:
		s := strconv.FormatFloat(v, 'f', 0, 64)
		return s[:len(s)-3] + "," + s[len(s)-3:]
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
