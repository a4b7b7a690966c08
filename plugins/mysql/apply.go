package main

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/recipe"
)

// work is one Apply under way.
type work struct {
	*session
	in       sdk.Intent
	host     string
	password sdk.Secret
	note     func(string) // a line for the live log

	all     []*account // what was found under the account's name, and anonymous
	entries []*account // the account's own host entries among them
	created bool       // the account was made by this very call
	residue []string
	learnt  map[string]string // by the role's commands of the phase facts
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
		return sdk.Result{}, sdk.Errorf(sdk.ClassPlanChanged,
			"the plan is not what would be done on this %s %s; nothing was done", s.server.product, s.server.number()).
			WithFix("probe the target and plan again")
	}
	host, err := accountHost(t)
	if err != nil {
		return sdk.Result{}, err
	}
	w := &work{session: s, in: ch.Intent, host: host, password: ch.Password}
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
	maps.Copy(facts.Attributes, w.learnt)
	return sdk.Result{Facts: facts, Residue: w.residue, Changed: changed}, nil
}

// alone waits until no other connection of Reeve works on the account: an agent that
// was given up may still be in the middle of it. The lock goes with the session.
func (w *work) alone(ctx context.Context) error {
	lock := "reeve " + w.in.Account
	got, err := w.strings(ctx, "wait for the account", "SELECT COALESCE(GET_LOCK(?, 5), 0)", lock)
	if err != nil {
		return err
	}
	w.held = lock
	if !slices.Equal(got, []string{"1"}) {
		return sdk.Errorf(sdk.ClassBusy, "another connection of Reeve is changing %s", w.in.Account)
	}
	return nil
}

// find reads the account's host entries and refuses to go on with somebody else's.
func (w *work) find(ctx context.Context) error {
	all, err := w.namesakes(ctx, w.in.Account)
	if err != nil {
		return err
	}
	w.all = all
	own := w.server.mark(w.in.AccountID)
	w.entries = nil
	for _, a := range all {
		if a.user != w.in.Account {
			continue
		}
		ours := own != "" && a.mark == own
		if w.in.Identity != "" && a.host == w.host {
			ours = a.identity() == w.in.Identity
		}
		switch {
		case ours:
			w.entries = append(w.entries, a)
		case a.host != w.host: // another account by the same name, which is not touched
		case w.in.Identity != "":
			return sdk.Errorf(sdk.ClassExists, "the account %s@%s is %s and not %s: it is another account",
				a.user, a.host, a.identity(), w.in.Identity).WithFix("find out who made it anew, then adopt or remove it")
		default:
			return sdk.Errorf(sdk.ClassExists, "the account %s@%s exists and does not bear our mark", a.user, a.host).
				WithFix("choose another name, or adopt the account")
		}
	}
	if w.entry() == nil && w.in.Action != sdk.Provision && w.in.Action != sdk.Deprovision {
		return sdk.Errorf(sdk.ClassNotFound, "there is no account %s@%s", w.in.Account, w.host).
			WithFix("provision it again")
	}
	return nil
}

// entry is the account's entry for the target's host part; nil if there is none.
func (w *work) entry() *account {
	for _, a := range w.entries {
		if a.host == w.host {
			return a
		}
	}
	return nil
}

// undo removes an account that this call made and could not finish. Anything else, and
// anything whose outcome is not known, stays for the next try.
func (w *work) undo(ctx context.Context, cause error) error {
	if !w.created || sdk.ClassOf(cause) == sdk.ClassUnknownOutcome || ctx.Err() != nil {
		return cause
	}
	who, err := pair(w.in.Account, w.host)
	if err == nil {
		err = w.change(ctx, "remove the unfinished account", "DROP USER "+who)
	}
	if err != nil {
		return sdk.Errorf(sdk.ClassUnknownOutcome,
			"%v; and the unfinished account could not be removed: %v", cause, err).
			WithFix(sdk.LookFirst)
	}
	return cause
}

