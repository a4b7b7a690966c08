package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// account is a login with a password, as the server stores it.
type account struct {
	name     string
	sid      []byte
	disabled bool
	database string // default
	policy   bool
	expires  bool // its password
	locked   bool
	expired  bool
	renew    bool // the password must be changed
	wrong    int64
	changed  time.Time // the password
}

// identity tells an account from another that is later given the same name.
func (a *account) identity() string { return identity(a.sid) }

func identity(sid []byte) string { return "0x" + hex.EncodeToString(sid) }

// mark is the SID that an account which Reeve creates bears; DESIGN.md says why.
func mark(accountID string) []byte {
	if accountID == "" {
		return nil
	}
	sum := sha256.Sum256([]byte("reeve account " + accountID))
	return sum[:16]
}

// ident writes a name as statements have it.
func ident(name string) (string, error) { return written("%Value%", name) }

// literal writes a text as statements have it.
func literal(text string) (string, error) { return written("N'%Value%'", text) }

func written(command, value string) (string, error) {
	c, err := template.TSQL.Parse(command)
	if err != nil {
		return "", err
	}
	out, err := c.Render(func(template.Slot) (string, error) { return value, nil }, nil)
	if err != nil {
		return "", sdk.Errorf(sdk.ClassInvalid, "a value cannot be written in T-SQL: %v", err).
			WithFix("choose a value without control characters, of at most 128 characters")
	}
	return out, nil
}

// accountsQuery reads logins with passwords. What the management account may not know is NULL.
// learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-sql-logins-transact-sql
// learn.microsoft.com/sql/t-sql/functions/loginproperty-transact-sql
const accountsQuery = `SELECT name, sid, is_disabled, default_database_name, is_policy_checked, is_expiration_checked,
 CONVERT(datetime, LOGINPROPERTY(name, N'PasswordLastSetTime')), CONVERT(int, LOGINPROPERTY(name, N'IsLocked')),
 CONVERT(int, LOGINPROPERTY(name, N'IsExpired')), CONVERT(int, LOGINPROPERTY(name, N'IsMustChange')),
 CONVERT(int, LOGINPROPERTY(name, N'BadPasswordCount')) FROM sys.sql_logins`

// accounts reads every login with a password, or the one with a name.
func (s *session) accounts(ctx context.Context, name ...any) ([]*account, error) {
	statement := accountsQuery
	if len(name) > 0 {
		statement += " WHERE name = @p1"
	}
	var all []*account
	err := s.query(ctx, "read the logins", statement+" ORDER BY name", func(r *sql.Rows) error {
		var a account
		var database sql.NullString
		var policy, expires sql.NullBool
		var changed sql.NullTime
		var locked, expired, renew, wrong sql.NullInt64
		err := r.Scan(&a.name, &a.sid, &a.disabled, &database, &policy, &expires, &changed, &locked, &expired, &renew, &wrong)
		a.database, a.policy, a.expires = database.String, policy.Bool, expires.Bool
		a.locked, a.expired, a.renew, a.wrong = locked.Int64 != 0, expired.Int64 != 0, renew.Int64 != 0, wrong.Int64
		if changed.Valid {
			a.changed = changed.Time.Add(-s.server.zone).UTC()
		}
		all = append(all, &a)
		return err
	}, name...)
	return all, err
}

// login reads one login; nil if there is none with a password.
func (s *session) login(ctx context.Context, name string) (*account, error) {
	all, err := s.accounts(ctx, name)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[0], nil
}

// databases lists those that are online, and whether the management account may enter.
func (s *session) databases(ctx context.Context) (entered, closed []string, err error) {
	err = s.query(ctx, "read the databases", "SELECT name, HAS_DBACCESS(name) FROM sys.databases WHERE state = 0 ORDER BY name",
		func(r *sql.Rows) error {
			var name string
			var access sql.NullInt64
			err := r.Scan(&name, &access)
			if access.Int64 == 1 {
				entered = append(entered, name)
			} else {
				closed = append(closed, name)
			}
			return err
		})
	return entered, closed, err
}
