package tds_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	mssql "github.com/microsoft/go-mssqldb"
	"github.com/microsoft/go-mssqldb/msdsn"

	"github.com/reeve-pam/reeve/internal/emu/tds"
)

// open connects with the driver that the connector uses.
func open(t *testing.T, s *tds.Server, user, password string, change ...func(*msdsn.Config)) *sql.DB {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.CAPEM))
	cfg := msdsn.Config{
		Host: "127.0.0.1", Port: uint64(s.Port), User: user, Password: password, Encryption: msdsn.EncryptionRequired,
		TLSConfig: &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}, Protocols: []string{"tcp"}, DisableRetry: true,
		Parameters: map[string]string{},
	}
	for _, f := range change {
		f(&cfg)
	}
	db := sql.OpenDB(mssql.NewConnectorConfig(cfg))
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// try logs in and out again; 0 is success.
func try(t *testing.T, s *tds.Server, user, password string, change ...func(*msdsn.Config)) int {
	t.Helper()
	db := open(t, s, user, password, change...)
	err := db.PingContext(t.Context())
	_ = db.Close()
	for s.Sessions(user) > 0 && user != "sa" { // it ends when the server has noticed
		time.Sleep(time.Millisecond)
	}
	if err != nil && number(err) == 0 {
		t.Errorf("login as %s: %v", user, err)
	}
	return number(err)
}

func number(err error) int {
	if e, ok := errors.AsType[mssql.Error](err); ok {
		return int(e.Number)
	}
	return 0
}

func do(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func TestLifeOfALogin(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]msdsn.Encryption{"TDS 7.4": msdsn.EncryptionRequired, "TDS 8": msdsn.EncryptionStrict} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := tds.Start(t, tds.Options{Databases: []string{"app"}})
			encrypted := func(c *msdsn.Config) { c.Encryption = mode }
			sa := open(t, s, "sa", tds.Administrator, encrypted)
			login := func(password string) int {
				return try(t, s, "x]y'", password, encrypted)
			}
			do(t, sa, `CREATE LOGIN [x]]y'] WITH PASSWORD = N'First'';--1', SID = 0x00112233445566778899AABBCCDDEEFF, CHECK_POLICY = ON, CHECK_EXPIRATION = OFF, DEFAULT_DATABASE = [master]`)
			if n := login("First';--1"); n != 0 {
				t.Fatalf("the new login is refused: %d", n)
			}
			if n := login("first';--1"); n != 18456 {
				t.Errorf("a wrong password: %d", n)
			}
			do(t, sa, `ALTER LOGIN [x]]y'] WITH PASSWORD = N'Second-2' UNLOCK`)
			if a, b := login("First';--1"), login("Second-2"); a != 18456 || b != 0 {
				t.Errorf("after rotation: old %d, new %d", a, b)
			}
			do(t, sa, `ALTER LOGIN [x]]y'] DISABLE`)
			if n := login("Second-2"); n != 18470 {
				t.Errorf("disabled: %d", n)
			}
			do(t, sa, `ALTER LOGIN [x]]y'] ENABLE`, `ALTER SERVER ROLE [dbcreator] ADD MEMBER [x]]y']`,
				`EXEC master..sp_addsrvrolemember @loginame = N'x]y''', @rolename = N'sysadmin'`)
			var disabled bool
			var sid []byte
			if err := sa.QueryRowContext(t.Context(), "SELECT is_disabled, sid FROM sys.server_principals WHERE name = @p1", "X]Y'").
				Scan(&disabled, &sid); err != nil || disabled || len(sid) != 16 || sid[15] != 0xFF {
				t.Errorf("disabled %t, sid %x, %v", disabled, sid, err)
			}
			rows := columnOf(t, sa, `SELECT r.name FROM sys.server_role_members AS m JOIN sys.server_principals AS r ON r.principal_id = m.role_principal_id
 JOIN sys.server_principals AS p ON p.principal_id = m.member_principal_id WHERE p.name = @p1 ORDER BY r.name`, "x]y'")
			if strings.Join(rows, " ") != "dbcreator sysadmin" {
				t.Errorf("roles %q", rows)
			}
			do(t, sa, `DROP LOGIN [x]]y']`)
			if n := login("Second-2"); n != 18456 {
				t.Errorf("dropped: %d", n)
			}
			for statement, want := range map[string]int{
				`DROP LOGIN [nobody]`:                            15151,
				`CREATE LOGIN [sa] WITH PASSWORD = N'Aa1.abcde'`: 15025,
				`CREATE LOGIN [b] WITH PASSWORD = N'short1'`:     15116,
				`CREATE LOGIN [b] WITH PASSWORD = N'simplepw'`:   15118,
				`KILL 4711`: 6106,
			} {
				if _, err := sa.ExecContext(t.Context(), statement); number(err) != want {
					t.Errorf("%s: %v, want %d", statement, err, want)
				}
			}
		})
	}
}

