package audit_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
)

func TestACSVHoldsWhatWasFoundAndNoFormula(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	mallory := alice
	mallory.Name, mallory.Session = "=HYPERLINK(\"http://example.com\")", "sess_1"
	update(t, st, func(tx *store.Tx) error {
		for n := range audit.MaxPage + 3 {
			if err := audit.Record(tx, audit.Event{By: mallory, Action: "site.add", Object: "-1", Details: map[string]string{"b": "x,\"y\"", "a": fmt.Sprint(n)}}); err != nil {
				return err
			}
		}
		return audit.Record(tx, audit.Event{By: alice, Action: "other.thing"})
	})
	var out bytes.Buffer
	if err := audit.ExportCSV(t.Context(), st, 0, audit.Filter{Action: "site.add"}, &out); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&out).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != audit.MaxPage+4 {
		t.Fatalf("%d lines", len(rows))
	}
	if rows[0][0] != "sequence" || len(rows[0]) != len(rows[1]) {
		t.Fatalf("%q", rows[0])
	}
	first := rows[1]
	first[1], first[14] = "TIME", "HASH"
	want := []string{"1", "TIME", "user", "prin_alice", "'=HYPERLINK(\"http://example.com\")", "192.0.2.7", "sess_1", "node_1", "site.add", "'-1", "ok",
		`{"a":"0","b":"x,\"y\""}`, "", "", "HASH"}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Fatal(diff)
	}
}

// Whatever is in a record, a reader of CSV finds one row of as many cells as there are
// names, none of which a spreadsheet would run, and the text is still in them.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{"=1+1", " =1", "\t=1", "a\r\n=1", "\"", "a,b", "+", "-", "@SUM(1)", "\uff1d1", "\x00=1", "", "\ufeff=1", "plain"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, text, other string) {
		e := audit.Entry{Sequence: 7, Object: text, Actor: audit.Actor{Name: other}, Details: map[string]string{text: other}}
		var out bytes.Buffer
		w := csv.NewWriter(&out)
		if err := w.Write(audit.CSVRow(&e)); err != nil {
			t.Fatal(err)
		}
		w.Flush()
		if strings.Count(out.String(), "\n") != 1 {
			t.Fatalf("%q is several lines", out.String())
		}
		rows, err := csv.NewReader(&out).ReadAll()
		if err != nil || len(rows) != 1 || len(rows[0]) != 15 {
			t.Fatalf("%q %v", rows, err)
		}
		for _, cell := range rows[0] {
			if trimmed := strings.TrimLeft(cell, " \t\v\f\u00a0\ufeff"); trimmed != "" && strings.ContainsAny(trimmed[:1], "=+-@") {
				t.Fatalf("%q is a formula", cell)
			}
		}
		if flat := strings.NewReplacer("\n", " ", "\r", " ", "\x00", " ").Replace(strings.ToValidUTF8(text, "\ufffd")); strings.TrimPrefix(rows[0][9], "'") != strings.TrimPrefix(flat, "'") &&
			!strings.Contains(text, "\ufffd") && strings.ToValidUTF8(text, "") == text {
			t.Fatalf("%q became %q", text, rows[0][9])
		}
		var details map[string]string
		if err := json.Unmarshal([]byte(rows[0][11]), &details); err != nil {
			t.Fatalf("%q: %v", rows[0][11], err)
		}
	})
}
