package main

import (
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // what MariaDB's account tables hold
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// provisionRows: accounts made on one MariaDB, from the API request to the proof by a fresh login, through three
// controllers, an agent and its connector. The floor is the bare driver with 16 open connections, which sends the
// statements the connector sends and makes the same login; it plans, records and seals nothing.
func provisionRows() []row {
	var rows []row
	for _, p := range []struct {
		name, with string
		existing   int
	}{{"provision-few", "few accounts there", 0}, {"provision-20k", "20,000 accounts there", 20_000}} {
		rows = append(rows, row{
			name: p.name, work: "provision on MariaDB, 16 in flight, " + p.with, unit: "accounts/s", more: true, require: 0.6,
			prepare: func(ctx context.Context, e *env) (*sides, error) { return provisionSides(ctx, e, p.existing) },
		})
	}
	return rows
}

// provisions is how many accounts are made in a run.
const provisions = 200

func provisionSides(ctx context.Context, e *env, existing int) (*sides, error) {
	w, err := startTargets(ctx, e)
	if err != nil {
		return nil, err
	}
	s, err := w.provisionSides(ctx, e, existing)
	if err != nil {
		w.fleet.Tails(e.stderr, 20)
		return nil, errors.Join(err, w.close())
	}
	return s, nil
}

func (w *targets) provisionSides(ctx context.Context, e *env, existing int) (*sides, error) {
	db, err := w.lab.MariaDB(testlab.MariaDBOptions{})
	if err != nil {
		return nil, err
	}
	if err := crowd(ctx, db, existing); err != nil {
		return nil, err
	}
	err = w.addAsset(ctx, client.AssetRequest{Name: "db", Connector: "mysql", Address: db.Addr, CaPem: &db.CAPEM,
		ManagementAccount: &client.ManagementAccountRequest{Username: testlab.Management, Password: &db.ManagementPassword}})
	if err != nil {
		return nil, err
	}
	floor, err := newBareMaker(db)
	if err != nil {
		return nil, err
	}
	n := e.few(provisions)
	cost := w.costsOf(func() []int { return []int{db.PID()} })
	reeve := func(ctx context.Context) ([]float64, error) {
		w.runs++
		orders := make([]client.ProvisionRequest, n)
		for i := range orders {
			orders[i] = client.ProvisionRequest{Name: fmt.Sprintf("r%d_%d", w.runs, i), Role: "mysql-db-rw", Assets: []string{"db"},
				Params: &map[string]string{"Database": "app"}}
		}
		var ids []string
		var took time.Duration
		err := cost.reeve.measure(n, func() (err error) {
			ids, took, err = w.provision(ctx, orders)
			return err
		})
		return perSecond(n, took), errors.Join(err, w.allWell(ctx, ids))
	}
	if _, err := reeve(ctx); err != nil { // warm
		return nil, err
	}
	cost.reeve.forget()
	return &sides{
		floor: func(ctx context.Context) ([]float64, error) {
			w.runs++
			began := time.Now()
			err := cost.floor.measure(n, func() error {
				return each(n, func(i int) error { return floor.provision(ctx, fmt.Sprintf("f%d_%d", w.runs, i)) })
			})
			return perSecond(n, time.Since(began)), err
		},
		reeve: reeve,
		note:  cost.String,
		close: func() error { return errors.Join(floor.db.Close(), w.close()) },
	}, nil
}

// crowd fills the server's account table behind its back.
func crowd(ctx context.Context, db *testlab.Database, n int) error {
	if n == 0 {
		return nil
	}
	err := db.Exec(ctx, `INSERT INTO mysql.global_priv SELECT '%', CONCAT('crowd', seq), JSON_OBJECT('access', 0, 'plugin', 'mysql_native_password',
 'authentication_string', CONCAT('*', UPPER(SHA1(seq))), 'password_last_changed', 1) FROM app.seq_1_to_`+strconv.Itoa(n))
	return errors.Join(err, db.Exec(ctx, "FLUSH PRIVILEGES"))
}

// bareMaker makes accounts with nothing but the driver.
type bareMaker struct {
	db  *sql.DB
	cfg *mysql.Config // of a login as an account
}

func newBareMaker(db *testlab.Database) (*bareMaker, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(db.CAPEM))
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr = "tcp", net.JoinHostPort(db.Addr, strconv.Itoa(db.Port))
	cfg.TLS = &tls.Config{RootCAs: roots, ServerName: db.Addr, MinVersion: tls.VersionTLS12}
	cfg.InterpolateParams = true
	manage := cfg.Clone()
	manage.User, manage.Passwd = testlab.Management, db.ManagementPassword
	connector, err := mysql.NewConnector(manage)
	if err != nil {
		return nil, err
	}
	m := &bareMaker{db: sql.OpenDB(connector), cfg: cfg}
	m.db.SetMaxOpenConns(inFlight)
	m.db.SetMaxIdleConns(inFlight)
	return m, nil
}

