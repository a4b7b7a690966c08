package worker

import (
	"context"
	"fmt"

	"github.com/reeve-pam/reeve/agent/logship"
	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// changes reports whether an operation changes the target.
func changes(operation string) bool {
	switch operation {
	case "provision", "rotate", "disable", "enable", "deprovision":
		return true
	default:
		return false
	}
}

// procedure does the job's operation. An error means that the worker must stop.
func (r *run) procedure(ctx context.Context) (*agentv1.Result, error) {
	switch r.work.GetOperation() {
	case "probe":
		return r.probe(ctx), nil
	case "plan":
		return r.plans(ctx)
	case "verify":
		return r.verify(ctx)
	case "inspect":
		return r.inspect(ctx), nil
	case "rights":
		return r.rights(ctx), nil
	case "provision":
		return r.provision(ctx)
	case "rotate":
		return r.rotate(ctx)
	case "disable":
		return r.disable(ctx)
	case "enable":
		return r.enable(ctx)
	case "deprovision":
		return r.deprovision(ctx)
	default:
		return notDone(reeve.ClassUnsupported, fmt.Sprintf("this agent does not know the operation %q", r.work.GetOperation()),
			"update the agent"), nil
	}
}

func (r *run) probe(ctx context.Context) *agentv1.Result {
	var f sdk.Fingerprint
	err := r.call(ctx, func(ctx context.Context, c Connector) error {
		var err error
		f, err = c.Probe(ctx, r.target)
		return err
	})
	if err != nil {
		return r.interrupted(ctx, err)
	}
	res := done()
	res.Fingerprint = sdk.FingerprintToProto(f)
	return res
}

// plans plans every intent of the job.
func (r *run) plans(ctx context.Context) (*agentv1.Result, error) {
	res := done()
	for _, in := range r.work.GetIntents() {
		p, failed, err := r.plan(ctx, sdk.IntentFromProto(in))
		if failed != nil || err != nil {
			return failed, err
		}
		res.Plans = append(res.Plans, &agentv1.PlannedAction{Plan: sdk.PlanToProto(p), Hash: sdk.PlanHash(p)})
	}
	return res, nil
}

func (r *run) plan(ctx context.Context, in sdk.Intent) (p sdk.Plan, failed *agentv1.Result, err error) {
	if err := r.w.at("before-plan"); err != nil {
		return p, nil, err
	}
	err = r.call(ctx, func(ctx context.Context, c Connector) error {
		var err error
		p, err = c.Plan(ctx, r.target, in)
		return err
	})
	if err != nil {
		return p, r.interrupted(ctx, err), nil
	}
	return p, nil, nil
}

// verify looks for a secret that works: the candidate if it may be live, then the
// current one, then older ones.
func (r *run) verify(ctx context.Context) (*agentv1.Result, error) {
	slots := append([]string{"candidate"}, r.oldSlots()...)
	if r.fresh("candidate") {
		slots = append(slots[1:], "candidate")
	}
	worked, last, err := r.search(ctx, slots)
	switch {
	case err != nil:
		return nil, err
	case worked != "":
		return done(), nil
	case context.Cause(ctx) != nil:
		return r.interrupted(ctx, context.Cause(ctx)), nil //nolint:nilerr // that is the result
	case last == verdictNone:
		return notDone(reeve.ClassInvalid, "the job has no secret to log in with", ""), nil
	case last == sdk.VerdictUnknown:
		fix := r.verdict.Fix
		if fix == "" {
			fix = "see the job's log"
		}
		return notDone(reeve.ClassProtocol, "the logins showed nothing that could be understood: "+said(r.verdict), fix), nil
	default:
		return notDone(classOfVerdict(last), "no secret of this job logs in: "+said(r.verdict), r.verdict.Fix), nil
	}
}

func (r *run) inspect(ctx context.Context) *agentv1.Result {
	facts, err := r.facts(ctx, r.account())
	if err != nil {
		return r.interrupted(ctx, err)
	}
	res := done()
	res.Facts = sdk.FactsToProto(facts)
	return res
}

// rights asks what the management account needs for the role of the job's intent.
func (r *run) rights(ctx context.Context) *agentv1.Result {
	if len(r.work.GetIntents()) != 1 {
		return notDone(reeve.ClassInvalid, "the job names no role to ask about", "")
	}
	in := sdk.IntentFromProto(r.work.GetIntents()[0])
	var rights []sdk.Right
	err := r.call(ctx, func(ctx context.Context, c Connector) error {
		var err error
		rights, err = c.CheckRights(ctx, r.target, in.Role, in.Params)
		return err
	})
	if err != nil {
		return r.interrupted(ctx, err)
	}
	res := done()
	res.Rights = sdk.RightsToProto(rights)
	return res
}

// account is the name the job is about.
func (r *run) account() string {
	if in := r.work.GetIntents(); len(in) > 0 {
		return in[0].GetAccount()
	}
	return r.work.GetAccountUsername()
}

func (r *run) facts(ctx context.Context, account string) (sdk.Facts, error) {
	var f sdk.Facts
	err := r.call(ctx, func(ctx context.Context, c Connector) error {
		var err error
		f, err = c.Inspect(ctx, r.target, account)
		return err
	})
	return f, err
}

func (r *run) provision(ctx context.Context) (*agentv1.Result, error) {
	res, err := r.change(ctx, sdk.Provision, r.slot("candidate"))
	if err != nil || res.Outcome != string(reeve.Done) {
		if res != nil && res.Outcome == string(reeve.OutcomeUncertain) {
			r.addFacts(ctx, res)
			if answeredNo(reeve.Class(res.Class)) && res.Facts != nil && !res.Facts.Exists {
				res.Outcome = string(reeve.NotDone) // what was begun has been undone
			}
		}
		return res, err
	}
	if v, err := r.login(ctx, "candidate"); err != nil || v != sdk.VerdictOK {
		return r.unproven(ctx, res, v, "the account was made, but a login with its password does not work"), err
	}
	if res.Facts.GetExists() {
		return res, nil // Apply has read them back, and the login agrees
	}
	return r.readBack(ctx, res, func(f *sdk.Facts) string {
		if !f.Exists {
			return "the account was made, but the target does not show it"
		}
		return ""
	}), nil
}

// rotate sets the candidate so that no password is ever lost: login with the new one if
// it may be live, else with the old ones, change, and a fresh login with the new one.
func (r *run) rotate(ctx context.Context) (*agentv1.Result, error) {
	if r.slot("candidate") == nil {
		return notDone(reeve.ClassInvalid, "the job has no new secret to set", ""), nil
	}
	v := verdictNone
	if !r.fresh("candidate") {
		var err error
		if v, err = r.login(ctx, "candidate"); err != nil {
			return nil, err
		}
	}
	if v == sdk.VerdictOK { // an earlier attempt, whose outcome was not known, did it
		res := done()
		r.addFacts(ctx, res)
		return res, nil
	}
	if undecided(v) {
		return r.untried("new", v), nil
	}
	worked, last, err := r.search(ctx, r.oldSlots())
	if err != nil {
		return nil, err
	}
	if last == sdk.VerdictMustChange {
		r.log.Write(logship.Info, "login", "info", "the target asks for another password, which it gets")
	} else if undecided(last) {
		return r.untried("old", last), nil
	}
	if worked == "" && r.slot("current") != nil {
		r.log.Write(logship.Warn, "login", "info", "no old secret was seen to work: the management account sets the new one")
	}
	res, err := r.change(ctx, sdk.Rotate, r.slot("candidate"))
	if err != nil {
		return nil, err
	}
	switch {
	case res.Outcome == string(reeve.NotDone): // refused; is the old one as it was?
		if worked == "" || !r.touched {
			return res, nil
		}
		v, err := r.login(ctx, worked)
		if err == nil && v == sdk.VerdictBadCredential {
			res.Outcome = string(reeve.OutcomeUncertain)
		}
		return res, err
	default:
		if mutant.Is(mutant.ExitStatusTrusted) && res.Outcome == string(reeve.Done) {
			s := r.slot("candidate").sealed
			r.logins = append(r.logins, &agentv1.LoginAttempt{Slot: s.Slot, Secret: s.Secret, Version: s.Version, Verdict: string(sdk.VerdictOK)})
			return res, nil
		}
		v, err := r.login(ctx, "candidate") // only this is proof, whatever Apply said
		if err != nil {
			return nil, err
		}
		if v != sdk.VerdictOK {
			if res.Outcome == string(reeve.Done) {
				res = r.unproven(ctx, res, v, "the secret was set, but a login with it does not work")
			}
			return res, nil
		}
		if res.Outcome != string(reeve.Done) {
			res = done()
		}
		if res.Facts == nil {
			r.addFacts(ctx, res)
		}
		return res, nil
	}
}

// loginClass is the class of a job that could not begin because of a login: an answer
// that was not understood is worth another try.
func loginClass(v sdk.VerdictKind) reeve.Class {
	if v == sdk.VerdictUnknown {
		return reeve.ClassProtocol
	}
	return classOfVerdict(v)
}

func (r *run) disable(ctx context.Context) (*agentv1.Result, error) {
	res, err := r.change(ctx, sdk.Disable, nil)
	if err != nil || res.Outcome != string(reeve.Done) {
		return res, err
	}
	v, err := r.login(ctx, "current")
	if err != nil {
		return nil, err
	}
	if v == sdk.VerdictOK || v == sdk.VerdictUnreachable || v == sdk.VerdictUnknown {
		return r.unproven(ctx, res, v, "the account was locked, but a login with its password was not refused"), nil
	}
	return r.readBack(ctx, res, func(f *sdk.Facts) string {
		if f.Exists && !f.Locked {
			return "the account was locked, but the target shows it as usable"
		}
		return ""
	}), nil
}

func (r *run) enable(ctx context.Context) (*agentv1.Result, error) {
	res, err := r.change(ctx, sdk.Enable, nil)
	if err != nil || res.Outcome != string(reeve.Done) {
		return res, err
	}
	if r.slot("current") != nil {
		if v, err := r.login(ctx, "current"); err != nil || v != sdk.VerdictOK {
			return r.unproven(ctx, res, v, "the account was unlocked, but a login with its password does not work"), err
		}
	}
	return r.readBack(ctx, res, func(f *sdk.Facts) string {
		if !f.Exists || f.Locked {
			return "the account was unlocked, but the target does not show it as usable"
		}
		return ""
	}), nil
}

func (r *run) deprovision(ctx context.Context) (*agentv1.Result, error) {
	res, err := r.change(ctx, sdk.Deprovision, nil)
	if err != nil || res.Outcome != string(reeve.Done) {
		return res, err
	}
	return r.readBack(ctx, res, func(f *sdk.Facts) string {
		if f.Exists {
			return "the account was removed, but the target still shows it"
		}
		return ""
	}), nil
}
