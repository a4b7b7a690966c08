package main

import (
	"context"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/recipe"
)

// work is one Apply under way.
type work struct {
	*session
	target   sdk.Target
	in       sdk.Intent
	password sdk.Secret
	note     func(string) // a line for the live log

	account *account // what was found; nil: nothing
	marks   []mark
	learnt  map[string]string // what the role's commands of the phase facts say
	created bool              // the account was made by this very call
	residue []string
}

// Apply implements sdk.Provisioner.
func (c connector) Apply(ctx context.Context, t sdk.Target, ch sdk.Change, progress sdk.Progress) (sdk.Result, error) {
	s, err := c.manage(ctx, t)
	if err != nil {
		return sdk.Result{}, err
	}
	defer s.close()
	steps, err := steps(s.server, t, ch.Intent)
	if err != nil {
		return sdk.Result{}, err
	}
	if sdk.PlanHash(recipe.Plan(ch.Intent, steps)) != sdk.PlanHash(ch.Plan) {
		return sdk.Result{}, sdk.Errorf(sdk.ClassPlanChanged, "the plan is not what would be done on this Oracle %s; nothing was done", s.server.version()).
			WithFix("probe the target and plan again")
	}
	if limit := s.server.passwordLimit(); ch.Password.Len() > limit {
		return sdk.Result{}, sdk.Errorf(sdk.ClassPolicyRejected, "the password is longer than the %d bytes that Oracle %s takes", limit, s.server.version()).
			WithFix("use a shorter one; letters beyond ASCII take two bytes and more")
	}
	w := &work{session: s, target: t, in: ch.Intent, password: ch.Password}
	if err := w.alone(ctx); err != nil {
		return sdk.Result{}, err
	}
	if err := w.find(ctx); err != nil {
		return sdk.Result{}, err
	}
	changed, err := recipe.Follow(ctx, steps, w, progress, func(_ sdk.Step, note func(string)) { w.note = note })
	if err != nil {
		return sdk.Result{}, w.undo(ctx, err)
	}
	facts, err := w.readBack(ctx)
	if err != nil {
		return sdk.Result{}, err
	}
	s.good = true
	return sdk.Result{Facts: facts, Residue: w.residue, Changed: changed}, nil
}

// lockOf is the number of the lock for an account.
func lockOf(account string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte("reeve " + account))
	return strconv.FormatUint(uint64(h.Sum32()%(1<<30)), 10) // those for users are 0 to 2^30-1
}

// lockBlock takes a lock that lasts as long as the session.
func lockBlock(account string) string {
	return "DECLARE r INTEGER; BEGIN r := SYS.DBMS_LOCK.REQUEST(" + lockOf(account) + ", SYS.DBMS_LOCK.X_MODE, 5); " +
		"IF r NOT IN (0, 4) THEN RAISE_APPLICATION_ERROR(-20990, 'busy'); END IF; END;"
}

// alone waits until no other connection of Reeve works on the account: an agent that was given up may still be in the
// middle of it.
func (w *work) alone(ctx context.Context) error {
	err := w.try(lockBlock(w.in.Account))
	w.sent = false // it changes nothing
	if err == nil {
		w.lockID = lockOf(w.in.Account)
	}
	return failure(ctx, "wait for the account", err, false)
}

// find reads the account and refuses to go on with somebody else's.
func (w *work) find(ctx context.Context) (err error) {
	if w.marks, err = w.session.marks(ctx, w.in.AccountID); err != nil {
		return err
	}
	a, err := w.session.account(ctx, w.in.Account)
	if err != nil {
		return err
	}
	w.account = nil
	switch {
	case a == nil && w.in.Action != sdk.Provision && w.in.Action != sdk.Deprovision:
		return sdk.Errorf(sdk.ClassNotFound, "there is no account %s", w.in.Account).WithFix("provision it again")
	case a == nil:
		return nil
	case w.in.Identity != "" && a.identity() != w.in.Identity:
		return sdk.Errorf(sdk.ClassExists, "the account %s is %s and not %s: it is another account", a.name, a.identity(), w.in.Identity).
			WithFix("find out who made it anew, then adopt or remove it")
	case w.in.Identity == "" && !a.marked(w.in.AccountID, w.marks):
		return sdk.Errorf(sdk.ClassExists, "the account %s exists and does not bear our mark", a.name).
			WithFix("choose another name, or adopt the account")
	}
	w.account = a
	return nil
}

// undo removes an account that this call made and could not finish. Anything else, and anything whose outcome is not
// known, stays for the next try.
func (w *work) undo(ctx context.Context, cause error) error {
	if !w.created || w.lost || sdk.ClassOf(cause) == sdk.ClassUnknownOutcome || ctx.Err() != nil {
		return cause
	}
	who, err := name(w.in.Account)
	if err == nil {
		err = w.change(ctx, "remove the unfinished account", "DROP USER "+who)
	}
	if err == nil && w.in.AccountID != "" {
		_, err = w.unmark(ctx, sdk.Step{Command: "DROP SYNONYM " + markName(w.in.AccountID)})
	}
	if err != nil {
		e := sdk.Errorf(sdk.ClassUnknownOutcome, "%v; and the unfinished account could not be removed: %v", cause, err).
			WithFix("try again, or deprovision the account; both remove what is left")
		e.Details = map[string]string{"residue": "the account " + w.in.Account}
		return e
	}
	return cause
}

// readBack reads the facts and checks that the intent is true.
func (w *work) readBack(ctx context.Context) (sdk.Facts, error) {
	err := w.find(ctx)
	if err != nil && sdk.ClassOf(err) != sdk.ClassNotFound {
		return sdk.Facts{}, err
	}
	f, err := w.factsOf(ctx, w.in.Account, w.account)
	if err != nil {
		return sdk.Facts{}, err
	}
	ok := f.Exists
	switch w.in.Action {
	case sdk.Provision:
		ok = f.Exists && !f.Locked && f.HasPassword && slices.Contains(f.Grants, "CREATE SESSION")
	case sdk.Enable:
		ok = f.Exists && !f.Locked
	case sdk.Disable:
		ok = f.Locked
	case sdk.Deprovision:
		ok = !f.Exists
	}
	if !ok {
		return sdk.Facts{}, sdk.Errorf(sdk.ClassUnknownOutcome,
			"the server accepted every statement of %s, but reading %s back shows otherwise", w.in.Action, w.in.Account).
			WithFix("look for somebody else who changes the account")
	}
	maps.Copy(f.Attributes, w.learnt)
	return f, nil
}
