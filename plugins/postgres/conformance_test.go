package main

import (
	"context"
	"database/sql"
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

// TestConformance runs the kit against a real PostgreSQL, with the program an agent would
// start and a management account that has the least rights.
func TestConformance(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	other := testlab.Postgres(t, testlab.PostgresOptions{})
	program := direct.Build(t)
	tgt := target(p)
	tgt.Options = nil // the defaults
	var names atomic.Int64
	sdktest.Run(t, sdktest.Config{
		Binary:         program,
		Target:         tgt,
		WrongTrust:     sdk.Trust{CAPEM: other.CAPEM},
		Role:           role(t, "pg-db-rw"),
		Params:         map[string]string{paramDatabase: "app", "Schema": "public", "Owner": "app_owner"},
		NewAccountName: func() string { return fmt.Sprintf("kit_%d", names.Add(1)) },
		Exists: func(ctx context.Context, name string) (bool, error) {
			_, ok, err := p.Role(ctx, name)
			return ok, err
		},
		LoginWorks: func(ctx context.Context, name, password string) (bool, error) {
			err := p.Login(ctx, name, password)
			if errors.Is(err, testlab.ErrRefused) {
				return false, nil
			}
			return err == nil, err
		},
		CreateForeign: func(ctx context.Context, name, password string) error {
			v, err := verifier(secret(password))
			if err != nil {
				return err
			}
			return p.Exec(ctx, "CREATE ROLE "+name+" LOGIN PASSWORD '"+v+"'")
		},
		Session: func(ctx context.Context, name, password string) (func(), error) {
			conn, err := p.As(ctx, name, password, "postgres")
			if err != nil {
				return nil, err
			}
			return func() { _ = conn.Close(context.WithoutCancel(ctx)) }, nil
		},
		Commands: &sdktest.Commands{
			Speak:  "SELECT 'spoken' AS said, 1/(2 - n) AS n FROM generate_series(1, 2) n",
			Stdout: "said\tn\nspoken\t1", Stderr: "ERROR 22012: division by zero", Status: 1,
			Pause: "SELECT repeat('x', 20000) AS x UNION ALL SELECT pg_sleep(30)::text", // the server waits until it has 8 KiB
			Large: "SELECT repeat('x', 100) FROM generate_series(1, 2500) UNION ALL SELECT 'the end'", LargeEnd: "the end",
		},
		States: map[sdktest.State]sdktest.StateHook{
			sdktest.StateDisabled: {Set: func(ctx context.Context, name string) error { return p.Exec(ctx, "ALTER ROLE "+name+" NOLOGIN") }},
			sdktest.StateExpired: {
				Set: func(ctx context.Context, name string) error {
					return p.Exec(ctx, "ALTER ROLE "+name+" VALID UNTIL '2020-01-01'")
				},
				Hidden: "the server answers as to a wrong password",
			},
			sdktest.StateLocked:     {None: "PostgreSQL does not count wrong passwords"},
			sdktest.StateMustChange: {None: "PostgreSQL has one date for a role and its password, VALID UNTIL, which is the end of the access"},
		},
		FailedLogins: func(_ context.Context, name string) (int, error) {
			logs, err := p.Logs()
			return strings.Count(logs, `password authentication failed for user "`+name+`"`), err
		},
		RefusedRole: sdk.Role{Name: "refused", Title: "Refused", Description: "Its second command is refused.", Version: 1, Phases: map[sdk.Phase][]string{
			sdk.PhaseGrant: {"GRANT pg_monitor TO %Username%", "GRANT SELECT ON TABLE public.absent TO %Username%"},
		}},
		Snapshot: func(ctx context.Context) (string, error) { return snapshot(ctx, p) },
	})
	logs, err := p.Logs()
	if err != nil || strings.Contains(logs, "Aa1.") { // how the kit's passwords begin
		t.Errorf("a password is in the server's logs, or: %v", err)
	}
}

// snapshot is everything about roles and rights that the server stores.
func snapshot(ctx context.Context, p *testlab.PostgresServer) (string, error) {
	var all strings.Builder
	for _, q := range []struct {
		db    *sql.DB
		query string
	}{
		{p.Root(), "SELECT pg_authid::text FROM pg_authid ORDER BY oid"},
		{p.Root(), "SELECT concat_ws(' ', roleid, member, grantor, admin_option) FROM pg_auth_members ORDER BY 1"},
		{p.Root(), "SELECT concat_ws(' ', objoid, description) FROM pg_shdescription ORDER BY 1"},
		{p.Root(), "SELECT concat_ws(' ', datname, datdba, datacl) FROM pg_database ORDER BY 1"},
		{p.App(), "SELECT concat_ws(' ', oid, relname, relowner, relacl) FROM pg_class ORDER BY 1"},
		{p.App(), "SELECT concat_ws(' ', oid, nspname, nspowner, nspacl) FROM pg_namespace ORDER BY 1"},
		{p.App(), "SELECT pg_default_acl::text FROM pg_default_acl ORDER BY oid"},
	} {
		if err := lines(ctx, q.db, q.query, &all); err != nil {
			return "", err
		}
	}
	return all.String(), nil
}

func lines(ctx context.Context, db *sql.DB, query string, to *strings.Builder) error {
	rows, err := db.QueryContext(ctx, query)
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
