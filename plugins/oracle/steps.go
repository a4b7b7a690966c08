package main

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

func (w *work) create(ctx context.Context, s sdk.Step) (bool, error) {
	if w.account != nil {
		return false, nil
	}
	err := w.try(s.Command)
	if number(err) != errUserExists {
		if err := failure(ctx, "create the account", err, true); err != nil {
			return false, err
		}
		w.created = true
	}
	// Its id is needed for the mark. Somebody may have been faster: then this refuses, or it was our own lost try.
	if err := w.find(ctx); err != nil {
		return false, err
	}
	if w.account == nil {
		return false, failure(ctx, "create the account", err, false) // a role bears the name
	}
	return w.created, nil
}

// mark writes the second mark while the account still bears the first.
func (w *work) mark(ctx context.Context, _ sdk.Step) (bool, error) {
	if w.account.synonym(w.marks) || !w.account.marked(w.in.AccountID, w.marks) {
		return false, nil // or it was adopted by its identity
	}
	statement, err := markStatement(w.in.AccountID, w.account.name, w.account.markObject())
	if err != nil {
		return false, err
	}
	return true, w.change(ctx, "write down that the account is ours", statement)
}

// unmark removes the mark. One that another management account made stays behind and does no harm.
func (w *work) unmark(ctx context.Context, s sdk.Step) (bool, error) {
	marks, err := w.session.marks(ctx, w.in.AccountID)
	if err != nil || len(marks) == 0 {
		return false, err
	}
	err = w.try(s.Command)
	if number(err) == errNoSynonym {
		w.residue = append(w.residue, "the synonym "+marks[0].owner+"."+markName(w.in.AccountID)+
			", which a former management account made")
		return false, nil
	}
	return err == nil, failure(ctx, "remove the mark of the account", err, true)
}

// setPassword cannot see whether the password is set already but by a login.
func (w *work) setPassword(ctx context.Context, s sdk.Step) (bool, error) {
	if w.in.Action == sdk.Provision && !w.created && w.account.hasPassword() && !w.account.locked() {
		if good, err := w.good(ctx); good || err != nil {
			return false, err
		}
	}
	text, err := literal(w.password)
	if err != nil {
		return false, err
	}
	head, found := strings.CutSuffix(s.Command, mask)
	if !found {
		return false, sdk.Errorf(sdk.ClassInternal, "the step that sets the password has no place for it")
	}
	err = w.try(head + text)
	if number(err) == errReuse && !w.account.locked() { // it may be the present one
		if good, failed := w.good(ctx); good || failed != nil {
			return false, failed
		}
	}
	return true, failure(ctx, "set the password", err, true)
}

// good tries the password by one login.
func (w *work) good(ctx context.Context) (bool, error) {
	user, err := exactName(w.in.Account)
	if err != nil {
		return false, err
	}
	s, err := login(ctx, w.target, user, w.password, "")
	switch class := sdk.ClassOf(err); class {
	case "":
		s.close()
		return true, nil
	case sdk.ClassAuthFailed, sdk.ClassMustChange, sdk.ClassNotPermitted, sdk.ClassLocked:
		return false, nil
	default:
		if w.sent {
			return false, sdk.Errorf(sdk.ClassUnknownOutcome, "try the password: %s", sdk.ErrorText(err)).WithFix(sdk.LookFirst).Wrap(err)
		}
		return false, err
	}
}

// endRollover ends the time in which a profile lets the old password be good beside the new one.
func (w *work) endRollover(ctx context.Context, s sdk.Step) (bool, error) {
	a, err := w.session.account(ctx, w.in.Account)
	if err != nil || a == nil || !a.inRollover() {
		return false, err
	}
	return true, w.change(ctx, "end the rollover of the password", s.Command)
}

