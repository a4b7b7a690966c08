package jobs

import (
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
)

// interruptBatch is how many jobs one transaction of Interrupt ends.
const interruptBatch = 100

// Interrupt ends jobs that a state from the past says are not finished: a restored
// backup, or what one controller knew when the others were lost. They may have been done
// since, so none is given out again. A change that an agent may still be at work on keeps
// its account until that is surely over, as after a lost lease; the rest ends at once: as
// uncertain if it changes a target. Zero terms are those of the queue.
//
// It takes some jobs; call it until there are no more, each time in a transaction of its own.
func Interrupt(tx *store.Tx, by audit.Actor, reason string, t Terms) (more bool, err error) {
	if t == (Terms{}) {
		t = defaultTerms
	}
	var open []*Job
	for _, state := range []State{StateLeased, StateQueued} {
		for j, err := range table.Scan(tx, "state", store.Range{Prefix: []string{string(state)}}) {
			if err != nil {
				return false, err
			}
			if j.Quarantined && j.CancelRequested {
				continue // ends by itself
			}
			if open = append(open, j); len(open) > interruptBatch {
				break
			}
		}
	}
	if more = len(open) > interruptBatch; more {
		open = open[:interruptBatch]
	}
	for _, j := range open {
		j.interrupt(by, reason, tx.Now(), t)
		if err := put(tx, j); err != nil {
			return false, err
		}
		if err := recordEnd(tx, by, j); err != nil {
			return false, err
		}
	}
	return more, nil
}

func (j *Job) interrupt(by audit.Actor, reason string, now time.Time, t Terms) {
	j.CancelRequested, j.CancelledBy = true, by.ID
	switch {
	case j.State == StateLeased && j.Mutates:
		j.end(lostLease(reason), now, 0, t)
	case j.Quarantined:
	case j.Mutates:
		j.finish(StateUncertain, now)
	default:
		if d := j.delivery(j.Lease.Fence); j.State == StateLeased && d != nil {
			e := lostLease(reason)
			d.EndedAt, d.Ending, d.Outcome, d.Class, d.Message = now, e.how, e.outcome, e.class, e.message
		}
		j.finish(StateCancelled, now)
	}
	j.Failure = reason
}

// Settling is how long a change may go on that was begun under a lease nobody knows of
// any more. Zero terms are those of the queue.
func Settling(t Terms) time.Duration {
	if t == (Terms{}) {
		t = defaultTerms
	}
	return t.Lease + t.KillGrace + min(defaultTimeout, t.Work) + t.DriftMargin
}

// AnyAtWork reports whether an agent may be changing a target now.
func AnyAtWork(tx *store.Tx) (bool, error) {
	for j, err := range table.Scan(tx, "held", store.Range{}) {
		if err != nil || j.Mutates {
			return err == nil, err
		}
	}
	return false, nil
}
