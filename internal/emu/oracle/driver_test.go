package oracle_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	goora "github.com/sijms/go-ora/v2"
	"github.com/sijms/go-ora/v2/network"

	"github.com/reeve-pam/reeve/internal/emu/oracle"
)

// open logs in with go-ora; options are in pairs.
func open(t *testing.T, s *oracle.Server, user, password string, options ...string) (*sql.DB, error) {
	t.Helper()
	o := map[string]string{"TIMEOUT": "10", "SSL": "enable"}
	service := oracle.Service
	for i := 0; i < len(options); i += 2 {
		if o[options[i]] = options[i+1]; options[i] == "SID" {
			service = ""
		}
	}
	connector, ok := goora.NewConnector(goora.BuildUrl(s.Addr, s.Port, service, user, password, o)).(*goora.OracleConnector)
	if !ok {
		t.Fatal("no connector")
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.CAPEM))
	connector.WithTLSConfig(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db, db.PingContext(t.Context())
}

func admin(t *testing.T, s *oracle.Server) *sql.DB {
	t.Helper()
	db, err := open(t, s, oracle.Management, oracle.ManagementPassword)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func number(err error) int {
	if e, ok := errors.AsType[*network.OracleError](err); ok {
		return e.ErrCode
	}
	if err != nil {
		return -1
	}
	return 0
}

func want(t *testing.T, what string, err error, code int) {
	t.Helper()
	if number(err) != code {
		t.Errorf("%s: %v, want number %d", what, err, code)
	}
}

func TestDriverLeadsAnAccountThroughItsLife(t *testing.T) {
	t.Parallel()
	for _, without := range []bool{false, true} {
		t.Run(fmt.Sprintf("without markers %t", without), func(t *testing.T) {
			t.Parallel()
			s := oracle.Start(t, oracle.Options{NoMarkers: without, Major: 23})
			s.Exec("CREATE USER REEVE2 IDENTIFIED BY x")
			db := admin(t, s)
			do := func(code int, statement string) {
				t.Helper()
				_, err := db.ExecContext(t.Context(), statement)
				want(t, statement, err, code)
			}
			login := func(password string, code int) {
				t.Helper()
				db, err := open(t, s, `"Mixed Case"`, password)
				want(t, "login", err, code)
				_ = db.Close()
			}
			const first, second = `p@s's;--w☃rd/&x`, `other:pass?`
			do(0, `CREATE USER "Mixed Case" IDENTIFIED BY "`+first+`" ACCOUNT LOCK`)
			do(1920, `CREATE USER "Mixed Case" IDENTIFIED BY "x"`)
			login(first, 28000)
			do(0, `ALTER USER "Mixed Case" ACCOUNT UNLOCK`)
			login(first, 1045)
			do(0, `GRANT CREATE SESSION TO "Mixed Case"`)
			login(first, 0)
			login(second, 1017)
			do(0, `ALTER USER "Mixed Case" IDENTIFIED BY "`+second+`"`)
			login(first, 1017)
			login(second, 0)
			do(0, `ALTER USER "Mixed Case" PASSWORD EXPIRE`)
			login(second, 28001)
			do(1932, `GRANT DBA TO "Mixed Case"`)
			do(1031, `GRANT CREATE TABLE TO "Mixed Case"`)
			do(1918, `ALTER USER NOBODY ACCOUNT LOCK`)
			do(1932, `REVOKE DBA FROM "Mixed Case"`)
			do(1952, `REVOKE CREATE SESSION FROM REEVE2`)
			_, err := db.ExecContext(t.Context(), `ALTER USER "Mixed Case" IDENTIFIED BY :1`, "x")
			want(t, "a bound value in DDL", err, 1036)

			var name, status, external string
			row := db.QueryRowContext(t.Context(), `SELECT username, account_status, NVL(external_name, 'none') FROM dba_users WHERE username = :1`, "Mixed Case")
			if err := row.Scan(&name, &status, &external); err != nil || name != "Mixed Case" || status != "EXPIRED" || external != "none" {
				t.Errorf("read back %q %q %q, %v", name, status, external, err)
			}
			err = db.QueryRowContext(t.Context(), `SELECT username FROM dba_users WHERE username = :1`, "NOBODY").Scan(&name)
			if !errors.Is(err, sql.ErrNoRows) {
				t.Errorf("a user that is not there: %v", err)
			}
			do(0, `DROP USER "Mixed Case"`)
			do(1918, `DROP USER "Mixed Case"`)
			if s.DB.Exists("Mixed Case") {
				t.Error("the user is still there")
			}
		})
	}
}

func TestManyRowsComeByFetches(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	for i := range 120 {
		s.Exec(fmt.Sprintf(`CREATE USER "U%03d" IDENTIFIED BY x`, i))
	}
	rows, err := admin(t, s).QueryContext(t.Context(), "SELECT username, user_id, created FROM dba_users ORDER BY username")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	n := 0
	for rows.Next() {
		var name string
		var id int
		var created time.Time
		if err := rows.Scan(&name, &id, &created); err != nil {
			t.Fatal(err)
		}
		if id < 100 || time.Since(created).Abs() > time.Hour {
			t.Fatalf("%s has id %d and was made %s", name, id, created)
		}
		n++
	}
	if rows.Err() != nil || n != 122 { // with SYS and REEVE
		t.Errorf("%d rows, %v", n, rows.Err())
	}
}

func TestListenerKnowsServiceAndSID(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	_, err := open(t, s, oracle.Management, oracle.ManagementPassword, "SID", oracle.SID)
	want(t, "SID", err, 0)
	_, err = open(t, s, oracle.Management, oracle.ManagementPassword, "SID", "NOPE")
	want(t, "wrong SID", err, 12505)
}

func TestBreakEndsAStatementAndTheSessionGoesOn(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{Faults: oracle.Faults{HangIn: "BEGIN NULL"}})
	db := admin(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := db.ExecContext(ctx, "BEGIN NULL; END;")
	if err == nil {
		t.Error("the statement ended by itself")
	}
	s.SetFaults(oracle.Faults{})
	if _, err := db.ExecContext(t.Context(), "BEGIN NULL; END;"); err != nil {
		t.Errorf("after the break: %v", err)
	}
}

// The driver does not look at the server's proof. This is why TLS is not a matter of choice.
func TestDriverTakesARogueServerForReal(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{Faults: oracle.Faults{Rogue: true}})
	if _, err := open(t, s, oracle.Management, "not the password"); err != nil {
		t.Errorf("the driver noticed, and its traps have to be looked at anew: %v", err)
	}
}

