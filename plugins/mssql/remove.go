package main

import (
	"context"
	"database/sql"
	"encoding/hex"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// giveAway gives the databases and jobs of the login to sa, whatever sa is called there: they stand in the way of its removal.
func (w *work) giveAway(ctx context.Context, _ sdk.Step) (done bool, err error) {
	if w.account == nil {
		return false, nil
	}
	owned, err := w.strings(ctx, "look for databases of the login", "SELECT name FROM sys.databases WHERE owner_sid = @p1", w.account.sid)
	if err != nil {
		return false, err
	}
	// Without a right on msdb no job is seen; dropping the login then says so.
	var jobs []string
	err = w.read(ctx, "SELECT CONVERT(nvarchar(36), job_id) FROM msdb.dbo.sysjobs WHERE owner_sid = @p1", func(r *sql.Rows) error {
		var id string
		err := r.Scan(&id)
		jobs = append(jobs, id)
		return err
	}, w.account.sid)
	if n := number(err); n != errNoSelect && n != errNoObject && n != errNoAccess {
		if err := w.failure(ctx, "look for jobs of the login", err); err != nil {
			return false, err
		}
	}
	if len(owned)+len(jobs) == 0 {
		return false, nil
	}
	names, err := w.strings(ctx, "look for the name of sa", "SELECT name FROM sys.server_principals WHERE principal_id = 1")
	if err != nil || len(names) == 0 {
		return false, err
	}
	for _, name := range owned {
		database, err := ident(name)
		if err != nil {
			return done, err
		}
		heir, err := ident(names[0])
		if err != nil {
			return done, err
		}
		if err := w.change(ctx, "give the database "+name+" to "+names[0], "ALTER AUTHORIZATION ON DATABASE::"+database+" TO "+heir); err != nil {
			return done, err
		}
		w.note("the database " + name + " now belongs to " + names[0])
		done = true
	}
	for _, id := range jobs {
		job, err := literal(id)
		if err != nil {
			return done, err
		}
		heir, err := literal(names[0])
		if err != nil {
			return done, err
		}
		if err := w.change(ctx, "give a job to "+names[0], "EXEC msdb.dbo.sp_update_job @job_id = "+job+", @owner_login_name = "+heir); err != nil {
			return done, err
		}
		w.note("the job " + id + " now belongs to " + names[0])
		done = true
	}
	return done, nil
}

// user is a login's user in a database.
type user struct {
	name string
	id   int64
}

// userIn finds the user of a login in a database; nil if it has none, or is dbo.
func (s *session) userIn(ctx context.Context, database string, sid []byte) (*user, error) {
	if database == "" {
		database = "master"
	}
	from, err := ident(database)
	if err != nil {
		return nil, err
	}
	var found *user
	err = s.query(ctx, "look for the login's user in "+database,
		"SELECT name, principal_id FROM "+from+".sys.database_principals WHERE sid = @p1", func(r *sql.Rows) error {
			var u user
			err := r.Scan(&u.name, &u.id)
			if u.id > 4 { // dbo, guest, INFORMATION_SCHEMA and sys come first
				found = &u
			}
			return err
		}, sid)
	return found, err
}

// sid is the account's SID, also when its login is gone; nil if nobody knows it.
func (w *work) sid() []byte {
	if w.account != nil {
		return w.account.sid
	}
	if digits, ok := strings.CutPrefix(w.in.Identity, "0x"); ok {
		if sid, err := hex.DecodeString(digits); err == nil {
			return sid
		}
	}
	return mark(w.in.AccountID)
}

// dropUsers drops the login's users in every database, also of a login that somebody else dropped. Where the management account may not enter or drop, the user stays and is
// reported: it opens nothing without its login.
func (w *work) dropUsers(ctx context.Context, _ sdk.Step) (done bool, err error) {
	sid := w.sid()
	if len(sid) == 0 {
		return false, nil
	}
	entered, closed, err := w.databases(ctx)
	if err != nil {
		return false, err
	}
	for _, name := range closed {
		w.residue = append(w.residue, "the database "+name+" could not be entered: a user of "+w.in.Account+" may be left there")
	}
	for _, name := range entered {
		u, err := w.userIn(ctx, name, sid)
		if err == nil && u == nil {
			continue
		}
		if err == nil {
			err = w.dropUser(ctx, name, u)
		}
		if sdk.ClassOf(err) == sdk.ClassNotPermitted {
			w.residue = append(w.residue, "the user of "+w.in.Account+" is left in the database "+name+": "+sdk.ErrorText(err))
			continue
		}
		if err != nil {
			return done, err
		}
		w.note("dropped the user in the database " + name)
		done = true
	}
	return done, nil
}

// dropUser drops a user, after giving what it owns to dbo.
func (w *work) dropUser(ctx context.Context, database string, u *user) error {
	s, err := w.session.in(ctx, database)
	if err != nil {
		return err
	}
	for _, owned := range []struct{ class, query string }{
		{"SCHEMA", "SELECT name FROM sys.schemas WHERE principal_id = @p1"},
		{"ROLE", "SELECT name FROM sys.database_principals WHERE owning_principal_id = @p1 AND type = N'R'"},
	} {
		names, err := s.strings(ctx, "look for what "+u.name+" owns in "+database, owned.query, u.id)
		if err != nil {
			return err
		}
		for _, name := range names {
			what, err := ident(name)
			if err != nil {
				return err
			}
			if err := s.change(ctx, "give "+name+" in "+database+" to dbo", "ALTER AUTHORIZATION ON "+owned.class+"::"+what+" TO [dbo]"); err != nil {
				return err
			}
			w.note(name + " in " + database + " now belongs to dbo")
		}
	}
	who, err := ident(u.name)
	if err != nil {
		return err
	}
	return s.change(ctx, "drop the user in "+database, "DROP USER "+who)
}

// drop drops the login. One that has gone meanwhile is fine; one that has just logged in again is told to leave.
func (w *work) drop(ctx context.Context, _ sdk.Step) (bool, error) {
	if w.account == nil && !w.created {
		return false, nil
	}
	who, err := ident(w.in.Account)
	if err != nil {
		return false, err
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		err = w.try(ctx, "DROP LOGIN "+who)
		if number(err) != errLoggedIn || time.Now().After(deadline) {
			break
		}
		if a, findErr := w.login(ctx, w.in.Account); findErr == nil && a != nil {
			w.account = a
			if _, err := w.kill(ctx, sdk.Step{}); err != nil {
				return false, err
			}
		}
	}
	if number(err) == errAbsent {
		a, readErr := w.login(ctx, w.in.Account)
		if readErr != nil {
			return false, readErr
		}
		if a == nil {
			return false, nil
		}
	}
	return err == nil, w.failure(ctx, "drop the login", err)
}