func (w *work) lock(ctx context.Context, s sdk.Step) (bool, error) {
	// One that is locked for a time only is locked for good.
	if w.account == nil || w.account.locked() && !w.account.timed() {
		return false, nil
	}
	err := w.try(s.Command)
	if number(err) == errNoUser {
		return false, nil
	}
	return true, failure(ctx, "lock the account", err, true)
}

func (w *work) unlock(ctx context.Context, s sdk.Step) (bool, error) {
	if !w.created && !w.account.locked() {
		return false, nil
	}
	return true, w.change(ctx, "unlock the account", s.Command)
}

// grant sends a command and sees from the account's rights whether it did anything.
func (w *work) grant(ctx context.Context, s sdk.Step) (bool, error) {
	if w.created { // it had none
		return w.run(ctx, s)
	}
	before, err := w.rights(ctx, w.in.Account)
	if err != nil {
		return false, err
	}
	if _, err := w.run(ctx, s); err != nil {
		return false, err
	}
	after, err := w.rights(ctx, w.in.Account)
	return !slices.Equal(before.all(), after.all()), err
}

func (w *work) defaultRoles(ctx context.Context, s sdk.Step) (bool, error) {
	r, err := w.rights(ctx, w.in.Account)
	if err != nil || len(r.inactive) == 0 {
		return false, err
	}
	return true, w.change(ctx, "make the roles active", s.Command)
}

// revoke sends a command; a right or an account that is not there is fine.
func (w *work) revoke(ctx context.Context, s sdk.Step) (bool, error) {
	if w.account == nil {
		return false, nil
	}
	err := w.send(ctx, s)
	switch number(err) {
	case errNotGranted1, errNotGranted2, errNotGranted3, errNoUser, errNoGrantee:
		return false, nil
	}
	return err == nil, failure(ctx, s.ID, err, true)
}

func (w *work) run(ctx context.Context, s sdk.Step) (bool, error) {
	return true, failure(ctx, s.ID, w.send(ctx, s), true)
}

// send is try for a role's command. One that hands an administrative privilege on goes over a session that begins with it.
func (w *work) send(ctx context.Context, s sdk.Step) error {
	g, err := readGrant(s.Command)
	if err != nil || g.as() == "" {
		if err != nil && !strings.HasPrefix(strings.ToUpper(s.Command), "ALTER USER ") {
			w.changed = true // such as by ALTER SESSION, or a block that does it
		}
		return w.try(s.Command)
	}
	user, err := managementName(w.target.Management.Username)
	if err != nil {
		return err
	}
	own, err := login(ctx, w.target, user, w.target.Management.Password, g.as())
	switch class := sdk.ClassOf(err); {
	case class == sdk.ClassNotPermitted:
		return sdk.Errorf(sdk.ClassNotPermitted, "%s: the management account may not log in AS %s", s.ID, g.as()).
			WithFix("as SYS, AS SYSDBA: GRANT %s TO %s; the server needs a password file", g.as(), user).Wrap(err)
	case err != nil && w.sent:
		return sdk.Errorf(sdk.ClassUnknownOutcome, "%s: %s", s.ID, sdk.ErrorText(err)).WithFix(sdk.LookFirst).Wrap(err)
	case err != nil:
		return err
	}
	defer own.close()
	w.sent = true
	return own.try(s.Command)
}

// maxLearnt bounds what one command of a role may add to an account's facts, in bytes.
const maxLearnt = 1 << 10

// check does a command of the phase verify: it must find a row.
func (w *work) check(ctx context.Context, s sdk.Step) (bool, error) {
	rows, err := w.query(ctx, s.ID, s.Command)
	if err == nil && len(rows) == 0 {
		err = sdk.Errorf(sdk.ClassProtocol, "%s: the role's command finds nothing, so the role is not what it should be", s.ID).
			WithFix("look at the account on the server, and at the role")
	}
	return false, err
}

