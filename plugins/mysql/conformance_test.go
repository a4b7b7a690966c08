package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

// TestConformance runs the kit against a real MariaDB, with the program an agent would
// start and a management account that has the least rights.
func TestConformance(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{Config: []string{"--max-password-errors=9"}})
	other := testlab.MariaDB(t, testlab.MariaDBOptions{})
	program := direct.Build(t)
	var names atomic.Int64
	sdktest.Run(t, sdktest.Config{
		Binary:         program,
		Target:         target(d),
		WrongTrust:     sdk.Trust{CAPEM: other.CAPEM},
		Role:           role(t, "mysql-db-ro"),
		Params:         map[string]string{"Database": "app"},
		NewAccountName: func() string { return fmt.Sprintf("kit_%d", names.Add(1)) },
		Exists: func(ctx context.Context, name string) (bool, error) {
			_, ok, err := d.GlobalPriv(ctx, name, "%")
			return ok, err
		},
		LoginWorks: func(ctx context.Context, name, password string) (bool, error) {
			err := d.Login(ctx, name, password)
			if errors.Is(err, testlab.ErrRefused) {
				return false, nil
			}
			return err == nil, err
		},
		CreateForeign: func(ctx context.Context, name, password string) error {
			return d.Exec(ctx, "CREATE USER '"+name+"'@'%' IDENTIFIED BY PASSWORD '"+hash(secret(password))+"'")
		},
		Commands: &sdktest.Commands{
			Speak:  "SELECT IF(n = 1, 'spoken', (SELECT n UNION SELECT 0)) AS said FROM (SELECT 1 AS n UNION SELECT 2) AS t",
			Stdout: "said\nspoken", Stderr: "ERROR 1242 (21000): Subquery returns more than 1 row", Status: 1,
			Pause: "SELECT REPEAT('x', 20000) AS x UNION ALL SELECT SLEEP(30)", // the server waits until it has 16 KiB
			Large: "SELECT REPEAT('x', 70000) AS x UNION ALL SELECT REPEAT('y', 70000) UNION ALL SELECT REPEAT('z', 70000) UNION ALL SELECT 'the end'", LargeEnd: "the end",
		},
		States: map[sdktest.State]sdktest.StateHook{
			sdktest.StateDisabled: {Set: func(ctx context.Context, name string) error {
				return d.Exec(ctx, "ALTER USER '"+name+"'@'%' ACCOUNT LOCK")
			}},
			sdktest.StateMustChange: {Set: func(ctx context.Context, name string) error {
				return d.Exec(ctx, "ALTER USER '"+name+"'@'%' PASSWORD EXPIRE")
			}},
			sdktest.StateLocked: {Set: func(ctx context.Context, name string) error {
				for range 9 {
					if err := d.Login(ctx, name, "wrong"); !errors.Is(err, testlab.ErrRefused) {
						return fmt.Errorf("a wrong password: %w", err)
					}
				}
				return nil
			}},
			sdktest.StateExpired: {None: "accounts of MariaDB and MySQL have no expiry date"},
		},
		FailedLogins: func(_ context.Context, name string) (int, error) {
			logs, err := d.Logs()
			return strings.Count(logs, "Connect\tAccess denied for user '"+name+"'@"), err
		},
		RefusedRole: sdk.Role{Name: "refused", Title: "Refused", Description: "Its second command is refused.", Version: 1, Phases: map[sdk.Phase][]string{
			sdk.PhaseGrant: {"GRANT SELECT ON `app`.* TO %Username%", "GRANT FILE ON *.* TO %Username%"},
		}},
		Snapshot: func(ctx context.Context) (string, error) { return snapshot(ctx, d) },
		Session: func(ctx context.Context, name, password string) (func(), error) {
			db, err := d.As(name, password)
			if err != nil {
				return nil, err
			}
			return func() { _ = db.Close() }, db.PingContext(ctx)
		},
	})
	logs, err := d.Logs()
	if err != nil || strings.Contains(logs, "Aa1.") { // how the kit's passwords begin
		t.Errorf("a password is in the server's logs, or: %v", err)
	}
}

// snapshot is everything about accounts and rights that the server stores.
func snapshot(ctx context.Context, d *testlab.Database) (string, error) {
	var all strings.Builder
	for _, query := range []string{
		"SELECT CONCAT_WS(' ', User, Host, Priv) FROM mysql.global_priv ORDER BY 1",
		"SELECT CONCAT_WS(' ', User, Host, Db, Select_priv, Insert_priv, Drop_priv, Grant_priv) FROM mysql.db ORDER BY 1",
		"SELECT CONCAT_WS(' ', User, Host, Role) FROM mysql.roles_mapping ORDER BY 1",
	} {
		if err := lines(ctx, d, query, &all); err != nil {
			return "", err
		}
	}
	return all.String(), nil
}

func lines(ctx context.Context, d *testlab.Database, query string, to *strings.Builder) error {
	rows, err := d.Root().QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return err
		}
		to.WriteString(line + "\n")
	}
	return rows.Err()
}