func columnOf(t *testing.T, db *sql.DB, query string, args ...any) (all []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestUsersOfADatabase(t *testing.T) {
	t.Parallel()
	s := tds.Start(t, tds.Options{Databases: []string{"app"}})
	s.AddTable("app", "orders")
	sa := open(t, s, "sa", tds.Administrator)
	app := open(t, s, "sa", tds.Administrator, func(c *msdsn.Config) { c.Database = "app" })
	do(t, sa, `CREATE LOGIN [u] WITH PASSWORD = N'Aa1.abcde'`)
	do(t, app, `CREATE USER [u] FOR LOGIN [u] WITH DEFAULT_SCHEMA = [dbo]`, `ALTER ROLE [db_datareader] ADD MEMBER [u]`,
		`GRANT SELECT, INSERT ON [dbo].[orders] TO [u]`, `CREATE SCHEMA [s] AUTHORIZATION [u]`)
	roles := columnOf(t, sa, `SELECT r.name FROM [app].sys.database_role_members AS m JOIN [app].sys.database_principals AS r ON r.principal_id = m.role_principal_id
 JOIN [app].sys.database_principals AS u ON u.principal_id = m.member_principal_id WHERE u.name = N'u'`)
	if strings.Join(roles, " ") != "db_datareader" {
		t.Errorf("roles %q", roles)
	}
	rights := columnOf(t, sa, `SELECT p.permission_name FROM [app].sys.database_permissions AS p JOIN [app].sys.database_principals AS u
 ON u.principal_id = p.grantee_principal_id LEFT JOIN [app].sys.objects AS o ON p.class = 1 AND o.object_id = p.major_id
 WHERE u.name = N'u' AND o.name = N'orders' ORDER BY p.permission_name`)
	if strings.Join(rights, " ") != "INSERT SELECT" {
		t.Errorf("rights %q", rights)
	}
	if _, err := app.ExecContext(t.Context(), `DROP USER [u]`); number(err) != 15138 {
		t.Errorf("drop of an owner: %v", err)
	}
	do(t, app, `ALTER AUTHORIZATION ON SCHEMA::[s] TO [dbo]`, `DROP USER [u]`)
	if names := columnOf(t, sa, `SELECT name FROM [app].sys.database_principals WHERE name = N'u'`); names != nil {
		t.Errorf("still there: %q", names)
	}
}

func TestStatesOfALogin(t *testing.T) {
	t.Parallel()
	s := tds.Start(t, tds.Options{Lockout: 3})
	sa := open(t, s, "sa", tds.Administrator)
	do(t, sa, `CREATE LOGIN [u] WITH PASSWORD = N'Aa1.abcde'`)
	login := func(password string, change ...func(*msdsn.Config)) int {
		return try(t, s, "u", password, change...)
	}
	for name, c := range map[string]struct {
		set  func(*tds.Login)
		want int
	}{
		"must change": {func(l *tds.Login) { l.MustChange = true }, 18488},
		"expired":     {func(l *tds.Login) { *l = tds.Login{Expired: true} }, 18487},
		"locked":      {func(l *tds.Login) { *l = tds.Login{LockedOut: true} }, 18486},
	} {
		s.Change("u", c.set)
		if n := login("Aa1.abcde"); n != c.want {
			t.Errorf("%s: %d, want %d", name, n, c.want)
		}
		s.Change("u", func(l *tds.Login) { *l = tds.Login{} })
	}
	s.Change("u", func(l *tds.Login) { l.MustChange = true })
	if n := login("Aa1.abcde", func(c *msdsn.Config) { c.ChangePassword = "Changed-at-login-1" }); n != 0 {
		t.Errorf("a login with a new password: %d", n)
	}
	for range 3 {
		login("wrong")
	}
	if n := login("Changed-at-login-1"); n != 18486 {
		t.Errorf("after three wrong passwords: %d", n)
	}
	if n := login("x", func(c *msdsn.Config) { c.User, c.Password, c.Database = "sa", tds.Administrator, "nowhere" }); n != 4060 {
		t.Errorf("a database that is not there: %d", n)
	}
}

func TestWhoMayWhat(t *testing.T) {
	t.Parallel()
	s := tds.Start(t, tds.Options{Databases: []string{"app"}})
	sa := open(t, s, "sa", tds.Administrator)
	do(t, sa, `CREATE LOGIN [m] WITH PASSWORD = N'Aa1.abcde'`)
	m := open(t, s, "m", "Aa1.abcde")
	for statement, want := range map[string]int{
		`CREATE LOGIN [u] WITH PASSWORD = N'Aa1.abcde'`: 15247,
		`ALTER LOGIN [sa] DISABLE`:                      15151,
		`ALTER SERVER ROLE [sysadmin] ADD MEMBER [m]`:   15151,
		`GRANT VIEW SERVER STATE TO [m]`:                4613,
		`KILL 51`:                                       6102,
		`USE [app]`:                                     911,
		`SELECT name FROM [app].sys.schemas`:            916,
		`SELECT name FROM msdb.dbo.sysjobs`:             229,
		`ALTER AUTHORIZATION ON DATABASE::[app] TO [m]`: 15151,
		`EXEC msdb.dbo.sp_update_job @job_id = N'1', @owner_login_name = N'sa'`: 14525,
	} {
		if _, err := m.ExecContext(t.Context(), statement); number(err) != want {
			t.Errorf("%s: %v, want %d", statement, err, want)
		}
	}
	if names := columnOf(t, m, "SELECT name FROM sys.sql_logins WHERE name IN (N'sa', N'm') ORDER BY name"); strings.Join(names, " ") != "m sa" {
		t.Errorf("sees %q", names)
	}
	do(t, sa, `GRANT ALTER ANY LOGIN, VIEW ANY DEFINITION TO [m]`)
	do(t, m, `CREATE LOGIN [u] WITH PASSWORD = N'Aa1.abcde'`)
}

func TestTLSIsAsTheClientAsksAndTheServerOffers(t *testing.T) {
	t.Parallel()
	s := tds.Start(t, tds.Options{})
	other := tds.Start(t, tds.Options{})
	plain := tds.Start(t, tds.Options{NoTLS: true})
	old := tds.Start(t, tds.Options{TLS12: true})
	for name, c := range map[string]struct {
		server *tds.Server
		mode   msdsn.Encryption
		ca     string
		ok     bool
	}{
		"mandatory":           {s, msdsn.EncryptionRequired, s.CAPEM, true},
		"strict":              {s, msdsn.EncryptionStrict, s.CAPEM, true},
		"strict with TLS 1.2": {old, msdsn.EncryptionStrict, old.CAPEM, true},
		"only the login":      {s, msdsn.EncryptionOff, s.CAPEM, true},
		"none":                {s, msdsn.EncryptionDisabled, "", true},
		"another authority":   {s, msdsn.EncryptionRequired, other.CAPEM, false},
		"strict, another":     {s, msdsn.EncryptionStrict, other.CAPEM, false},
		"none is offered":     {plain, msdsn.EncryptionRequired, plain.CAPEM, false},
		"none, strict":        {plain, msdsn.EncryptionStrict, plain.CAPEM, false},
	} {
		db := open(t, c.server, "sa", tds.Administrator, func(cfg *msdsn.Config) {
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM([]byte(c.ca))
			cfg.Encryption, cfg.TLSConfig.RootCAs = c.mode, roots
		})
		if err := db.PingContext(t.Context()); c.ok != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCancelledStatementLeavesTheConnectionUsable(t *testing.T) {
	t.Parallel()
	s := tds.Start(t, tds.Options{})
	db := open(t, s, "sa", tds.Administrator)
	db.SetMaxOpenConns(1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.SetFaults(tds.Faults{Statement: func(text string) tds.Fault {
		if strings.HasPrefix(text, "WAITFOR") {
			cancel() // a deadline would make the driver give up the connection
		}
		return tds.Fault{}
	}})
	if _, err := db.ExecContext(ctx, "WAITFOR DELAY '00:05:00'"); err == nil {
		t.Error("the statement ended by itself")
	}
	if err := db.PingContext(t.Context()); err != nil || s.Logins() != 1 {
		t.Errorf("%v after %d logins", err, s.Logins())
	}
}

func TestStatementsThatAreNotUnderstoodAreRefused(t *testing.T) {
	t.Parallel()
	s := tds.Start(t, tds.Options{LetItUnknown: true})
	sa := open(t, s, "sa", tds.Administrator)
	for statement, want := range map[string]int{
		`CREATE LOGIN [x] WITH PASSWORD = N'Aa1.abcde', COLOUR = RED`: 102,
		`CREATE LOGIN [x]y] WITH PASSWORD = N'Aa1.abcde'`:             102,
		`DROP LOGIN [x`:                     105,
		`SELECT colour FROM sys.sql_logins`: 207,
		`SELECT name FROM sys.colours`:      208,
		`EXEC sp_colour`:                    2812,
		`SHUTDOWN`:                          102,
	} {
		if _, err := sa.ExecContext(t.Context(), statement); number(err) != want {
			t.Errorf("%s: %v, want %d", statement, err, want)
		}
	}
}

func TestTracesLeaveOutStatementsWithPasswordsButNotParameters(t *testing.T) {
	t.Parallel()
	s := tds.Start(t, tds.Options{})
	sa := open(t, s, "sa", tds.Administrator)
	do(t, sa, `CREATE LOGIN [u] WITH PASSWORD = N'Aa1.first-canary'`)
	if _, err := sa.ExecContext(t.Context(), `SELECT @p1`, "Aa1.second-canary"); err != nil {
		t.Fatal(err)
	}
	logged := s.Logged()
	if strings.Contains(logged, "first-canary") || !strings.Contains(logged, "second-canary") || !strings.Contains(logged, "--*CREATE LOGIN") {
		t.Errorf("logged: %s", logged)
	}
}
