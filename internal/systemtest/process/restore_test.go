//go:build linux

package process

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// All controllers are lost. The cluster is made anew from a snapshot and the shares: its
// passwords open the targets again, and nobody gets in with what they had before.
func TestAClusterIsMadeAnewFromASnapshot_K5(t *testing.T) {
	t.Parallel()
	c := newCluster(t, clusterOptions{shamir: true})
	c.site("dmz")
	h := c.host("web01", nil)
	agent := c.startAgent("dmz-1", "dmz", nil)
	c.addHost(h, "dmz")
	for _, name := range []string{"alice", "bob"} {
		c.provision(h, name)
	}
	c.ok("account", "disable", "bob@web01", "--watch")
	stays := c.reveal("alice@web01")
	file := c.path("reeve.snap")
	c.ok("cluster", "snapshot", "save", file)
	if out := c.ok("cluster", "snapshot", "verify", file).out; !strings.Contains(out, "revision") {
		t.Error(out)
	}
	c.refusesSpoiled(file)
	c.ok("account", "rotate", "alice@web01", "--watch") // which the snapshot does not know
	c.ok("token", "create", "after")

	old, oldContext := c.nodes[0], c.context
	old.proc.kill()
	agent.stop()
	fresh := c.fresh("c2")
	c.nodes = []*node{fresh}
	c.context = c.path("again.yaml")
	shares := []string{"--share-file", c.share(1), "--share-file", c.share(3)}
	reeved := func(args ...string) answer { return run(t, nil, c.dir, "", "reeved", args...) }
	restore := append([]string{"restore", file, "--config", fresh.config, "--admin-context", c.context}, shares...)
	reeved(restore[:len(restore)-2]...).refused(t, "shares_missing")
	if out := reeved(append([]string{"rehearse", file}, shares...)...).must(t).out; !strings.Contains(out, "can be restored") {
		t.Error(out)
	}
	reeved(restore...).must(t)
	reeved(append(restore, "--admin-context", c.path("third.yaml"))...).refused(t, "already_initialised")
	fresh.start()
	c.unseal(fresh)
	c.leader()

	// Nobody is let in with what they had.
	if a := run(t, nil, c.dir, "", "reeve", "--context", oldContext, "--address", fresh.api, "whoami"); !strings.Contains(a.err, "[token_unknown]") {
		t.Errorf("the old root token: %s", a)
	}
	if g, err := c.agent("dmz-1"); err != nil || g.Status != "quarantined" {
		t.Errorf("the agent of before: %+v, %v", g, err)
	}
	for _, name := range []string{"alice@web01", "bob@web01"} {
		if a := c.account(name); a.Sync != "uncertain" {
			t.Errorf("%s is %s, %s", name, a.State, a.Sync)
		}
	}
	for _, dir := range []string{agent.data, agent.connectors} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	c.startAgent("dmz-1", "dmz", nil)
	c.reeve("", "account", "verify", "alice@web01", "--watch")
	eventually(t, 60*time.Second, func() error {
		if a := c.account("alice@web01"); a.State != "active" || a.Sync != "in_sync" {
			return fmt.Errorf("%s, %s: %+v", a.State, a.Sync, a.LastError)
		}
		return nil
	})
	if c.reveal("alice@web01") == stays {
		t.Error("the password that was rotated away is taken for the current one")
	}
	c.logsIn(h, "alice")
	c.ok("account", "enable", "bob@web01", "--watch")
	c.logsIn(h, "bob")
	c.ok("audit", "verify", c.write("trail.jsonl", c.ok("audit", "export").out))
	fresh.proc.stop() // and it starts from its own disk as any other
	fresh.start()
	c.unseal(fresh)
	c.logsIn(h, "alice")
}

// refusesSpoiled shows that a snapshot of which any byte was changed is refused offline.
func (c *cluster) refusesSpoiled(file string) {
	c.t.Helper()
	whole, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	for what, at := range map[string]int{"magic": 3, "manifest": 60, "snapshot": len(whole) / 2, "end": len(whole) - 1} {
		bad := bytes.Clone(whole)
		bad[at] ^= 1
		c.reeve("", "cluster", "snapshot", "verify", c.write("spoiled-"+what, string(bad))).refused(c.t, "snapshot_corrupt")
	}
}
