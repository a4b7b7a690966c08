//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/cmdline"
	"github.com/reeve-pam/reeve/internal/selftest"
	"github.com/reeve-pam/reeve/internal/systemtest"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// realCluster is a cluster with an agent, and the context file of its administrator.
func realCluster(t *testing.T) (c *systemtest.Cluster, context string) {
	t.Helper()
	c = systemtest.Start(t, systemtest.Options{})
	c.Agent("dmz", systemtest.AgentOptions{})
	context = filepath.Join(t.TempDir(), "context.yaml")
	text := fmt.Sprintf("addresses: [%s]\ntoken: %s\nca: |\n  %s\n", strings.TrimPrefix(c.URL(0), "https://"), c.RootToken.Reveal(),
		strings.ReplaceAll(strings.TrimSpace(string(c.CA)), "\n", "\n  "))
	if err := os.WriteFile(context, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return c, context
}

// trap is a screen that does something when a text appears on it, once.
type trap struct {
	mu   sync.Mutex
	seen bytes.Buffer
	text string
	once sync.Once
	do   func()
}

func (p *trap) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen.Write(b)
	if p.text != "" && strings.Contains(p.seen.String(), p.text) {
		p.once.Do(p.do)
	}
	return len(b), nil
}

func lived(t *testing.T, path string) (names []string) {
	t.Helper()
	for _, e := range steps(t, path) {
		if !e.OK {
			t.Errorf("%s: %s, want %s: %+v", e.Step, e.Got, e.Want, e.Error)
		}
		names = append(names, e.Step)
	}
	return names
}

// wholeLife are the steps of a life through a cluster.
var wholeLife = []string{selftest.StepProbe, selftest.StepPlan, "provision", selftest.StepInspect, selftest.StepLogin, "rotate", selftest.StepNew, selftest.StepOld,
	"disable", selftest.StepDisabled, "enable", selftest.StepEnabled, "deprovision", selftest.StepGone}

