package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"strconv"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/quote"
)

// account is one entry of the server's account table: a user name and a host part.
type account struct {
	user, host string
	plugin     string
	hash       string // never leaves the connector
	mark       string // whose it is, see mark; "" means nobody's
	comment    string
	locked     bool
	expired    bool
	changed    time.Time // password
}

// pair is the account as statements name it.
func pair(user, host string) (string, error) {
	u, err := quote.MyLit(user)
	if err != nil {
		return "", sdk.Errorf(sdk.ClassInvalid, "the account name cannot be written in SQL")
	}
	h, err := quote.MyLit(host)
	if err != nil {
		return "", sdk.Errorf(sdk.ClassInvalid, "the option %s cannot be written in SQL", optionHost)
	}
	return u + "@" + h, nil
}

// identity tells an account from another that is later given the same name: by the
// mark it was created with.
func (a *account) identity() string {
	if a.mark == "" {
		return a.user + "@" + a.host
	}
	return a.user + "@" + a.host + "#" + a.mark
}

// mark is what an account that Reeve created bears; DESIGN.md says why. Where accounts
// can carry a document it is Reeve's own id of the account. Elsewhere it is a limit of
// connections per hour between 2^31 and 2^32, derived from that id: no server gets near
// it, so it limits nothing, and no person sets such a one.
func (s server) mark(accountID string) string {
	switch {
	case accountID == "":
		return ""
	case s.attributes():
		return accountID
	}
	sum := sha256.Sum256([]byte("reeve account " + accountID))
	return strconv.FormatUint(uint64(markBit|binary.BigEndian.Uint32(sum[:4])), 10)
}

const markBit = 1 << 31

// markOf reads the mark back from a limit.
func markOf(maxConnections int64) string {
	if maxConnections < markBit {
		return ""
	}
	return strconv.FormatInt(maxConnections, 10)
}

// markClause is the part of CREATE USER that sets the mark.
func (s server) markClause(in sdk.Intent) string {
	if in.AccountID == "" || s.attributes() {
		return ""
	}
	return " WITH MAX_CONNECTIONS_PER_HOUR " + s.mark(in.AccountID)
}

// attributeClause is the part of CREATE USER that sets the mark where accounts can
// carry a document. It comes last.
func (s server) attributeClause(in sdk.Intent) (string, error) {
	if !s.attributes() {
		return "", nil
	}
	doc, err := jsonObject(map[string]string{"reeve": in.AccountID, "comment": in.Comment})
	if err != nil {
		return "", err
	}
	return " ATTRIBUTE " + doc, nil
}

// mariaAccounts reads accounts, and no roles, from MariaDB. "invalid" is the hash of
// accounts that no password fits.
// https://mariadb.com/kb/en/mysqlglobal_priv-table/
const (
	mariaAccounts = `SELECT User, Host,
 COALESCE(JSON_VALUE(Priv, '$.plugin'), 'mysql_native_password'),
 COALESCE(JSON_VALUE(Priv, '$.authentication_string'), ''),
 COALESCE(JSON_VALUE(Priv, '$.account_locked'), 0) <> 0,
 COALESCE(JSON_VALUE(Priv, '$.password_last_changed'), -1),
 COALESCE(JSON_VALUE(Priv, '$.max_connections'), 0), '', ''
 FROM mysql.global_priv AS a`

	mariaNoRoles = " WHERE COALESCE(JSON_VALUE(Priv, '$.is_role'), 0) = 0"

	// The table's key begins with the host part, of which there are few. They are read
	// from the key, and then each entry by its whole key: reading 20,000 accounts would
	// take longer than everything that is done to one.
	mariaByName = ` JOIN (SELECT DISTINCT Host AS h FROM mysql.global_priv) AS hosts JOIN (SELECT ? AS u UNION SELECT ?) AS users
 ON a.Host = hosts.h AND a.User = users.u`
)

// mysqlAccounts reads accounts from MySQL without documents; mysql8Accounts with.
// https://dev.mysql.com/doc/refman/8.0/en/grant-tables.html#grant-tables-user-db
const (
	mysqlAccounts = `SELECT User, Host, plugin, COALESCE(authentication_string, ''), account_locked = 'Y',
 IF(password_expired = 'Y', 0, COALESCE(UNIX_TIMESTAMP(password_last_changed), -1)), max_connections, '', ''
 FROM mysql.user WHERE 1 = 1`
	mysql8Accounts = `SELECT User, Host, plugin, COALESCE(authentication_string, ''), account_locked = 'Y',
 IF(password_expired = 'Y', 0, COALESCE(UNIX_TIMESTAMP(password_last_changed), -1)), 0,
 COALESCE(User_attributes->>'$.metadata.reeve', ''), COALESCE(User_attributes->>'$.metadata.comment', '')
 FROM mysql.user WHERE 1 = 1`
)

// accounts reads every account.
func (s *session) accounts(ctx context.Context) ([]*account, error) { return s.read(ctx) }

// namesakes reads every host entry of a user name, and the anonymous ones, which the
// server may match before them.
func (s *session) namesakes(ctx context.Context, user string) ([]*account, error) {
	return s.read(ctx, user, "")
}

// read reads the host entries of two user names, or of all.
func (s *session) read(ctx context.Context, names ...any) ([]*account, error) {
	var statement string
	switch {
	case s.server.product == mariaDB && len(names) > 0:
		statement = mariaAccounts + mariaByName + mariaNoRoles
	case s.server.product == mariaDB:
		statement = mariaAccounts + mariaNoRoles
	case s.server.attributes():
		statement = mysql8Accounts
	default:
		statement = mysqlAccounts
	}
	if s.server.product == mySQL && len(names) > 0 {
		statement += " AND User IN (?, ?)"
	}
	var found []*account
	err := s.query(ctx, "read the accounts", statement+" ORDER BY User, Host", func(r *sql.Rows) error {
		var a account
		var changed, limit int64
		if err := r.Scan(&a.user, &a.host, &a.plugin, &a.hash, &a.locked, &changed, &limit, &a.mark, &a.comment); err != nil {
			return err
		}
		if a.mark == "" {
			a.mark = markOf(limit)
		}
		a.expired = changed == 0
		if changed > 0 {
			a.changed = time.Unix(changed, 0).UTC()
		}
		found = append(found, &a)
		return nil
	}, names...)
	return found, err
}
