package main

import (
	"context"
	"slices"
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
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	tgt := target(p)
	tgt.Options[optionDatabase] = "app"
	for _, c := range []struct {
		statement, out, err string
		status              int
	}{
		{"SELECT id, name FROM item", "id\tname\n1\tfirst\n", "", 0},
		{`SELECT NULL AS "a` + "\t" + `b", E'x\ty\n\\z' AS c, '' AS d`, `a\tb` + "\tc\td\n" + `\N` + "\t" + `x\ty\n\\z` + "\t\n", "", 0},
		{"SELECT 1 AS n WHERE false", "n\n", "", 0},
		{"INSERT INTO item VALUES (2, 'second'), (3, 'third')", "INSERT 0 2\n", "", 0},
		{"INSERT INTO item VALUES (1, 'again')", "", "ERROR 23505: duplicate key value violates unique constraint \"item_pkey\"\n", 1},
		{"SELECT 1; SELECT 2", "", "ERROR 42601: cannot insert multiple commands into a prepared statement\n", 1},
		{"SELEKT", "", "ERROR 42601: syntax error at or near \"SELEKT\"\n", 1},
		{"SELECT 1/(id - 2) AS n FROM item ORDER BY id", "n\n-1\n", "ERROR 22012: division by zero\n", 1},
		{"", "\n", "", 0},
	} {
		var o direct.Output
		status, err := connector{}.Run(t.Context(), tgt, c.statement, &o)
		if err != nil || status != c.status || o.Out.String() != c.out || !strings.HasPrefix(o.Err.String(), c.err) || c.err == "" && o.Err.Len() > 0 {
			t.Errorf("%q: %d, %q, %q, %v", c.statement, status, o.Out.String(), o.Err.String(), err)
		}
	}
	_, err := connector{}.Run(t.Context(), tgt, "copy item\nfrom stdin", &direct.Output{})
	wantClass(t, "a statement that waits for data", err, sdk.ClassInvalid)
	wrong := tgt
	wrong.Management.Password = secret(canary)
	_, err = connector{}.Run(t.Context(), wrong, "SELECT 1", &direct.Output{})
	wantClass(t, "a wrong password", err, sdk.ClassAuthFailed)
}

// A statement that is given up is stopped on the server as well.
func TestRunThatIsCancelledStopsOnTheServer(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := make(chan time.Time, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		await(t, p, "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'reeve' AND wait_event = 'PgSleep'")
		began <- time.Now()
		cancel()
	})
	_, err := connector{}.Run(ctx, target(p), "SELECT pg_sleep(60)", &direct.Output{})
	wantClass(t, "run", err, sdk.ClassUnknownOutcome)
	wg.Wait()
	if took := time.Since(<-began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	await(t, p, "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'reeve'")
}

// await asks the server until it says yes.
func await(t *testing.T, p *testlab.PostgresServer, question string) {
	t.Helper()
	yes := false
	for deadline := time.Now().Add(20 * time.Second); !yes; time.Sleep(5 * time.Millisecond) {
		if err := p.Root().QueryRowContext(t.Context(), question).Scan(&yes); err != nil || time.Now().After(deadline) {
			t.Errorf("%s: %t, %v", question, yes, err)
			return
		}
	}
}

func TestDiscoverListsAccountsAndNoGroups(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	asRoot(t, p, "CREATE ROLE people NOLOGIN", "CREATE ROLE bob LOGIN SUPERUSER")
	in := intent(sdk.Provision)
	must(t, target(p), in, first)
	in.Action = sdk.Disable
	must(t, target(p), in, "")
	var got []string
	err := connector{}.Discover(t.Context(), target(p), func(f sdk.Facts) bool {
		got = append(got, f.Account)
		if f.Account == "alice" && (!f.Locked || f.Attributes["made_for"] != "acct_1") || f.Account == "bob" && !slices.Equal(f.Grants, []string{"SUPERUSER"}) {
			t.Errorf("%+v", f)
		}
		return true
	})
	if want := []string{"alice", "bob", "postgres", testlab.Management}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	n := 0
	_ = connector{}.Discover(t.Context(), target(p), func(sdk.Facts) bool { n++; return false })
	if n != 1 {
		t.Errorf("%d yields after the first said stop", n)
	}
}
