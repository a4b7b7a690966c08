package main

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
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
			s, err := w.manage(ctx, w.target, db)
			if err != nil {
				if class := sdk.ClassOf(err); class == sdk.ClassUnreachable || class == sdk.ClassCancelled {
					err = w.doubt("work in the database "+db, err)
				}
				return false, err
			}
			s.sent = w.sent
			there = &work{session: s, connector: w.connector, target: w.target, in: w.in, at: w.at}
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
	statements, err := w.revokes(ctx, who)
	if err != nil {
		return err
	}
	if !w.super { // then what follows takes membership in both roles; ours goes with the account
		member, err := w.strings(ctx, what, "SELECT pg_has_role(session_user, $1::oid, 'USAGE')::text", w.at.oid)
		if err != nil {
			return err
		}
		if !slices.Equal(member, []string{"true"}) {
			statements = append(statements, "GRANT "+who+" TO CURRENT_USER")
		}
	}
	statements = append(statements, reassign, "DROP OWNED BY "+who)
	for _, s := range statements {
		if err := w.change(ctx, what+", in the database "+w.database, s); err != nil {
			return explainCustodian(err)
		}
	}
	w.guarded = false
	return w.commit(ctx)
}

// revokes are statements that take away what the account was granted by others than owners. DROP OWNED takes what one grantor
// gave, whom the server chooses for all rights on a thing at once: an owner, if the management account is a member of one, also by
// way of the account. What it granted by a right of its own would stay.
func (w *work) revokes(ctx context.Context, who string) ([]string, error) {
	routine, become := "ROUTINE", "SET"
	if w.major < 11 {
		routine = "FUNCTION"
	}
	if w.major < createRoleIsBounded {
		become = "MEMBER"
	}
	var statements []string
	err := w.query(ctx, "read who granted what", `SELECT grantor <> r.oid, quote_ident(pg_get_userbyid(grantor)),
 'REVOKE ' || privilege || ' ON ' || kind || ' ' || string_agg(place, ', ') || ' FROM ' || $2 || ' CASCADE' FROM (
  SELECT e.grantor, e.grantee, e.privilege_type AS privilege, 'DATABASE' AS kind, quote_ident(d.datname) AS place, d.datdba AS owner
   FROM pg_database d, aclexplode(d.datacl) e
  UNION ALL
  SELECT e.grantor, e.grantee, e.privilege_type, 'SCHEMA', quote_ident(n.nspname), n.nspowner FROM pg_namespace n, aclexplode(n.nspacl) e
  UNION ALL
  SELECT e.grantor, e.grantee, e.privilege_type, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass::text, c.relowner
   FROM pg_class c, aclexplode(c.relacl) e
  UNION ALL
  SELECT e.grantor, e.grantee, e.privilege_type || ' (' || quote_ident(a.attname) || ')', 'TABLE', c.oid::regclass::text, c.relowner
   FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid, aclexplode(a.attacl) e WHERE a.attacl IS NOT NULL
  UNION ALL
  SELECT e.grantor, e.grantee, e.privilege_type, $3, p.oid::regprocedure::text, p.proowner FROM pg_proc p, aclexplode(p.proacl) e
 ) AS given JOIN pg_roles r ON r.rolname = current_user
 WHERE grantee = $1::oid AND grantor <> owner AND pg_has_role(grantor, $4) GROUP BY grantor, r.oid, privilege, kind`,
		func(r pgx.Rows) error {
			var other bool
			var grantor, revoke string
			if err := r.Scan(&other, &grantor, &revoke); err != nil {
				return err
			}
			if other {
				statements = append(statements, "SET LOCAL ROLE "+grantor, revoke, "RESET ROLE")
			} else {
				statements = append(statements, revoke)
			}
			return nil
		}, w.at.oid, who, routine, become)
	return statements, err
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
