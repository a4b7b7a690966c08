package main

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// terminate ends the account's sessions and waits until they are gone: NOLOGIN and DROP
// ROLE leave them running.
func (w *work) terminate(ctx context.Context, _ string) (bool, error) {
	if w.at == nil {
		return false, nil
	}
	told := map[string]bool{}
	deadline := time.Now().Add(5 * time.Second)
	for {
		pids, err := w.sessions(ctx, w.at)
		if err != nil {
			return false, err
		}
		if len(pids) == 0 {
			break
		}
		if time.Now().After(deadline) {
			w.residue = append(w.residue, strconv.Itoa(len(pids))+" sessions of "+w.in.Account+" were told to end and have not")
			break
		}
		for _, pid := range pids {
			if told[pid] {
				continue
			}
			if _, err := w.strings(ctx, "end a session", "SELECT pg_terminate_backend($1::int)::text", pid); err != nil {
				return false, err
			}
			told[pid] = true
		}
		select {
		case <-ctx.Done():
			return false, w.failure(ctx, "end the sessions", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	w.note("sessions ended: " + strconv.Itoa(len(told)))
	return len(told) > 0, nil
}

// revoke sends a command of a removal; what is not there any more is fine.
func (w *work) revoke(ctx context.Context, command string) (bool, error) {
	if w.at == nil {
		return false, nil
	}
	if err := w.guard(ctx); err != nil {
		return false, err
	}
	const what = "the role's command"
	if err := w.change(ctx, what, "SAVEPOINT command"); err != nil {
		return false, err
	}
	err := w.try(ctx, command)
	if slices.Contains(gone, code(err)) {
		return false, w.change(ctx, what, "ROLLBACK TO SAVEPOINT command")
	}
	if err != nil {
		return false, w.failure(ctx, what, err)
	}
	w.dirty = true
	return true, nil
}

// giveAway gives what the account owns to its custodian and takes its rights away, in each
// database by a transaction of its own: nothing of another database can be changed from one.
func (w *work) giveAway(ctx context.Context, reassign string) (bool, error) {
	if w.at == nil {
		return false, nil
	}
	databases, err := w.dependence(ctx, w.at)
	if err != nil {
		return false, err
	}
	owned, err := w.sharedRights(ctx, w.at)
	if err != nil {
		return false, err
	}
	for _, line := range owned {
		if strings.Contains(line, "OWNER OF ") {
			w.note("to be given away: " + line)
		}
	}
	for _, db := range databases {
		there := w
		if db != w.database {
			s, err := connect(ctx, w.target, db)
			if err != nil {
				if class := sdk.ClassOf(err); class == sdk.ClassUnreachable || class == sdk.ClassCancelled {
					err = w.doubt("work in the database "+db, err)
				}
				return false, err
			}
			s.sent = w.sent
			there = &work{session: s, target: w.target, in: w.in, at: w.at}
		}
		err := there.giveAwayHere(ctx, reassign)
		w.sent = w.sent || there.sent
		if there != w {
			there.close()
		}
		if err != nil {
			return false, err
		}
	}
	return len(databases) > 0, nil
}

func (w *work) giveAwayHere(ctx context.Context, reassign string) error {
	const what = "give away what the account owns"
	if err := w.guard(ctx); err != nil {
		return err
	}
	who, err := fill("%Username%", map[string]string{"Username": w.in.Account})
	if err != nil {
		return err
	}
	statements := []string{reassign, "DROP OWNED BY " + who}
	if !w.super { // then it takes membership in both roles; ours goes with the account
		member, err := w.strings(ctx, what, "SELECT pg_has_role(session_user, $1::oid, 'USAGE')::text", w.at.oid)
		if err != nil {
			return err
		}
		if !slices.Equal(member, []string{"true"}) {
			statements = slices.Insert(statements, 0, "GRANT "+who+" TO CURRENT_USER")
		}
	}
	for _, s := range statements {
		if err := w.change(ctx, what+", in the database "+w.database, s); err != nil {
			return explainCustodian(err)
		}
	}
	w.guarded = false
	return w.commit(ctx)
}

// explainCustodian says what a missing right is about here.
func explainCustodian(err error) error {
	e, ok := err.(*sdk.Error) //nolint:errorlint // it is not wrapped
	if !ok || e.Class != sdk.ClassNotPermitted {
		return err
	}
	return e.WithFix("make the management account a member of the custodian role; from version 16 on also " +
		"GRANT … TO it WITH ADMIN OPTION for an account it did not make")
}

func (w *work) drop(ctx context.Context, statement string) (bool, error) {
	if w.at == nil {
		return false, nil
	}
	if err := w.begin(ctx); err != nil {
		return false, err
	}
	err := w.try(ctx, statement)
	if code(err) == "42704" { // somebody was faster
		return false, sdk.Errorf(sdk.ClassBusy, "the role %s has just gone", w.in.Account).WithFix("try again").Wrap(err)
	}
	if err != nil {
		return false, w.failure(ctx, "drop the account", err)
	}
	w.dirty = true
	return true, nil
}
