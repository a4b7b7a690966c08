package jobs

import (
	"context"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// decide applies a rule to a job in a transaction of its own and tells the handler.
// The rule returns what the job came to; an empty outcome means that the job has moved
// on meanwhile and is left alone.
func (b *Broker) decide(ctx context.Context, id reeve.JobID, rule func(*Job, time.Time) (reeve.Outcome, reeve.Class, string)) error {
	var j *Job
	var res *agentv1.Result
	apply := func(tx *store.Tx) (applied bool, err error) {
		if j, err = Get(tx, id); err != nil {
			return false, err
		}
		outcome, class, message := rule(j, tx.Now())
		if outcome == "" {
			return false, nil
		}
		res = decided(outcome, class, message, tx.Now())
		return true, nil
	}
	err := b.store.Update(ctx, func(tx *store.Tx) error {
		applied, err := apply(tx)
		if err != nil || !applied {
			return err
		}
		return b.handlers.settle(tx, system, j, res)
	})
	if err == nil || heals(err) {
		return err
	}
	cause := err
	return b.store.Update(ctx, func(tx *store.Tx) error {
		applied, err := apply(tx)
		if err != nil || !applied {
			return err
		}
		return bury(tx, b.log, system, j, res, cause)
	})
}

// expire does what is due: leases that ran out, quarantines and deadlines.
func (b *Broker) expire(ctx context.Context, due []*card) error {
	for _, c := range due {
		rule, expired := waited, false
		switch c.place {
		case atWork:
			lost := b.lost(c.fence)
			rule = func(j *Job, now time.Time) (reeve.Outcome, reeve.Class, string) {
				outcome, class, message := lost(j, now)
				expired = outcome != ""
				return outcome, class, message
			}
		case quarantined:
			rule = released
		}
		if err := b.decide(ctx, c.id, rule); err != nil && reeve.KindOf(err) != reeve.NotFound {
			return err
		}
		if expired {
			b.metrics.expired.Inc()
		}
	}
	b.undo(nil, due) // what was decided leaves the board or gets a new card by follow
	return nil
}

// lost ends the lease with the fence. Whether it ran out is known to this leader alone,
// which has heard the renewals.
func (b *Broker) lost(fence uint64) func(*Job, time.Time) (reeve.Outcome, reeve.Class, string) {
	return func(j *Job, now time.Time) (reeve.Outcome, reeve.Class, string) {
		if j.State != StateLeased || j.Lease.Fence != fence {
			return "", "", ""
		}
		e := lostLease("the agent did not report before its lease ended")
		j.end(e, now, b.cfg.Rand(), b.cfg.Terms)
		return e.outcome, e.class, e.message
	}
}

// lostLease is the end of a delivery that nobody reported.
func lostLease(message string) ended {
	return ended{how: EndLost, outcome: reeve.OutcomeUncertain, class: reeve.ClassUnknownOutcome, message: message}
}

// released ends a quarantine.
func released(j *Job, now time.Time) (reeve.Outcome, reeve.Class, string) {
	if !j.Quarantined || j.NotBefore.After(now) {
		return "", "", ""
	}
	j.release(now)
	return reeve.OutcomeUncertain, reeve.ClassUnknownOutcome, j.Failure
}

// waited ends a job that no agent finished before its deadline.
func waited(j *Job, now time.Time) (reeve.Outcome, reeve.Class, string) {
	if j.State != StateQueued || j.Quarantined || now.Before(j.Deadline) {
		return "", "", ""
	}
	j.overdue(now)
	outcome, class := reeve.NotDone, reeve.ClassUnreachable
	if j.Doubtful {
		outcome, class = reeve.OutcomeUncertain, reeve.ClassUnknownOutcome
	}
	return outcome, class, j.Failure
}

// giveBack returns jobs to the queue that no stream took, and ends those that were
// cancelled meanwhile.
func (b *Broker) giveBack(ctx context.Context, unsent []grant) error {
	for i, g := range unsent {
		if err := b.giveBackOne(ctx, g.job); err != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.unsent = append(b.unsent, unsent[i:]...)
			return err
		}
	}
	return nil
}

func (b *Broker) giveBackOne(ctx context.Context, leased *Job) error {
	ours := func(j *Job) bool { return j.State == StateLeased && j.Lease.Fence == leased.Lease.Fence }
	cancelled := false
	err := b.store.Update(ctx, func(tx *store.Tx) error {
		j, err := Get(tx, leased.ID)
		if err != nil {
			return err // a leased job is never deleted
		}
		cancelled = j.CancelRequested
		if !ours(j) || cancelled {
			return nil
		}
		j.giveBack(tx.Now())
		return put(tx, j)
	})
	if err != nil || !cancelled {
		return err
	}
	return b.decide(ctx, leased.ID, func(j *Job, now time.Time) (reeve.Outcome, reeve.Class, string) {
		if !ours(j) {
			return "", "", ""
		}
		j.giveBack(now)
		outcome := reeve.NotDone
		if j.State == StateUncertain {
			outcome = reeve.OutcomeUncertain
		}
		return outcome, reeve.ClassCancelled, "cancelled before an agent had it"
	})
}

// RenewLeases gives the agent's leases a full term from now and says which are lost and
// which are to be cancelled. Unavailable "not_leader" unless Run runs.
func (b *Broker) RenewLeases(agent reeve.AgentID, leases []*agentv1.LeaseRef) ([]*agentv1.LeaseState, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.board == nil {
		return nil, errNotLeader
	}
	now := b.store.Now()
	states := make([]*agentv1.LeaseState, len(leases))
	for i, l := range leases {
		states[i] = &agentv1.LeaseState{Job: l.GetJob(), Fence: l.GetFence(), State: "lost"}
		c := b.board.cards[reeve.JobID(l.GetJob())]
		if c == nil || c.place != atWork || c.agent != agent || c.fence != l.GetFence() || !c.until.After(now) {
			continue
		}
		c.until = earlier(now.Add(b.cfg.Terms.Lease), c.deadline)
		states[i].State = "held"
		if c.cancel {
			states[i].State = "cancel"
		}
	}
	return states, nil
}
