package jobs

import (
	"context"

	"github.com/reeve-pam/reeve/controller/store"
)

// pruneBatch is how many jobs, or chunks of one, a transaction of prune deletes.
const pruneBatch = 100

// prune deletes the jobs that ended longer than Retention ago, and their logs. The
// exposure records and the audit trail stay.
func (b *Broker) prune(ctx context.Context) error {
	for {
		more := false
		err := b.store.Update(ctx, func(tx *store.Tx) (err error) {
			more, err = pruneSome(tx)
			return err
		})
		if err != nil || !more {
			return err
		}
	}
}

func pruneSome(tx *store.Tx) (more bool, err error) {
	if tx.ClockInDoubt() {
		return false, nil
	}
	var old []*Job
	for j, err := range table.Scan(tx, "finished", store.Range{To: store.TimePart(tx.Now().Add(-Retention))}) {
		if err != nil {
			return false, err
		}
		old = append(old, j)
		if len(old) == pruneBatch {
			break
		}
	}
	budget := pruneBatch
	for _, j := range old {
		var keys []string
		for c, err := range chunks.List(tx, string(j.ID)+"/") {
			if err != nil {
				return false, err
			}
			if c.Job != j.ID || len(keys) == budget {
				break
			}
			keys = append(keys, chunkKey(c.Job, c.Attempt, c.Sequence))
		}
		for _, k := range keys {
			if err := chunks.Delete(tx, k); err != nil {
				return false, err
			}
		}
		if budget -= len(keys); budget <= 0 {
			return true, nil // the job itself goes when its log is gone
		}
		if _, err := logHeads.Get(tx, string(j.ID)); err == nil {
			if err := logHeads.Delete(tx, string(j.ID)); err != nil {
				return false, err
			}
		}
		if err := table.Delete(tx, string(j.ID)); err != nil {
			return false, err
		}
	}
	return len(old) == pruneBatch, nil
}
