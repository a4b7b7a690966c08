package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// inFlight starts f and returns once it waits for its fate.
func inFlight(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	synctest.Wait()
	return done
}

func TestUpdatesArePipelinedAndPacked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, nodes := newCluster(t, 1, nil)
		s, ctx := nodes[0], t.Context()
		log.hold(true)
		const n = 200
		var g sync.WaitGroup
		for range n {
			g.Go(func() {
				err := s.Update(ctx, func(tx *store.Tx) error {
					h, err := hosts.Get(tx, "counter")
					if reeve.KindOf(err) == reeve.NotFound {
						h = &host{ID: "counter"}
					} else if err != nil {
						return err
					}
					h.N++
					return hosts.Put(tx, h)
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // all are computed and wait
		if got := ids(t, s); len(got) != 0 {
			t.Errorf("View sees %v, which is not committed", got)
		}
		for synctest.Wait(); log.pending() > 0; synctest.Wait() {
			log.commit()
		}
		g.Wait()
		err := s.View(ctx, func(tx *store.Tx) error {
			h, err := hosts.Get(tx, "counter")
			if err == nil && (h.N != n || tx.Revision() != n) {
				t.Errorf("counter %d at revision %d, want %d", h.N, tx.Revision(), n)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if got := len(log.entries); got > 20 {
			t.Errorf("%d transactions used %d log entries", n, got)
		}
	})
}

func (l *raftLog) pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}

func TestUniqueHoldsAcrossWritesInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, nodes := newCluster(t, 1, nil)
		s, ctx := nodes[0], t.Context()
		log.hold(true)
		first := inFlight(func() error { return put(ctx, s, host{ID: "a", Name: "db"}) })
		second := inFlight(func() error { return put(ctx, s, host{ID: "b", Name: "db"}) })
		select {
		case err := <-second:
			t.Fatalf("answered from uncommitted state: %v", err)
		default:
		}
		log.commit()
		if err := <-first; err != nil {
			t.Error(err)
		}
		wantKind(t, <-second, reeve.Conflict, "host_name_taken")

		// Names given up in flight are free for the next.
		rename := inFlight(func() error { return put(ctx, s, host{ID: "a", Name: "old"}) })
		third := inFlight(func() error { return put(ctx, s, host{ID: "b", Name: "db"}) })
		log.commit()
		if err := errors.Join(<-rename, <-third); err != nil {
			t.Error(err)
		}
	})
}

func TestAnswerFromALostWriteIsWithdrawn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, nodes := newCluster(t, 1, nil)
		s, ctx := nodes[0], t.Context()
		log.hold(true)
		first := inFlight(func() error { return put(ctx, s, host{ID: "a", Name: "db"}) })
		conflict := inFlight(func() error { return put(ctx, s, host{ID: "b", Name: "db"}) })
		follower := inFlight(func() error { return put(ctx, s, host{ID: "c", Name: "web"}) })
		log.mu.Lock()
		lost := log.waiting[0]
		log.waiting = log.waiting[1:]
		log.mu.Unlock()
		lost.done <- errDropped
		synctest.Wait()
		wantKind(t, <-first, reeve.OutcomeUnknown, "outcome_unknown")
		wantKind(t, <-conflict, reeve.Unavailable, "superseded")

		// Nothing new is computed until the fate of the entry in flight is known; it is
		// committed on a base that never came to be, and has no effect.
		next := inFlight(func() error { return put(ctx, s, host{ID: "d"}) })
		log.commit()
		wantKind(t, <-follower, reeve.Unavailable, "superseded")
		synctest.Wait()
		log.commit()
		if err := <-next; err != nil {
			t.Error(err)
		}
		// The lost entry turns up after all: it is too late for it.
		log.mu.Lock()
		log.waiting = append(log.waiting, lost)
		log.mu.Unlock()
		log.commit()
		if d := cmp.Diff([]string{"d"}, ids(t, s)); d != "" {
			t.Error(d)
		}
	})
}

