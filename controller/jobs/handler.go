package jobs

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// Handler takes what became of a job. It runs inside the transaction that accepts the
// report, or that decides without one (a lease that ran out, a deadline, a
// cancellation; then res says so in the agent's terms). The job's State already tells
// what follows: a final one, or StateQueued when it will be delivered again. The
// job's Lease is the one the report came under; its fence was live. The handler must
// not change the job. An error rolls the transaction back; unless it is one that a
// retry heals, the job is then buried as dead, with the error's message.
type Handler func(tx *store.Tx, job *Job, res *agentv1.Result) error

// Handlers are the handlers by name, as in Spec.Handler.
type Handlers map[string]Handler

// settle stores a job that a rule has changed, tells its handler, and records the end
// of the job's life in the audit trail.
func (h Handlers) settle(tx *store.Tx, by audit.Actor, j *Job, res *agentv1.Result) error {
	if err := putResult(tx, j, res); err != nil {
		return err
	}
	if j.Handler != "" {
		handle, ok := h[j.Handler]
		if !ok {
			return reeve.Errorf(reeve.Internal, "handler_unknown", "nothing handles results of %s", j.Handler)
		}
		if err := handle.survive(tx, j, res); err != nil {
			return err
		}
	}
	return recordEnd(tx, by, j)
}

// survive calls the handler; a panic is an error of kind Internal. A result that a
// handler has a defect for would otherwise end one leader after the other.
func (h Handler) survive(tx *store.Tx, j *Job, res *agentv1.Result) (err error) {
	defer func() {
		if p := recover(); p != nil { // of its value only the type: it may hold what the agent sent
			err = reeve.Errorf(reeve.Internal, "handler_panic", "the handler of %s hit a defect (%T)", j.Handler, p).
				Wrap(fmt.Errorf("jobs: at %s", debug.Stack()))
		}
	}()
	return h(tx, j, res)
}

func putResult(tx *store.Tx, j *Job, res *agentv1.Result) error {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(res)
	if err != nil {
		return reeve.Errorf(reeve.Invalid, "result_invalid", "the result is not valid text").Wrap(err)
	}
	j.Result = b
	return put(tx, j)
}

func recordEnd(tx *store.Tx, by audit.Actor, j *Job) error {
	if !j.State.Final() {
		return nil
	}
	return audit.Record(tx, audit.Event{By: by, Action: "job.finish", Object: string(j.ID), Outcome: string(j.State),
		Details: map[string]string{"operation": j.Operation, "attempts": fmt.Sprint(j.Attempt), "failure": j.Failure}})
}

// bury ends a job whose handler cannot take its result: it must neither be lost nor
// block its agent's outbox.
func bury(tx *store.Tx, log *slog.Logger, by audit.Actor, j *Job, res *agentv1.Result, cause error) error {
	log.Error("job result cannot be handled", "job", j.ID, "handler", j.Handler, "error", cause)
	j.Quarantined = false
	j.finish(StateDead, tx.Now())
	j.Failure = "the controller could not take the result: " + reeve.CodeOf(cause)
	if err := putResult(tx, j, res); err != nil {
		return err
	}
	return recordEnd(tx, by, j)
}

// heals reports whether the same transaction may succeed later, without anybody doing
// anything about its content.
func heals(err error) bool {
	switch reeve.KindOf(err) {
	case reeve.Unavailable, reeve.Sealed, reeve.OutcomeUnknown:
		return true
	default:
		return false
	}
}

// decided is the result of a delivery or a job that the controller ended itself.
func decided(outcome reeve.Outcome, class reeve.Class, message string, at time.Time) *agentv1.Result {
	return &agentv1.Result{Outcome: string(outcome), Class: string(class), Message: message,
		FinishedAt: timestamppb.New(at)}
}

// system is who does what the broker decides by itself.
var system = audit.System("jobs")
