package vault

import (
	"context"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// rewrapScan and rewrapBatch bound what one Rewrap looks at, and changes in one transaction.
const (
	rewrapScan  = 4096
	rewrapBatch = 128
)

// Rewrap wraps data keys of versions again that stale says are to be, as after a change of
// keys; the values under them stay as they are. It goes through all versions, from after
// the place at which an earlier call left off ("" for the beginning), and returns the next
// place, "" when it has seen all, and how many it wrapped.
func (v *Vault) Rewrap(ctx context.Context, s *store.Store, stale func(wrapped []byte) bool, after string) (next string, wrapped int, err error) {
	var keys []string
	err = s.View(ctx, func(tx *store.Tx) error {
		seen := 0
		for r, err := range versions.List(tx, after) {
			if err != nil {
				return err
			}
			key := versionKey(r.Secret, r.Number)
			if stale(r.Key) {
				keys = append(keys, key)
			}
			if seen++; seen == rewrapScan || len(keys) == rewrapBatch {
				next = key
				return nil
			}
		}
		return nil
	})
	if err != nil || len(keys) == 0 {
		return next, 0, err
	}
	err = s.Update(ctx, func(tx *store.Tx) error {
		wrapped = 0
		for _, key := range keys {
			done, err := v.rewrap(tx, key, stale)
			if err != nil {
				return err
			}
			wrapped += done
		}
		return nil
	})
	return next, wrapped, err
}

func (v *Vault) rewrap(tx *store.Tx, key string, stale func([]byte) bool) (int, error) {
	r, err := versions.Get(tx, key)
	if reeve.KindOf(err) == reeve.NotFound || err == nil && !stale(r.Key) {
		return 0, nil // pruned or wrapped meanwhile
	}
	if err != nil {
		return 0, err
	}
	s, err := secrets.Get(tx, string(r.Secret))
	if err != nil {
		return 0, err
	}
	place := binding("key", s, r.Number)
	dek, err := v.cipher.Open(place, r.Key)
	if err != nil {
		return 0, err
	}
	defer clear(dek)
	if r.Key, err = v.cipher.Seal(place, dek); err != nil {
		return 0, err
	}
	return 1, versions.Put(tx, r)
}
