//go:build linux

package process

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// One cluster through transfer, kill -9, restart, and restore, with an agent at work.
func TestClusterSurvivesKillAndRestore_O1(t *testing.T) {
	t.Parallel()
	c := newCluster(t, clusterOptions{controllers: 3})
	c.site("dmz")
	h := c.host("web01", nil)
	c.startAgent("dmz-1", "dmz", nil)
	c.addHost(h, "dmz")
	c.provision(h, "alice")

	c.refusedEarly(c.others(c.leader())[0])

	// Planned transfer, to a named controller and to any.
	to := c.others(c.leader())[0]
	began := time.Now()
	c.ok("cluster", "transfer", to.name)
	if got := c.leader(); got != to {
		t.Errorf("%s leads after a transfer to %s", got.name, to.name)
	}
	t.Logf("transfer: %s leads after %s", to.name, time.Since(began).Round(time.Millisecond))
	c.ok("cluster", "transfer")
	if got := c.leader(); got == to {
		t.Errorf("%s still leads after it handed leadership over", to.name)
	}
	c.reeve("", "cluster", "transfer", "c9").refused(t, "node_not_found")

	c.killUnderLoad()

	// The agent works through the successor.
	c.ok("account", "rotate", "alice@web01", "--watch")
	c.logsIn(h, "alice")
	c.restartWithoutReplay()
	c.saveAndRestore(h)
}

// refusedEarly asks a follower for something the leader refuses without reading the
// body, of which this caller never sends the end.
func (c *cluster) refusedEarly(follower *node) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	body, never := io.Pipe()
	defer func() { _ = never.Close() }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+follower.api+"/v1/sites", body)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer reevet_nobody")
	req.Header.Set("Content-Type", "application/json")
	h := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: c.roots(), MinVersion: tls.VersionTLS13}}}
	defer h.CloseIdleConnections()
	resp, err := h.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusUnauthorized || err != nil {
		c.t.Errorf("a follower does not end the answer to a request it cannot read: %d %s, %v", resp.StatusCode, answer, err)
	}
}

// killUnderLoad kills the leader with kill -9 while sites are being added, and proves
// that each one that was acknowledged is there afterwards.
func (c *cluster) killUnderLoad() {
	c.t.Helper()
	const writers = 3
	ctx, stop := context.WithCancel(c.t.Context())
	var mu sync.Mutex
	acknowledged := map[string]time.Time{} // by name, when it was asked for
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				name, asked := fmt.Sprintf("s-%d-%d", w, n), time.Now()
				if a := c.reeve("", "site", "add", name); a.status != 0 {
					c.t.Errorf("the command line waits for elections: %s", a)
					return
				}
				mu.Lock()
				acknowledged[name] = asked
				mu.Unlock()
			}
		})
	}
	count := func(after time.Time) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, asked := range acknowledged {
			if asked.After(after) {
				n++
			}
		}
		return n
	}
	lead := c.leader()
	eventually(c.t, 30*time.Second, func() error { return atLeast(5, count(time.Time{})) })
	killed := time.Now()
	lead.proc.kill()
	resumed := eventually(c.t, 30*time.Second, func() error { return atLeast(1, count(killed)) })
	eventually(c.t, 30*time.Second, func() error { return atLeast(5, count(killed)) })
	stop()
	writing.Wait()
	there := map[string]bool{}
	for _, s := range c.sites() {
		there[s] = true
	}
	for name := range acknowledged {
		if !there[name] {
			c.t.Errorf("site %s was acknowledged and is gone", name)
		}
	}
	c.t.Logf("kill -9 of the leader: the next write was acknowledged %s after it; all %d acknowledged are there",
		resumed.Round(time.Millisecond), len(acknowledged))
	lead.start()
	c.ready(lead)
	c.allVote()
}

func atLeast(want, got int) error {
	if got < want {
		return fmt.Errorf("%d, not %d yet", got, want)
	}
	return nil
}

func (c *cluster) sites() (names []string) {
	c.t.Helper()
	var sites []client.Site
	c.json(&sites, "site", "list")
	for _, s := range sites {
		names = append(names, s.Name)
	}
	return names
}

// restartWithoutReplay restarts a follower and reads from its metrics that its state
// began where it had been: the log is not applied again from the beginning.
func (c *cluster) restartWithoutReplay() {
	c.t.Helper()
	n := c.others(c.leader())[0]
	before := n.metric("reeve_raft_applied_index")
	n.proc.stop()
	raw := len(n.proc.logged())
	n.start()
	c.ready(n)
	eventually(c.t, 20*time.Second, func() error {
		if now := n.metric("reeve_raft_applied_index"); now < before {
			return fmt.Errorf("%s has applied up to %v, before the restart %v", n.name, now, before)
		}
		return nil
	})
	started := startedAt(c.t, n.proc.logged()[raw:])
	if before < 50 || started < before-10 { // the newest few may be no changes of state
		c.t.Errorf("%s stopped at index %v and started at %v: it replays history", n.name, before, started)
	}
}

