package worker

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/agent/logship"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// proofShare is the part of a job's time that is kept for proving a change, 1/n.
const proofShare = 4

// change plans afresh, refuses a plan that is not the approved one, and applies it. Where
// nobody has to approve it, the plan is kept, with those of the other intents, before it is applied.
// The result is done when the connector says so, which proves nothing yet; not done
// when it had no effect; unknown otherwise. An error means that the worker must stop.
func (r *run) change(ctx context.Context, action sdk.Action, secret *opened) (*agentv1.Result, error) {
	intent := r.intent(action)
	if intent == nil {
		return notDone(reeve.ClassInvalid, "the job does not say what shall become of the account", ""), nil
	}
	ch := sdk.Change{Intent: sdk.IntentFromProto(intent)}
	if action == sdk.Provision || action == sdk.Rotate {
		switch {
		case secret == nil:
			return notDone(reeve.ClassInvalid, "the job has no secret to set", ""), nil
		case secret.sealed.Kind != "password":
			return notDone(reeve.ClassUnsupported, "accounts with a secret of kind "+secret.sealed.Kind+" cannot be set yet", ""), nil
		}
		ch.Password = secret.value
	}
	var failed *agentv1.Result
	var err error
	if r.work.GetPlanFirst() {
		ch.Plan, failed, err = r.planFirst(ctx, action)
	} else {
		ch.Plan, failed, err = r.approved(ctx, ch.Intent)
	}
	if failed != nil || err != nil {
		return failed, err
	}
	if err := r.w.at("before-apply"); err != nil {
		return nil, err
	}
	if r.w.alive(ctx, r.held) != nil {
		return r.interrupted(ctx, context.Cause(ctx)), nil //nolint:nilerr // that is the result
	}
	res := r.apply(ctx, ch)
	return res, r.w.at("after-apply")
}

// intent is what shall become of the account; nil if the job does not say that, and nothing else.
func (r *run) intent(action sdk.Action) (found *connectorv1.Intent) {
	for _, in := range r.work.GetIntents() {
		switch {
		case in.GetAccount() != r.account():
			return nil
		case in.GetAction() == string(action) && found == nil:
			found = in
		case in.GetAction() == string(action) || !r.work.GetPlanFirst():
			return nil
		}
	}
	return found
}

// approved makes the plan and refuses one that is not the approved one.
func (r *run) approved(ctx context.Context, in sdk.Intent) (sdk.Plan, *agentv1.Result, error) {
	p, failed, err := r.plan(ctx, in)
	if failed != nil || err != nil {
		return p, failed, err
	}
	if hash := sdk.PlanHash(p); hash != r.work.GetPlanHash() {
		return p, notDone(reeve.ClassPlanChanged, fmt.Sprintf("the connector would now do something else than was approved: plan %.12s, approved %.12s",
			hash, r.work.GetPlanHash()), "plan again and have the new plan approved"), nil
	}
	return p, nil, nil
}

// planFirst plans all intents of the job and keeps the plans, so that they are reported
// whatever happens from here. It returns the one of the action.
func (r *run) planFirst(ctx context.Context, action sdk.Action) (plan sdk.Plan, failed *agentv1.Result, err error) {
	res, err := r.plans(ctx)
	if err != nil || res.Outcome != string(reeve.Done) {
		return plan, res, err
	}
	for i, p := range res.Plans {
		if r.findsSecret(p) {
			return plan, secretInPlan(), nil
		}
		if r.work.GetIntents()[i].GetAction() == string(action) {
			plan = sdk.PlanFromProto(p.Plan)
		}
	}
	lost := ifLost(r.job)
	lost.Plans = res.Plans
	if proto.Size(lost) > maxResult {
		return plan, notDone(reeve.ClassInternal, "the connector's plans are too large to be reported", "report this to the author of the connector"), nil
	}
	if err := r.w.outbox.begin(r.job, lost); err != nil {
		return plan, nil, err
	}
	r.planned = res.Plans
	return plan, nil, nil
}