// learn does a command of the phase facts: its rows are lines, with tabs between the values.
func (w *work) learn(ctx context.Context, s sdk.Step) (bool, error) {
	rows, err := w.query(ctx, s.ID, s.Command)
	if err != nil {
		return false, err
	}
	lines := make([]string, len(rows))
	for i, r := range rows {
		lines[i] = strings.Join(r, "\t")
	}
	text := strings.Join(lines, "\n")
	if w.learnt == nil {
		w.learnt = map[string]string{}
	}
	w.learnt[s.ID] = strings.ToValidUTF8(text[:min(len(text), maxLearnt)], "")
	return false, nil
}

// objects refuses to go on with an account that owns something. By then it is locked and its sessions have ended.
func (w *work) objects(ctx context.Context, s sdk.Step) (bool, error) {
	if w.account == nil {
		return false, nil
	}
	rows, err := w.query(ctx, "count the objects of the account", s.Command, w.in.Account)
	if err != nil || len(rows) == 1 && rows[0][0] == "0" {
		return false, err
	}
	if len(rows) != 1 {
		return false, sdk.Errorf(sdk.ClassProtocol, "the server does not say how many objects %s owns", w.in.Account).
			WithFix("report the server's version with this message")
	}
	return false, sdk.Errorf(sdk.ClassPolicyRejected, "%s is locked and has no sessions, but it owns %s objects and was not dropped", w.in.Account, rows[0][0]).
		WithFix("move or drop the objects; or give the role the parameter %s with the value yes, and they are dropped with the account", paramCascade)
}

// How long sessions may take to end, and how often to look.
const (
	killWait = 5 * time.Second
	killPoll = 20 * time.Millisecond
)

// kill ends the account's sessions on every instance and waits until they are gone: a lock does not end them, and an
// account with sessions cannot be dropped.
func (w *work) kill(ctx context.Context, _ sdk.Step) (bool, error) {
	if w.account == nil {
		return false, nil
	}
	ended := map[string]bool{}
	for deadline := time.Now().Add(killWait); ; {
		left, err := w.sessions(ctx, w.in.Account)
		if err != nil {
			return false, err
		}
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			w.residue = append(w.residue, strconv.Itoa(len(left))+" sessions of "+w.in.Account+" were told to end and have not")
			break
		}
		for _, s := range left {
			if ended[s] {
				continue
			}
			if err := w.end(ctx, s); err != nil {
				return false, err
			}
			ended[s] = true
		}
		if err := w.pause(ctx); err != nil {
			return false, err
		}
	}
	w.note("sessions ended: " + strconv.Itoa(len(ended)))
	return len(ended) > 0, nil
}

// end ends one session, given as sid,serial#,@instance.
func (w *work) end(ctx context.Context, which string) error {
	statement := "ALTER SYSTEM KILL SESSION '" + which + "' IMMEDIATE"
	if w.target.Options[optionKill] == rds {
		parts := strings.Split(which, ",")
		statement = "BEGIN rdsadmin.rdsadmin_util.kill(sid => " + parts[0] + ", serial => " + parts[1] + ", method => 'IMMEDIATE'); END;"
	}
	err := w.try(statement)
	if n := number(err); n == errSessionGone || n == errSessionMarked {
		return nil
	}
	return failure(ctx, "end a session", err, true)
}

func (w *work) pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return failure(ctx, "end the sessions", ctx.Err(), w.sent)
	case <-time.After(killPoll):
		return nil
	}
}

// drop is tried again while sessions of the account are still going, or new ones came before it was locked.
func (w *work) drop(ctx context.Context, s sdk.Step) (bool, error) {
	if w.account == nil {
		return false, nil
	}
	for deadline := time.Now().Add(killWait); ; {
		err := w.try(s.Command)
		switch number(err) {
		case errNoUser:
			return false, nil
		case errConnected:
			if time.Now().Before(deadline) {
				if err := w.pause(ctx); err != nil {
					return false, err
				}
				continue
			}
		}
		w.residue = nil // of sessions that have gone after all
		return true, failure(ctx, "drop the account", err, true)
	}
}