// readBack reads the facts and checks that the intent is true.
func (w *work) readBack(ctx context.Context) (sdk.Facts, error) {
	if err := w.find(ctx); err != nil && sdk.ClassOf(err) != sdk.ClassNotFound {
		return sdk.Facts{}, err
	}
	f, err := w.factsAmong(ctx, w.in.Account, w.host, w.all)
	if err != nil {
		return sdk.Facts{}, err
	}
	ok := f.Exists
	switch w.in.Action {
	case sdk.Provision, sdk.Enable:
		ok = f.Exists && !f.Locked
	case sdk.Disable:
		ok = !slices.ContainsFunc(w.entries, func(a *account) bool { return !a.locked })
	case sdk.Deprovision:
		ok = !f.Exists && len(w.entries) == 0
	}
	if !ok {
		return sdk.Facts{}, sdk.Errorf(sdk.ClassUnknownOutcome,
			"the server accepted every statement of %s, but reading %s back shows otherwise", w.in.Action, w.in.Account).
			WithFix("look for somebody else who changes the account")
	}
	if first := f.Attributes["shadowed_by"]; first != "" && w.in.Action == sdk.Provision {
		w.residue = append(w.residue, "from some addresses logins as "+w.in.Account+" are matched to "+first)
	}
	return f, nil
}

// statement is a step's command with the password in place of the mask. Only the two
// statements of this connector hold a mask; role commands may not set passwords.
func (w *work) statement(s sdk.Step) (string, error) {
	literal, err := w.server.literal(w.password)
	if err != nil {
		return "", err
	}
	head, tail, _ := strings.Cut(s.Command, w.server.identifiedBy(mask))
	return head + w.server.identifiedBy(literal) + tail, nil
}

func (w *work) create(ctx context.Context, s sdk.Step) (bool, error) {
	if w.entry() != nil {
		return false, nil
	}
	statement, err := w.statement(s)
	if err != nil {
		return false, err
	}
	err = w.try(ctx, statement)
	if number(err) == errCannotUser { // somebody was faster, or the server refuses for a reason of its own
		if err := w.find(ctx); err != nil {
			return false, err
		}
		if w.entry() == nil {
			return false, sdk.Errorf(sdk.ClassProtocol, "the server could not create the account %s (error %d)",
				w.in.Account, errCannotUser)
		}
		return false, nil
	}
	if err := w.explain(ctx, "create the account", err); err != nil {
		return false, err
	}
	w.created = true
	return true, nil
}

func (w *work) setPassword(ctx context.Context, s sdk.Step) (bool, error) {
	if w.created {
		return false, nil
	}
	if a := w.entry(); w.in.Action == sdk.Provision && a != nil && w.server.hashes() &&
		a.plugin == "mysql_native_password" && a.hash == hash(w.password) {
		return false, nil
	}
	statement, err := w.statement(s)
	if err != nil {
		return false, err
	}
	return true, w.explain(ctx, "set the password", w.try(ctx, statement))
}

// cause is why a statement failed: ALTER USER says only that it did, and leaves the
// reason among the warnings.
func (w *work) cause(ctx context.Context, err error) error {
	if number(err) != errCannotUser {
		return err
	}
	why := err
	readErr := w.query(ctx, "read the server's warnings", "SHOW WARNINGS", func(rows *sql.Rows) error {
		var level, message string
		var n uint16
		if err := rows.Scan(&level, &n, &message); err != nil {
			return err
		}
		if level == "Error" && n != errCannotUser && number(why) == errCannotUser {
			why = &mysql.MySQLError{Number: n, Message: message}
		}
		return nil
	})
	if readErr != nil {
		return err
	}
	return why
}

// explain is failure for statements that a global option may forbid.
func (w *work) explain(ctx context.Context, what string, err error) error {
	err = w.cause(ctx, err)
	if number(err) != errOption {
		return failure(ctx, what, err, true)
	}
	set, readErr := w.pairs(ctx, "read the server's settings",
		"SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'super_read_only')")
	if readErr != nil {
		return readErr
	}
	for _, value := range set {
		if value != "OFF" {
			return sdk.Errorf(sdk.ClassNotPermitted, "%s: the server is read-only", what).
				WithFix("use the primary server as target").Wrap(err)
		}
	}
	return sdk.Errorf(sdk.ClassPolicyRejected, "%s: the server wants to judge passwords, and is given a hash", what).
		WithFix("SET GLOBAL strict_password_validation = OFF; Reeve's own password policy applies").Wrap(err)
}

func (w *work) lock(ctx context.Context, _ sdk.Step) (done bool, err error) {
	return w.each(ctx, "lock the account", "ALTER USER ", " ACCOUNT LOCK", func(a *account) bool { return !a.locked })
}

func (w *work) drop(ctx context.Context, _ sdk.Step) (done bool, err error) {
	return w.each(ctx, "drop the account", "DROP USER ", "", func(*account) bool { return true })
}

func (w *work) revokeAll(ctx context.Context, _ sdk.Step) (done bool, err error) {
	return w.each(ctx, "take away all rights", "REVOKE ALL PRIVILEGES, GRANT OPTION FROM ", "",
		func(*account) bool { return true })
}