// The statements of plugins/mysql for a new account with the role mysql-db-rw, in their order.
const readAccount = `SELECT User, Host, COALESCE(JSON_VALUE(Priv, '$.plugin'), 'mysql_native_password'), COALESCE(JSON_VALUE(Priv, '$.authentication_string'), ''),
 COALESCE(JSON_VALUE(Priv, '$.account_locked'), 0) <> 0, COALESCE(JSON_VALUE(Priv, '$.password_last_changed'), -1),
 COALESCE(JSON_VALUE(Priv, '$.max_connections'), 0) FROM mysql.global_priv AS a
 JOIN (SELECT DISTINCT Host AS h FROM mysql.global_priv) AS hosts JOIN (SELECT ? AS u UNION SELECT '') AS users ON a.Host = hosts.h AND a.User = users.u
 WHERE COALESCE(JSON_VALUE(Priv, '$.is_role'), 0) = 0 ORDER BY User, Host`

func (m *bareMaker) provision(ctx context.Context, user string) error {
	conn, err := m.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	password := rand.Text()
	who := "'" + user + "'@'%'"
	for _, s := range []struct {
		text string
		args []any
	}{
		{"SELECT COALESCE(GET_LOCK(?, 5), 0)", []any{"bench " + user}},
		{readAccount, []any{user}},
		{"CREATE USER " + who + " IDENTIFIED VIA mysql_native_password USING '" + nativeHash(password) +
			"' REQUIRE SSL WITH MAX_CONNECTIONS_PER_HOUR 3603952342 ACCOUNT LOCK", nil},
		{"GRANT SELECT, INSERT, UPDATE, DELETE, EXECUTE ON `app`.* TO " + who, nil},
		{"ALTER USER " + who + " ACCOUNT UNLOCK", nil},
		{readAccount, []any{user}},
		{"SHOW GRANTS FOR " + who, nil},
		{"SELECT Role FROM mysql.roles_mapping WHERE User = ? AND Host = ? ORDER BY Role", []any{user, "%"}},
		{"SELECT ID, USER FROM information_schema.PROCESSLIST WHERE USER = ? AND ID <> CONNECTION_ID()", []any{user}},
		{"DO RELEASE_LOCK(?)", []any{"bench " + user}},
	} {
		if err := drain(ctx, conn, s.text, s.args); err != nil {
			return err
		}
	}
	return m.login(ctx, user, password)
}

func drain(ctx context.Context, conn *sql.Conn, text string, args []any) error {
	if first, _, _ := strings.Cut(text, " "); first != "SELECT" && first != "SHOW" {
		_, err := conn.ExecContext(ctx, text, args...)
		return err
	}
	rows, err := conn.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() { //nolint:revive // they are read, as the connector does
	}
	return rows.Err()
}

// login is the proof: a fresh connection as the account.
func (m *bareMaker) login(ctx context.Context, user, password string) error {
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
