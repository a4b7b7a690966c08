package controller

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// After new terms the leader's upkeep leaves no value of an older one: not a record, not
// a data key inside a record, not the key of an authority. It can be broken off anywhere
// and goes on; the values themselves are what they were.
func TestTheUpkeepRewrapsEverything_K4(t *testing.T) {
	t.Parallel()
	log, faults := slog.New(slog.DiscardHandler), new(storetest.Faults)
	c := &Controller{log: log, cluster: "test.cluster", seal: seal.NewManager(log)}
	c.store = storetest.New(t, storetest.WithCipher(c.seal), storetest.WithFaults(faults))
	c.authority, c.vault = pki.New(c.store, c.seal, log), vault.New(c.seal)
	me, err := pki.OpenNodeIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	csr, err := me.Request()
	if err != nil {
		t.Fatal(err)
	}
	by := audit.System("test")
	var ids []reeve.SecretID
	_, err = c.seal.Init(t.Context(), c.store, c.cluster, seal.Scheme{Shares: 2, Threshold: 2}, func(tx *store.Tx) error {
		_, err := c.authority.Bootstrap(tx, by, c.cluster, reeve.NewNodeID(), csr, pki.NodeInfo{Name: "c1", RaftAddr: "127.0.0.1:1", APIAddr: "127.0.0.1:2", AgentAddr: "127.0.0.1:3"})
		for i := 0; err == nil && i < 300; i++ {
			var id reeve.SecretID
			if id, err = c.vault.Create(tx, vault.Password, "acct_1"); err == nil {
				_, err = c.vault.AddCandidate(tx, id, reeve.SecretString(fmt.Sprint("canary-", i)))
			}
			ids = append(ids, id)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// stale counts what is left of older terms, changing nothing.
	stale := func() (records, keys, authorities int) {
		t.Helper()
		count := func(n *int) func([]byte) bool {
			return func(v []byte) bool {
				if c.seal.Stale(seal.Data, v) {
					*n++
				}
				return false
			}
		}
		if next, _, err := c.store.Reseal(t.Context(), count(&records), ""); err != nil || next != "" {
			t.Fatal(next, err)
		}
		if next, _, err := c.vault.Rewrap(t.Context(), c.store, count(&keys), ""); err != nil || next != "" {
			t.Fatal(next, err)
		}
		unchanged := fmt.Errorf("not to be kept")
		if err := c.store.Update(t.Context(), func(tx *store.Tx) (err error) {
			if authorities, err = c.authority.Rewrap(tx); err != nil {
				return err
			}
			return unchanged
		}); err.Error() != unchanged.Error() {
			t.Fatal(err)
		}
		return records, keys, authorities
	}
	if r, k, a := stale(); r+k+a != 0 {
		t.Fatalf("before there are other terms: %d records, %d keys, %d authorities", r, k, a)
	}
	if err := c.store.Update(t.Context(), func(tx *store.Tx) error { return c.seal.Rotate(tx, by) }); err != nil {
		t.Fatal(err)
	}
	if r, k, a := stale(); r < 600 || k != 300 || a != 2 {
		t.Fatalf("after a rotation: %d records, %d keys, %d authorities", r, k, a)
	}
	tries := 0
	for ; tries < 20; tries++ { // each time one transaction gets further
		for range tries {
			faults.Next(storetest.Commit)
		}
		faults.Next(storetest.Lose)
		if err = c.keepKeysOnce(t.Context()); err == nil {
			break
		}
		if reeve.KindOf(err) != reeve.OutcomeUnknown {
			t.Fatal(err)
		}
	}
	if err != nil || tries < 3 {
		t.Fatalf("the upkeep ended after %d interruptions: %v", tries, err)
	}
	if r, k, a := stale(); r+k+a != 0 {
		t.Errorf("after the upkeep: %d records, %d keys, %d authorities are of older terms", r, k, a)
	}
	err = c.store.View(t.Context(), func(tx *store.Tx) error {
		if s, err := seal.LoadState(tx); err != nil || s.RewrapPending() {
			t.Errorf("the upkeep is not noted as done: %v", err)
		}
		for i, id := range ids {
			if _, value, err := c.vault.Open(tx, id, 1); err != nil || value.Reveal() != fmt.Sprint("canary-", i) {
				t.Fatalf("secret %d: %v", i, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
