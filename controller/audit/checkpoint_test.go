package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/auditchain/checkpoint"
)

const cluster = "example"

func makeKey(tb testing.TB, st *store.Store) {
	tb.Helper()
	update(tb, st, func(tx *store.Tx) error { return audit.MakeKey(tx, audit.System("bootstrap"), cluster) })
}

func update(tb testing.TB, st *store.Store, fn func(*store.Tx) error) {
	tb.Helper()
	if err := st.Update(context.Background(), fn); err != nil {
		tb.Fatal(err)
	}
}

func countTimes(tb testing.TB, st *store.Store, n int) {
	tb.Helper()
	update(tb, st, func(tx *store.Tx) error {
		for range n {
			if err := count(tx, "c"); err != nil {
				return err
			}
		}
		return nil
	})
}

// cover signs until everything is covered.
func cover(tb testing.TB, st *store.Store) {
	tb.Helper()
	for covered := 1; covered > 0; {
		update(tb, st, func(tx *store.Tx) (err error) {
			covered, err = audit.Cover(tx, cluster)
			return err
		})
	}
}

// signed are the checkpoints of a store, opened.
func signed(tb testing.TB, st *store.Store) (all []*checkpoint.Checkpoint) {
	tb.Helper()
	if err := st.View(context.Background(), func(tx *store.Tx) error {
		verifying, err := audit.VerifyingKey(tx)
		if err != nil {
			return err
		}
		rows, err := audit.Checkpoints(tx, 0, 1000)
		for _, row := range rows {
			c, err := checkpoint.Open(row.Note, verifying)
			if err != nil {
				return err
			}
			if c.Head.Sequence != row.Sequence || c.Head.Hash != row.Hash || c.Root.String() != row.Root || !c.Time.Equal(row.Time) || c.Cluster != cluster {
				return fmt.Errorf("the note says %+v, the row %+v", c, row)
			}
			all = append(all, c)
		}
		return err
	}); err != nil {
		tb.Fatal(err)
	}
	return all
}

