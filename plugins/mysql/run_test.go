package main

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

func TestRunPrintsWhatOneStatementDoes(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	asRoot(t, d, "CREATE DATABASE shop", "CREATE TABLE shop.item (id INT PRIMARY KEY, name TEXT)", "INSERT INTO shop.item VALUES (1, 'first')",
		"GRANT ALL ON shop.* TO '"+testlab.Management+"'@'%'", "CREATE PROCEDURE shop.two() BEGIN SELECT 1 AS a; SELECT 2 AS b; END")
	tgt := target(d)
	for _, c := range []struct {
		statement, out, err string
		status              int
	}{
		{"SELECT id, name FROM shop.item", "id\tname\n1\tfirst\n", "", 0},
		{`SELECT NULL AS a, 'x` + "\ty\n" + `\\z' AS b, '' AS c, x'00ff' AS d`, "a\tb\tc\td\n" + `\N` + "\t" + `x\ty\n\\z` + "\t\t" + `\0` + "\xff\n", "", 0},
		{"SELECT 1 AS n FROM shop.item WHERE 1 = 0", "n\n", "", 0},
		{"INSERT INTO shop.item VALUES (2, 'second'), (3, 'third')", "Query OK, 2 rows affected\n", "", 0},
		{"CREATE TABLE shop.more (i INT)", "Query OK, 0 rows affected\n", "", 0},
		{"CALL shop.two()", "a\n1\nb\n2\n", "", 0},
		{"INSERT INTO shop.item VALUES (1, 'again')", "", "ERROR 1062 (23000): Duplicate entry '1' for key 'PRIMARY'\n", 1},
		{"SELECT 1; SELECT 2", "", "ERROR 1064 (42000): You have an error", 1},
		{"SELEKT", "", "ERROR 1064 (42000): You have an error", 1},
		{"DROP DATABASE mysql", "", "ERROR 1044 (42000): Access denied", 1},
		{"SELECT @@sql_mode LIKE '%NO_BACKSLASH%' AS pinned, DATABASE() AS db", "pinned\tdb\n0\t\\N\n", "", 0},
	} {
		var o direct.Output
		status, err := connector{}.Run(t.Context(), tgt, c.statement, &o)
		if err != nil || status != c.status || o.Out.String() != c.out || !strings.HasPrefix(o.Err.String(), c.err) || c.err == "" && o.Err.Len() > 0 {
			t.Errorf("%q: %d, %q, %q, %v", c.statement, status, o.Out.String(), o.Err.String(), err)
		}
	}
	_, err := connector{}.Run(t.Context(), tgt, "load data\nlocal infile '/etc/passwd' into table shop.item", &direct.Output{})
	wantClass(t, "a statement that reads a file here", err, sdk.ClassInvalid)
	var o direct.Output
	if status, err := (connector{}).Run(t.Context(), tgt, "LOAD /**/ DATA LOCAL/**/INFILE '/etc/passwd' INTO TABLE shop.more", &o); err == nil && status == 0 {
		t.Errorf("a file of the agent was read: %q", o.Out.String())
	}
	tgt.Management.Password = secret(canary)
	_, err = connector{}.Run(t.Context(), tgt, "SELECT 1", &direct.Output{})
	wantClass(t, "a wrong password", err, sdk.ClassAuthFailed)
}

// A statement that is given up is stopped on the server as well.
func TestRunThatIsCancelledStopsOnTheServer(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	running := func() (n int) {
		if err := d.Root().QueryRow("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP%'").Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
	began := make(chan time.Time, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		for until := time.Now().Add(20 * time.Second); running() == 0 && time.Now().Before(until); {
			time.Sleep(5 * time.Millisecond)
		}
		began <- time.Now()
		cancel()
	})
	_, err := connector{}.Run(ctx, target(d), "SELECT SLEEP(60)", &direct.Output{})
	wantClass(t, "run", err, sdk.ClassUnknownOutcome)
	wg.Wait()
	if took := time.Since(<-began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	for until := time.Now().Add(5 * time.Second); running() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the server goes on with it")
		}
	}
}
