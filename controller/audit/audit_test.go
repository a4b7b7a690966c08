package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// counter stands for any state that changes: each change is one more, recorded with
// the value it gave.
type counter struct {
	ID    string `cbor:"1,keyasint,omitempty"`
	Value int    `cbor:"2,keyasint,omitempty"`
}

var counters = store.NewTable("counter", store.Key(func(c *counter) string { return c.ID }))

var alice = audit.Actor{Kind: "user", ID: "prin_alice", Name: "alice", From: "192.0.2.7", Node: "node_1"}

func count(tx *store.Tx, id string) error {
	c, err := counters.Get(tx, id)
	if reeve.KindOf(err) == reeve.NotFound {
		c, err = &counter{ID: id}, nil
	}
	if err != nil {
		return err
	}
	c.Value++
	if err := counters.Put(tx, c); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: alice, Action: "counter.add", Object: id, After: map[string]string{"value": fmt.Sprint(c.Value)}})
}

func list(t testing.TB, st *store.Store, after uint64, limit int, f audit.Filter) []*audit.Entry {
	t.Helper()
	var got []*audit.Entry
	if err := st.View(context.Background(), func(tx *store.Tx) (err error) {
		got, err = audit.List(tx, after, limit, f)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func export(t testing.TB, st *store.Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := audit.Export(context.Background(), st, 0, audit.Filter{}, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// U1: under concurrent transactions, failing ones and lost ones, the records are
// exactly the changes, in the order in which the changes happened.
func TestEveryChangeHasOneRecordInCommitOrder_U1(t *testing.T) {
	t.Parallel()
	faults := new(storetest.Faults)
	st := storetest.New(t, storetest.WithFaults(faults))
	run, before := 0, uint64(0) // records of earlier runs
	rapid.Check(t, func(rt *rapid.T) {
		run++
		writers := rapid.IntRange(1, 6).Draw(rt, "writers")
		fates := rapid.SliceOfN(rapid.SampledFrom([]storetest.Fate{storetest.Commit, storetest.Commit, storetest.CommitUnknown,
			storetest.Lose, storetest.Refuse}), 0, 12).Draw(rt, "fates")
		faults.Next(fates...)
		var running sync.WaitGroup
		for w := range writers {
			steps := rapid.SliceOfN(rapid.IntRange(0, 3), 1, 5).Draw(rt, fmt.Sprintf("steps of %d", w))
			running.Go(func() {
				for _, step := range steps {
					_ = st.Update(context.Background(), func(tx *store.Tx) error { // whatever becomes of it
						for range max(step, 1) {
							if err := count(tx, fmt.Sprintf("run %d, %d", run, w%3)); err != nil {
								return err
							}
						}
						if step == 0 {
							return errors.New("changed its mind")
						}
						return nil
					})
				}
			})
		}
		running.Wait()
		for range fates { // use up those that no entry has met
			_ = st.Update(context.Background(), func(tx *store.Tx) error { return count(tx, fmt.Sprintf("run %d, last", run)) })
		}

		recorded := map[string]int{}
		var revision uint64
		for _, e := range list(t, st, before, 0, audit.Filter{}) {
			recorded[e.Object]++
			before++
			if e.Sequence != before || e.After["value"] != fmt.Sprint(recorded[e.Object]) {
				rt.Fatalf("record %d says %+v, want value %d", before, e, recorded[e.Object])
			}
			if e.Revision < revision {
				rt.Fatalf("record %d is of transaction %d, after one of %d", e.Sequence, e.Revision, revision)
			}
			revision = e.Revision
		}
		if err := st.View(context.Background(), func(tx *store.Tx) error {
			for c, err := range counters.List(tx, "") {
				if err != nil {
					return err
				}
				if !strings.HasPrefix(c.ID, fmt.Sprintf("run %d,", run)) {
					continue
				}
				if recorded[c.ID] != c.Value {
					rt.Fatalf("%s changed %d times, %d records", c.ID, c.Value, recorded[c.ID])
				}
				delete(recorded, c.ID)
			}
			return nil
		}); err != nil {
			rt.Fatal(err)
		}
		if len(recorded) != 0 {
			rt.Fatalf("records of changes that did not happen: %v", recorded)
		}
	})
	if report, err := auditchain.Verify(bytes.NewReader(export(t, st)), auditchain.Options{}); err != nil || report.Records != before {
		t.Fatalf("%+v %v", report, err)
	}
}

func TestAnExportVerifiesAndACutOneDoesNot_U2(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	const n = audit.MaxPage + 7 // more than one page of the export
	for done := 0; done < n; {
		if err := st.Update(t.Context(), func(tx *store.Tx) error {
			for range min(200, n-done) {
				if err := count(tx, "c"); err != nil {
					return err
				}
				done++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	var head auditchain.Head
	if err := st.View(t.Context(), func(tx *store.Tx) (err error) {
		head, err = audit.Head(tx)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	all := export(t, st)
	report, err := auditchain.Verify(bytes.NewReader(all), auditchain.Options{Expect: &head})
	if err != nil || report.Records != n || report.Head != head || !report.MatchedHead {
		t.Fatalf("%+v %v", report, err)
	}
	cut := all[:bytes.LastIndexByte(all[:len(all)-1], '\n')+1]
	_, err = auditchain.Verify(bytes.NewReader(cut), auditchain.Options{Expect: &head})
	if broken, ok := errors.AsType[*auditchain.BrokenError](err); !ok || broken.Reason != auditchain.Truncated || broken.Sequence != n {
		t.Fatal(err)
	}
	var rest bytes.Buffer
	if last, err := audit.Export(t.Context(), st, n-3, audit.Filter{}, &rest); err != nil || last != head {
		t.Fatal(last, err)
	}
	if report, err := auditchain.Verify(&rest, auditchain.Options{Partial: true, Expect: &head}); err != nil || report.Records != 3 {
		t.Fatalf("%+v %v", report, err)
	}
}

func TestListFiltersAndPages(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Date(2026, 5, 1, 12, 0, 0, 123456789, time.UTC))
	st := storetest.New(t, storetest.WithClock(clock.Now))
	bob := audit.Actor{Kind: "agent", ID: "agent_bob"}
	begin := clock.Now()
	for i := range 12 {
		clock.Advance(time.Minute)
		e := audit.Event{By: alice, Action: "site.create", Object: "site_a"}
		if i%2 == 1 {
			e = audit.Event{By: bob, Action: "site.delete", Object: "site_b", Outcome: audit.Denied, Details: map[string]string{"i": fmt.Sprint(i)}}
		}
		if err := st.Update(t.Context(), func(tx *store.Tx) error { return audit.Record(tx, e) }); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		after  uint64
		limit  int
		filter audit.Filter
		want   []uint64
	}{
		"all":             {0, 0, audit.Filter{}, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
		"page":            {4, 3, audit.Filter{}, []uint64{5, 6, 7}},
		"end":             {12, 3, audit.Filter{}, nil},
		"object":          {0, 0, audit.Filter{Object: "site_b"}, []uint64{2, 4, 6, 8, 10, 12}},
		"object page":     {4, 2, audit.Filter{Object: "site_b"}, []uint64{6, 8}},
		"no prefix":       {0, 0, audit.Filter{Object: "site_"}, nil},
		"actor":           {6, 0, audit.Filter{Actor: "prin_alice"}, []uint64{7, 9, 11}},
		"actor and other": {0, 0, audit.Filter{Actor: "prin_alice", Object: "site_b"}, nil},
		"action":          {0, 2, audit.Filter{Action: "site.delete"}, []uint64{2, 4}},
		"actor's name":    {6, 0, audit.Filter{Actor: "alice"}, []uint64{7, 9, 11}},
		"outcome":         {0, 3, audit.Filter{Outcome: audit.Denied}, []uint64{2, 4, 6}},
		"since and page":  {5, 2, audit.Filter{Since: begin.Add(3 * time.Minute)}, []uint64{6, 7}},
		"since, object":   {0, 0, audit.Filter{Since: begin.Add(8*time.Minute + 1), Object: "site_a"}, []uint64{9, 11}},
		"since the end":   {0, 0, audit.Filter{Since: begin.Add(time.Hour)}, nil},
		"since before":    {0, 1, audit.Filter{Since: begin.Add(-time.Hour)}, []uint64{1}},
		"through":         {2, 0, audit.Filter{Through: 4}, []uint64{3, 4}},
		"through, object": {0, 0, audit.Filter{Through: 5, Object: "site_b"}, []uint64{2, 4}},
		"through the end": {10, 0, audit.Filter{Through: 99}, []uint64{11, 12}},
		"time":            {0, 0, audit.Filter{Since: begin.Add(3 * time.Minute), Until: begin.Add(6 * time.Minute)}, []uint64{3, 4, 5}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []uint64
			for _, e := range list(t, st, tt.after, tt.limit, tt.filter) {
				got = append(got, e.Sequence)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Fatal(diff)
			}
		})
	}
	second := list(t, st, 1, 1, audit.Filter{})[0]
	if second.Outcome != audit.Denied || second.Actor != bob || !second.Time.Equal(begin.Add(2*time.Minute)) || second.Details["i"] != "1" {
		t.Fatalf("%+v", second)
	}
}

func TestADefectiveEventIsRefusedAndNothingChanges(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	many := map[string]string{}
	for i := range 65 {
		many[fmt.Sprint(i)] = "x"
	}
	for name, e := range map[string]audit.Event{
		"no actor":    {Action: "site.create"},
		"no action":   {By: alice},
		"too many":    {By: alice, Action: "a", Details: many},
		"too big":     {By: alice, Action: "a", After: map[string]string{"x": strings.Repeat("x", 64<<10)}},
		"big outside": {By: alice, Action: "a", Object: strings.Repeat("x", 70<<10)},
	} {
		err := st.Update(t.Context(), func(tx *store.Tx) error {
			if err := counters.Put(tx, &counter{ID: "c"}); err != nil {
				return err
			}
			return audit.Record(tx, e)
		})
		if reeve.CodeOf(err) != "audit_event_invalid" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := st.View(t.Context(), func(tx *store.Tx) error { _, err := counters.Get(tx, "c"); return err }); reeve.CodeOf(err) != "counter_not_found" {
		t.Fatal(err)
	}
}