func TestEntryOfAnotherTermHasNoEffect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, nodes := newCluster(t, 3, nil)
		s, ctx := nodes[0], t.Context()
		if err := put(ctx, s, host{ID: "a"}); err != nil {
			t.Fatal(err)
		}
		log.hold(true)
		old := inFlight(func() error { return put(ctx, s, host{ID: "b"}) })
		log.setTerm(2)
		log.commit()
		wantKind(t, <-old, reeve.Unavailable, "superseded")
		for _, n := range nodes {
			if d := cmp.Diff([]string{"a"}, ids(t, n)); d != "" {
				t.Error(d)
			}
		}
	})
}

func TestLostLeadershipAnswersUnknownAndDropsWhatWasInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, nodes := newCluster(t, 2, nil)
		s, ctx := nodes[0], t.Context()
		log.hold(true)
		var waiting []<-chan error
		for i := range 12 { // 8 entries go on their way, the others queue
			waiting = append(waiting, inFlight(func() error { return put(ctx, s, host{ID: fmt.Sprint(i)}) }))
		}
		s.Follow()
		for i, w := range waiting {
			if i < 8 {
				wantKind(t, <-w, reeve.OutcomeUnknown, "leadership_lost")
			} else {
				wantKind(t, <-w, reeve.Unavailable, "not_leader")
			}
		}
		wantKind(t, put(ctx, s, host{ID: "x"}), reeve.Unavailable, "not_leader")

		log.setTerm(2)
		if err := nodes[1].Lead(2); err != nil {
			t.Fatal(err)
		}
		next := inFlight(func() error {
			return nodes[1].Update(ctx, func(tx *store.Tx) error {
				if tx.Revision() != 1 {
					t.Errorf("revision %d, want 1", tx.Revision())
				}
				return hosts.Insert(tx, &host{ID: "0", Site: "new"})
			})
		})
		log.commit() // the old leader's entries too, now under term 2
		if err := <-next; err != nil {
			t.Error(err)
		}
		for _, n := range nodes {
			if d := cmp.Diff([]string{"0"}, ids(t, n)); d != "" {
				t.Error(d)
			}
		}
	})
}

func TestCallerWhoLeavesWhileWaitingIsToldUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, nodes := newCluster(t, 1, nil)
		s := nodes[0]
		log.hold(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantKind(t, put(ctx, s, host{ID: "a"}), reeve.OutcomeUnknown, "outcome_unknown")
		wantKind(t, put(ctx, s, host{ID: "b"}), reeve.Unavailable, "cancelled")
		log.commit()
		synctest.Wait()
		if d := cmp.Diff([]string{"a"}, ids(t, s)); d != "" {
			t.Error(d)
		}
	})
}

func TestTooMuchInFlightMakesUpdatesWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, nodes := newCluster(t, 1, nil)
		s, ctx := nodes[0], t.Context()
		log.hold(true)
		big := string(make([]byte, 3<<20))
		var waiting []<-chan error
		for i := range 30 { // 90 MiB; the budget is 64
			waiting = append(waiting, inFlight(func() error {
				return s.Update(ctx, func(tx *store.Tx) error {
					return blobs.Put(tx, &blob{ID: fmt.Sprint(i), Data: big})
				})
			}))
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		wantKind(t, put(short, s, host{ID: "a"}), reeve.Unavailable, "cancelled")
		for synctest.Wait(); log.pending() > 0; synctest.Wait() {
			log.commit()
		}
		for _, w := range waiting {
			if err := <-w; err != nil {
				t.Error(err)
			}
		}
	})
}

type blob struct {
	ID   string `cbor:"1,keyasint,omitempty"`
	Data string `cbor:"2,keyasint,omitempty"`
}

var blobs = store.NewTable("blob", store.Key(func(b *blob) string { return b.ID }), store.Plain[blob]())

