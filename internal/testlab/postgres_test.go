//go:build linux

package testlab_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/reeve-pam/reeve/internal/testlab"
)

func TestPostgresAcceptsTheRightPasswordOverTLSOnly(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	if err := p.Login(ctx, testlab.Management, p.ManagementPassword); err != nil {
		t.Errorf("management account: %v", err)
	}
	if err := p.Login(ctx, testlab.Management, "wrong"); !errors.Is(err, testlab.ErrRefused) {
		t.Errorf("wrong password: %v, want ErrRefused", err)
	}
	conn, err := p.As(ctx, testlab.Management, p.ManagementPassword, "app")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var encrypted bool
	if err := conn.QueryRow(ctx, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&encrypted); err != nil || !encrypted {
		t.Errorf("encrypted %t, %v", encrypted, err)
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE other"); err == nil {
		t.Error("the management account may make databases")
	}
	var name string
	if err := p.App().QueryRowContext(ctx, "SELECT name FROM item").Scan(&name); err != nil || name != "first" {
		t.Errorf("item %q, %v", name, err)
	}
	plain := testlab.Postgres(t, testlab.PostgresOptions{Plain: true})
	if err := plain.Login(ctx, testlab.Management, plain.ManagementPassword); err == nil {
		t.Error("a server without TLS is logged in to")
	}
}

func TestPostgresShowsWhatItStoresAndLogs(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	for _, s := range []string{"CREATE ROLE alice LOGIN PASSWORD 'seen-in-the-log' VALID UNTIL '2030-01-01Z'", "COMMENT ON ROLE alice IS 'x'"} {
		if err := p.Exec(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	r, ok, err := p.Role(ctx, "alice")
	if err != nil || !ok || !r.CanLogin || r.Superuser || r.Comment != "x" || r.ValidUntil.String != "2030-01-01 00:00:00" ||
		!strings.HasPrefix(r.Verifier, "SCRAM-SHA-256$") || r.ConnectionLimit != -1 {
		t.Errorf("Role = %+v, %t, %v", r, ok, err)
	}
	if _, ok, err := p.Role(ctx, "bob"); ok || err != nil {
		t.Errorf("Role of an absent role = %t, %v", ok, err)
	}
	logs, err := p.Logs()
	if err != nil || !strings.Contains(logs, "seen-in-the-log") {
		t.Errorf("the log does not hold the statement; %v", err)
	}
	if strings.Contains(logs, p.ManagementPassword) {
		t.Error("the log holds the management account's password")
	}
}

func TestPostgresFaults(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	create := func() error {
		conn, err := p.As(ctx, testlab.Management, p.ManagementPassword, "app")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(ctx) }()
		_, err = conn.Exec(ctx, "CREATE ROLE bob")
		return err
	}
	if err := p.ReadOnly(ctx); err != nil {
		t.Fatal(err)
	}
	if e, ok := errors.AsType[*pgconn.PgError](create()); !ok || e.Code != "25006" {
		t.Errorf("CREATE ROLE on a read-only server: %v, want 25006", e)
	}
	if err := p.ReadWrite(ctx); err != nil {
		t.Fatal(err)
	}
	if err := create(); err != nil {
		t.Errorf("after ReadWrite: %v", err)
	}

	open, err := p.As(ctx, testlab.Management, p.ManagementPassword, "app")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Hang(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := p.Login(short, testlab.Management, p.ManagementPassword); err == nil || errors.Is(err, testlab.ErrRefused) {
		t.Errorf("login on a hung server: %v", err)
	}
	if err := open.Ping(short); err == nil {
		t.Error("an open session of a hung server answers")
	}
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := p.Login(ctx, testlab.Management, p.ManagementPassword); err != nil {
		t.Errorf("after Resume: %v", err)
	}

	p.Crash()
	if err := p.Login(ctx, testlab.Management, p.ManagementPassword); err == nil {
		t.Error("a crashed server answers")
	}
	if err := p.Restart(); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := p.Role(ctx, "bob"); !ok || err != nil {
		t.Errorf("role made before the crash: %t, %v", ok, err)
	}
	if err := p.Login(ctx, testlab.Management, p.ManagementPassword); err != nil {
		t.Errorf("after Restart: %v", err)
	}
}
