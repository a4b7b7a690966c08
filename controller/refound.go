package controller

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/cluster"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/backup"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Opened is a backup that was opened with the cluster's keys.
type Opened struct {
	Manifest backup.Manifest
	Records  int // each of which opens
}

// Keys open a backup: so many shares as its seal needs, or the path of its key file.
type Keys struct {
	Shares  []reeve.Secret
	KeyFile string
}

// Rehearse proves that a backup could be restored: it is whole, the cluster's own, and
// every record in it opens. It works in a directory of its own below dir, which it
// removes, and needs no cluster.
func Rehearse(ctx context.Context, dir string, in io.Reader, keys Keys, log *slog.Logger) (*Opened, error) {
	b, err := openBackup(ctx, Config{DataDir: dir, Logger: log}, in, keys)
	if err != nil {
		return nil, err
	}
	return &b.Opened, b.close()
}

// opened is a backup in a state of its own, with the keys that open it.
type opened struct {
	Opened
	dir   string
	state *store.Store
	seal  *seal.Manager
}

func (o *opened) close() error {
	o.seal.SealNode()
	return errors.Join(o.state.Close(), os.RemoveAll(o.dir))
}

// openBackup reads a backup into a state below the data directory and opens all of it.
func openBackup(ctx context.Context, cfg Config, in io.Reader, keys Keys) (_ *opened, err error) {
	head, stream, err := backup.Open(in)
	if err != nil {
		return nil, err
	}
	o := &opened{Opened: Opened{Manifest: head.Manifest}, seal: seal.NewManager(cfg.Logger)}
	if o.dir, err = os.MkdirTemp(cfg.DataDir, "restore-"); err != nil {
		return nil, err
	}
	o.state, err = store.Open(store.Config{Path: filepath.Join(o.dir, "state.db"), Cipher: o.seal, Logger: cfg.Logger})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(o.dir))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.close())
		}
	}()
	if err := o.state.Restore(stream); err != nil {
		return nil, err
	}
	if err := o.unseal(ctx, keys); err != nil {
		return nil, err
	}
	if err := authentic(o.seal, head); err != nil {
		return nil, err
	}
	o.Records, err = rehearse(ctx, o.state, head.Manifest.Cluster)
	return o, err
}

func (o *opened) unseal(ctx context.Context, keys Keys) error {
	err := o.state.View(ctx, func(tx *store.Tx) error {
		state, err := seal.LoadState(tx)
		if err != nil || state == nil {
			return foreignSnapshot().Wrap(err)
		}
		return o.seal.Load(state)
	})
	if err != nil {
		return err
	}
	if keys.KeyFile != "" {
		return o.seal.UnsealWithKeyFile(keys.KeyFile)
	}
	for _, s := range keys.Shares {
		if _, err := o.seal.Unseal(s); err != nil {
			return err
		}
	}
	if st := o.seal.Status(); st.Sealed {
		return reeve.Errorf(reeve.Precondition, "shares_missing", "the backup needs %d shares of its seal key (generation %d); %d were given",
			st.Threshold, st.Generation, len(st.Given)).WithFix("give --share-file once for each share, or --key-file for a cluster with a key file")
	}
	return nil
}

// Refound makes a cluster of one out of a backup, in an empty data directory, after all
// controllers of the cluster were lost. It goes on as that cluster, with its keys. Nobody
// who had access has it still, since what was revoked after the backup is not known:
// other controllers and all agents must enrol anew, and all tokens are void; there is a new one for
// root. Jobs that were open do not run again, and all accounts are in doubt.
//
// Errors: Conflict "already_initialised", Invalid "snapshot_corrupt", "snapshot_foreign",
// Precondition "shares_missing", and those of unsealing.
func Refound(ctx context.Context, cfg Config, in io.Reader, keys Keys) (_ *Bootstrapped, _ *Opened, err error) {
	if err := cfg.complete(); err != nil {
		return nil, nil, err
	}
	if err := cfg.unused(); err != nil {
		return nil, nil, err
	}
	if err := cfg.prepare(); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil { // let the operator simply try again
			_ = os.RemoveAll(cfg.DataDir)
		}
	}()
	b, err := openBackup(ctx, cfg, in, keys)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	me, err := pki.OpenNodeIdentity(cfg.identityPath())
	if err != nil {
		return nil, nil, err
	}
	id := reeve.NewNodeID()
	made := &Bootstrapped{Cluster: b.Manifest.Cluster}
	enrolled, err := made.refound(b, cfg, id, me)
	if err != nil {
		return nil, nil, err
	}
	if err := begin(ctx, cfg, id, b); err != nil {
		return nil, nil, err
	}
	made.CA = enrolled.CA
	return made, &b.Opened, me.Install(enrolled)
}

// refound brings the state of a backup to what a cluster begins with after all is lost.
func (m *Bootstrapped) refound(b *opened, cfg Config, id reeve.NodeID, me *pki.NodeIdentity) (enrolled *pki.NodeEnrollment, err error) {
	csr, err := me.Request()
	if err != nil {
		return nil, err
	}
	const reason = "the cluster was restored from a backup"
	by := audit.System("restore")
	authority := pki.New(b.state, b.seal, cfg.Logger)
	err = b.state.Amend(b.Manifest.Revision+revisionGap, func(tx *store.Tx) (err error) {
		if enrolled, err = authority.Refound(tx, by, id, csr, cfg.info(), reason); err != nil {
			return err
		}
		if _, m.RootToken, err = identity.Refound(tx, by); err != nil {
			return err
		}
		return audit.Record(tx, audit.Event{By: by, Action: "cluster.restore_backup", Object: "cluster", Details: map[string]string{
			"written_at": b.Manifest.Time.Format(time.RFC3339), "revision": revisionText(b.Manifest.Revision), "node": cfg.Name}})
	})
	if err != nil {
		return nil, err
	}
	return enrolled, doubtAll(func(fn func(*store.Tx) error) error { return b.state.Amend(0, fn) }, by, reason, jobs.Settling(cfg.Terms), cfg.Terms)
}

// begin makes a state the beginning of a log, by leading a cluster of one for a moment.
func begin(ctx context.Context, cfg Config, id reeve.NodeID, b *opened) (err error) {
	leading := make(chan struct{}, 1)
	node, err := cluster.Open(cluster.Config{
		ID: id, Cluster: b.Manifest.Cluster, Bind: "127.0.0.1:0", Advertise: cfg.Raft.Address(), DataDir: cfg.DataDir, Logger: cfg.Logger,
		Timeouts: cluster.TimeoutsLAN,
		TLS:      func() (*tls.Config, error) { return nobody(b.Manifest.Cluster, id) },
		Lead: func(ctx context.Context, _ uint64) error {
			leading <- struct{}{}
			<-ctx.Done()
			return nil
		},
	})
	if err != nil {
		return err
	}
	st, err := store.Open(store.Config{Path: cfg.statePath(), Cipher: b.seal, Replicator: node, Logger: cfg.Logger})
	if err != nil {
		return errors.Join(err, node.Close())
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := node.Bootstrap(); err != nil {
		return errors.Join(err, node.Close())
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	g, running := errgroup.WithContext(running)
	g.Go(func() error { return st.Run(running) })
	g.Go(func() error { return node.Run(running, st) })
	g.Go(func() error {
		defer stop()
		select {
		case <-running.Done():
			return running.Err()
		case <-leading:
		}
		return replaceState(running, node, b.state, b.dir)
	})
	return g.Wait()
}
