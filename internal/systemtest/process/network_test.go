//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// Controllers, an agent and a host, each in a network of its own, on a switch that cuts.
func TestPartitionsLoseNothing(t *testing.T) {
	t.Parallel()
	lab := testlab.New(t)
	net := testlab.NewNet(t, lab, "c1", "c2", "c3", "agent", "web01", "operator")
	c := newCluster(t, clusterOptions{controllers: 3, net: net, lab: lab})
	c.from = net.Node("operator")
	c.site("dmz")
	h := c.host("web01", net.Node("web01"))
	c.startAgent("dmz-1", "dmz", net.Node("agent"))
	c.addHost(h, "dmz")
	c.provision(h, "alice")
	before, _, err := h.Shadow("alice")
	if err != nil {
		t.Fatal(err)
	}

	// The agent is cut off from every controller in the middle of a job. It reaches the
	// target, finishes, and tells when it can.
	if err := h.LockAccounts(); err != nil {
		t.Fatal(err)
	}
	job := c.begin("rotate", "alice@web01")
	eventually(t, 20*time.Second, func() error {
		if out, err := h.OutOfBand("pgrep -x chpasswd || pgrep -x passwd || pgrep -x usermod"); err != nil {
			return fmt.Errorf("nothing changes the password yet: %s", out)
		}
		return nil
	})
	for _, n := range c.nodes {
		if err := net.Cut(net.Node("agent"), n.on); err != nil {
			t.Fatal(err)
		}
	}
	h.UnlockAccounts()
	eventually(t, 20*time.Second, func() error {
		now, _, err := h.Shadow("alice")
		if err == nil && now.Hash == before.Hash {
			err = errors.New("the password is the old one")
		}
		return err
	})
	if j := c.job(job); j.State != client.JobStateLeased {
		t.Errorf("the agent is cut off and its job is %s", j.State)
	}
	if err := net.Heal(); err != nil {
		t.Fatal(err)
	}
	healed := time.Now()
	c.jobState(job, 60*time.Second, client.JobStateDone)
	t.Logf("the outcome came %s after the network did", time.Since(healed).Round(time.Millisecond))
	c.logsIn(h, "alice")

	// The leader alone on its side acknowledges nothing; the others go on.
	lead := c.leader()
	if err := net.Isolate(lead.on); err != nil {
		t.Fatal(err)
	}
	c.alone(lead)
	took := eventually(t, 30*time.Second, func() error {
		if a := c.reeve("", "site", "add", "by-the-majority"); a.status != 0 {
			return fmt.Errorf("%s", a)
		}
		return nil
	})
	t.Logf("the majority wrote %s after the leader was cut off", took.Round(time.Millisecond))
	c.ok("account", "rotate", "alice@web01", "--watch") // the agent has found the new leader
	c.logsIn(h, "alice")
	c.alone(lead)
	if err := net.Heal(); err != nil {
		t.Fatal(err)
	}
	c.allVote()
	sites := c.sites()
	if slices.Contains(sites, "by-the-minority") || !slices.Contains(sites, "by-the-majority") {
		t.Errorf("after the network was healed there are %v", sites)
	}
}

// alone tries to write on a node that reaches no other, from that node itself.
func (c *cluster) alone(n *node) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 8*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin(c.t), "reeve"), "--context", c.context, "--address", n.api, "site", "add", "by-the-minority")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	n.on.Enter(cmd)
	out, err := cmd.CombinedOutput()
	if err == nil {
		c.t.Errorf("%s is alone and acknowledges: %s", n.name, out)
	}
	if ctx.Err() == nil && !strings.Contains(string(out), "[") {
		c.t.Errorf("%s is alone and does not say why it refuses: %s", n.name, out)
	}
}
