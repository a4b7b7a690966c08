package systemtest_test

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/internal/systemtest"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// terms are short, so that a lost lease and a quarantine cost seconds: 6 s until a lease
// is given up, then 1+10+0.5 s of quarantine.
var terms = jobs.Terms{Lease: 6 * time.Second, KillGrace: time.Second, DriftMargin: 500 * time.Millisecond, Work: 10 * time.Second}

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = flag.Set("test.parallel", "16") // nearly all of a test's time is a lease or a quarantine running out
	}
	code := m.Run()
	shared.close()
	systemtest.CleanUp()
	os.Exit(code)
}

// shared is one lab, host and database for all tests that do no harm to their targets.
var shared lab

type lab struct {
	mu      sync.Mutex
	lab     *testlab.Lab
	targets map[string]systemtest.Target
}

// of opens the lab for the first test that needs it, under the policy of REEVE_LAB.
func (l *lab) of(t *testing.T) *testlab.Lab {
	t.Helper()
	testlab.Require(t)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lab == nil {
		opened, err := testlab.Open(context.Background(), "")
		if err != nil {
			t.Fatal(err)
		}
		l.lab, l.targets = opened, map[string]systemtest.Target{}
	}
	return l.lab
}

func (l *lab) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lab == nil {
		return
	}
	if err := l.lab.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// target is the shared server of a kind.
func (l *lab) target(t *testing.T, kind string) systemtest.Target {
	t.Helper()
	open := l.of(t)
	l.mu.Lock()
	defer l.mu.Unlock()
	g, ok := l.targets[kind]
	if !ok {
		var err error
		if g, err = start(open, kind); err != nil {
			t.Fatal(err)
		}
		l.targets[kind] = g
	}
	return g
}

// own is a server of the test's own, to do harm to.
func (l *lab) own(t *testing.T, kind string) systemtest.Target {
	t.Helper()
	testlab.Require(t)
	g, err := start(testlab.New(t), kind)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// start starts a server in a lab.
func start(l *testlab.Lab, kind string) (systemtest.Target, error) {
	switch kind {
	case "mysql":
		db, err := l.MariaDB(testlab.MariaDBOptions{})
		if err != nil {
			return systemtest.Target{}, err
		}
		return systemtest.DatabaseTarget(db), nil
	case "postgres":
		db, err := l.Postgres(testlab.PostgresOptions{})
		if err != nil {
			return systemtest.Target{}, err
		}
		return systemtest.PostgresTarget(db), nil
	case "ad":
		d, err := l.SambaAD(testlab.SambaOptions{})
		if err != nil {
			return systemtest.Target{}, err
		}
		const group = "helpdesk"
		return systemtest.DomainTarget(d, group), d.Add(context.Background(), "CN="+group+","+testlab.GroupsOU,
			map[string][]string{"objectClass": {"group"}, "sAMAccountName": {group}})
	}
	pass := rand.Text()
	h, err := l.SSHHost(testlab.HostOptions{Telnet: kind == "telnet", Accounts: []testlab.HostAccount{{Name: "root", Password: pass}}})
	if err != nil {
		return systemtest.Target{}, err
	}
	if kind == "telnet" {
		return systemtest.TelnetTarget(h, pass), nil
	}
	return systemtest.HostTarget(h, "root", pass), nil
}

var quiet = slog.New(slog.DiscardHandler)

// kinds are the connectors that every test tries; others have real targets too, and some tests try those.
var (
	kinds  = []string{"ssh", "mysql"}
	others = []string{"postgres", "ad", "telnet"}
)

// slug makes a name of an asset, site or account out of words.
func slug(words ...string) string { return strings.ReplaceAll(strings.Join(words, "-"), "_", "-") }

// check holds an account against its target.
func check(t *testing.T, c *systemtest.Cluster, account string, g *systemtest.Target) systemtest.Kept {
	t.Helper()
	k := c.Kept(account)
	if err := k.Check(t.Context(), g); err != nil {
		t.Error(err)
	}
	return k
}

// pause is a Crash that holds the agent at a point, the first time it comes there, until
// let go, and meanwhile keeps it from renewing leases if asleep.
type pause struct {
	point   string
	asleep  bool
	reached chan struct{}
	release chan struct{}
	once    sync.Once
	let     sync.Once
}

func pauseAt(t *testing.T, point string, asleep bool) *pause {
	p := &pause{point: point, asleep: asleep, reached: make(chan struct{}), release: make(chan struct{})}
	t.Cleanup(p.letGo)
	return p
}

func (p *pause) letGo() { p.let.Do(func() { close(p.release) }) }

func (p *pause) crash(point string) bool {
	switch point {
	case p.point:
		first := false
		p.once.Do(func() { first = true; close(p.reached) })
		if first {
			<-p.release
		}
	case "before-renew":
		if p.asleep {
			select {
			case <-p.reached:
				<-p.release
			default:
			}
		}
	}
	return false
}

func (p *pause) wait(t *testing.T) {
	t.Helper()
	select {
	case <-p.reached:
	case <-time.After(systemtest.Patience):
		t.Fatalf("the agent did not come to %s", p.point)
	}
}