func TestBlocksOfPLSQLAreUnderstood(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	const lock = `DECLARE r INTEGER; BEGIN r := SYS.DBMS_LOCK.REQUEST(7, SYS.DBMS_LOCK.X_MODE, 0); ` +
		`IF r NOT IN (0, 4) THEN RAISE_APPLICATION_ERROR(-20990, 'busy'); END IF; END;`
	one, two := admin(t, s), admin(t, s)
	for range 2 {
		_, err := one.ExecContext(t.Context(), lock)
		want(t, "lock", err, 0)
	}
	_, err := two.ExecContext(t.Context(), lock)
	want(t, "lock that is held", err, 20990)
	_ = one.Close()
	for s.DB.Sessions(oracle.Management) > 1 {
		time.Sleep(time.Millisecond)
	}
	_, err = two.ExecContext(t.Context(), lock)
	want(t, "lock that was given up", err, 0)
}

func TestStatementsAreRecordedAsTheyCame(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	_, err := admin(t, s).ExecContext(t.Context(), `CREATE USER "X" IDENTIFIED BY "secret-1"`)
	want(t, "create", err, 0)
	if !strings.Contains(strings.Join(s.DB.Log(), "\n"), `CREATE USER "X" IDENTIFIED BY "secret-1"`) {
		t.Errorf("the log: %q", s.DB.Log())
	}
}
