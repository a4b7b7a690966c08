package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// TestRowsInThisProcessWork runs the rows that need no programs and no servers, shortly.
func TestRowsInThisProcessWork(t *testing.T) {
	t.Parallel()
	var out, progress bytes.Buffer
	err := command(t.Context(), []string{"--quick", "--rows", "store-64", "--dir", t.TempDir(), "-o", "json"}, &out, &progress)
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	var rep report
	if err := json.Unmarshal(out.Bytes(), &rep); err != nil {
		t.Fatal(err)
	}
	for _, r := range rep.Results {
		if r.Reeve.Value <= 0 || r.Floor == nil || r.Floor.Value <= 0 || r.Ratio != r.Reeve.Value/r.Floor.Value {
			t.Errorf("row %s has measured nothing: %+v", r.Name, r)
		}
	}
	if len(rep.Results) != 1 {
		t.Errorf("%d results for one row", len(rep.Results))
	}
}

// TestMissedMarksAreSaid judges figures on both sides of a mark.
func TestMissedMarksAreSaid(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		row          row
		floor, reeve [][]float64
		ok           bool
	}{
		{"enough of much", row{more: true, require: 0.6}, [][]float64{{100}}, [][]float64{{60}}, true},
		{"too little", row{more: true, require: 0.6}, [][]float64{{100}}, [][]float64{{59}}, false},
		{"quick enough", row{require: 5}, [][]float64{{2}}, [][]float64{{10}}, true},
		{"too slow", row{require: 5}, [][]float64{{2}}, [][]float64{{10.1}}, false},
		{"small enough without a floor", row{require: 25}, nil, [][]float64{{25}}, true},
		{"too big without a floor", row{require: 25}, nil, [][]float64{{26}}, false},
		{"the median of the runs decides", row{require: 25}, nil, [][]float64{{1}, {99}, {24}}, true},
		{"the 99th percentile of all decides", row{require: 25, total: p99}, nil, [][]float64{{1, 99}, {24}}, false},
	} {
		res := c.row.judge(c.floor, c.reeve)
		if res.OK != c.ok {
			t.Errorf("%s: ok=%v, %+v", c.name, res.OK, res)
		}
		if got := res.cells(); (got[len(got)-1] == "ok") != c.ok {
			t.Errorf("%s: told as %v", c.name, got)
		}
	}
}

// TestRowsWithoutAMarkMissNone: they are in the table and not in the picture of marks.
func TestRowsWithoutAMarkMissNone(t *testing.T) {
	t.Parallel()
	res := row{name: "r", work: "some work", unit: "x/s", more: true}.judge([][]float64{{100}}, [][]float64{{1}})
	rep := &report{Results: []result{res}}
	cells := res.cells()
	if !res.OK || rep.missed() != 0 || cells[4] != "–" || cells[5] != "–" {
		t.Errorf("judged as %+v, told as %v", res, cells)
	}
	if strings.Contains(string(rep.picture()), "some work") {
		t.Error("the picture has a bar for it")
	}
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	v := make([]float64, 100)
	for i := range v {
		v[len(v)-1-i] = float64(i + 1)
	}
	if got := quantile(v, 0.99); got != 99 {
		t.Errorf("p99 of 1..100 is %v", got)
	}
	if got := median(v); got != 50.5 {
		t.Errorf("median of 1..100 is %v", got)
	}
	if got := p99([][]float64{{3, 1}, {2}}); got != 3 {
		t.Errorf("p99 of three is their largest, got %v", got)
	}
}

func TestUnknownRowsAreRefused(t *testing.T) {
	t.Parallel()
	if _, err := choose([]string{"stor", "nonsense"}); err == nil || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Errorf("got %v", err)
	}
	if got, err := choose([]string{"store", "store-64"}); err != nil || len(got) != 2 {
		t.Errorf("store chooses %d rows, %v", len(got), err)
	}
}

// TestFiguresOfABenchmarkAreRead reads what go test prints.
func TestFiguresOfABenchmarkAreRead(t *testing.T) {
	t.Parallel()
	got := figures("goos: linux\nBenchmarkAHundredThousandUsers/find_for_sign-in-2         \t  100\t 6012 ns/op\t 17.00 p50-µs\t 1234 p99-µs\nPASS\n")
	if one := got["find_for_sign-in"]; len(got) != 1 || one["p50-µs"] != 17 || one["p99-µs"] != 1234 {
		t.Errorf("%v", got)
	}
}
