package audit

import (
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/auditchain/checkpoint"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// signingKey is what checkpoints are signed with, in a sealed table of one row. Auditors
// know it; RotateKey tells them of another. An array is not kept by the store's memory
// of decoded records, so a node that is sealed does not have it.
type signingKey struct {
	Seed      checkpoint.Key `cbor:"1,keyasint,omitempty"`
	Verifying string         `cbor:"2,keyasint,omitempty"`
	Created   time.Time      `cbor:"3,keyasint,omitempty"`
}

var signingKeys = store.NewTable("audit_key", store.Key(func(*signingKey) string { return headKey }))

// MakeKey makes the key that signs checkpoints, unless there is one.
func MakeKey(tx *store.Tx, by Actor, cluster string) error {
	if _, err := signingKeys.Get(tx, headKey); reeve.KindOf(err) != reeve.NotFound {
		return err
	}
	k := &signingKey{Seed: checkpoint.NewKey(), Created: tx.Now()}
	defer clear(k.Seed[:])
	var err error
	if k.Verifying, err = k.Seed.Verifying(cluster); err != nil {
		return err
	}
	if err := signingKeys.Insert(tx, k); err != nil {
		return err
	}
	return Record(tx, Event{By: by, Action: "audit_key.create", Object: "audit", After: map[string]string{"key": k.Verifying}})
}

// RotateKey makes a new key, which signs checkpoints from now on. It signs a last one with
// the old key, which covers the record of this and names the new key, and returns it: who
// keeps it and knows the old key can follow.
func RotateKey(tx *store.Tx, by Actor, cluster string) (*Checkpoint, error) {
	if err := MakeKey(tx, by, cluster); err != nil { // a cluster that has not signed yet
		return nil, err
	}
	old, err := signingKeys.Get(tx, headKey)
	if err != nil {
		return nil, err
	}
	next := &signingKey{Seed: checkpoint.NewKey(), Created: tx.Now()}
	defer clear(next.Seed[:])
	if next.Verifying, err = next.Seed.Verifying(cluster); err != nil {
		return nil, err
	}
	if err := Record(tx, Event{By: by, Action: "audit_key.rotate", Object: "audit",
		Before: map[string]string{"key": old.Verifying}, After: map[string]string{"key": next.Verifying}}); err != nil {
		return nil, err
	}
	if err := handOver(tx, cluster, next.Verifying); err != nil {
		return nil, err
	}
	if err := signingKeys.Put(tx, next); err != nil {
		return nil, err
	}
	return NewestCheckpoint(tx)
}

// handOver signs all records there are, of which there is one at least; the last checkpoint
// names the next key.
func handOver(tx *store.Tx, cluster, next string) error {
	open, err := uncovered(tx)
	for ; err == nil && open > CheckpointRecords; open -= CheckpointRecords {
		_, err = Cover(tx, cluster)
	}
	if err == nil {
		_, err = cover(tx, cluster, next)
	}
	return err
}

// Keep makes the key of to, a restored state, that of from; record the restoration before. If
// the key was changed since, the one of then signs a last checkpoint, as if it were changed
// again. The checkpoints are those of the trail that to has.
func Keep(to, from *store.Tx, cluster string) error {
	then, err := VerifyingKey(to)
	if err != nil {
		return err
	}
	now, err := VerifyingKey(from)
	if err != nil {
		return err
	}
	if then != "" && now != "" && then != now {
		if err := handOver(to, cluster, now); err != nil {
			return err
		}
	}
	return signingKeys.Replace(to, from)
}

// VerifyingKey is the public key that proves checkpoints, "" while there is none.
func VerifyingKey(tx *store.Tx) (string, error) {
	k, err := signingKeys.Get(tx, headKey)
	switch {
	case reeve.KindOf(err) == reeve.NotFound:
		return "", nil
	case err != nil:
		return "", err
	}
	return k.Verifying, nil
}
