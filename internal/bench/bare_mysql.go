package main

import (
	"context"
	"crypto/sha1" //nolint:gosec // what MariaDB's account tables hold
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// bareMySQL is go-sql-driver with connections that are kept, as plugins/mysql keeps them, and one more for each proof.
type bareMySQL struct {
	db  *sql.DB
	cfg *mysql.Config // of a login as an account
}

func newBareMySQL(t sdk.Target, connections int) (*bareMySQL, error) {
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr = "tcp", address(t)
	cfg.TLS = tlsOf(t)
	cfg.InterpolateParams = true
	manage := cfg.Clone()
	manage.User, manage.Passwd = t.Management.Username, t.Management.Password.Reveal()
	manage.Params = map[string]string{"sql_mode": "'NO_BACKSLASH_ESCAPES,STRICT_TRANS_TABLES'", "lock_wait_timeout": "20"}
	connector, err := mysql.NewConnector(manage)
	if err != nil {
		return nil, err
	}
	m := &bareMySQL{db: sql.OpenDB(connector), cfg: cfg}
	m.db.SetMaxOpenConns(connections)
	m.db.SetMaxIdleConns(connections)
	return m, nil
}

func tlsOf(t sdk.Target) *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(t.Trust.CAPEM))
	return &tls.Config{RootCAs: roots, ServerName: t.Trust.ServerName, MinVersion: tls.VersionTLS12}
}

func (m *bareMySQL) close() error { return m.db.Close() }

// statement is one of SQL. What it answers is read to its end.
type statement struct {
	text string
	args []any
}

func sqlOf(text string, args ...any) statement { return statement{text, args} }

// mysqlReadAccount is how plugins/mysql reads an account of MariaDB.
const mysqlReadAccount = `SELECT User, Host,
 COALESCE(JSON_VALUE(Priv, '$.plugin'), 'mysql_native_password'),
 COALESCE(JSON_VALUE(Priv, '$.authentication_string'), ''),
 COALESCE(JSON_VALUE(Priv, '$.account_locked'), 0) <> 0,
 COALESCE(JSON_VALUE(Priv, '$.password_last_changed'), -1),
 COALESCE(JSON_VALUE(Priv, '$.max_connections'), 0), '', ''
 FROM mysql.global_priv AS a JOIN (SELECT DISTINCT Host AS h FROM mysql.global_priv) AS hosts JOIN (SELECT ? AS u UNION SELECT '') AS users
 ON a.Host = hosts.h AND a.User = users.u WHERE COALESCE(JSON_VALUE(Priv, '$.is_role'), 0) = 0 ORDER BY User, Host`

// The statements of plugins/mysql for an account with the role mysql-db-rw, in their order.

func (m *bareMySQL) provision(ctx context.Context, a *account) error {
	who := mysqlName(a)
	err := m.alone(ctx, a,
		sqlOf("CREATE USER "+who+" IDENTIFIED VIA mysql_native_password USING '"+nativeHash(a.password)+
			"' REQUIRE SSL WITH MAX_CONNECTIONS_PER_HOUR 3603952342 ACCOUNT LOCK"),
		sqlOf("GRANT SELECT, INSERT, UPDATE, DELETE, EXECUTE ON `app`.* TO "+who),
		sqlOf("ALTER USER "+who+" ACCOUNT UNLOCK"),
		sqlOf(mysqlReadAccount, a.name),
		sqlOf("SHOW GRANTS FOR "+who),
		sqlOf("SELECT Role FROM mysql.roles_mapping WHERE User = ? AND Host = ? ORDER BY Role", a.name, "%"),
		mysqlSessions(a))
	if err != nil {
		return err
	}
	return m.login(ctx, a.name, a.password)
}

func (m *bareMySQL) rotate(ctx context.Context, a *account, password string) error {
	who := mysqlName(a)
	err := m.alone(ctx, a,
		sqlOf("ALTER USER "+who+" IDENTIFIED VIA mysql_native_password USING '"+nativeHash(password)+"'"),
		sqlOf(mysqlReadAccount, a.name),
		sqlOf("SHOW GRANTS FOR "+who),
		sqlOf("SELECT Role FROM mysql.roles_mapping WHERE User = ? AND Host = ? ORDER BY Role", a.name, "%"),
		mysqlSessions(a))
	if err != nil {
		return err
	}
	return m.login(ctx, a.name, password)
}

func (m *bareMySQL) deprovision(ctx context.Context, a *account) error {
	who, definer := mysqlName(a), a.name+"@%"
	return m.alone(ctx, a,
		sqlOf("SELECT DEFINER FROM information_schema.VIEWS WHERE DEFINER = ?", definer),
		sqlOf("SELECT DEFINER FROM information_schema.ROUTINES WHERE DEFINER = ?", definer),
		sqlOf("SELECT DEFINER FROM information_schema.TRIGGERS WHERE DEFINER = ?", definer),
		sqlOf("SELECT DEFINER FROM information_schema.EVENTS WHERE DEFINER = ?", definer),
		sqlOf("ALTER USER "+who+" ACCOUNT LOCK"),
		sqlOf("REVOKE ALL PRIVILEGES, GRANT OPTION FROM "+who),
		mysqlSessions(a),
		sqlOf("DROP USER "+who),
		sqlOf(mysqlReadAccount, a.name))
}

func mysqlName(a *account) string { return "'" + a.name + "'@'%'" }

func mysqlSessions(a *account) statement {
	return sqlOf("SELECT ID, USER FROM information_schema.PROCESSLIST WHERE USER = ? AND ID <> CONNECTION_ID()", a.name)
}

// alone sends statements about an account that is locked and was read before.
func (m *bareMySQL) alone(ctx context.Context, a *account, statements ...statement) error {
	conn, err := m.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	lock := "reeve " + a.name
	all := append([]statement{sqlOf("SELECT COALESCE(GET_LOCK(?, 5), 0)", lock), sqlOf(mysqlReadAccount, a.name)}, statements...)
	for _, s := range append(all, sqlOf("DO RELEASE_LOCK(?)", lock)) {
		if err := drain(ctx, conn, s); err != nil {
			return fmt.Errorf("%s: %w", s.text, err)
		}
	}
	return nil
}

func drain(ctx context.Context, conn *sql.Conn, s statement) error {
	if first, _, _ := strings.Cut(s.text, " "); first != "SELECT" && first != "SHOW" {
		_, err := conn.ExecContext(ctx, s.text, s.args...)
		return err
	}
	rows, err := conn.QueryContext(ctx, s.text, s.args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() { //nolint:revive // they are read, as the connector does
	}
	return rows.Err()
}

// login is the proof: a fresh connection as the account.
func (m *bareMySQL) login(ctx context.Context, user, password string) error {
	cfg := m.cfg.Clone()
	cfg.User, cfg.Passwd = user, password
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer func() { _ = db.Close() }()
	var matched string
	err = db.QueryRowContext(ctx, "SELECT CURRENT_USER()").Scan(&matched)
	if err == nil && matched != user+"@%" {
		err = fmt.Errorf("logged in as %s", matched)
	}
	return err
}

func nativeHash(password string) string {
	first := sha1.Sum([]byte(password)) //nolint:gosec // as above
	second := sha1.Sum(first[:])        //nolint:gosec // as above
	return "*" + strings.ToUpper(hex.EncodeToString(second[:]))
}
