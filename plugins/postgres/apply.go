package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/recipe"
)

// work is one Apply under way.
type work struct {
	*session
	connector
	target   sdk.Target
	in       sdk.Intent
	password sdk.Secret
	note     func(string) // a line for the live log

	at      *account // nil: it is not there
	created bool     // it was made by this very call
	dirty   bool     // the open transaction changes something
	guarded bool     // the open transaction holds the lock on the database's rights
	residue []string
}

// Apply implements sdk.Provisioner.
func (c connector) Apply(ctx context.Context, t sdk.Target, ch sdk.Change, progress sdk.Progress) (sdk.Result, error) {
	steps, err := steps(t, ch.Intent)
	if err != nil {
		return sdk.Result{}, err
	}
	if sdk.PlanHash(recipe.Plan(ch.Intent, steps)) != sdk.PlanHash(ch.Plan) {
		return sdk.Result{}, sdk.Errorf(sdk.ClassPlanChanged, "the plan is not what would be done; nothing was done").
			WithFix("plan again")
	}
	w := &work{connector: c, target: t, in: ch.Intent, password: ch.Password}
	if w.session, err = c.home(ctx, t, ch.Intent); err != nil {
		return sdk.Result{}, err
	}
	defer w.close()
	if err := w.alone(ctx); err != nil {
		return sdk.Result{}, err
	}
	if err := w.find(ctx); err != nil {
		return sdk.Result{}, err
	}
	changed, err := recipe.Follow(ctx, steps, w, progress, func(_ sdk.Step, note func(string)) { w.note = note })
	if err != nil {
		return sdk.Result{}, err // the server rolls back what is not committed
	}
	facts, err := w.readBack(ctx)
	if err != nil {
		return sdk.Result{}, err
	}
	return sdk.Result{Facts: facts, Residue: w.residue, Changed: changed}, nil
}

// home logs in to the database in which the intent is worked on. If it is gone, an account
// that was made for it can still be worked on.
func (c connector) home(ctx context.Context, t sdk.Target, in sdk.Intent) (*session, error) {
	s, err := c.manage(ctx, t, database(t, in))
	if code(err) == stateNoDatabase && in.Action != sdk.Provision {
		return c.manage(ctx, t, t.Options[optionDatabase])
	}
	return s, err
}

// lockKey is the number of an advisory lock.
func lockKey(of string) int64 {
	sum := sha256.Sum256([]byte("reeve " + of))
	return int64(binary.BigEndian.Uint64(sum[:8])) //nolint:gosec // any number will do
}

// alone waits until no other connection of Reeve works on the account: an agent that was
// given up may still be in the middle of it. The lock goes with the session.
func (w *work) alone(ctx context.Context) error {
	_, err := w.strings(ctx, "wait for the account", "SELECT pg_advisory_lock($1::bigint)::text", lockKey("account "+w.in.Account))
	if code(err) == "55P03" {
		return sdk.Errorf(sdk.ClassBusy, "another connection of Reeve is changing %s", w.in.Account).Wrap(err)
	}
	return err
}

// guard keeps others of Reeve from changing rights in the same database until the transaction
// ends: two grants on one thing at a time make the server refuse the second.
func (w *work) guard(ctx context.Context) error {
	if w.guarded {
		return nil
	}
	if err := w.begin(ctx); err != nil {
		return err
	}
	_, err := w.strings(ctx, "wait for other changes", "SELECT pg_advisory_xact_lock($1::bigint)::text", lockKey("rights"))
	w.guarded = err == nil
	return err
}

// find reads the account and refuses to go on with somebody else's.
func (w *work) find(ctx context.Context) (err error) {
	if w.at, err = w.account(ctx, w.in.Account); err != nil {
		return err
	}
	if w.at == nil {
		if w.in.Action != sdk.Provision && w.in.Action != sdk.Deprovision {
			return sdk.Errorf(sdk.ClassNotFound, "there is no role %s", w.in.Account).WithFix("provision it again")
		}
		return nil
	}
	owner, _ := markOf(w.at.comment)
	switch {
	case w.in.Identity != "" && w.at.identity() != w.in.Identity:
		return sdk.Errorf(sdk.ClassExists, "the role %s is %s and not %s: it is another account",
			w.at.name, w.at.identity(), w.in.Identity).WithFix("find out who made it anew, then adopt or remove it")
	case w.in.Identity == "" && (owner == "" || owner != w.in.AccountID):
		return sdk.Errorf(sdk.ClassExists, "the role %s exists and does not bear our mark", w.at.name).
			WithFix("choose another name, or adopt the account")
	default:
		return nil
	}
}

// readBack reads the facts and checks that the intent is true.
func (w *work) readBack(ctx context.Context) (sdk.Facts, error) {
	a, err := w.account(ctx, w.in.Account)
	if err != nil {
		return sdk.Facts{}, err
	}
	ok := a != nil && (w.at == nil || a.oid == w.at.oid)
	switch w.in.Action {
	case sdk.Provision, sdk.Enable:
		ok = ok && a.login
	case sdk.Disable:
		ok = ok && !a.login
	case sdk.Deprovision:
		ok = a == nil
	}
	if !ok {
		return sdk.Facts{}, sdk.Errorf(sdk.ClassUnknownOutcome,
			"the server accepted every statement of %s, but reading %s back shows otherwise", w.in.Action, w.in.Account).
			WithFix("look for somebody else who changes the account")
	}
	if a == nil {
		return absent(w.in.Account), nil
	}
	return w.facts(ctx, a, w.elsewhere(ctx, w.target))
}

