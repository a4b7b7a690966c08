package oracle

import (
	"strings"
	"testing"
)

func FuzzCallsOfClients(f *testing.F) {
	f.Add([]byte{3, 0x5E, 1, 0, 0, 0, 0, 0}, byte(12), true)
	f.Add([]byte{3, 0x76, 0, 1, 1, 5, 1, 1, 1, 1, 5, 1, 1, 'A', 'L', 'I', 'C', 'E'}, byte(11), false)
	f.Add([]byte{0xFE, 2, 0xFF, 0xFF}, byte(6), true)
	f.Fuzz(func(t *testing.T, message []byte, field byte, convLength bool) {
		var q request
		r := &reader{b: message}
		q.read(r, field, convLength)
		if !r.short && !r.wrong && (r.at > len(message) || len(q.text) > len(message)) {
			t.Errorf("%d of %d bytes were read", r.at, len(message))
		}
		s := &session{convLength: convLength}
		user, _, _ := s.authHeader(&reader{b: message})
		if len(user) > maxPacket {
			t.Errorf("a user of %d bytes", len(user))
		}
	})
}

func FuzzStatementsDoNotCrash(f *testing.F) {
	for _, s := range []string{
		`CREATE USER "A" IDENTIFIED EXTERNALLY AS 'CN=x' DEFAULT TABLESPACE "USERS" ACCOUNT LOCK`, `ALTER USER A IDENTIFIED BY "x" QUOTA 5G ON USERS`,
		"GRANT CREATE SESSION, DBA TO A WITH ADMIN OPTION", "SELECT COUNT(*), TO_CHAR(user_id) FROM dba_users WHERE username = :1 AND profile <> 'X' ORDER BY username",
		"ALTER SYSTEM KILL SESSION '1,2,@1' IMMEDIATE", "DROP USER SYS CASCADE", "BEGIN NULL; END;", "SELECT NVL(", "REVOKE ,", `CREATE OR REPLACE SYNONYM a FOR b.c`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := newDB(Options{Major: 19}, func() Faults { return Faults{} })
		if strings.Contains(strings.ToUpper(text), "DBMS_LOCK") {
			return // waits
		}
		if err := d.exec(d.sys, text, nil); err == nil && d.users["SYS"] == nil && !strings.Contains(strings.ToUpper(text), "DROP") {
			t.Errorf("%q removed SYS", text)
		}
		_, _, _ = d.query(d.sys, text, []string{"A"})
	})
}
