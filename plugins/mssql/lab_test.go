package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"testing"

	mssql "github.com/microsoft/go-mssqldb"
	"github.com/microsoft/go-mssqldb/msdsn"

	"github.com/reeve-pam/reeve/internal/emu/tds"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

const (
	manager  = "reeve_manager"
	password = "Manager-Canary-4711"
	first    = "First-Canary-1"
	second   = "Second-Canary-2"
	id       = "acct_01JABCDEF"
)

var rig = direct.Rig{Connector: connector{}, Canary: ""}

var (
	apply     = rig.Apply
	applyWith = rig.ApplyWith
	must      = rig.Must
	wantClass = rig.WantClass
	role      = rig.Role
	secret    = direct.Secret
)

// emulator starts an emulator with a management account that has the least rights, which are those
// of docs/connectors/mssql.md, and is the owner of the database app.
func emulator(t *testing.T, options tds.Options) *tds.Server {
	t.Helper()
	options.Databases = append(options.Databases, "app", "crm")
	s := tds.Start(t, options)
	asRoot(t, s, "master", "CREATE LOGIN ["+manager+"] WITH PASSWORD = N'"+password+"'",
		"GRANT ALTER ANY LOGIN, VIEW ANY DEFINITION, VIEW SERVER STATE, ALTER ANY CONNECTION, CONNECT ANY DATABASE TO ["+manager+"]")
	asRoot(t, s, "app", "CREATE USER ["+manager+"] FOR LOGIN ["+manager+"]", "ALTER ROLE [db_owner] ADD MEMBER ["+manager+"]")
	return s
}

func target(s *tds.Server) sdk.Target {
	return sdk.Target{
		Address: "127.0.0.1", Port: s.Port, Trust: sdk.Trust{CAPEM: s.CAPEM},
		Options:    map[string]string{optionEncrypt: "true", optionLegacy: "no"},
		Management: sdk.Credential{Username: manager, Password: secret(password)},
	}
}

// asSA is the target with a management account that may do everything.
func asSA(s *tds.Server) sdk.Target {
	t := target(s)
	t.Management = sdk.Credential{Username: "sa", Password: secret(tds.Administrator)}
	return t
}

// login connects with the plain driver.
func login(s *tds.Server, name, password, database string) *sql.DB {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.CAPEM))
	return sql.OpenDB(mssql.NewConnectorConfig(msdsn.Config{
		Host: "127.0.0.1", Port: uint64(s.Port), User: name, Password: password, Database: database,
		Encryption: msdsn.EncryptionRequired, TLSConfig: &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"},
		Protocols: []string{"tcp"}, Parameters: map[string]string{}, DisableRetry: true,
	}))
}

func asRoot(t *testing.T, s *tds.Server, database string, statements ...string) {
	t.Helper()
	db := login(s, "sa", tds.Administrator, database)
	defer func() { _ = db.Close() }()
	for _, statement := range statements {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// loginWorks logs in and out again.
func loginWorks(ctx context.Context, s *tds.Server, name, password string) (bool, error) {
	db := login(s, name, password, "")
	defer func() { _ = db.Close() }()
	err := db.PingContext(ctx)
	if _, refused := errors.AsType[mssql.Error](err); refused {
		return false, nil
	}
	return err == nil, err
}

func wantLogin(t *testing.T, s *tds.Server, name, password string, want bool) {
	t.Helper()
	ok, err := loginWorks(t.Context(), s, name, password)
	if err != nil || ok != want {
		t.Errorf("login as %s: %t, %v; want %t", name, ok, err, want)
	}
}

func intent(action sdk.Action) sdk.Intent {
	return sdk.Intent{Action: action, Account: "alice", AccountID: id, Comment: "REQ-1"}
}
