package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// account is a row of DBA_USERS.
type account struct {
	name     string
	id       string // never given to another account
	created  string // in digits, in the server's own time
	external string // distinguished name; such an account has no password yet
	kind     string // of authentication
	status   string
	profile  string
	changed  time.Time // password
	last     string    // login
}

// identity tells an account from another that is later given the same name.
func (a *account) identity() string { return a.name + "#" + a.id + "@" + a.created }

func (a *account) locked() bool { return strings.Contains(a.status, "LOCKED") }

// timed reports whether it is locked after too many wrong passwords, for the time that its profile says.
func (a *account) timed() bool { return strings.Contains(a.status, "LOCKED(TIMED)") }
func (a *account) expired() bool {
	return strings.Contains(a.status, "EXPIRED") && !strings.Contains(a.status, "GRACE")
}
func (a *account) inRollover() bool  { return strings.Contains(a.status, "IN ROLLOVER") }
func (a *account) hasPassword() bool { return a.kind == "PASSWORD" }

// An account that Reeve made bears a mark in two places; DESIGN.md says why. From the very statement that creates it until
// its password is set, it has a distinguished name made of Reeve's own id of it:
func distinguished(accountID string) string { return "CN=" + accountID + ",OU=reeve" }

// From then on there is a synonym in the management account's schema, named after that id,
func markName(accountID string) string {
	sum := sha256.Sum256([]byte("reeve account " + accountID))
	return "REEVE_" + strings.ToUpper(hex.EncodeToString(sum[:12]))
}

// which leads to nothing and says which account it is.
func (a *account) markObject() string { return "ID" + a.id + "_" + a.created }

const (
	stampFormat = "YYYYMMDDHH24MISS"
	stampLayout = "20060102150405"
)

// usersQuery reads DBA_USERS, or what a condition leaves of it.
func (s server) usersQuery(condition string) string {
	changed := "NULL"
	if s.changeDates() {
		changed = "TO_CHAR(password_change_date, '" + stampFormat + "')"
	}
	return "SELECT username, TO_CHAR(user_id), TO_CHAR(created, '" + stampFormat + "'), external_name, authentication_type," +
		" account_status, profile, TO_CHAR(SYS_EXTRACT_UTC(last_login), '" + stampFormat + "'), TO_CHAR(SYSTIMESTAMP, 'TZH:TZM'), " +
		changed + " FROM dba_users WHERE " + condition + " ORDER BY username"
}

func (s *session) accounts(ctx context.Context, condition string, args ...string) ([]*account, error) {
	rows, err := s.query(ctx, "read the accounts", s.server.usersQuery(condition), args...)
	if err != nil {
		return nil, err
	}
	var all []*account
	for _, r := range rows {
		all = append(all, &account{
			name: r[0], id: r[1], created: r[2], external: r[3], kind: r[4], status: r[5], profile: r[6], last: r[7],
			changed: stampOf(r[9], r[8]),
		})
	}
	return all, nil
}

// account reads one account; nil if it is not there.
func (s *session) account(ctx context.Context, name string) (*account, error) {
	found, err := s.accounts(ctx, "username = :1", name)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

// stampOf reads a time of the server's, which is that of its clock, with the clock's distance from UTC now. Where that
// changes with the seasons, times of the other season are an hour off.
func stampOf(digits, zone string) time.Time {
	t, err := time.Parse(stampLayout+"-07:00", digits+zone)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// marks reads where the marks of an account id are, and what they say.
type mark struct{ owner, account, object string }

func (s *session) marks(ctx context.Context, accountID string) ([]mark, error) {
	if accountID == "" {
		return nil, nil
	}
	rows, err := s.query(ctx, "read the marks of accounts",
		"SELECT owner, table_owner, table_name FROM dba_synonyms WHERE synonym_name = :1", markName(accountID))
	var all []mark
	for _, r := range rows {
		all = append(all, mark{r[0], r[1], r[2]})
	}
	return all, err
}

// marked reports whether an account bears the mark of an id in one of its two places.
func (a *account) marked(accountID string, marks []mark) bool {
	if accountID == "" {
		return false
	}
	return a.external == distinguished(accountID) || a.synonym(marks)
}

// synonym reports whether one of the marks says that it is this account.
func (a *account) synonym(marks []mark) bool {
	for _, m := range marks {
		if m.account == a.name && m.object == a.markObject() {
			return true
		}
	}
	return false
}

// markStatement is what writes the mark down.
func markStatement(accountID, account, object string) (string, error) {
	m, err := name(markName(accountID))
	if err != nil {
		return "", err
	}
	who, err := name(account)
	if err != nil {
		return "", err
	}
	what, err := name(object)
	if err != nil {
		return "", sdk.Errorf(sdk.ClassProtocol, "the server's id of %s is not understood", account).
			WithFix("report the server's version with this message")
	}
	return "CREATE OR REPLACE SYNONYM " + m + " FOR " + who + "." + what, nil
}
