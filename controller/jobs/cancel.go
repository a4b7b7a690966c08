package jobs

import (
	"context"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func cancel(tx *store.Tx, by audit.Actor, id reeve.JobID) (*Job, error) {
	j, err := Get(tx, id)
	if err != nil {
		return nil, err
	}
	if j.State.Final() {
		return nil, reeve.Errorf(reeve.Conflict, "job_finished", "job %s has already ended: %s", id, j.State)
	}
	if j.CancelRequested {
		return j, nil
	}
	j.cancel(by.ID, tx.Now())
	return j, audit.Record(tx, audit.Event{By: by, Action: "job.cancel", Object: string(id)})
}

// Cancel cancels a job that waits, at once, or asks the agent that works on it to
// stop; then the job ends as what the agent can prove. The job's handler is told when it
// ends by it. Cancelling again changes nothing; a job that has ended gives Conflict
// "job_finished".
func (b *Broker) Cancel(ctx context.Context, by audit.Actor, id reeve.JobID) (*Job, error) {
	var j *Job
	err := b.store.Update(ctx, func(tx *store.Tx) (err error) {
		j, err = b.CancelIn(tx, by, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return j, nil
}

// CancelIn is Broker.Cancel within a transaction.
func (b *Broker) CancelIn(tx *store.Tx, by audit.Actor, id reeve.JobID) (*Job, error) {
	j, err := cancel(tx, by, id)
	if err != nil {
		return nil, err
	}
	if !j.State.Final() {
		return j, put(tx, j)
	}
	outcome := reeve.NotDone
	if j.State == StateUncertain {
		outcome = reeve.OutcomeUncertain
	}
	return j, b.handlers.settle(tx, by, j, decided(outcome, reeve.ClassCancelled, "cancelled while it waited", tx.Now()))
}

// Retry takes a job out of the dead letter and gives it five new deliveries. A job in
// any other state gives Conflict "job_not_dead".
func Retry(tx *store.Tx, by audit.Actor, id reeve.JobID) (*Job, error) {
	j, err := Get(tx, id)
	if err != nil {
		return nil, err
	}
	if j.State != StateDead {
		return nil, reeve.Errorf(reeve.Conflict, "job_not_dead", "job %s is %s; only dead jobs are retried", id, j.State)
	}
	j.retry(tx.Now())
	if err := put(tx, j); err != nil {
		return nil, err
	}
	return j, audit.Record(tx, audit.Event{By: by, Action: "job.retry", Object: string(id)})
}