// statement is one of our own with the verifier where plans show the mask.
func (w *work) statement(text string, values map[string]string) (string, error) {
	if !strings.Contains(text, "%Verifier%") || w.password.Empty() {
		return fill(text, values)
	}
	v, err := verifier(w.password)
	if err != nil {
		return "", err
	}
	values = maps.Clone(values)
	values["Verifier"] = v
	return fill(text, values)
}

// do sends a statement of our own, in the open transaction.
func (w *work) do(ctx context.Context, what, statement string) (bool, error) {
	if err := w.change(ctx, what, statement); err != nil {
		return false, w.explainAdopted(err)
	}
	w.dirty = true
	return true, nil
}

// explainAdopted says what a missing right is about if somebody else made the account.
func (w *work) explainAdopted(err error) error {
	e, ok := err.(*sdk.Error) //nolint:errorlint // it is not wrapped
	if !ok || e.Class != sdk.ClassNotPermitted || w.created || w.at == nil || w.major < createRoleIsBounded || code(err) != stateNoRight {
		return err
	}
	return e.WithFix("GRANT %s TO %s WITH ADMIN OPTION", quoted(w.at.name), quoted(w.target.Management.Username))
}

func (w *work) create(ctx context.Context, statement string) (bool, error) {
	if w.at != nil {
		return false, nil
	}
	w.created = true
	return w.do(ctx, "create the account", statement)
}

func (w *work) mark(ctx context.Context, statement string) (bool, error) {
	if !w.created {
		return false, nil
	}
	return w.do(ctx, "mark the account", statement)
}

func (w *work) setPassword(ctx context.Context, statement string) (bool, error) {
	return w.do(ctx, "set the password", statement)
}

// keepPassword is setPassword where the account has not got the password already. Only a
// login can tell: the server shows its verifiers to superusers alone.
func (w *work) keepPassword(ctx context.Context, statement string) (bool, error) {
	if w.created {
		return false, nil
	}
	s, err := login(ctx, w.target, sdk.Credential{Username: w.in.Account, Password: w.password}, w.database, plain)
	if err == nil {
		s.close()
		return false, nil
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && (e.Routine == afterProof || e.Code == stateNoRight) {
		return false, nil // it is right, and something else is not
	}
	return w.setPassword(ctx, statement)
}

func (w *work) allowLogin(ctx context.Context, statement string) (bool, error) {
	if w.created {
		return false, nil
	}
	until := w.in.ExpiresAt.Truncate(time.Microsecond) // as the server keeps it
	expires := w.at.until == nil && until.IsZero() || w.at.until != nil && w.at.until.Equal(until)
	if w.at.login && (expires || until.IsZero() && w.in.Action == sdk.Enable) {
		return false, nil
	}
	return w.do(ctx, "allow logins", statement)
}

func (w *work) lock(ctx context.Context, statement string) (bool, error) {
	if w.at == nil || !w.at.login {
		return false, nil
	}
	return w.do(ctx, "forbid logins", statement)
}

// commitStep commits, if there is anything to.
func (w *work) commitStep(ctx context.Context, _ string) (bool, error) {
	if !w.open {
		return false, nil
	}
	dirty := w.dirty
	w.dirty, w.guarded = false, false
	return dirty, w.commit(ctx)
}

// grant sends a command and sees from the account's rights whether it did anything. That
// the server granted nothing, for want of a right to pass on, is only a warning to it.
func (w *work) grant(ctx context.Context, command string) (bool, error) {
	if err := w.guard(ctx); err != nil {
		return false, err
	}
	before, err := w.rights(ctx)
	if err != nil {
		return false, err
	}
	if err := w.change(ctx, "the role's command", command); err != nil {
		return false, err
	}
	if slices.Contains(w.notices, stateNothingPassed) {
		return false, answered("the role's command", stateNothingPassed, nil)
	}
	after, err := w.rights(ctx)
	done := w.created || !slices.Equal(before, after)
	w.dirty = w.dirty || done
	return done, err
}

// rights is what grants can change about an account, in the database of the session. Those
// of a new account are not read: it had none.
func (w *work) rights(ctx context.Context) ([]string, error) {
	if w.created {
		return nil, nil
	}
	a, err := w.account(ctx, w.in.Account)
	if err != nil || a == nil {
		return nil, err
	}
	groups, err := w.memberships(ctx, a)
	if err != nil {
		return nil, err
	}
	shared, err := w.sharedRights(ctx, a)
	if err != nil {
		return nil, err
	}
	local, err := w.localRights(ctx, a)
	return slices.Concat(groups, shared, local), err
}

func (w *work) run(ctx context.Context, command string) (bool, error) {
	if err := w.guard(ctx); err != nil {
		return false, err
	}
	if err := w.change(ctx, "the role's command", command); err != nil {
		return false, err
	}
	w.dirty = true
	return true, nil
}