func TestSelftestOnAssetsOfARealCluster(t *testing.T) {
	t.Parallel()
	lab := testlab.New(t)
	c, file := realCluster(t)
	const pass = "canary-Root-4711-x"
	host := testlab.NewHost(t, lab, testlab.HostOptions{Accounts: []testlab.HostAccount{{Name: "root", Password: pass}}})
	c.AddAsset("dmz", "web01", systemtest.HostTarget(host, "root", pass))
	run := func(t *testing.T, args ...string) result {
		t.Helper()
		return invoke(t.Context(), "", append([]string{"--context", file, "connector", "selftest"}, args...)...)
	}
	accounts := func(t *testing.T, c *systemtest.Cluster) []client.Account {
		t.Helper()
		return systemtest.Call[client.AccountPage](c.For(t), func(api *client.Client) (*http.Response, error) { return api.ListAccounts(t.Context(), nil) }).Items
	}
	left := func(t *testing.T) {
		t.Helper()
		out, err := host.OutOfBand("getent passwd | grep reevetest; true")
		if err != nil || strings.TrimSpace(out) != "" {
			t.Errorf("accounts are left: %q, %v", out, err)
		}
	}

	t.Run("ssh", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "web01.jsonl")
		got := run(t, "--asset", "web01", "--transcript", path)
		if got.status != 0 || !strings.Contains(got.out, "14 steps, 0 differ") {
			t.Fatalf("status %d\n%s%s", got.status, got.out, got.err)
		}
		if diff := cmp.Diff(wholeLife, lived(t, path)); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
		left(t)
		var id string
		for _, acc := range accounts(t, c) {
			if strings.HasPrefix(acc.Name, "reevetest") {
				id = acc.Id
			}
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{pass, c.RootToken.Reveal(), c.Reveal(id)} {
			if strings.Contains(string(raw)+got.out+got.err, secret) {
				t.Error("a secret is in the transcript or the output")
			}
		}
		for _, e := range steps(t, path) {
			if e.Job == "" || e.Step == "rotate" && (len(e.Plan) == 0 || len(e.Events) == 0 || len(e.Facts) == 0 || e.TookMS == 0) {
				t.Errorf("the transcript says little of %s: %+v", e.Step, e)
			}
		}
		trail := systemtest.Call[client.AuditPage](c, func(api *client.Client) (*http.Response, error) {
			limit := 1000
			return api.ListAudit(t.Context(), &client.ListAuditParams{Limit: &limit})
		})
		for _, action := range []string{"account.plan", "account.provision", "account.verify", "account.rotate", "account.verify_superseded", "account.disable", "account.enable", "account.deprovision"} {
			if !slices.ContainsFunc(trail.Items, func(r client.AuditRecord) bool { return r.Action == action }) {
				t.Errorf("%s is not in the audit trail", action)
			}
		}
		if again := run(t, "--asset", "web01", "--transcript", path); again.status != cmdline.Usage || !strings.Contains(again.err, "is there already") {
			t.Errorf("a transcript is written over: status %d\n%s", again.status, again.err)
		}

		byHand := filepath.Join(t.TempDir(), "hand.jsonl")
		target := filepath.Join(t.TempDir(), "web01.yaml")
		for name, text := range map[string]string{target: fmt.Sprintf("address: %s\ntrust: {host_keys: [%q]}\nmanagement: {username: root, password_file: pw}\n", host.Addr, host.HostKey()),
			filepath.Join(filepath.Dir(target), "pw"): pass} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		dir, err := systemtest.Connectors()
		if err != nil {
			t.Fatal(err)
		}
		hand := run(t, filepath.Join(dir, "connector-ssh"), "--target", target, "--transcript", byHand, "--compare", path)
		if hand.status != 0 || !strings.Contains(hand.out, "as in "+path) {
			t.Errorf("by hand it is another life: status %d\n%s%s", hand.status, hand.out, hand.err)
		}
		left(t)
	})

	t.Run("mysql", func(t *testing.T) {
		db := testlab.NewMariaDB(t, lab, testlab.MariaDBOptions{})
		c.For(t).AddAsset("dmz", "shop", systemtest.DatabaseTarget(db))
		if got := run(t, "--asset", "shop"); got.status != cmdline.Failed || !strings.Contains(got.err, "DIFFERS provision: error not_permitted") {
			t.Errorf("a role whose rights the management account may not pass on: status %d\n%s", got.status, got.err)
		}
		got := run(t, "--asset", "shop", "--role", "mysql-db-ro", "--param", "Database=app", "-o", "json")
		var shown struct{ Steps []selftest.Entry }
		if err := json.Unmarshal([]byte(got.out), &shown); err != nil || got.status != 0 || len(shown.Steps) != len(wholeLife) {
			t.Errorf("status %d, %v\n%s%s", got.status, err, got.out, got.err)
		}
		if strings.Contains(got.out, db.ManagementPassword) {
			t.Error("a secret is in the output")
		}
	})

	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		path := filepath.Join(t.TempDir(), "cut.jsonl")
		var out bytes.Buffer
		screen := &trap{text: "login with the password: ok", do: cancel}
		status := cmdline.Run(ctx, newRoot(stdio{in: strings.NewReader(""), out: &out, err: screen}),
			[]string{"--context", file, "connector", "selftest", "--asset", "web01", "--transcript", path})
		if status != cmdline.Failed || !strings.Contains(screen.seen.String(), "reeve: interrupted") {
			t.Errorf("status %d\n%s%s", status, out.String(), screen.seen.String())
		}
		all := steps(t, path)
		if last := all[len(all)-1]; last.Step != selftest.StepRemoveAgain || !last.OK || len(all) > 8 {
			t.Errorf("%d steps, the last is %+v", len(all), last)
		}
		left(t)
	})

	t.Run("out of reach at the end", func(t *testing.T) {
		screen := &trap{text: "login to the enabled account: ok", do: host.Crash}
		var out bytes.Buffer
		status := cmdline.Run(t.Context(), newRoot(stdio{in: strings.NewReader(""), out: &out, err: screen}),
			[]string{"--context", file, "connector", "selftest", "--asset", "web01", "--timeout", "20s"})
		seen := screen.seen.String()
		if status != cmdline.Failed || !strings.Contains(seen, "DIFFERS deprovision") {
			t.Errorf("status %d\n%s%s", status, out.String(), seen)
		}
		_, how, ok := strings.Cut(seen, "follow it with: reeve ")
		if !ok || !strings.Contains(seen, "remove it with: reeve account deprovision acct_") || !strings.Contains(seen, "may still be on") {
			t.Fatalf("it is not said what is left:\n%s", seen)
		}
		if err := host.Restart(); err != nil {
			t.Fatal(err)
		}
		line, _, _ := strings.Cut(how, "\n")
		if got := invoke(t.Context(), "", append([]string{"--context", file}, strings.Fields(line)...)...); got.status != 0 {
			t.Errorf("what is said does not remove it: %s\n%s", got.err, seen)
		}
		left(t)
	})
}

func TestSelftestWantsATargetOrAnAsset(t *testing.T) {
	t.Parallel()
	for line, says := range map[string]string{
		"":                              "--asset",
		"x --asset web01":               "one or the other",
		"--asset web01 --target x.yaml": "one or the other",
		"a b":                           "one BINARY",
		"--asset web01 --compare /none": "there is no file /none",
	} {
		got := invoke(t.Context(), "", append([]string{"connector", "selftest"}, strings.Fields(line)...)...)
		if got.status != cmdline.Usage || !strings.Contains(got.err, says) {
			t.Errorf("%q: status %d\n%s", line, got.status, got.err)
		}
	}
}