func TestTransactionOverTheLimitIsRefused(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		return blobs.Put(tx, &blob{ID: "a", Data: string(make([]byte, 5<<20))})
	})
	wantKind(t, err, reeve.TooLarge, "transaction_too_large")
	err = s.Update(t.Context(), func(tx *store.Tx) error {
		return blobs.Put(tx, &blob{ID: string(make([]byte, 5<<10))})
	})
	wantKind(t, err, reeve.TooLarge, "key_too_long")
}

func TestPanicAndErrorChangeNothingAndFreeTheStore(t *testing.T) {
	t.Parallel()
	s, ctx := storetest.New(t), t.Context()
	func() {
		defer func() {
			if recover() != "boom" {
				t.Error("the panic did not reach the caller")
			}
		}()
		_ = s.Update(ctx, func(tx *store.Tx) error {
			if err := hosts.Insert(tx, &host{ID: "a"}); err != nil {
				return err
			}
			panic("boom")
		})
	}()
	sentinel := errors.New("no")
	err := s.Update(ctx, func(tx *store.Tx) error {
		return errors.Join(hosts.Insert(tx, &host{ID: "b"}), sentinel)
	})
	if !errors.Is(err, sentinel) {
		t.Errorf("got %v", err)
	}
	if err := put(ctx, s, host{ID: "c"}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"c"}, ids(t, s)); d != "" {
		t.Error(d)
	}
}

