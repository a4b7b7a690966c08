package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/reeve-pam/reeve/agent/logship"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// verdictNone is for a slot that was not tried: there is none, or no more failed
// logins are allowed.
const verdictNone sdk.VerdictKind = ""

// login makes one fresh login with the secret in a slot and notes what it showed. It
// refuses to try when the account has had as many failed logins as this job may cause
// (R5). An error means that the worker must stop.
func (r *run) login(ctx context.Context, slot string) (sdk.VerdictKind, error) {
	o := r.slot(slot)
	if o == nil || context.Cause(ctx) != nil {
		return verdictNone, nil //nolint:nilerr // nothing was tried, which is an answer
	}
	if r.failed >= r.budget() {
		r.log.Write(logship.Warn, "login", "skipped", fmt.Sprintf("no login with the %s secret: %d failed logins are all this job may cause", slot, r.failed))
		return verdictNone, nil
	}
	if r.w.alive(ctx, r.held) != nil {
		return verdictNone, nil //nolint:nilerr // likewise: secrets of a job that is over may have been replaced since
	}
	if err := r.w.at("before-verify"); err != nil {
		return verdictNone, err
	}
	target := r.target
	if r.slot("management") == nil {
		target.Management = sdk.Credential{} // a name without a secret
	}
	var v sdk.Verdict
	err := r.call(ctx, func(ctx context.Context, c Connector) error {
		var err error
		v, err = c.Verify(ctx, target, o.credential(r.work.GetAccountUsername()))
		return err
	})
	if err != nil {
		v = sdk.Verdict{Kind: sdk.VerdictUnknown, Message: err.Error()}
		if e, ok := errors.AsType[*sdk.Error](err); ok {
			v.Message, v.Fix = e.Message, e.Fix
		}
		switch sdk.ClassOf(err) {
		case sdk.ClassUnreachable:
			v.Kind = sdk.VerdictUnreachable
		case sdk.ClassHostKeyChanged:
			r.impostor = err
		}
	}
	if v.Kind != sdk.VerdictOK && v.Kind != sdk.VerdictUnreachable && r.impostor == nil {
		r.failed++
	}
	r.logins = append(r.logins, &agentv1.LoginAttempt{Slot: slot, Secret: o.sealed.Secret, Version: o.sealed.Version, Verdict: string(v.Kind)})
	r.verdict = v
	r.log.Write(logship.Info, "login", string(v.Kind), fmt.Sprintf("login as %s with the %s secret, version %d: %s %s",
		r.work.GetAccountUsername(), slot, o.sealed.Version, v.Kind, v.Message))
	return v.Kind, r.w.at("after-verify")
}

func (r *run) budget() int {
	if n := int(r.work.GetLoginBudget()); n > 0 {
		return n
	}
	return defaultBudget
}

// said is a verdict in words.
func said(v sdk.Verdict) string {
	if v.Message == "" {
		return string(v.Kind)
	}
	return string(v.Kind) + " (" + v.Message + ")"
}

// classOfVerdict is the class of a failure that a login showed.
func classOfVerdict(v sdk.VerdictKind) reeve.Class {
	switch v {
	case sdk.VerdictBadCredential:
		return reeve.ClassAuthFailed
	case sdk.VerdictLocked:
		return reeve.ClassLocked
	case sdk.VerdictExpired:
		return reeve.ClassExpired
	case sdk.VerdictDisabled:
		return reeve.ClassDisabled
	case sdk.VerdictMustChange:
		return reeve.ClassMustChange
	case sdk.VerdictUnreachable:
		return reeve.ClassUnreachable
	default:
		return reeve.ClassUnknownOutcome
	}
}

// untried is the result of a job that has changed nothing, and whose next step needed a
// login that could not be tried. Trying again does not help where the host is not the
// one that is trusted: no secret was sent to it.
func (r *run) untried(which string, v sdk.VerdictKind) *agentv1.Result {
	if r.impostor != nil {
		res := r.failure(r.impostor)
		res.Fix = "find out why the host's key has changed; if it is right, approve the new one with: reeve asset trust"
		return res
	}
	return notDone(loginClass(v), "the "+which+" secret cannot be tried: "+said(r.verdict), r.verdict.Fix)
}

// undecided reports whether a verdict says nothing about the secret: only ok and
// bad_credential do (security.md §3, rule 7).
func undecided(v sdk.VerdictKind) bool {
	return v != sdk.VerdictOK && v != sdk.VerdictBadCredential && v != verdictNone
}

// search logs in with the secrets of the slots in order until one works; it says
// which, or the last verdict that was not about the secret.
func (r *run) search(ctx context.Context, slots []string) (worked string, last sdk.VerdictKind, err error) {
	for _, s := range slots {
		v, err := r.login(ctx, s)
		if err != nil {
			return "", v, err
		}
		if v != verdictNone {
			last = v
		}
		if v == sdk.VerdictOK {
			return s, v, nil
		}
		if undecided(v) {
			return "", v, nil
		}
	}
	return "", last, nil
}

// oldSlots are current and history, newest first.
func (r *run) oldSlots() []string {
	slots := []string{"current"}
	for i := 1; r.slot(fmt.Sprintf("history-%d", i)) != nil; i++ {
		slots = append(slots, fmt.Sprintf("history-%d", i))
	}
	return slots
}
