package audit

import (
	"context"
	"log/slog"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/auditchain/checkpoint"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// A checkpoint is signed after so many records, or so long after a record.
const (
	CheckpointRecords = MaxPage
	CheckpointTime    = time.Minute
)

// signRetry is how long a Notary waits after something went wrong.
const signRetry = 5 * time.Second

// Checkpoint is a signed one.
type Checkpoint struct {
	Sequence uint64    `cbor:"1,keyasint,omitempty"` // of the last record it covers
	Hash     string    `cbor:"2,keyasint,omitempty"` // of that record
	Root     string    `cbor:"3,keyasint,omitempty"` // of the Merkle tree, in base64
	Time     time.Time `cbor:"4,keyasint,omitempty"`
	Note     []byte    `cbor:"5,keyasint,omitempty"` // the signed note, see auditchain/checkpoint
}

var checkpoints = store.NewTable("audit_checkpoint", store.Key(func(c *Checkpoint) string { return key(c.Sequence) }))

// tree is the Merkle tree up to the newest checkpoint, in a table of one row.
type tree struct {
	checkpoint.Tree
	Hash string    `cbor:"3,keyasint,omitempty"` // of the last record in it
	Time time.Time `cbor:"4,keyasint,omitempty"` // of its checkpoint
}

var trees = store.NewTable("audit_tree", store.Key(func(*tree) string { return headKey }))

// Checkpoints returns signed checkpoints, oldest first: at most limit of them, those that
// cover more than after records only.
func Checkpoints(tx *store.Tx, after uint64, limit int) ([]*Checkpoint, error) {
	var page []*Checkpoint
	for c, err := range checkpoints.List(tx, key(after)) {
		if err != nil {
			return nil, err
		}
		if page = append(page, c); len(page) == limit {
			break
		}
	}
	return page, nil
}

// NewestCheckpoint is nil while there is none.
func NewestCheckpoint(tx *store.Tx) (*Checkpoint, error) {
	for c, err := range checkpoints.ListDesc(tx, "") {
		return c, err
	}
	return nil, nil //nolint:nilnil // documented: there is none at first
}

// uncovered is how many records no checkpoint covers yet.
func uncovered(tx *store.Tx) (uint64, error) {
	h, err := readHead(tx)
	if err != nil {
		return 0, err
	}
	t, err := readTree(tx)
	if err != nil {
		return 0, err // sealed meanwhile, say
	}
	return h.Sequence - t.Size, nil
}

func readTree(tx *store.Tx) (*tree, error) {
	t, err := trees.Get(tx, headKey)
	if reeve.KindOf(err) == reeve.NotFound {
		return &tree{}, nil
	}
	return t, err
}

// Cover signs a checkpoint of the next CheckpointRecords records, or of fewer if there are
// no more; it returns how many, 0 for none and no checkpoint. It fails with an
// *auditchain.BrokenError rather than sign a chain that is broken.
func Cover(tx *store.Tx, cluster string) (covered int, err error) { return cover(tx, cluster, "") }

// cover is Cover of a checkpoint that names the key that signs those after it, if any.
func cover(tx *store.Tx, cluster, next string) (covered int, err error) {
	t, err := readTree(tx)
	if err != nil {
		return 0, err
	}
	records, err := List(tx, t.Size, CheckpointRecords, Filter{})
	if err != nil || len(records) == 0 {
		return 0, err
	}
	k, err := signingKeys.Get(tx, headKey)
	if err != nil {
		return 0, err
	}
	defer clear(k.Seed[:])
	if now := tx.Now().UTC(); now.After(t.Time) {
		t.Time = now
	}
	for _, r := range records {
		if err := auditchain.Follows(auditchain.Head{Sequence: t.Size, Hash: t.Hash}, r); err != nil {
			return 0, err
		}
		if err := t.Append(r.Hash); err != nil {
			return 0, err
		}
		t.Hash = r.Hash
		if r.Time.After(t.Time) {
			t.Time = r.Time
		}
	}
	signed, err := k.Seed.Sign(checkpoint.Checkpoint{Cluster: cluster, Head: auditchain.Head{Sequence: t.Size, Hash: t.Hash}, Root: t.Root(), Time: t.Time, Edge: t.Edge, Next: next})
	if err != nil {
		return 0, err
	}
	if err := checkpoints.Insert(tx, &Checkpoint{Sequence: t.Size, Hash: t.Hash, Root: t.Root().String(), Time: t.Time, Note: signed}); err != nil {
		return 0, err
	}
	return len(records), trees.Put(tx, t)
}

// Notary signs checkpoints; it runs on the leader. What it has done is in the store, so
// the next one goes on where it ended. Signing is not itself in the trail, which would
// then never come to rest.
type Notary struct {
	store   *store.Store
	cluster string
	log     *slog.Logger
	Signed  func(error) // is told of each try, if it is set before Run
}

// NewNotary returns the Notary of a cluster.
func NewNotary(st *store.Store, cluster string, log *slog.Logger) *Notary {
	return &Notary{store: st, cluster: cluster, log: log}
}

// Run signs until ctx ends.
func (n *Notary) Run(ctx context.Context) error {
	changed, stop := n.store.Watch(entries.Name())
	defer stop()
	for {
		wait := CheckpointTime
		err := n.sign(ctx, 1)
		if n.Signed != nil && ctx.Err() == nil {
			n.Signed(err)
		}
		if err != nil && ctx.Err() == nil {
			n.log.Error("no checkpoint of the audit trail was signed; trying again", "error", err)
			wait = signRetry
		}
		if !n.await(ctx, changed, wait) {
			return nil
		}
	}
}

// await returns true when it is time again to sign whatever there is. Meanwhile it signs
// what is many records.
func (n *Notary) await(ctx context.Context, changed <-chan struct{}, wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
			return true
		case <-changed:
			if err := n.sign(ctx, CheckpointRecords); err != nil {
				n.log.Debug("many records could not be signed at once", "error", err) // the timer tries again
			}
		}
	}
}

// sign signs as long as there are at least so many records to cover.
func (n *Notary) sign(ctx context.Context, least uint64) error {
	for {
		var open uint64
		var known string
		err := n.store.View(ctx, func(tx *store.Tx) (err error) {
			if open, err = uncovered(tx); err != nil {
				return err
			}
			known, err = VerifyingKey(tx)
			return err
		})
		if err != nil || open < least {
			return err
		}
		if err := n.store.Update(ctx, func(tx *store.Tx) error {
			if known == "" { // a cluster of a release that signed nothing
				if err := MakeKey(tx, System("controller"), n.cluster); err != nil {
					return err
				}
			}
			_, err := Cover(tx, n.cluster)
			return err
		}); err != nil {
			return err
		}
	}
}
