package store_test

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// journal is what a transaction says it read and wrote; it is stored by that very
// transaction, so the journal holds exactly the committed ones, in commit order.
type journal struct {
	ID       string         `cbor:"1,keyasint,omitempty"`
	Client   int            `cbor:"2,keyasint,omitempty"`
	Revision uint64         `cbor:"3,keyasint,omitempty"`
	Read     map[string]int `cbor:"4,keyasint,omitempty"`
	Wrote    map[string]int `cbor:"5,keyasint,omitempty"`
	Sum      int            `cbor:"6,keyasint,omitempty"`
}

var journals = store.NewTable("journal", store.Key(func(j *journal) string { return j.ID }))

// script is one transaction: read two records and the sum of all, write their sum.
type script struct{ Read, Other, Write string }

// TestUpdatesAreSerializable runs random transactions at the same time, on a log that
// loses, refuses and delays entries, and then runs the committed ones again one after
// the other: each must have read what it reads now. Acknowledged ones are all there,
// refused ones are not.
func TestUpdatesAreSerializable_O2(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		key := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		one := rapid.Custom(func(rt *rapid.T) script {
			return script{key.Draw(rt, "read"), key.Draw(rt, "other"), key.Draw(rt, "write")}
		})
		clients := rapid.SliceOfN(rapid.SliceOfN(one, 1, 6), 2, 6).Draw(rt, "clients")
		fates := rapid.SliceOfN(rapid.SampledFrom([]storetest.Fate{
			storetest.Commit, storetest.Commit, storetest.CommitUnknown, storetest.Lose, storetest.Refuse,
		}), 0, 12).Draw(rt, "fates")
		faults := new(storetest.Faults)
		faults.Next(fates...)
		n := storetest.Start(t, storetest.WithFaults(faults))
		defer n.Stop()

		answers := make([][]error, len(clients))
		var g sync.WaitGroup
		for c, scripts := range clients {
			answers[c] = make([]error, len(scripts))
			g.Go(func() {
				for i, sc := range scripts {
					id := fmt.Sprintf("%d/%d", c, i)
					answers[c][i] = n.Store.Update(t.Context(), func(tx *store.Tx) error { return play(tx, id, sc) })
				}
			})
		}
		g.Wait()
		checkSerial(t, rt, n.Store, answers)
	})
}

func play(tx *store.Tx, id string, sc script) error {
	j := &journal{ID: id, Revision: tx.Revision(), Read: map[string]int{}, Wrote: map[string]int{}}
	for _, k := range []string{sc.Read, sc.Other} {
		h, err := hosts.Get(tx, k)
		if err != nil && reeve.KindOf(err) != reeve.NotFound {
			return err
		}
		if err == nil {
			j.Read[k] = h.N
		}
	}
	for h, err := range hosts.Scan(tx, "site", store.Range{}) {
		if err != nil {
			return err
		}
		j.Sum += h.N
	}
	j.Wrote[sc.Write] = j.Read[sc.Read] + j.Read[sc.Other] + 1
	return errors.Join(hosts.Put(tx, &host{ID: sc.Write, N: j.Wrote[sc.Write]}), journals.Insert(tx, j))
}

func checkSerial(t *testing.T, rt *rapid.T, s *store.Store, answers [][]error) {
	byRevision, byID := map[uint64]*journal{}, map[string]bool{}
	state := map[string]int{}
	err := s.View(t.Context(), func(tx *store.Tx) error {
		for j, err := range journals.List(tx, "") {
			if err != nil {
				return err
			}
			byRevision[j.Revision], byID[j.ID] = j, true
		}
		for h, err := range hosts.List(tx, "") {
			if err != nil {
				return err
			}
			state[h.ID] = h.N
		}
		if tx.Revision() != uint64(len(byID)) {
			rt.Errorf("%d transactions, revision %d", len(byID), tx.Revision())
		}
		return nil
	})
	if err != nil {
		rt.Fatal(err)
	}
	model := map[string]int{}
	for r := uint64(1); r <= uint64(len(byID)); r++ {
		j := byRevision[r]
		if j == nil {
			rt.Fatalf("no transaction has revision %d", r)
		}
		sum := 0
		for _, n := range model {
			sum += n
		}
		if sum != j.Sum {
			rt.Errorf("%s at revision %d read the sum %d, want %d", j.ID, r, j.Sum, sum)
		}
		for k, n := range j.Read {
			if model[k] != n {
				rt.Errorf("%s at revision %d read %s=%d, want %d", j.ID, r, k, n, model[k])
			}
		}
		maps.Copy(model, j.Wrote)
	}
	if d := cmp.Diff(model, state); d != "" {
		rt.Errorf("final state: %s", d)
	}
	for c := range answers {
		for i, err := range answers[c] {
			committed := byID[fmt.Sprintf("%d/%d", c, i)]
			switch reeve.KindOf(err) {
			case "":
				if !committed {
					rt.Errorf("%d/%d was acknowledged and is lost", c, i)
				}
			case reeve.Unavailable:
				if committed {
					rt.Errorf("%d/%d was refused and is committed: %v", c, i, err)
				}
			case reeve.OutcomeUnknown:
			default:
				rt.Errorf("%d/%d: %v", c, i, err)
			}
		}
	}
}
