package lifecycle

import (
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Rotate changes an account's password. A rotation that stopped half-way goes on with
// its candidate. Accounts whose RotationEnabled is false are refused with Precondition
// "rotation_disabled" (A3.6).
func (e *Engine) Rotate(tx *store.Tx, by audit.Actor, id reeve.AccountID) (*jobs.Job, error) {
	a, err := accounts.Get(tx, string(id))
	if err != nil {
		return nil, err
	}
	if !a.RotationEnabled {
		return nil, reeve.Errorf(reeve.Precondition, "rotation_disabled", "Reeve may not change the password of account %q", a.Name).
			WithFix("enable password change for the account")
	}
	return e.rotate(tx, by, a, false)
}

// Reconcile sets a new password with the management account, because a person says so,
// on an account of which no kept password is known to work (Conflict "account_in_sync"
// otherwise).
func (e *Engine) Reconcile(tx *store.Tx, by audit.Actor, id reeve.AccountID) (*jobs.Job, error) {
	a, err := accounts.Get(tx, string(id))
	if err != nil {
		return nil, err
	}
	if a.Sync == InSync {
		return nil, reeve.Errorf(reeve.Conflict, "account_in_sync", "the password of account %q works", a.Name).WithFix("rotate it instead")
	}
	return e.rotate(tx, by, a, true)
}

func (e *Engine) rotate(tx *store.Tx, by audit.Actor, a *Account, reconcile bool) (*jobs.Job, error) {
	verb := "account.rotate"
	if reconcile {
		verb = "account.reconcile"
	}
	asset, err := e.mayStart(tx, a, opRotate)
	if err != nil {
		return nil, err
	}
	if err := e.openRotation(tx, a, reconcile); err != nil {
		return nil, err
	}
	a.Doing, a.Replanned, a.LastError = opRotate, false, nil
	j, err := e.dispatch(tx, by, a, asset, opRotate)
	if err != nil {
		return nil, err
	}
	return j, e.save(tx, by, a, verb, "requested", nil)
}

// openRotation goes on with the candidate there is, or commits a new one (C1, C2).
func (e *Engine) openRotation(tx *store.Tx, a *Account, reconcile bool) error {
	s, err := e.Vault.Get(tx, a.SecretID)
	if err != nil {
		return err
	}
	if s.Candidate == 0 || a.Rotation == nil {
		a.Rotation = &Rotation{ID: reeve.NewRotationID(), Candidate: s.Candidate, Attempt: 1, StartedAt: tx.Now()}
	}
	a.Rotation.Phase, a.Rotation.Reconcile = Rotating, reconcile
	if a.Rotation.Candidate == 0 {
		a.Rotation.Candidate, err = e.newCandidate(tx, a)
	}
	return err
}

// rotated takes what became of setting the candidate.
func (e *Engine) rotated(tx *store.Tx, a *Account, r *report) error {
	switch {
	case r.ending == again:
		r.doubt(a)
		if mutant.Is(mutant.CandidateDiscarded) && a.Rotation != nil {
			return e.Vault.Abandon(tx, a.SecretID, a.Rotation.Candidate)
		}
		return nil
	case ok(r.logins, slotCandidate):
		return e.adopt(tx, a, r) // whatever else went wrong: the candidate opens it
	case r.ending == refused && r.class() == reeve.ClassPlanChanged && !a.Replanned:
		return e.notDone(tx, a, r)
	case r.ending == refused && r.class() == reeve.ClassPolicyRejected:
		a.phase(Checking)
		a.Tried = nil
		return e.redo(tx, a, opVerify)
	case r.ending == refused:
		a.phase(Stopped)
		return e.rotationRefused(tx, a, r)
	default: // done without proof, or unknown: the quarantine is over, so logins can tell
		a.phase(Stopped)
		r.doubt(a)
		return e.redo(tx, a, opVerify)
	}
}

func (a *Account) phase(p Phase) {
	if a.Rotation != nil {
		a.Rotation.Phase = p
	}
}

// rotationRefused: nothing was changed. The logins the agent made on its way say how
// the account stands; the candidate is kept for the next try.
func (e *Engine) rotationRefused(tx *store.Tx, a *Account, r *report) error {
	failure := a.LastError
	switch {
	case r.sight.worked != nil:
		if err := e.adopt(tx, a, r); err != nil {
			return err
		}
	case r.class() == reeve.ClassUnreachable:
		a.Sync = Unreachable
		if err := e.probeLater(tx, a); err != nil {
			return err
		}
	case len(r.sight.bad) > 0 && r.sight.vague == "" && !r.class().Retryable():
		a.Sync = Stranded // no password works, and the management account could not set one
	case len(r.sight.bad) > 0:
		a.Sync = Uncertain
		if err := e.probeLater(tx, a); err != nil {
			return err
		}
	}
	a.LastError = failure
	return nil
}

// Verify logs in with the current password, and if that fails looks for one that works.
func (e *Engine) Verify(tx *store.Tx, by audit.Actor, id reeve.AccountID) (*jobs.Job, error) {
	a, err := accounts.Get(tx, string(id))
	if err != nil {
		return nil, err
	}
	return e.login(tx, by, a, opVerify)
}

// verified takes what the logins showed.
func (e *Engine) verified(tx *store.Tx, a *Account, r *report, before *inventory.Failure) error {
	if r.ending == again {
		if r.class() == reeve.ClassUnreachable {
			a.Sync = Unreachable
		}
		return nil
	}
	untried, err := e.logins(tx, a)
	if err != nil {
		return err
	}
	mayReconcile, asset, err := e.mayReconcile(tx, a)
	if err != nil {
		return err
	}
	var what remedy
	checking := a.Rotation != nil && a.Rotation.Phase == Checking
	if checking {
		what, a.Sync = afterRefusal(r.sight, a.Rotation.Candidate, a.Rotation.Attempt, len(untried), mayReconcile)
		a.phase(Stopped)
	} else {
		what, a.Sync = heal(r.sight, len(untried), mayReconcile)
	}
	switch what {
	case adopt:
		return e.found(tx, a, r)
	case askLater:
		switch why := vagueFailure(r); {
		case a.LastError == nil:
			a.LastError = why
		case a.LastError.Fix == "":
			a.LastError.Fix = why.Fix
		}
		if r.sight.vague == "must_change" && a.RotationEnabled { // better than what the connector can know
			a.LastError.Fix = "run: reeve account rotate " + a.Name + "@" + a.AssetName
		}
		return e.probeLater(tx, a)
	case tryOlder:
		a.ProbeAt = tx.Now().Add(loginWindow)
		return nil
	case reconcile:
		if err := e.openRotation(tx, a, true); err != nil {
			return err
		}
		a.Doing, a.Replanned = opRotate, false
		_, err := e.dispatch(tx, system, a, asset, opRotate)
		return err
	case regenerate:
		return e.regenerate(tx, a, r)
	default:
		if a.Sync == InSync { // the target refuses every password Reeve makes
			return e.stopRotation(tx, a, r, before)
		}
		a.LastError = &inventory.Failure{Class: reeve.ClassAuthFailed, At: tx.Now(),
			Message: "no password Reeve keeps opens the account",
			Fix:     "repair the management account or enable password change, then reconcile the account"}
		if a.State == Partial {
			a.Sync = OutOfSync
			a.LastError.Fix = "deprovision the account to clean up, then provision it again"
		}
		return nil
	}
}

// vagueFailure puts a login that decided nothing into words.
func vagueFailure(r *report) *inventory.Failure {
	f := &inventory.Failure{Class: reeve.ClassUnknownOutcome, Message: "no login was tried", At: r.res.GetFinishedAt().AsTime()}
	switch r.sight.vague {
	case "":
	case "unreachable":
		f.Class, f.Message, f.Fix = reeve.ClassUnreachable, "the target could not be reached", "Reeve tries again by itself"
	case "locked":
		f.Class, f.Message = reeve.ClassLocked, "the target says that the account is locked"
		f.Fix = "unlock it on the target; Reeve tries again by itself"
	case "expired":
		f.Class, f.Message = reeve.ClassExpired, "the target says that the account has expired"
		f.Fix = "move its expiry date; Reeve tries again by itself"
	case "disabled":
		f.Class, f.Message = reeve.ClassDisabled, "the target says that somebody disabled the account"
		f.Fix = "find out who and why, then enable it; Reeve tries again by itself"
	case "must_change":
		f.Class, f.Message, f.Fix = reeve.ClassMustChange, "the target asks for another password at the next login",
			"change it by hand on the target, or enable password change and rotate the account"
	default:
		f.Message, f.Fix = "the login was neither accepted nor refused", "see the job's log"
	}
	return f
}

// mayReconcile reports whether Reeve may, and by what it knows can, set a password with
// the management account: not for accounts whose password it must not change, nor right
// after it did so in vain.
func (e *Engine) mayReconcile(tx *store.Tx, a *Account) (bool, *inventory.Asset, error) {
	asset, err := inventory.GetAsset(tx, string(a.AssetID))
	if err != nil {
		return false, nil, err
	}
	inVain := a.Rotation != nil && a.Rotation.Reconcile
	if a.State != Active || !a.RotationEnabled || inVain {
		return false, asset, nil
	}
	return e.workable(tx, asset, true) == nil, asset, nil
}

// found takes the version that works. An account that was never proven is active now;
// who it is on the target is read next.
func (e *Engine) found(tx *store.Tx, a *Account, r *report) error {
	if err := e.adopt(tx, a, r); err != nil || a.State != Partial {
		return err
	}
	a.State, a.ExecutedAt, a.Residue = Active, tx.Now(), nil
	asset, err := inventory.GetAsset(tx, string(a.AssetID))
	if err != nil || e.workable(tx, asset, true) != nil {
		return err
	}
	a.Doing = opInspect
	_, err = e.dispatch(tx, system, a, asset, opInspect)
	return err
}

// regenerate replaces the candidate that the target refused, now that the old password
// was seen to work after the refusal.
func (e *Engine) regenerate(tx *store.Tx, a *Account, r *report) error {
	if err := e.abandon(tx, a, r); err != nil {
		return err
	}
	version, err := e.newCandidate(tx, a)
	if err != nil {
		return err
	}
	a.Rotation.Candidate, a.Rotation.Phase = version, Rotating
	a.Rotation.Attempt++
	a.Doing = opRotate
	return e.redo(tx, a, opRotate)
}

// stopRotation gives up after the target refused every candidate; before is what it said.
func (e *Engine) stopRotation(tx *store.Tx, a *Account, r *report, before *inventory.Failure) error {
	if err := e.abandon(tx, a, r); err != nil {
		return err
	}
	a.Rotation, a.LastError = nil, before
	return nil
}

func (e *Engine) abandon(tx *store.Tx, a *Account, r *report) error {
	if err := e.adopt(tx, a, r); err != nil {
		return err
	}
	return e.Vault.Abandon(tx, a.SecretID, a.Rotation.Candidate)
}
