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
		faults.Next(rapid.SliceOfN(rapid.SampledFrom([]storetest.Fate{storetest.Commit, storetest.CommitUnknown, storetest.Lose, storetest.Refuse}), 0, 8).Draw(rt, "fates")...)
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
	})
	faults.Next()
	for range 8 { // fates that no entry has met
		_ = st.Update(context.Background(), func(tx *store.Tx) error { return count(tx, "c") })
	}
	cover(t, st)
	where := agrees(t, st)
	if last := list(t, st, 0, 0, audit.Filter{}); where[len(where)-1] < uint64(len(last)) {
		t.Fatalf("%d records, covered up to %v", len(last), where)
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
