//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// TestMain lets the test binary be a controller, as the program is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == asController {
		if err := runController(context.Background(), os.Args[2:]); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// The program must notice: here somebody breaks each of the promises behind Reeve's back.
func TestEveryBrokenPromiseIsReported(t *testing.T) {
	testlab.Require(t)
	ctx := t.Context()
	bin := t.TempDir()
	if err := fleet.Build(ctx, bin, connectors...); err != nil {
		t.Fatal(err)
	}
	w, err := newWorld(ctx, worldOptions{dir: filepath.Join(t.TempDir(), "chaos"), bin: bin, seed: 1, out: io.Discard})
	t.Cleanup(func() {
		if t.Failed() {
			w.fleet.Tails(os.Stderr, 5)
		}
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.playRound(ctx, prelude()); err != nil {
		t.Fatal(err)
	}
	rest := func() {
		t.Helper()
		if err := w.settle(ctx, time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, flagged, busy := w.population(); flagged+busy > 0 {
			t.Fatalf("%d accounts are flagged and %d at work with no fault at all", flagged, busy)
		}
	}
	rest()
	find := func(name, on string) *account {
		return w.accounts[slices.IndexFunc(w.accounts, func(a *account) bool { return a.name == name && a.on.name == on })]
	}
	act := func(a *account, kind string) {
		t.Helper()
		if r := w.act(ctx, w.key("test "+kind+a.id), a, kind); !r.acknowledged {
			t.Fatalf("%s: %v, %v", r.what, r.refused, r.err)
		}
		a.rests = false
	}
	act(find("k0x0", "web02"), "disable")
	act(find("k0x1", "web02"), "deprovision")
	act(find("k0x2", "web02"), "rotate")
	rest()
	if lost := w.check(ctx, nil, true); len(lost) > 0 {
		t.Fatalf("lost with no fault at all: %v", lost)
	}

	on := func(host, command string) func() error {
		return func() error {
			_, err := w.target(host).host.OutOfBand(command)
			return err
		}
	}
	sql := func(statement string) func() error {
		return func() error { return w.target(database).db.Exec(ctx, statement) }
	}
	pg := func(statement string) func() error {
		return func() error { return w.target(ledger).pg.Exec(ctx, statement) }
	}
	for name, c := range map[string]struct {
		do              func() error
		account, report string
	}{
		"a password is changed":                     {func() error { return w.target("web01").host.SetPassword("k0x0", "other") }, "k0x0@web01", "hash of the password"},
		"an account is removed":                     {on("web01", "userdel -f k0x1"), "k0x1@web01", "is on the target"},
		"an account is doubled":                     {on("web01", "grep ^k0x2: /etc/passwd > /tmp/2 && cat /tmp/2 >> /etc/passwd"), "web01 has k0x2 2 times", "twice"},
		"an account expires":                        {on("app01", "chage -E 0 k0x0"), "k0x0@app01", "logs in with"},
		"an account is locked":                      {on("app01", "usermod -L k0x1"), "k0x1@app01", "locked if"},
		"a disabled account is unlocked":            {on("web02", "usermod -U k0x0"), "k0x0@web02", "locked if"},
		"a removed account comes back":              {on("web02", "useradd k0x1"), "web02 has k0x1", "does not know of"},
		"an account nobody asked for is made":       {on("app02", "useradd kxx"), "app02 has kxx", "does not know of"},
		"a database password is changed":            {sql("ALTER USER k0x0@'%' IDENTIFIED BY 'other'"), "k0x0@shop", "hash of the password"},
		"a database account is removed":             {sql("DROP USER k0x1@'%'"), "k0x1@shop", "is on the target"},
		"a database account is doubled":             {sql("CREATE USER k0x2@'10.%' IDENTIFIED BY 'other'"), "shop has k0x2 2 times", "twice"},
		"a role's password is changed":              {pg("ALTER ROLE k0x0 PASSWORD 'other'"), "k0x0@ledger", "hash of the password"},
		"a role may not log in":                     {pg("ALTER ROLE k0x1 NOLOGIN"), "k0x1@ledger", "locked if"},
		"a role nobody asked for is made":           {pg("CREATE ROLE kxx"), "ledger has kxx", "does not know of"},
		"a domain password is changed":              {func() error { return w.target(domain).dc.SetPassword(ctx, "k0x0", "Other-1-than-Reeve") }, "k0x0@corp", "hash of the password"},
		"a domain account is disabled":              {directory(w, "k0x1", "userAccountControl", "514"), "k0x1@corp", "locked if"},
		"a domain account nobody asked for is made": {func() error { return w.target(domain).dc.AddAccount(ctx, "kxx", "Nobody-1-asked") }, "corp has kxx", "does not know of"},
	} {
		t.Run(name, func(t *testing.T) {
			var about []*account // the others are as they were
			if name, on, one := strings.Cut(c.account, "@"); one {
				about = []*account{find(name, on)}
			}
			before := w.lookTwice(ctx, about)
			if err := c.do(); err != nil {
				t.Fatal(err)
			}
			if reports(before, c.account, c.report) {
				t.Fatal("it was reported before it happened")
			}
			if after := w.lookTwice(ctx, about); !reports(after, c.account, c.report) {
				t.Errorf("not reported: %v", after)
			}
		})
	}

	t.Run("an acknowledged account is forgotten", func(t *testing.T) {
		known := w.accounts
		defer func() { w.accounts = known }()
		ghost := *known[0]
		ghost.id, ghost.rests = "acct_00000000000000000000000000", false
		w.accounts = append(slices.Clone(known), &ghost)
		if !reports(w.checkRecords(ctx), ghost.id, "every acknowledged account") {
			t.Error("the list is not held against the acknowledged")
		}
		if err := w.settle(ctx, time.Second); err == nil || !strings.Contains(err.Error(), ghost.id) {
			t.Errorf("%v", err)
		}
	})
	t.Run("an account is on record twice, or unasked for", func(t *testing.T) {
		known := w.accounts
		defer func() { w.accounts = known }()
		w.accounts = known[1:]
		if !reports(w.checkRecords(ctx), known[0].id, "no accounts but") {
			t.Error("not reported")
		}
	})
	t.Run("a job of an acknowledged request is forgotten", func(t *testing.T) {
		a := *find("k0x0", "app02")
		a.job = "job_00000000000000000000000000"
		if l := w.lookAt(ctx, &a, nil); l == nil || !strings.Contains(l.promised, "is known") {
			t.Errorf("%v", l)
		}
	})
	t.Run("a request is done and has no effect", func(t *testing.T) {
		a := *find("k0x2", "web02") // was rotated
		a.asked = "disable"
		if l := w.lookAt(ctx, &a, nil); l == nil || !strings.Contains(l.promised, "the account is disabled") {
			t.Errorf("%v", l)
		}
	})
	t.Run("a rotation leaves the old password", func(t *testing.T) {
		a := find("k0x2", "web02")
		es, err := a.on.entries(ctx, prefix)
		if err != nil {
			t.Fatal(err)
		}
		if l := w.lookAt(ctx, a, es[a.name]); l != nil {
			t.Fatalf("%v", l)
		}
		old := *a
		if old.was, err = w.reveal(ctx, a); err != nil {
			t.Fatal(err)
		}
		if l := w.lookAt(ctx, &old, es[a.name]); l == nil || !strings.Contains(l.promised, "newer password") {
			t.Errorf("%v", l)
		}
		old.was.number--
		if l := w.lookAt(ctx, &old, es[a.name]); l == nil || !strings.Contains(l.promised, "old password is refused") {
			t.Errorf("%v", l)
		}
	})
	t.Run("a request asked again does another thing", func(t *testing.T) {
		r := &request{what: "rotate", acknowledged: true, id: "job_1", again: func(context.Context) (string, error) { return "job_2", nil }}
		if len(w.checkAnswers(ctx, []*request{r, nil, {what: "rotate", err: context.DeadlineExceeded}})) != 2 {
			t.Error("not reported")
		}
	})
	t.Run("the audit trail was rewritten", func(t *testing.T) {
		if lost := w.checkAudit(ctx); len(lost) > 0 {
			t.Fatal(lost)
		}
		w.head = &auditchain.Head{Sequence: w.head.Sequence, Hash: strings.Repeat("0", len(w.head.Hash))}
		if !reports(w.checkAudit(ctx), "other_head", "trail is whole") {
			t.Error("not reported")
		}
		w.head = nil
	})
	t.Run("replicas differ", func(t *testing.T) {
		if lost := w.powerCut(ctx); len(lost) > 0 {
			t.Fatal(lost)
		}
		if _, err := compare([]replica{{index: 7, hash: [32]byte{1}}, {index: 6}, {index: 7, hash: [32]byte{2}}}); err == nil {
			t.Error("not reported")
		}
	})
}

// directory sets an attribute of an account behind Reeve's back.
func directory(w *world, name, attribute, value string) func() error {
	return func() error {
		return w.target(domain).dc.Replace(context.Background(), "CN="+name+","+testlab.AccountsOU, map[string][]string{attribute: {value}})
	}
}

func reports(lost []loss, found, promised string) bool {
	return slices.ContainsFunc(lost, func(l loss) bool {
		return strings.Contains(l.found, found) && strings.Contains(l.promised, promised)
	})
}
