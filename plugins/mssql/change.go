package main

import (
	"context"
	"database/sql"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// statement is a step's command with the password in place of the mask. Only the two statements of this connector hold a
// mask; role commands may not set passwords.
func (w *work) statement(s sdk.Step) (string, error) {
	text := w.password.Reveal()
	if text == "" {
		return "", sdk.Errorf(sdk.ClassInvalid, "there is no password to set").WithFix("give one")
	}
	password, err := literal(text)
	if err != nil {
		return "", sdk.Errorf(sdk.ClassPolicyRejected, "the password cannot be written in T-SQL").
			WithFix("use printable ASCII characters")
	}
	return strings.Replace(s.Command, mask, password, 1), nil
}

func (w *work) create(ctx context.Context, s sdk.Step) (bool, error) {
	if w.account != nil {
		return false, nil
	}
	statement, err := w.statement(s)
	if err != nil {
		return false, err
	}
	err = w.try(ctx, statement)
	if number(err) == errExists { // somebody was faster, or the name is a role's or a Windows login's
		if findErr := w.find(ctx); findErr != nil {
			return false, findErr
		}
		if w.account != nil {
			return false, nil
		}
	}
	if err := w.failure(ctx, "create the login", err); err != nil {
		return false, err
	}
	w.created = true
	return true, nil
}

// setPassword sets the password, unless it is known to be that one already: the server does not show what it stores to a management
// account with few rights, so a login tells. A wrong password counts against a lockout, which setting the password undoes.
func (w *work) setPassword(ctx context.Context, s sdk.Step) (bool, error) {
	if w.created {
		return false, nil
	}
	if w.in.Action == sdk.Provision && w.account != nil && !w.account.disabled {
		if own, err := open(ctx, w.target, sdk.Credential{Username: w.in.Account, Password: w.password}, "master"); err == nil {
			own.close()
			return false, nil
		}
	}
	statement, err := w.statement(s)
	if err != nil {
		return false, err
	}
	return true, w.change(ctx, "set the password", statement)
}

func (w *work) enable(ctx context.Context, s sdk.Step) (bool, error) {
	if w.created || w.account != nil && !w.account.disabled {
		return false, nil
	}
	return true, w.change(ctx, "enable the login", s.Command)
}

func (w *work) disable(ctx context.Context, s sdk.Step) (bool, error) {
	if w.account == nil || w.account.disabled {
		return false, nil
	}
	return true, w.change(ctx, "disable the login", s.Command)
}

// enter connects to a database for a role's commands. In a database that is gone nothing has to be revoked.
func (w *work) enter(ctx context.Context, phase sdk.Phase, database string) error {
	if revoking(phase) {
		if gone, err := w.revoked(ctx, database); gone || err != nil {
			return err
		}
	}
	_, err := w.session.in(ctx, database)
	return err
}

func revoking(phase sdk.Phase) bool { return phase == sdk.PhaseRevoke || phase == sdk.PhaseRemove }

// revoked reports that there is nothing to revoke in a database: it is gone.
func (w *work) revoked(ctx context.Context, database string) (bool, error) {
	if database == "" {
		return false, nil
	}
	found, err := w.strings(ctx, "look for the database", "SELECT name FROM sys.databases WHERE name = @p1", database)
	return len(found) == 0, err
}

// command sends a role's command.
func (w *work) command(ctx context.Context, phase sdk.Phase, database string, r rendered, what string) (bool, error) {
	if revoking(phase) {
		if w.account == nil && phase == sdk.PhaseRevoke {
			return false, nil
		}
		if gone, err := w.revoked(ctx, database); gone || err != nil {
			return false, err
		}
	}
	s, err := w.session.in(ctx, database)
	if err != nil {
		return false, err
	}
	var before []string
	compare := (phase == sdk.PhaseGrant || phase == sdk.PhaseCreate) && !w.created
	if compare {
		if before, err = w.rights(ctx); err != nil {
			return false, err
		}
	}
	err = s.try(ctx, r.sql)
	switch n := number(err); {
	case revoking(phase) && (n == errAbsent || n == errNoLogin): // not there, which is what is wanted; reading back decides
		return false, nil
	case n == errUserExists || n == errOtherUser:
		ours, readErr := w.isUser(ctx, database)
		if readErr != nil {
			return false, readErr
		}
		if ours {
			return false, nil
		}
	}
	if err := s.failure(ctx, what, err); err != nil {
		return false, err
	}
	if m := r.member; m != nil && m.add && strings.EqualFold(m.member, w.in.Account) {
		w.wanted = append(w.wanted, placed{*m, database})
	}
	if !compare {
		return phase != sdk.PhaseRemove || w.account != nil, nil // a removal that is repeated changes nothing
	}
	after, err := w.rights(ctx)
	return !slices.Equal(before, after), err
}

// maxLearnt bounds what one command of a role may add to an account's facts, in bytes.
const maxLearnt = 1 << 10

// look does a command of the phases verify, which must find a row, and facts, whose rows are lines with tabs between the values.
func (w *work) look(ctx context.Context, phase sdk.Phase, database, statement, what string) error {
	s, err := w.session.in(ctx, database)
	if err != nil {
		return err
	}
	var lines []string
	err = s.query(ctx, what, statement, func(r *sql.Rows) error {
		line, err := valuesOf(r)
		lines = append(lines, strings.Join(line, "\t"))
		return err
	})
	switch {
	case err != nil:
		return err
	case phase == sdk.PhaseVerify && len(lines) == 0:
		return sdk.Errorf(sdk.ClassProtocol, "%s: the role's command finds nothing, so the role is not what it should be", what).
			WithFix("look at the account on the server, and at the role")
	case phase == sdk.PhaseFacts:
		text := strings.Join(lines, "\n")
		if w.learnt == nil {
			w.learnt = map[string]string{}
		}
		w.learnt[what] = strings.ToValidUTF8(text[:min(len(text), maxLearnt)], "")
	}
	return nil
}

// isUser reports whether the account is a user of the database by its own name.
func (w *work) isUser(ctx context.Context, database string) (bool, error) {
	a, err := w.login(ctx, w.in.Account)
	if err != nil || a == nil {
		return false, err
	}
	u, err := w.userIn(ctx, database, a.sid)
	return u != nil && strings.EqualFold(u.name, w.in.Account), err
}

// kill ends the login's sessions and waits until they are gone: disabling and dropping do not end them.
func (w *work) kill(ctx context.Context, _ sdk.Step) (bool, error) {
	if w.account == nil {
		return false, nil
	}
	if held, err := w.holds(ctx, "VIEW SERVER STATE"); err != nil || !held {
		if err == nil {
			err = sdk.Errorf(sdk.ClassNotPermitted, "end the sessions: the management account cannot see sessions of others").
				WithFix("grant it VIEW SERVER STATE")
		}
		return false, err
	}
	ended := map[int64]bool{}
	deadline := time.Now().Add(5 * time.Second)
	for {
		ids, err := w.sessions(ctx, w.account.sid)
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
			err := w.try(ctx, "KILL "+strconv.FormatInt(id, 10))
			if number(err) == errNotRunning {
				continue
			}
			if err := w.failure(ctx, "end a session", err); err != nil {
				return false, err
			}
			ended[id] = true
		}
		select {
		case <-ctx.Done():
			return false, w.failure(ctx, "end the sessions", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	w.note("sessions ended: " + strconv.Itoa(len(ended)))
	return len(ended) > 0, nil
}
