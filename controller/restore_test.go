package controller

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// A restore takes the inventory back, and nothing that would open the cluster to who was
// shut out, give a fence twice, or leave keys behind.
func TestARestoredStateGoesOnFromNow_C16(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	c := &Controller{log: log, cluster: "test.cluster", seal: seal.NewManager(log)}
	c.store = storetest.New(t, storetest.WithCipher(c.seal))
	c.authority = pki.New(c.store, c.seal, log)
	me, err := pki.OpenNodeIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	csr, err := me.Request()
	if err != nil {
		t.Fatal(err)
	}
	by := audit.Actor{Kind: "user", ID: "prin_1", Name: "alice"}
	var token *identity.Token
	_, err = c.seal.Init(t.Context(), c.store, c.cluster, seal.Scheme{Shares: 2, Threshold: 2}, func(tx *store.Tx) error {
		info := pki.NodeInfo{Name: "c1", RaftAddr: "127.0.0.1:1", APIAddr: "127.0.0.1:2", AgentAddr: "127.0.0.1:3"}
		if _, err := c.authority.Bootstrap(tx, by, c.cluster, reeve.NewNodeID(), csr, info); err != nil {
			return err
		}
		root, err := identity.CreatePrincipal(tx, by, "root", identity.Root, identity.Profile{})
		if err != nil {
			return err
		}
		token, _, err = identity.CreateToken(tx, by, identity.NewToken{Principal: root.ID})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	do := func(fn func(*store.Tx) error) {
		t.Helper()
		if err := c.store.Update(t.Context(), fn); err != nil {
			t.Fatal(err)
		}
	}
	do(func(tx *store.Tx) error {
		_, err := inventory.AddSite(tx, by, inventory.NewSite{Name: "then"})
		return err
	})
	var backup bytes.Buffer
	snap, err := c.store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := snap.WriteTo(&backup); err != nil {
		t.Fatal(err)
	}
	snap.Release()

	do(func(tx *store.Tx) error {
		_, err := inventory.AddSite(tx, by, inventory.NewSite{Name: "later"})
		return err
	})
	do(func(tx *store.Tx) error { return identity.RevokeToken(tx, by, token.ID) })
	do(func(tx *store.Tx) error { return c.seal.Rotate(tx, by) })
	var signs string
	do(func(tx *store.Tx) (err error) { // as the leader of a cluster does that had no key
		if err := audit.MakeKey(tx, by, c.cluster); err != nil {
			return err
		}
		if signs, err = audit.VerifyingKey(tx); err == nil {
			_, err = audit.Cover(tx, c.cluster)
		}
		return err
	})

	scratch, err := store.Open(store.Config{Path: filepath.Join(t.TempDir(), "state.db"), Cipher: c.seal, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = scratch.Close() }()
	if err := scratch.Restore(&backup); err != nil {
		t.Fatal(err)
	}
	if n, err := rehearse(t.Context(), scratch, c.cluster); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	if err := c.amend(t.Context(), by, scratch); err != nil {
		t.Fatal(err)
	}
	var now uint64
	var ring *seal.State
	err = c.store.View(t.Context(), func(tx *store.Tx) (err error) {
		now = tx.Revision()
		ring, err = seal.LoadState(tx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = scratch.View(context.Background(), func(tx *store.Tx) error {
		if tx.Revision() <= now {
			t.Errorf("revision %d after a restore, %d before: fences would come twice", tx.Revision(), now)
		}
		if _, err := inventory.GetSite(tx, "then"); err != nil {
			t.Errorf("a site of the backup: %v", err)
		}
		if _, err := inventory.GetSite(tx, "later"); reeve.KindOf(err) != reeve.NotFound {
			t.Errorf("a site that came after the backup: %v", err)
		}
		if _, err := identity.GetToken(tx, token.ID); reeve.KindOf(err) != reeve.NotFound {
			t.Errorf("a token that was revoked is back: %v", err)
		}
		kept, err := seal.LoadState(tx)
		if err != nil || kept.KeyringVersion != ring.KeyringVersion {
			t.Errorf("the keyring is not that of now (%v)", err)
		}
		if key, err := audit.VerifyingKey(tx); err != nil || key != signs {
			t.Errorf("checkpoints are signed with %q, before with %q (%v)", key, signs, err)
		}
		if newest, err := audit.NewestCheckpoint(tx); err != nil || newest != nil {
			t.Errorf("a checkpoint of what was cut off: %+v (%v)", newest, err)
		}
		found, err := audit.List(tx, 0, 10, audit.Filter{Action: "cluster.restore_snapshot"})
		if err != nil || len(found) != 1 || found[0].Details["replaced_hash"] == "" {
			t.Errorf("the trail says %v (%v)", found, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