// agrees proves a trail against all its checkpoints, and returns where these are.
func agrees(tb testing.TB, st *store.Store) []uint64 {
	tb.Helper()
	rep, err := checkpoint.Verify(bytes.NewReader(export(tb, st)), signed(tb, st), auditchain.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return rep.Checkpoints
}

// Whatever becomes of transactions, and whichever node leads, the checkpoints are of one
// history, and in the end cover all of it.
func TestCheckpointsAreOfOneHistoryWhoeverLeads_U2(t *testing.T) {
	t.Parallel()
	faults := new(storetest.Faults)
	st := storetest.New(t, storetest.WithFaults(faults))
	makeKey(t, st)
	rapid.Check(t, func(rt *rapid.T) {
		fates := rapid.SliceOfN(rapid.SampledFrom([]storetest.Fate{storetest.Commit, storetest.CommitUnknown, storetest.Lose, storetest.Refuse}), 0, 8).Draw(rt, "fates")
		faults.Next(fates...)
		var running sync.WaitGroup
		for range 2 { // two that both think they lead
			running.Go(func() {
				for range 4 {
					_ = st.Update(context.Background(), func(tx *store.Tx) error { _, err := audit.Cover(tx, cluster); return err })
				}
			})
		}
		for range rapid.IntRange(0, 8).Draw(rt, "changes") {
			_ = st.Update(context.Background(), func(tx *store.Tx) error { return count(tx, "c") })
		}
		running.Wait()
		for range fates { // use up those that no entry has met
			_ = st.Update(context.Background(), func(tx *store.Tx) error { return count(tx, "c") })
		}
	})
	cover(t, st)
	where := agrees(t, st)
	var end auditchain.Head
	if err := st.View(t.Context(), func(tx *store.Tx) (err error) { end, err = audit.Head(tx); return err }); err != nil {
		t.Fatal(err)
	}
	if where[len(where)-1] != end.Sequence {
		t.Fatalf("%d records, covered up to %v", end.Sequence, where)
	}
}

// Who knew the first key of a cluster follows it through every change of the key, whatever is
// or is not recorded between two; and the last checkpoint of a key covers the record of its
// end. The part of the trail between any two checkpoints is proven alone.
func TestCheckpointsLeadFromAnOldKeyToTheNewOne_U2(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	var first string
	known := func() (now string) {
		t.Helper()
		if err := st.View(t.Context(), func(tx *store.Tx) (err error) { now, err = audit.VerifyingKey(tx); return err }); err != nil {
			t.Fatal(err)
		}
		return now
	}
	makeKey(t, st)
	first = known()
	for _, n := range []int{3, 0, 0, audit.CheckpointRecords + 5, 1} {
		for left := n; left > 0; left -= 200 {
			countTimes(t, st, min(left, 200))
		}
		before := known()
		var last *audit.Checkpoint
		update(t, st, func(tx *store.Tx) (err error) { last, err = audit.RotateKey(tx, alice, cluster); return err })
		c, err := checkpoint.Open(last.Note, before)
		if err != nil || c.Next != known() || c.Next == before {
			t.Fatalf("%+v %v", c, err)
		}
		newest := list(t, st, last.Sequence-1, 0, audit.Filter{})
		if len(newest) != 1 || newest[0].Action != "audit_key.rotate" || newest[0].Before["key"] != before || newest[0].After["key"] != c.Next || newest[0].Actor != alice {
			t.Fatalf("%+v", newest)
		}
		if n == 3 {
			countTimes(t, st, 2)
			cover(t, st)
		}
	}
	all, err := checkpoint.OpenAll(notes(t, st), first)
	if err != nil {
		t.Fatal(err)
	}
	whole := export(t, st)
	if rep, err := checkpoint.Verify(bytes.NewReader(whole), all, auditchain.Options{}); err != nil || len(rep.Checkpoints) < 7 {
		t.Fatalf("%+v %v", rep, err)
	}
	for i, from := range all[:len(all)-1] {
		for _, to := range []*checkpoint.Checkpoint{all[i+1], all[min(i+3, len(all)-1)]} {
			var part bytes.Buffer
			if _, err := audit.Export(t.Context(), st, from.Head.Sequence, audit.Filter{Through: to.Head.Sequence}, &part); err != nil {
				t.Fatal(err)
			}
			rep, err := checkpoint.Verify(&part, []*checkpoint.Checkpoint{from, to}, auditchain.Options{})
			if err != nil || rep.First != from.Head.Sequence+1 || rep.Head.Sequence != to.Head.Sequence || rep.Signed() != to.Head.Sequence {
				t.Errorf("from %d to %d: %+v %v", from.Head.Sequence, to.Head.Sequence, rep, err)
			}
		}
	}
}

// notes are the checkpoints of a store as they are kept.
func notes(t *testing.T, st *store.Store) (all [][]byte) {
	t.Helper()
	if err := st.View(t.Context(), func(tx *store.Tx) error {
		rows, err := audit.Checkpoints(tx, 0, 1000)
		for _, row := range rows {
			all = append(all, row.Note)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// A restored state has the key of then, and is signed with that of now from there on; who knew
// that of then can follow.
func TestARestoredTrailLeadsToTheKeyOfNow_U2(t *testing.T) {
	t.Parallel()
	then, now := storetest.New(t), storetest.New(t)
	for _, st := range []*store.Store{then, now} {
		makeKey(t, st)
		countTimes(t, st, 3)
	}
	cover(t, then)
	var first string
	if err := then.View(t.Context(), func(tx *store.Tx) (err error) { first, err = audit.VerifyingKey(tx); return err }); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time they have the same key
		update(t, then, func(to *store.Tx) error {
			if err := count(to, "restored"); err != nil {
				return err
			}
			return now.View(t.Context(), func(from *store.Tx) error { return audit.Keep(to, from, cluster) })
		})
		countTimes(t, then, 2)
		cover(t, then)
	}
	all, err := checkpoint.OpenAll(notes(t, then), first)
	if err != nil || len(all) != 4 {
		t.Fatalf("%d checkpoints: %v", len(all), err)
	}
	if rep, err := checkpoint.Verify(bytes.NewReader(export(t, then)), all, auditchain.Options{}); err != nil || rep.Signed() != rep.Head.Sequence {
		t.Fatalf("%+v %v", rep, err)
	}
	cover(t, now)
	if _, err := checkpoint.Open(notes(t, now)[0], first); err == nil {
		t.Error("one key for both")
	}
}

// A node that dies between records and their checkpoint goes on where it ended.
func TestACheckpointIsMadeUpForAfterACrash_U2(t *testing.T) {
	t.Parallel()
	path, cipher := filepath.Join(t.TempDir(), "state.db"), storetest.NewCipher()
	start := func() *storetest.Node {
		return storetest.Start(t, storetest.WithPath(path), storetest.WithCipher(cipher))
	}
	n := start()
	makeKey(t, n.Store)
	cover(t, n.Store)
	countTimes(t, n.Store, 5)
	n.Stop()
	n = start()
	if where := agrees(t, n.Store); len(where) != 1 || where[0] != 1 {
		t.Fatal(where)
	}
	cover(t, n.Store)
	countTimes(t, n.Store, 1)
	n.Stop()
	n = start()
	cover(t, n.Store)
	if where := agrees(t, n.Store); fmt.Sprint(where) != "[1 6 7]" {
		t.Fatal(where)
	}
	n.Stop()
}

func TestACheckpointCoversAThousandRecordsAtMost(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	makeKey(t, st)
	for range 11 {
		countTimes(t, st, 200)
	}
	cover(t, st)
	if where := agrees(t, st); fmt.Sprint(where) != "[1000 2000 2201]" {
		t.Fatal(where)
	}
	if err := st.View(t.Context(), func(tx *store.Tx) error {
		page, err := audit.Checkpoints(tx, 1000, 1)
		if err != nil || len(page) != 1 || page[0].Sequence != 2000 {
			t.Errorf("%v %v", page, err)
		}
		newest, err := audit.NewestCheckpoint(tx)
		if err == nil && newest.Sequence != 2201 {
			t.Errorf("%+v", newest)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// The Notary signs what there is at once, then after a minute, and many records without
// waiting; it makes the key of a cluster that has none.
func TestTheNotarySignsInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := storetest.New(t)
		countTimes(t, st, 2)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- audit.NewNotary(st, cluster, slog.New(slog.DiscardHandler)).Run(ctx) }()
		synctest.Wait()
		want := func(what, where string) {
			t.Helper()
			if got := fmt.Sprint(agrees(t, st)); got != where {
				t.Errorf("%s: %s, want %s", what, got, where)
			}
		}
		want("at first", "[3]") // with the record of the key
		countTimes(t, st, 2)
		time.Sleep(audit.CheckpointTime - time.Second)
		synctest.Wait()
		want("too soon", "[3]")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		want("after a minute", "[3 5]")
		time.Sleep(10 * audit.CheckpointTime)
		synctest.Wait()
		want("nothing new", "[3 5]")
		for range 5 {
			countTimes(t, st, 200)
		}
		synctest.Wait()
		want("many", "[3 5 1005]")
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestNothingIsSignedOfABrokenChain_U2(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	makeKey(t, st)
	countTimes(t, st, 3)
	forged := list(t, st, 1, 1, audit.Filter{})[0]
	forged.Outcome = audit.Denied
	update(t, st, func(tx *store.Tx) error { return audit.Forge(tx, forged) })
	err := st.Update(t.Context(), func(tx *store.Tx) error { _, err := audit.Cover(tx, cluster); return err })
	if broken, ok := errors.AsType[*auditchain.BrokenError](err); !ok || broken.Sequence != 2 {
		t.Fatalf("%v", err)
	}
	if all := signed(t, st); len(all) != 0 {
		t.Fatalf("%+v", all)
	}
}

// A state that cannot be read, for which sealing in the middle of a look is enough, is an
// error: a controller that fell over it would take its cluster's leader away.
func TestATreeThatCannotBeReadIsAnError(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	makeKey(t, st)
	countTimes(t, st, 3)
	update(t, st, audit.SpoilTree)
	if err := st.View(t.Context(), func(tx *store.Tx) error {
		_, err := audit.Uncovered(tx)
		return err
	}); err == nil {
		t.Error("no error")
	}
}
