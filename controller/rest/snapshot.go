package rest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/backup"
)

// SaveSnapshot implements the contract.
func (s *Server) SaveSnapshot(ctx context.Context, _ SaveSnapshotRequestObject) (SaveSnapshotResponseObject, error) {
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		return none{}, audit.Record(tx, audit.Event{By: by, Action: "cluster.save_snapshot", Object: "cluster"})
	})
	if err != nil {
		return nil, err
	}
	snap, err := s.Store.Snapshot()
	if err != nil {
		return nil, err
	}
	m, err := s.manifest(ctx, snap)
	if err != nil {
		snap.Release()
		return nil, err
	}
	return snapshotDownload{ctx: ginContext(ctx).Request.Context(), s: s, snap: snap, manifest: m}, nil
}

// manifest says what is in a snapshot. It reads the snapshot once for its digest.
func (s *Server) manifest(ctx context.Context, snap *store.Snapshot) (backup.Manifest, error) {
	sum := sha256.New()
	size, err := snap.WriteTo(sum)
	if err != nil {
		return backup.Manifest{}, err
	}
	m := backup.Manifest{Cluster: s.Cluster, Node: s.Name, Version: s.Version, Recorded: snap.Recorded(), Revision: snap.Revision(),
		Index: snap.Index(), Size: size, SHA256: hex.EncodeToString(sum.Sum(nil))}
	err = s.Store.View(ctx, func(tx *store.Tx) error {
		m.Time = tx.Now()
		st, err := seal.LoadState(tx)
		if err == nil && st != nil {
			m.Generation, m.Keyring = st.Generation, st.KeyringVersion
		}
		return err
	})
	return m, err
}

// sign is the cluster's MAC of a manifest.
func (s *Server) sign(signed []byte) ([]byte, error) {
	macs, err := s.Seal.MACs(seal.Backup, signed)
	if err != nil {
		return nil, err
	}
	return macs[0], nil
}

type snapshotDownload struct {
	ctx      context.Context
	s        *Server
	snap     *store.Snapshot
	manifest backup.Manifest
}

// VisitSaveSnapshotResponse implements SaveSnapshotResponseObject.
func (d snapshotDownload) VisitSaveSnapshotResponse(w http.ResponseWriter) error {
	defer d.snap.Release()
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := backup.Write(untilDone{d.ctx, w}, d.manifest, d.s.sign, d.snap); err != nil {
		d.s.log.ErrorContext(d.ctx, "snapshot download broke off", "error", err)
		panic(http.ErrAbortHandler) // the caller must see that it is not whole; its checksum says so too
	}
	return nil
}

// untilDone writes nothing after the end of a context.
type untilDone struct {
	ctx context.Context //nolint:containedctx // of one answer
	w   io.Writer
}

func (u untilDone) Write(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.w.Write(p)
}

// maxSnapshot bounds what an upload may fill of the disk, in bytes.
const maxSnapshot = 64 << 30

// RestoreSnapshot implements the contract.
func (s *Server) RestoreSnapshot(ctx context.Context, r RestoreSnapshotRequestObject) (RestoreSnapshotResponseObject, error) {
	c := ginContext(ctx)
	up := &upload{r: http.MaxBytesReader(c.Writer, io.NopCloser(r.Body), maxSnapshot)}
	if err := s.Restore(c.Request.Context(), s.actor(c), up); err != nil {
		if up.err != nil { // the cause of whatever came of it
			return nil, unread(up.err)
		}
		return nil, err
	}
	return RestoreSnapshot204Response{}, nil
}

// upload remembers why reading failed.
type upload struct {
	r   io.Reader
	err error
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		u.err = err
	}
	return n, err
}