// each sends a statement for every entry of the account that needs it. One that has
// gone meanwhile is fine: reading back decides.
func (w *work) each(ctx context.Context, what, head, tail string, needs func(*account) bool) (done bool, err error) {
	for _, a := range w.entries {
		if !needs(a) {
			continue
		}
		who, err := pair(a.user, a.host)
		if err != nil {
			return done, err
		}
		err = w.try(ctx, head+who+tail)
		if n := number(err); n == errCannotUser || n == errNoSuchGrant || n == errCannotRevoke {
			continue
		}
		if err := w.explain(ctx, what, err); err != nil {
			return done, err
		}
		done = true
	}
	return done, nil
}

// errCannotRevoke is the answer to REVOKE ALL for an account that is not there.
const errCannotRevoke = 1269

func (w *work) unlock(ctx context.Context, s sdk.Step) (bool, error) {
	if a := w.entry(); a != nil && !a.locked {
		return false, nil
	}
	return true, w.explain(ctx, "unlock the account", w.try(ctx, s.Command))
}

// grant sends a command and sees from the account's rights whether it did anything.
func (w *work) grant(ctx context.Context, s sdk.Step) (bool, error) {
	if w.created { // it had no rights
		return true, w.explain(ctx, s.ID, w.try(ctx, s.Command))
	}
	before, err := w.rights(ctx)
	if err != nil {
		return false, err
	}
	if err := w.explain(ctx, s.ID, w.try(ctx, s.Command)); err != nil {
		return false, err
	}
	after, err := w.rights(ctx)
	return !slices.Equal(before, after), err
}

// rights is what grants can change about an account.
func (w *work) rights(ctx context.Context) ([]string, error) {
	g, err := w.grants(ctx, w.in.Account, w.host)
	if err != nil || w.server.product != mariaDB {
		return g, err
	}
	role, err := w.strings(ctx, "read the default role",
		"SELECT COALESCE(JSON_VALUE(Priv, '$.default_role'), '') FROM mysql.global_priv WHERE User = ? AND Host = ?",
		w.in.Account, w.host)
	return append(g, role...), err
}

// revoke sends a command; a right or an account that is not there is fine.
func (w *work) revoke(ctx context.Context, s sdk.Step) (bool, error) {
	if w.entry() == nil {
		return false, nil
	}
	err := w.try(ctx, s.Command)
	switch number(err) {
	case errNoSuchGrant, errNoTableGrant, errCannotUser, errCannotRevoke:
		return false, nil
	}
	return err == nil, w.explain(ctx, s.ID, err)
}

func (w *work) run(ctx context.Context, s sdk.Step) (bool, error) {
	return true, w.explain(ctx, s.ID, w.try(ctx, s.Command))
}

func (w *work) definers(ctx context.Context, _ sdk.Step) (bool, error) {
	for _, a := range w.entries {
		residue, err := w.session.definers(ctx, a.user, a.host)
		if err != nil {
			return false, err
		}
		w.residue = append(w.residue, residue...)
	}
	return len(w.residue) > 0, nil
}

// kill ends the account's sessions and waits until they are gone: neither a lock nor a
// drop ends them. A session shows its user name and not the entry it was matched to, so
// sessions of another entry of the same name end too.
func (w *work) kill(ctx context.Context, _ sdk.Step) (bool, error) {
	if len(w.entries) == 0 {
		return false, nil
	}
	ended := map[int64]bool{}
	deadline := time.Now().Add(5 * time.Second)
	for {
		ids, err := w.sessions(ctx, w.in.Account)
		if err != nil {
			return false, err
		}
		if len(ids) == 0 {
			break
		}
		if time.Now().After(deadline) {
			w.residue = append(w.residue, strconv.Itoa(len(ids))+" sessions of "+w.in.Account+" were told to end and have not")
			break
		}
		for _, id := range ids {
			if ended[id] {
				continue
			}
			err := w.try(ctx, "KILL CONNECTION "+strconv.FormatInt(id, 10))
			if number(err) == errNoSuchThread {
				continue
			}
			if err := w.explain(ctx, "end a session", err); err != nil {
				return false, err
			}
			ended[id] = true
		}
		select {
		case <-ctx.Done():
			return false, failure(ctx, "end the sessions", ctx.Err(), true)
		case <-time.After(20 * time.Millisecond):
		}
	}
	w.note("sessions ended: " + strconv.Itoa(len(ended)))
	return len(ended) > 0, nil
}
