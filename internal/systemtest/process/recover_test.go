//go:build linux

package process

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Two of three controllers are lost for good: the third goes on alone, says so, trusts
// nothing that they may have changed, and never lets them in again.
func TestOneControllerGoesOnAfterAMajorityIsLost(t *testing.T) {
	t.Parallel()
	c := newCluster(t, clusterOptions{controllers: 3})
	c.site("dmz")
	h := c.host("web01", nil)
	c.startAgent("dmz-1", "dmz", nil)
	c.addHost(h, "dmz")
	c.provision(h, "alice")
	c.provision(h, "bob")
	c.ok("account", "disable", "bob@web01", "--watch")

	survivor := c.others(c.leader())[0]
	lost := c.others(survivor)
	rec := func(args ...string) answer {
		return run(t, nil, c.dir, "", "reeved", append([]string{"recover", "--config", survivor.config}, args...)...)
	}
	rec("--accept-data-loss").refused(t, "state_in_use")
	for _, n := range lost {
		n.proc.kill()
	}
	survivor.proc.stop()
	rec().refused(t, "data_loss_not_accepted", lost[0].name, lost[1].name, "--accept-data-loss")
	rec("--accept-data-loss").must(t)

	c.nodes = []*node{survivor}
	c.knowAll()
	survivor.start()
	c.unseal(survivor)
	if got := c.leader(); got != survivor {
		t.Fatalf("%s leads", got.name)
	}
	eventually(t, 20*time.Second, func() error {
		for _, name := range []string{"alice@web01", "bob@web01"} {
			if a := c.account(name); a.Sync != "uncertain" {
				return fmt.Errorf("%s is %s, %s", name, a.State, a.Sync)
			}
		}
		return nil
	})
	found := false
	for _, r := range c.auditTrail() {
		if r.Action == "cluster.recover" && strings.Contains(fmt.Sprint(r.Details), lost[0].name) {
			found = true
		}
	}
	if !found {
		t.Error("the trail does not say that the cluster was recovered")
	}
	c.ok("audit", "verify", c.write("trail.jsonl", c.ok("audit", "export").out))
	c.connected("dmz-1", true, 30*time.Second)
	c.ok("account", "verify", "alice@web01", "--watch")
	c.ok("account", "rotate", "alice@web01", "--watch")
	c.logsIn(h, "alice")
	c.ok("account", "enable", "bob@web01", "--watch")
	c.logsIn(h, "bob")

	// One of the lost comes back: it is nobody's member, and nobody talks to it.
	back := lost[0]
	back.start()
	eventually(t, 20*time.Second, func() error {
		if !strings.Contains(back.proc.logged(), "tls: bad certificate") && !strings.Contains(survivor.proc.logged(), "was removed from the cluster") {
			return fmt.Errorf("it was not refused yet")
		}
		return nil
	})
	if st, err := back.status(); err == nil && st.Leader {
		t.Error("a controller that was given up leads")
	}
	m, err := c.members()
	if err != nil || len(m.Members) != 1 {
		t.Errorf("members: %+v, %v", m.Members, err)
	}
	back.proc.stop()

	// A new controller takes its place.
	fresh := c.fresh("c4")
	fresh.join()
	fresh.start()
	c.unseal(fresh)
	c.allVote()
	c.ok("site", "add", "after-the-recovery")
}

// fresh is a further controller that has not joined yet.
func (c *cluster) fresh(name string) *node {
	c.t.Helper()
	ip, err := c.lab.Address()
	if err != nil {
		c.t.Fatal(err)
	}
	n := &node{c: c, name: name, raft: ip + ":8445", api: ip + ":8443", agents: ip + ":8444"}
	n.config = c.write(name+".yaml", n.yaml())
	c.nodes = append(c.nodes, n)
	return n
}
