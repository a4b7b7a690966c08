package jobs

import (
	"context"
	"regexp"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// maxMessage is how much of an agent's message becomes part of the job, in bytes.
const maxMessage = 4 << 10

// class is the shape of a failure class. One that this version does not know, from a newer agent, is
// kept as it is and never tried again by itself: a refused report would be lost.
var class = regexp.MustCompile(`^[a-z][a-z_]{1,39}$`)

// checkResult says what a reported result comes to. A result that makes no sense is
// refused: Invalid "result_invalid", TooLarge "result_too_large".
func checkResult(res *agentv1.Result) (ended, error) {
	e := ended{how: EndReported, outcome: reeve.Outcome(res.GetOutcome()), class: reeve.Class(res.GetClass()),
		message: shorten(res.GetMessage(), maxMessage)}
	if proto.Size(res) > MaxResult {
		return e, reeve.Errorf(reeve.TooLarge, "result_too_large", "the result has over %d bytes", MaxResult)
	}
	switch e.outcome {
	case reeve.Done:
		e.class = ""
		return e, nil
	case reeve.NotDone, reeve.OutcomeUncertain:
	default:
		return e, reeve.Errorf(reeve.Invalid, "result_invalid", "a result is done, not_done or unknown")
	}
	if !class.MatchString(string(e.class)) {
		return e, reeve.Errorf(reeve.Invalid, "result_invalid", "a result that is not done has a class of failure")
	}
	if e.message == "" {
		e.message = string(e.class)
	}
	return e, nil
}

func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// Report takes what became of a job. It returns when that is durable. A report under a
// fence that is not the live one is stale and not used (J1), unless it repeats a report
// that was accepted under that fence: then it is acknowledged again, without effect
// (J2). A job the agent never had is NotFound "job_not_found".
func (b *Broker) Report(ctx context.Context, agent reeve.AgentID, id reeve.JobID, fence uint64, res *agentv1.Result) (stale bool, err error) {
	e, err := checkResult(res)
	if err != nil {
		return false, err
	}
	by := audit.Actor{Kind: "agent", ID: string(agent)}
	jitter := b.cfg.Rand()
	var j *Job
	accept := func(tx *store.Tx) (accepted bool, err error) {
		stale = false
		if j, err = owned(tx, agent, id); err != nil {
			return false, err
		}
		d := j.delivery(fence)
		if d != nil && d.Agent == agent && d.Ending == EndReported {
			return false, nil
		}
		if !mutant.Is(mutant.FenceIgnored) && (!j.Live(fence) || j.Lease.Agent != agent) {
			stale = true
			return false, nil
		}
		j.end(e, tx.Now(), jitter, b.cfg.Terms)
		return true, nil
	}
	err = b.store.Update(ctx, func(tx *store.Tx) error {
		accepted, err := accept(tx)
		if err != nil || !accepted {
			return err
		}
		return b.handlers.settle(tx, by, j, res)
	})
	if err == nil || heals(err) || j == nil || ctx.Err() != nil {
		return stale, err
	}
	cause := err // of the handler: the report must not come back for ever
	err = b.store.Update(ctx, func(tx *store.Tx) error {
		accepted, err := accept(tx)
		if err != nil || !accepted {
			return err
		}
		return bury(tx, b.log, by, j, res, cause)
	})
	return stale, err
}

// owned loads a job that was delivered to the agent at least once. To all others it
// does not exist, in the same words as one that never did (A2).
func owned(tx *store.Tx, agent reeve.AgentID, id reeve.JobID) (*Job, error) {
	j, err := Get(tx, id)
	if err != nil && reeve.KindOf(err) != reeve.NotFound {
		return nil, err
	}
	if err != nil || !slices.ContainsFunc(j.Deliveries, func(d Delivery) bool { return d.Agent == agent }) {
		return nil, reeve.Errorf(reeve.NotFound, "job_not_found", "this agent has no job %s", id)
	}
	return j, nil
}
