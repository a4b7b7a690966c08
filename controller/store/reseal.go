package store

import "context"

// resealScan and resealBatch bound what one Reseal looks at, and what it changes in one
// transaction.
const (
	resealScan  = 1 << 14
	resealBatch = 256
)

// Reseal seals records again whose stored bytes stale says are to be, as after a change
// of keys, and leaves everything else about them as it is. It goes through the records
// of all tables in order, from after the place at which an earlier call left off ("" for
// the beginning), and returns the next place, "" when it has seen all, and how many it
// sealed. Records that change at the same time are sealed by whoever changes them.
//
// stale is asked about plain records too.
func (s *Store) Reseal(ctx context.Context, stale func(value []byte) bool, from string) (next string, resealed int, err error) {
	var keys []string
	err = s.View(ctx, func(tx *Tx) error {
		seen := 0
		sn := tx.view()
		defer sn.own.release()
		sn.scan(from, "", func(key string, value []byte) bool {
			if seen++; seen > resealScan || len(keys) == resealBatch {
				next = key
				return false
			}
			if _, record, _ := tableOf(key); record && stale(value) {
				keys = append(keys, key)
			}
			return true
		})
		return nil
	})
	if err != nil || len(keys) == 0 {
		return next, 0, err
	}
	err = s.Update(ctx, func(tx *Tx) error {
		resealed = 0
		for _, key := range keys {
			value, ok := tx.get(key)
			if !ok || !stale(value) {
				continue // deleted or written meanwhile
			}
			t, _, _ := tableOf(key)
			bound := aad(t, key[len(recordPrefix(t)):])
			plain, err := s.cipher.Open(bound, value)
			if err != nil {
				return err
			}
			sealed, err := s.cipher.Seal(bound, plain)
			clear(plain)
			if err != nil {
				return err
			}
			if err := tx.set(key, cell{value: sealed}); err != nil {
				return err
			}
			resealed++
		}
		return nil
	})
	return next, resealed, err
}