// apply has the connector do the plan.
func (r *run) apply(ctx context.Context, ch sdk.Change) *agentv1.Result {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Until(deadline)*(proofShare-1)/proofShare, errOverrun)
		defer cancel()
	}
	effects := false // a step that changes something was done
	changing := map[string]bool{}
	for _, s := range ch.Plan.Steps {
		changing[s.ID] = s.Changes
	}
	r.touched = true
	var result sdk.Result
	err := r.call(ctx, func(ctx context.Context, c Connector) error {
		var err error
		result, err = c.Apply(ctx, r.target, ch, func(e sdk.Event) {
			effects = effects || changing[e.Step] && e.State == sdk.StepDone
			level := logship.Info
			if e.State == sdk.StepFailed {
				level = logship.Error
			}
			r.log.Write(level, e.Step, string(e.State), e.Message)
		})
		return err
	})
	if err == nil {
		res := done()
		res.Facts, res.Residue = sdk.FactsToProto(result.Facts), result.Residue
		return res
	}
	if context.Cause(ctx) != nil {
		return r.interrupted(ctx, err)
	}
	res := r.failure(err) // unknown, as the target was touched
	switch class := sdk.ClassOf(err); {
	case r.proc.AtFault():
		res.Class, res.Message = string(reeve.ClassInternal), "the connector crashed while it changed the target"
	case harmless(class) && !effects:
		res.Outcome = string(reeve.NotDone)
	}
	return res
}

// harmless reports whether a step that failed with the class had no effect: the target
// was not reached, or it answered no.
func harmless(c reeve.Class) bool {
	switch c {
	case reeve.ClassUnknownOutcome, reeve.ClassInternal, reeve.ClassProtocol, reeve.ClassCancelled, "":
		return false
	default:
		return true
	}
}

// answeredNo reports whether a failure of the class is the target's own answer, after
// which nothing that was sent can still happen.
func answeredNo(c reeve.Class) bool {
	switch c {
	case reeve.ClassNotPermitted, reeve.ClassNotFound, reeve.ClassPolicyRejected, reeve.ClassUnsupported, reeve.ClassInvalid:
		return true
	default:
		return false
	}
}

// unproven turns a result the connector called done into an unknown one, since a login
// did not show what it should.
func (r *run) unproven(ctx context.Context, res *agentv1.Result, v sdk.VerdictKind, what string) *agentv1.Result {
	if context.Cause(ctx) != nil {
		return r.interrupted(ctx, context.Cause(ctx))
	}
	class, how, fix := classOfVerdict(v), said(r.verdict), r.verdict.Fix
	if fix == "" {
		fix = "see the job's log; the account is probed again by itself"
	}
	switch v {
	case verdictNone:
		how = "not tried"
	case sdk.VerdictOK:
		class, how = reeve.ClassUnknownOutcome, "it works"
	}
	out := unknown(class, what+": "+how, fix)
	out.Facts, out.Residue = res.Facts, res.Residue
	return out
}

// readBack completes a result with fresh facts and checks that they agree with it.
func (r *run) readBack(ctx context.Context, res *agentv1.Result, disagrees func(*sdk.Facts) string) *agentv1.Result {
	f, err := r.facts(ctx, r.account())
	if err != nil {
		return r.interrupted(ctx, err) // unknown, as the target was touched
	}
	res.Facts = sdk.FactsToProto(f)
	if what := disagrees(&f); what != "" {
		out := unknown(reeve.ClassUnknownOutcome, what, "look at the account on the target")
		out.Facts, out.Residue = res.Facts, res.Residue
		return out
	}
	return res
}

// addFacts adds fresh facts where they are nice to have.
func (r *run) addFacts(ctx context.Context, res *agentv1.Result) {
	if r.target.Management.Username == "" {
		return
	}
	if f, err := r.facts(ctx, r.account()); err == nil {
		res.Facts = sdk.FactsToProto(f)
	}
}
