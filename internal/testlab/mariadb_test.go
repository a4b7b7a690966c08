//go:build linux

package testlab_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
)

func TestMariaDBAcceptsTheRightPasswordOverTLSOnly(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	if err := d.Login(ctx, testlab.Management, d.ManagementPassword); err != nil {
		t.Errorf("management account: %v", err)
	}
	if err := d.Login(ctx, testlab.Management, "wrong"); !errors.Is(err, testlab.ErrRefused) {
		t.Errorf("wrong password: %v, want ErrRefused", err)
	}
	if err := d.Login(ctx, "root", ""); !errors.Is(err, testlab.ErrRefused) {
		t.Errorf("root by the network: %v, want ErrRefused", err)
	}
	db, err := d.As(testlab.Management, d.ManagementPassword)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var name, cipher string
	if err := db.QueryRowContext(ctx, "SHOW STATUS LIKE 'Ssl_cipher'").Scan(&name, &cipher); err != nil || cipher == "" {
		t.Errorf("cipher %q, %v", cipher, err)
	}
	if _, err := db.ExecContext(ctx, "CREATE DATABASE other"); err == nil {
		t.Error("the management account may make databases")
	}
}

func TestMariaDBShowsWhatItStoresAndLogs(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	if err := d.Exec(ctx, "CREATE USER 'alice'@'10.%' IDENTIFIED BY 'seen-in-the-log' ACCOUNT LOCK"); err != nil {
		t.Fatal(err)
	}
	priv, ok, err := d.GlobalPriv(ctx, "alice", "10.%")
	if err != nil || !ok || priv["account_locked"] != true {
		t.Errorf("GlobalPriv = %v, %t, %v", priv, ok, err)
	}
	if _, ok, err := d.GlobalPriv(ctx, "alice", "%"); ok || err != nil {
		t.Errorf("GlobalPriv of an absent account = %t, %v", ok, err)
	}
	logs, err := d.Logs()
	if err != nil || !strings.Contains(logs, "seen-in-the-log") {
		t.Errorf("the log does not hold the statement; %v", err)
	}
}

func TestMariaDBFaults(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	if err := d.ReadOnly(ctx); err != nil {
		t.Fatal(err)
	}
	db, err := d.As(testlab.Management, d.ManagementPassword)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(ctx, "CREATE USER 'bob'@'%'"); err == nil || !strings.Contains(err.Error(), "1290") {
		t.Errorf("CREATE USER on a read-only server: %v, want error 1290", err)
	}
	if err := d.ReadWrite(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(ctx, "CREATE USER 'bob'@'%'"); err != nil {
		t.Errorf("after ReadWrite: %v", err)
	}

	if err := d.Hang(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := d.Login(short, testlab.Management, d.ManagementPassword); err == nil || errors.Is(err, testlab.ErrRefused) {
		t.Errorf("login on a hung server: %v", err)
	}
	if err := d.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := d.Login(ctx, testlab.Management, d.ManagementPassword); err != nil {
		t.Errorf("after Resume: %v", err)
	}

	d.Crash()
	if err := d.Login(ctx, testlab.Management, d.ManagementPassword); err == nil {
		t.Error("a crashed server answers")
	}
	if err := d.Restart(); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := d.GlobalPriv(ctx, "bob", "%"); !ok || err != nil {
		t.Errorf("account made before the crash: %t, %v", ok, err)
	}
	if err := d.Login(ctx, testlab.Management, d.ManagementPassword); err != nil {
		t.Errorf("after Restart: %v", err)
	}
}
