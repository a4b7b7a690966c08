package jobs

import (
	"slices"
	"time"

	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// What follows are the rules of a job's life, as functions of the job and the time.
// They do no I/O; a transaction loads a job, calls one of them and stores it.

// lease gives the job to an agent until the end of a first term. The caller has
// checked that the job is ready and its account free.
func (j *Job) lease(agent reeve.AgentID, fence uint64, now time.Time, t Terms) {
	j.Timeout = min(j.Timeout, t.Work)
	j.State = StateLeased
	j.Attempt++
	j.Lease = Lease{Agent: agent, Fence: fence, Until: earlier(now.Add(t.Lease), j.Deadline)}
	j.Deliveries = append(j.Deliveries, Delivery{Attempt: j.Attempt, Agent: agent, Fence: fence, At: now})
	if n := len(j.Deliveries) - keptDeliveries; n > 0 {
		j.Deliveries = slices.Delete(j.Deliveries, 0, n)
	}
}

// ready reports whether the job may be leased now, as far as it alone is concerned.
func (j *Job) ready(now time.Time) bool {
	return j.State == StateQueued && !j.Quarantined && !j.CancelRequested &&
		!j.NotBefore.After(now) && now.Before(j.Deadline)
}

// workTime is how long the agent may work, from now.
func (j *Job) workTime(now time.Time) time.Duration { return min(j.Timeout, j.Deadline.Sub(now)) }

// Live reports whether fence is the one valid fence of the job: that of its lease, or
// of the lost lease its quarantine waits for.
func (j *Job) Live(fence uint64) bool {
	return fence != 0 && j.Lease.Fence == fence && (j.State == StateLeased || j.Quarantined)
}

// delivery finds the delivery with the fence, nil if the job never had it.
func (j *Job) delivery(fence uint64) *Delivery {
	i := slices.IndexFunc(j.Deliveries, func(d Delivery) bool { return d.Fence == fence })
	if i < 0 || fence == 0 {
		return nil
	}
	return &j.Deliveries[i]
}

// ended is what a delivery came to.
type ended struct {
	how     Ending
	outcome reeve.Outcome
	class   reeve.Class
	message string
}

// end ends the delivery of the live lease and says what follows. jitter is a random
// number in [0,1).
func (j *Job) end(e ended, now time.Time, jitter float64, t Terms) {
	d := j.delivery(j.Lease.Fence)
	d.EndedAt, d.Ending, d.Outcome, d.Class, d.Message = now, e.how, e.outcome, e.class, e.message
	j.Failure = e.message
	if e.outcome == reeve.OutcomeUncertain && j.Mutates {
		j.quarantine(e, now, t)
		return
	}
	j.Quarantined = false
	if e.outcome == reeve.Done {
		j.Doubtful, j.Failure = false, ""
		j.finish(StateDone, now)
		return
	}
	switch backoff := now.Add(Backoff(j.strikes().deliveries, jitter)); {
	case j.CancelRequested:
		j.finish(j.cancelledState(), now)
	case !e.class.Retryable():
		j.finish(StateFailed, now)
	case j.exhausted() || !backoff.Before(j.Deadline):
		j.finish(StateDead, now)
	default:
		j.State, j.NotBefore = StateQueued, backoff
	}
}

// quarantine keeps the account until nothing the agent started can still happen: lease
// end, kill grace, the connector's own time limit, and a margin for clocks.
func (j *Job) quarantine(e ended, now time.Time, t Terms) {
	j.Doubtful = true
	if j.Quarantined { // the lost agent reports that it does not know either
		return
	}
	j.State, j.Quarantined = StateQueued, true
	j.NotBefore = now.Add(t.KillGrace + j.Timeout + t.DriftMargin)
	if e.how == EndReported {
		// The agent has ended the connector: what may still happen is on the target.
		j.NotBefore = now.Add(j.Timeout + t.DriftMargin)
	}
	if mutant.Is(mutant.NoQuarantine) {
		j.NotBefore = now
	}
}

// release ends the quarantine: the fence is dead, and the job is given again (its
// procedure begins with a probe), or up.
func (j *Job) release(now time.Time) {
	j.Quarantined = false
	switch {
	case j.CancelRequested:
		j.finish(StateUncertain, now)
	case j.exhausted() || !now.Before(j.Deadline):
		j.finish(StateDead, now)
	default:
		j.NotBefore = now
	}
}

// giveBack undoes a lease whose job never left the controller.
func (j *Job) giveBack(now time.Time) {
	d := j.delivery(j.Lease.Fence)
	d.EndedAt, d.Ending = now, EndReturned
	j.State, j.NotBefore = StateQueued, now
	if j.CancelRequested {
		j.finish(j.cancelledState(), now)
	}
}

// overdue ends a job that waited until its deadline.
func (j *Job) overdue(now time.Time) {
	if j.Attempt == 0 {
		j.Failure = "no agent of the site took the job before its deadline"
	}
	j.finish(StateDead, now)
}

// cancel ends a waiting job at once; of one at work, or in quarantine, it is a request.
func (j *Job) cancel(by string, now time.Time) {
	if j.CancelRequested {
		return
	}
	j.CancelRequested, j.CancelledBy = true, by
	if j.State == StateQueued && !j.Quarantined {
		j.finish(j.cancelledState(), now)
	}
}

func (j *Job) cancelledState() State {
	if j.Doubtful {
		return StateUncertain
	}
	return StateCancelled
}

// retry gives a dead job five new deliveries and a new deadline as far away as the first.
func (j *Job) retry(now time.Time) {
	j.Deadline = now.Add(j.Deadline.Sub(j.CreatedAt))
	j.State, j.NotBefore, j.FinishedAt = StateQueued, now, time.Time{}
	j.Base, j.Failure = j.Attempt, ""
}

func (j *Job) finish(s State, now time.Time) { j.State, j.FinishedAt = s, now }

// strikes is what counts against a job since it was queued, or retried by a person.
type strikes struct {
	deliveries uint32 // that reached an agent
	crashes    int    // of the connector
	losers     int    // agents that never reported
}

func (j *Job) strikes() strikes {
	var s strikes
	losers := map[reeve.AgentID]bool{}
	for _, d := range j.Deliveries {
		if d.Attempt <= j.Base || d.Ending == EndReturned {
			continue
		}
		s.deliveries++
		if d.Ending == EndReported && d.Class == reeve.ClassInternal {
			s.crashes++
		}
		if d.Ending == EndLost {
			losers[d.Agent] = true
		}
	}
	s.losers = len(losers)
	return s
}

// exhausted reports whether the job has had its deliveries, has killed its connector
// twice, or has been lost by two agents: then it is the job that is at fault.
func (j *Job) exhausted() bool {
	s := j.strikes()
	return s.deliveries >= MaxDeliveries || s.crashes >= 2 || s.losers >= 2
}

// Backoff is the wait before the next delivery after n of them: full jitter over 1 s,
// 20 s, then twice the one before, at most 15 min. jitter is a random number in [0,1).
func Backoff(n uint32, jitter float64) time.Duration {
	ceiling := time.Second
	if n > 1 {
		ceiling = min(20*time.Second<<min(n-2, 10), 15*time.Minute)
	}
	return time.Duration(jitter * float64(ceiling))
}

// excludes reports whether two jobs must not be at work on one account together: a
// change is alone, readers share.
func excludes(a, b *Job) bool { return a.Mutates || b.Mutates }

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
