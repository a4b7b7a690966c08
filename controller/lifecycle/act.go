package lifecycle

import (
	"slices"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// startable says in which states of an account an operation may be asked for.
var startable = map[string][]State{
	opVerify:      {Active, Partial},
	opInspect:     {Active, Disabled, Partial, Deprovisioning},
	opRotate:      {Active},
	opDisable:     {Active},
	opEnable:      {Disabled},
	opDeprovision: {Active, Disabled, Partial, Provisioning, Deprovisioning},
}

// mayStart refuses an operation that the account's state, a job at work on it, or its
// asset forbids, before anything is queued.
func (e *Engine) mayStart(tx *store.Tx, a *Account, operation string) (*inventory.Asset, error) {
	if !slices.Contains(startable[operation], a.State) {
		return nil, reeve.Errorf(reeve.Conflict, "account_state", "account %q is %s; it cannot be asked to %s", a.Name, a.State, operation).
			WithFix("an account must be one of %v for it", startable[operation])
	}
	if err := idle(tx, a); err != nil {
		return nil, err
	}
	asset, err := inventory.GetAsset(tx, string(a.AssetID))
	if err != nil {
		return nil, err
	}
	return asset, e.workable(tx, asset, operation != opVerify)
}

// Disable locks an account on its target.
func (e *Engine) Disable(tx *store.Tx, by audit.Actor, id reeve.AccountID) (*jobs.Job, error) {
	return e.act(tx, by, id, opDisable)
}

// Enable unlocks a disabled account.
func (e *Engine) Enable(tx *store.Tx, by audit.Actor, id reeve.AccountID) (*jobs.Job, error) {
	return e.act(tx, by, id, opEnable)
}

// Deprovision removes an account from its target; its history is kept. One that is not
// on the target yet is removed at once, and the job is nil.
func (e *Engine) Deprovision(tx *store.Tx, by audit.Actor, id reeve.AccountID) (*jobs.Job, error) {
	return e.act(tx, by, id, opDeprovision)
}

// Inspect reads an account's facts from its target.
func (e *Engine) Inspect(tx *store.Tx, by audit.Actor, id reeve.AccountID) (*jobs.Job, error) {
	a, err := accounts.Get(tx, string(id))
	if err != nil {
		return nil, err
	}
	return e.login(tx, by, a, opInspect)
}

func (e *Engine) act(tx *store.Tx, by audit.Actor, id reeve.AccountID, operation string) (*jobs.Job, error) {
	a, err := accounts.Get(tx, string(id))
	if err != nil {
		return nil, err
	}
	return e.change(tx, by, a, operation, nil)
}

// change starts an action with the plan that was frozen for it.
func (e *Engine) change(tx *store.Tx, by audit.Actor, a *Account, operation string, details map[string]string) (*jobs.Job, error) {
	if operation == opDeprovision {
		if untouched, err := untouched(tx, a); err != nil {
			return nil, err
		} else if untouched {
			return nil, e.removeUnmade(tx, by, a)
		}
	}
	asset, err := e.mayStart(tx, a, operation)
	if err != nil {
		return nil, err
	}
	if operation == opDeprovision {
		a.State = Deprovisioning
	}
	a.Doing, a.Replanned, a.LastError, a.RetryAt = operation, false, nil, time.Time{}
	if operation == opDisable {
		a.RetryAt = tx.Now().Add(retryDue) // an expiry stays due until it is done
	}
	j, err := e.dispatch(tx, by, a, asset, operation)
	if err != nil {
		return nil, err
	}
	return j, e.save(tx, by, a, "account."+operation, "requested", details)
}

// login starts an operation that changes nothing.
func (e *Engine) login(tx *store.Tx, by audit.Actor, a *Account, operation string) (*jobs.Job, error) {
	asset, err := e.mayStart(tx, a, operation)
	if err != nil {
		return nil, err
	}
	a.ProbeAt, a.RetryAt = time.Time{}, time.Time{}
	if operation == opVerify {
		if refs, err := e.logins(tx, a); err != nil {
			return nil, err
		} else if len(refs) == 0 {
			a.Tried = nil // all were refused: start over
		}
	}
	a.Doing = operation
	j, err := e.dispatch(tx, by, a, asset, operation)
	if err != nil {
		return nil, err
	}
	return j, e.save(tx, by, a, "account."+operation, "requested", nil)
}

// untouched reports whether the target was never told of the account, or is being told now.
func untouched(tx *store.Tx, a *Account) (bool, error) {
	if a.State != Provisioning || !a.Plans.IsZero() {
		return a.State == Scheduled, nil
	}
	j, err := jobs.Get(tx, a.Job)
	if reeve.KindOf(err) == reeve.NotFound {
		return false, nil
	}
	return err == nil && endingOf(j) != unknown, err
}

// removeUnmade ends an account of which nothing was ever sent to the target.
func (e *Engine) removeUnmade(tx *store.Tx, by audit.Actor, a *Account) error {
	if err := idle(tx, a); err != nil {
		return err
	}
	return e.remove(tx, by, a)
}

func (e *Engine) remove(tx *store.Tx, by audit.Actor, a *Account) error {
	if err := e.removed(tx, a); err != nil {
		return err
	}
	return e.save(tx, by, a, "account.deprovision", audit.OK, nil)
}

func (e *Engine) removed(tx *store.Tx, a *Account) error {
	a.State, a.Sync, a.RemovedAt, a.LastError, a.Rotation = Removed, Unproven, tx.Now(), nil, nil
	a.ProbeAt = time.Time{}
	return inventory.Release(tx, string(a.ID))
}

// RetryJob takes a job out of the dead letter (jobs.Retry), if it is still what its
// account waits for. Conflict "job_superseded" otherwise: done now, it would undo what
// has happened to the account since.
func (e *Engine) RetryJob(tx *store.Tx, by audit.Actor, id reeve.JobID) (*jobs.Job, error) {
	j, err := jobs.Get(tx, id)
	if err != nil {
		return nil, err
	}
	if j.AccountID != "" {
		a, err := accounts.Get(tx, string(j.AccountID))
		if err != nil {
			return nil, err
		}
		if a.Job != id || a.State == Removed || a.State == Failed {
			return nil, reeve.Errorf(reeve.Conflict, "job_superseded", "account %q is %s and has moved on since job %s ended", a.Name, a.State, id).
				WithFix("ask for what is wanted now: reeve account %s", j.Operation)
		}
	}
	return jobs.Retry(tx, by, id)
}

// disabled takes what became of locking the account. It is only believed if the
// password was seen not to log in any more.
func (e *Engine) disabled(tx *store.Tx, a *Account, r *report) error {
	if r.ending == done && ok(r.logins, slotCurrent) {
		r.fail(reeve.ClassProtocol, "the account was locked but its password still logs in", "lock it by hand and report the connector")
		a.LastError = r.failure
		return nil
	}
	if r.ending != done {
		return e.undecided(tx, a, r)
	}
	a.State, a.ProbeAt = Disabled, time.Time{}
	return nil
}

// enabled takes what became of unlocking the account.
func (e *Engine) enabled(tx *store.Tx, a *Account, r *report) error {
	if r.ending != done {
		return e.undecided(tx, a, r)
	}
	a.State = Active
	if r.sight.worked != nil {
		return e.adopt(tx, a, r)
	}
	r.doubt(a)
	return e.redo(tx, a, opVerify)
}

// deprovisioned takes what became of removing the account: it is gone only if the
// target was read back and does not have it. What a removal left behind is listed.
func (e *Engine) deprovisioned(tx *store.Tx, a *Account, r *report) error {
	if r.ending == done && (r.res.GetFacts() == nil || r.res.GetFacts().GetExists()) {
		r.fail(reeve.ClassProtocol, "the account was removed but the target was not seen without it",
			"inspect the account, then deprovision it again")
		a.LastError = r.failure
		return nil
	}
	a.Residue = r.res.GetResidue()
	if r.ending == done {
		return e.removed(tx, a)
	}
	if r.ending != again && len(a.Residue) > 0 {
		a.State = Partial
	}
	return e.undecided(tx, a, r)
}

// undecided takes a disable, enable or deprovision that did not have its effect, or
// perhaps did: then the target is asked.
func (e *Engine) undecided(tx *store.Tx, a *Account, r *report) error {
	switch r.ending {
	case again:
		r.doubt(a)
		return nil
	case unknown:
		r.doubt(a)
		return e.redo(tx, a, opInspect)
	default:
		return e.notDone(tx, a, r)
	}
}

// inspected compares what the target says with what Reeve thinks.
func (e *Engine) inspected(tx *store.Tx, a *Account, r *report) error {
	f := r.res.GetFacts()
	if r.ending != done || f == nil {
		if a.Sync == Uncertain && r.ending != again && (a.State == Disabled || a.State == Deprovisioning) {
			return e.probeLater(tx, a)
		}
		return nil
	}
	a.Probes = 0
	switch {
	case !f.GetExists() && a.State == Deprovisioning:
		return e.removed(tx, a)
	case a.State == Deprovisioning:
		a.LastError = &inventory.Failure{Class: reeve.ClassUnknownOutcome, At: tx.Now(),
			Message: "the account is still on the target: its removal was given up before it happened", Fix: "deprovision it again"}
	case !f.GetExists():
		a.Sync, a.LastError = OutOfSync, &inventory.Failure{Class: reeve.ClassNotFound, At: tx.Now(),
			Message: "the account is not on the target any more", Fix: "deprovision this record, or find out who removed it"}
	case f.GetLocked() && a.State == Active && a.Doing == opDisable:
		a.State = Disabled // a disable of unknown outcome did happen
	case f.GetLocked() && a.State == Active:
		a.LastError = &inventory.Failure{Class: reeve.ClassLocked, At: tx.Now(),
			Message: "the account is locked on the target; Reeve did not lock it", Fix: "disable it, or unlock it on the target"}
	case !f.GetLocked() && a.State == Disabled && a.Doing == opEnable:
		a.State = Active
		return e.redo(tx, a, opVerify)
	case !f.GetLocked() && a.State == Disabled:
		a.LastError = &inventory.Failure{Class: reeve.ClassNotPermitted, At: tx.Now(),
			Message: "the account is disabled in Reeve but not locked on the target", Fix: "enable and disable it again"}
	}
	if a.Identity == "" {
		a.Identity = f.GetIdentity()
	}
	return nil
}
