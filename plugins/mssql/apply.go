package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"maps"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/recipe"
)

// work is one Apply under way.
type work struct {
	*session
	in       sdk.Intent
	password sdk.Secret
	note     func(string) // a line for the live log

	account *account // what was found under the account's name; nil: nothing
	created bool     // the login was made by this very call
	// wanted are memberships that the role's commands should have given.
	wanted  []placed
	learnt  map[string]string // what the role's commands of the phase facts say
	residue []string
}

// placed is a membership in a database, or on the server.
type placed struct {
	membership
	database string
}

// Apply implements sdk.Provisioner.
func (c connector) Apply(ctx context.Context, t sdk.Target, ch sdk.Change, progress sdk.Progress) (sdk.Result, error) {
	steps, err := steps(t, ch.Intent)
	if err != nil {
		return sdk.Result{}, err
	}
	if sdk.PlanHash(recipe.Plan(ch.Intent, steps)) != sdk.PlanHash(ch.Plan) {
		return sdk.Result{}, sdk.Errorf(sdk.ClassPlanChanged, "the plan is not what this connector would do; nothing was done").
			WithFix("plan again")
	}
	s, err := c.manage(ctx, t)
	if err != nil {
		return sdk.Result{}, err
	}
	defer s.close()
	w := &work{session: s, in: ch.Intent, password: ch.Password}
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

// alone waits until no other connection of Reeve works on the account: an agent that was given up may still be in the middle
// of it. The lock goes with the session.
// learn.microsoft.com/sql/relational-databases/system-stored-procedures/sp-getapplock-transact-sql
func (w *work) alone(ctx context.Context) error {
	var code int
	err := w.query(ctx, "wait for the account", `DECLARE @code int;
EXEC @code = sp_getapplock @Resource = @p1, @LockMode = N'Exclusive', @LockOwner = N'Session', @LockTimeout = 5000;
SELECT @code`, func(r *sql.Rows) error { return r.Scan(&code) }, "reeve "+strings.ToLower(w.in.Account))
	if err != nil {
		return err
	}
	w.locked = true
	if code < 0 {
		return sdk.Errorf(sdk.ClassBusy, "another connection of Reeve is changing %s", w.in.Account).WithFix("try again in a moment")
	}
	return nil
}

// find reads the account and refuses to go on with somebody else's.
func (w *work) find(ctx context.Context) (err error) {
	if w.account, err = w.login(ctx, w.in.Account); err != nil {
		return err
	}
	a := w.account
	switch {
	case a == nil && w.in.Action != sdk.Provision && w.in.Action != sdk.Deprovision:
		return sdk.Errorf(sdk.ClassNotFound, "there is no login %s with a password", w.in.Account).WithFix("provision it again")
	case a == nil:
		return nil
	case w.in.Identity != "":
		if a.identity() != w.in.Identity {
			return sdk.Errorf(sdk.ClassExists, "the login %s is %s and not %s: it is another account", a.name, a.identity(), w.in.Identity).
				WithFix("find out who made it anew, then adopt or remove it")
		}
	case w.in.AccountID == "" || !bytes.Equal(a.sid, mark(w.in.AccountID)):
		return sdk.Errorf(sdk.ClassExists, "the login %s exists and does not bear our mark", a.name).
			WithFix("choose another name, or adopt the account")
	}
	return nil
}

// undo removes an account that this call made and could not finish. Anything else, and anything whose outcome is not known,
// stays for the next try.
func (w *work) undo(ctx context.Context, cause error) error {
	if !w.created || sdk.ClassOf(cause) == sdk.ClassUnknownOutcome || ctx.Err() != nil {
		return cause
	}
	_, err := w.dropUsers(ctx, sdk.Step{})
	if err == nil {
		_, err = w.drop(ctx, sdk.Step{})
	}
	if err != nil {
		e := sdk.Errorf(sdk.ClassUnknownOutcome, "%v; and the unfinished login could not be removed: %v", cause, err).
			WithFix("try again, or deprovision the account; both remove what is left")
		e.Details = map[string]string{"residue": "the login " + w.in.Account}
		return e
	}
	if e, ok := errors.AsType[*sdk.Error](cause); ok && len(w.residue) > 0 {
		e.Details = map[string]string{"residue": strings.Join(w.residue, "\n")}
	}
	return cause
}

// readBack reads the facts and checks that the intent is true.
func (w *work) readBack(ctx context.Context) (sdk.Facts, error) {
	if err := w.find(ctx); err != nil && sdk.ClassOf(err) != sdk.ClassNotFound {
		return sdk.Facts{}, err
	}
	f, held, err := w.facts(ctx, w.in.Account, w.account)
	if err != nil {
		return sdk.Facts{}, err
	}
	ok := f.Exists
	switch w.in.Action {
	case sdk.Provision, sdk.Enable:
		ok = f.Exists && !f.Locked
	case sdk.Disable:
		ok = f.Exists && f.Locked
	case sdk.Deprovision:
		ok = !f.Exists
	}
	for _, m := range w.wanted {
		ok = ok && held.in(m)
	}
	if !ok {
		return sdk.Facts{}, sdk.Errorf(sdk.ClassUnknownOutcome,
			"the server accepted every statement of %s, but reading %s back shows otherwise", w.in.Action, w.in.Account).
			WithFix("look for somebody else who changes the account, and for what the management account may not see")
	}
	maps.Copy(f.Attributes, w.learnt)
	return f, nil
}