func TestOnCommitRunsOnlyAfterCommit(t *testing.T) {
	t.Parallel()
	f := new(storetest.Faults)
	s, ctx := storetest.New(t, storetest.WithFaults(f)), t.Context()
	ran := 0
	update := func() error {
		return s.Update(ctx, func(tx *store.Tx) error {
			tx.OnCommit(func() { ran++ })
			return hosts.Put(tx, &host{ID: "a", N: ran})
		})
	}
	for _, c := range []struct {
		fate storetest.Fate
		kind reeve.Kind
		want int
	}{
		{storetest.Commit, "", 1},
		{storetest.Refuse, reeve.Unavailable, 1},
		{storetest.Lose, reeve.OutcomeUnknown, 1},
		{storetest.CommitUnknown, reeve.OutcomeUnknown, 1},
		{storetest.Commit, "", 2},
	} {
		f.Next(c.fate)
		if err := update(); reeve.KindOf(err) != c.kind || ran != c.want {
			t.Errorf("fate %d: %v, ran %d times", c.fate, err, ran)
		}
	}
	err := s.View(ctx, func(tx *store.Tx) error {
		if tx.Revision() != 3 {
			t.Errorf("revision %d, want 3: two commits and one reported unknown", tx.Revision())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTimeNeverGoesBackwards(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	dir, c := t.TempDir()+"/s.db", storetest.NewCipher()
	var last time.Time
	touch := func(s *store.Store) {
		t.Helper()
		err := s.Update(t.Context(), func(tx *store.Tx) error {
			if tx.Now().Before(last) || tx.Now().Location() != time.UTC {
				t.Errorf("now %v after %v", tx.Now(), last)
			}
			last = tx.Now()
			return hosts.Put(tx, &host{ID: "a"})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	n := storetest.Start(t, storetest.WithPath(dir), storetest.WithCipher(c), storetest.WithClock(clock.Now))
	touch(n.Store)
	clock.Advance(time.Hour)
	touch(n.Store)
	high := last
	clock.Advance(-2 * time.Hour)
	touch(n.Store)
	n.Stop()
	n = storetest.Start(t, storetest.WithPath(dir), storetest.WithCipher(c), storetest.WithClock(clock.Now))
	touch(n.Store)
	if !last.Equal(high) {
		t.Errorf("after a restart with a slow clock: %v, want %v", last, high)
	}
	err := n.Store.View(t.Context(), func(tx *store.Tx) error {
		if tx.Now().Before(high) {
			t.Errorf("view at %v sees a transaction of %v", tx.Now(), high)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	clock.Advance(24 * time.Hour)
	touch(n.Store)
	if !last.Equal(clock.Now()) {
		t.Errorf("now %v, clock %v", last, clock.Now())
	}
}

func TestEntryReportedUnknownMayCommitLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, nodes := newCluster(t, 1, nil)
		s, ctx := nodes[0], t.Context()
		log.hold(true)
		first := inFlight(func() error { return put(ctx, s, host{ID: "a", Name: "db"}) })
		log.mu.Lock()
		late := log.waiting[0]
		log.waiting = nil
		log.mu.Unlock()
		late.done <- errDropped
		wantKind(t, <-first, reeve.OutcomeUnknown, "outcome_unknown")
		log.mu.Lock()
		log.waiting = append(log.waiting, late)
		log.mu.Unlock()
		log.commit()
		log.hold(false)
		wantKind(t, put(ctx, s, host{ID: "b", Name: "db"}), reeve.Conflict, "host_name_taken")
		if err := put(ctx, s, host{ID: "b"}); err != nil {
			t.Error(err)
		}
	})
}

func TestCommittedWritesLeaveTheOverlay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, nodes := newCluster(t, 1, nil)
		s, ctx := nodes[0], t.Context()
		log.hold(true)
		first := inFlight(func() error { return put(ctx, s, host{ID: "a"}) })       // record and index entry
		again := inFlight(func() error { return put(ctx, s, host{ID: "a", N: 1}) }) // record
		log.mu.Lock()
		held := log.waiting[1]
		log.waiting = log.waiting[:1]
		log.mu.Unlock()
		log.commit()
		if err := <-first; err != nil {
			t.Error(err)
		}
		if n := s.OverlayLen(); n != 1 { // the record, which is the second's
			t.Errorf("%d keys in flight, want 1", n)
		}
		log.mu.Lock()
		log.waiting = append(log.waiting, held)
		log.mu.Unlock()
		log.commit()
		if err := <-again; err != nil {
			t.Error(err)
		}
		if n := s.OverlayLen(); n != 0 {
			t.Errorf("%d keys in flight, want 0", n)
		}
	})
}

func TestLeaderGoesOnAfterARestore(t *testing.T) {
	t.Parallel()
	_, nodes := newCluster(t, 1, nil)
	s, ctx := nodes[0], t.Context()
	if err := put(ctx, s, host{ID: "a"}); err != nil {
		t.Fatal(err)
	}
	stream := snapshotBytes(t, s)
	if err := put(ctx, s, host{ID: "b"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(bytes.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	if err := put(ctx, s, host{ID: "c"}); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff([]string{"a", "c"}, ids(t, s)); d != "" {
		t.Error(d)
	}
}

func TestStoppedStoreAnswersEverybody(t *testing.T) {
	t.Parallel()
	faults := new(storetest.Faults)
	n := storetest.Start(t, storetest.WithFaults(faults))
	defer faults.Hold()()
	waiting := make(chan error, 1)
	computed := make(chan struct{})
	go func() {
		waiting <- n.Store.Update(t.Context(), func(tx *store.Tx) error {
			close(computed)
			return hosts.Put(tx, &host{ID: "a"})
		})
	}()
	<-computed
	n.Stop()
	if k := reeve.KindOf(<-waiting); k != reeve.OutcomeUnknown && k != reeve.Unavailable {
		t.Errorf("kind %q", k)
	}
	err := put(t.Context(), n.Store, host{ID: "b"})
	if reeve.KindOf(err) != reeve.Unavailable {
		t.Errorf("after the stop: %v", err)
	}
	if err := n.Store.View(t.Context(), func(*store.Tx) error { return nil }); reeve.KindOf(err) != reeve.Unavailable {
		t.Errorf("view after the stop: %v", err)
	}
}
