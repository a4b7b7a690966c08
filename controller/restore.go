package controller

import (
	"context"
	"crypto/hmac"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/cluster"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/identity/oidc"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/backup"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// revisionGap is how far revisions jump at a restore: more than the transactions that
// can commit while it is under way, so that no fence is given out twice.
const revisionGap = 1 << 30

// restore replaces the cluster's state by a snapshot. The snapshot is first opened in a
// scratch state: a damaged one, one of another cluster, or one this cluster's keys do
// not open changes nothing. There it is also brought to where the cluster is now (amend),
// so that all of a restore happens in one step.
func (c *Controller) restore(ctx context.Context, by audit.Actor, snapshot io.Reader) error {
	dir, err := os.MkdirTemp(c.cfg.DataDir, "restore-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	scratch, err := store.Open(store.Config{Path: filepath.Join(dir, "state.db"), Cipher: c.seal, Logger: c.log})
	if err != nil {
		return err
	}
	defer func() { _ = scratch.Close() }() // it is deleted next
	head, stream, err := backup.Open(snapshot)
	if err != nil {
		return err
	}
	if head.Manifest.Cluster != c.cluster {
		return foreignSnapshot()
	}
	if err := authentic(c.seal, head); err != nil {
		return err
	}
	if err := scratch.Restore(stream); err != nil {
		return err
	}
	if _, err := rehearse(ctx, scratch, c.cluster); err != nil {
		return err
	}
	if err := c.amend(ctx, by, scratch); err != nil {
		return err
	}
	// What the leader's loops hold in memory belongs to the state that goes: a job they
	// granted in between would wait for an agent that never heard of it.
	resume, err := c.hold(ctx)
	if err != nil {
		return err
	}
	defer resume()
	return replaceState(ctx, c.raft, scratch, dir)
}

// replaceState puts a state of its own in the place of the cluster's; dir is for what lies
// on the way.
func replaceState(ctx context.Context, node *cluster.Node, scratch *store.Store, dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "snapshot"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // a directory of our own
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	snap, err := scratch.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Release()
	size, err := snap.WriteTo(f)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return node.Restore(ctx, f, size, snap.Index())
}

func foreignSnapshot() *reeve.Error {
	return reeve.Errorf(reeve.Invalid, "snapshot_foreign", "the snapshot is not one of this cluster").
		WithFix("restore it into the cluster it was taken from")
}

// authentic checks that the cluster itself wrote the manifest, and so the snapshot.
func authentic(keys *seal.Manager, head *backup.Header) error {
	macs, err := keys.MACs(seal.Backup, head.Signed)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(macs, func(mac []byte) bool { return hmac.Equal(mac, head.MAC) }) {
		return foreignSnapshot()
	}
	return nil
}

// plainTables hold what is not sealed, or sealed by itself.
var plainTables = []store.TableName{seal.Table, pki.NodeTable, pki.CATable, recoveries.Name()}

// rehearse proves that a restored state is one of the cluster and that every record in it
// opens with the keys there are; it returns how many there are.
func rehearse(ctx context.Context, scratch *store.Store, cluster string) (records int, err error) {
	err = scratch.View(ctx, func(tx *store.Tx) error {
		state, err := seal.LoadState(tx)
		if err != nil {
			return err
		}
		if state == nil || state.Cluster != cluster {
			return foreignSnapshot()
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if records, err = scratch.CheckSealed(plainTables...); err != nil {
		return records, foreignSnapshot().Wrap(err)
	}
	return records, nil
}

// amend brings an older state to where the cluster is: its keys, and who may speak to
// it, are those of now; fences go on from now; no open job runs again, every account is in
// doubt (C16); and the trail says which end of it was cut off.
func (c *Controller) amend(ctx context.Context, by audit.Actor, scratch *store.Store) error {
	const reason = "a snapshot was restored"
	after := time.Duration(0)
	err := c.store.View(ctx, func(now *store.Tx) error {
		cut, err := audit.Head(now)
		if err != nil {
			return err
		}
		// An agent may be at work under a lease that the older state does not know.
		if busy, err := jobs.AnyAtWork(now); err != nil {
			return err
		} else if busy {
			after = jobs.Settling(c.cfg.Terms)
		}
		return scratch.Amend(now.Revision()+revisionGap, func(tx *store.Tx) error {
			if err := errors.Join(seal.Keep(tx, now), pki.Keep(tx, now), identity.Keep(tx, now), oidc.Keep(tx, now)); err != nil {
				return err
			}
			if err := audit.Record(tx, audit.Event{By: by, Action: "cluster.restore_snapshot", Object: "cluster",
				Details: map[string]string{"replaced_sequence": revisionText(cut.Sequence), "replaced_hash": cut.Hash}}); err != nil {
				return err
			}
			return audit.Keep(tx, now, c.cluster)
		})
	})
	if err != nil {
		return err
	}
	return doubtAll(func(fn func(*store.Tx) error) error { return scratch.Amend(0, fn) }, by, reason, after, c.cfg.Terms)
}

func revisionText(n uint64) string { return strconv.FormatUint(n, 10) }