// saveAndRestore takes a snapshot, shows that a spoiled one is refused and changes
// nothing, and that a whole one brings the state back, with the work going on.
func (c *cluster) saveAndRestore(h *testlab.Host) {
	c.t.Helper()
	t := c.t
	file := c.path("reeve.snap")
	c.ok("cluster", "snapshot", "save", file)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the snapshot is %v, %v", info.Mode(), err)
	}
	c.reeve("", "cluster", "snapshot", "save", file).usage(t, "is there already")
	password := c.reveal("alice@web01")
	if bytes.Contains(whole, []byte(password)) || bytes.Contains(whole, []byte(rootPassword)) {
		t.Error("a password is readable in the snapshot")
	}
	c.ok("site", "add", "after-the-snapshot")

	foreign := newCluster(t, clusterOptions{lab: c.lab})
	foreign.ok("cluster", "snapshot", "save", foreign.path("reeve.snap"))
	spoiled := map[string]string{"": foreign.path("reeve.snap")}
	for what, at := range map[string]int{"early": 60, "middle": len(whole) / 2, "late": len(whole) - 40} {
		bad := bytes.Clone(whole)
		bad[at] ^= 1
		spoiled[what] = c.write("bad-"+what, string(bad))
	}
	spoiled["short"] = c.write("bad-short", string(whole[:len(whole)-100]))
	spoiled["long"] = c.write("bad-long", string(whole)+"more")
	spoiled["empty"] = c.write("bad-empty", "")
	spoiled["rubbish"] = c.write("bad-rubbish", "this is not a snapshot")
	sites, head := fmt.Sprint(c.sites()), c.auditHead()
	for what, path := range spoiled {
		code := "snapshot_corrupt"
		if what == "" {
			code = "snapshot_foreign"
		}
		c.reeve("", "cluster", "snapshot", "restore", path).refused(t, code)
		if now := c.auditHead(); now != head {
			t.Errorf("%s snapshot: the refused restore has changed the audit trail", what)
		}
	}
	if now := fmt.Sprint(c.sites()); now != sites {
		t.Errorf("a refused restore changed the state: %s, before %s", now, sites)
	}

	// The password in the vault changes on the target after the snapshot was taken.
	c.ok("account", "rotate", "alice@web01", "--watch")
	newer := c.reveal("alice@web01")
	c.ok("cluster", "snapshot", "restore", file)
	for _, s := range c.sites() {
		if s == "after-the-snapshot" {
			t.Error("a site that was added after the snapshot is still there")
		}
	}
	c.ok("site", "add", "after-the-restore")
	// The vault is behind the target: nobody has to say so, every account is in doubt and
	// looked at within ten minutes. Asked for, it is looked at now.
	if a := c.account("alice@web01"); a.Sync != "uncertain" {
		t.Errorf("after a restore the account is %s, %s", a.State, a.Sync)
	}
	c.reeve("", "account", "verify", "alice@web01", "--watch")
	healed := eventually(t, 100*time.Second, func() error {
		if a := c.account("alice@web01"); a.State != "active" || a.Sync != "in_sync" {
			return fmt.Errorf("%s, %s: %+v", a.State, a.Sync, a.LastError)
		}
		return nil
	})
	t.Logf("the account was healed %s after it was asked for", healed.Round(time.Millisecond))
	now := c.reveal("alice@web01")
	if err := h.Login(t.Context(), "alice", now); err != nil || now == newer {
		t.Errorf("after the restore: %v", err)
	}
	if err := h.Login(t.Context(), "alice", newer); err == nil {
		t.Error("the password from before the restore still opens the account")
	}
	c.ok("audit", "verify", c.write("trail.jsonl", c.ok("audit", "export").out))
	for _, n := range c.nodes {
		n.proc.stop()
		n.start()
	}
	c.allVote()
	if got := c.account("alice@web01"); got.State != "active" || got.Sync != "in_sync" {
		t.Errorf("after the restore and a restart of all: %+v", got)
	}
}

// startedAt reads from a controller's log up to which entry its state was on disk.
func startedAt(t testing.TB, log string) float64 {
	t.Helper()
	for line := range strings.Lines(log) {
		var l struct {
			Msg     string
			Applied float64
		}
		if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "controller starts" {
			return l.Applied
		}
	}
	t.Fatal("the log does not say where the state began")
	return 0
}
