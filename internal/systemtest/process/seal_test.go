//go:build linux

package process

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A cluster whose seal key is split among people, from its first start on.
func TestShamirClusterLivesWhileSealedAndLeadsWhereUnsealed_K3(t *testing.T) {
	t.Parallel()
	c := bootstrapped(t, clusterOptions{controllers: 3, shamir: true})
	c1, c2, c3 := c.nodes[0], c.nodes[1], c.nodes[2]
	for _, private := range []string{"admin.yaml", "shares/share-1.txt", "shares/share-2.txt", "shares/share-3.txt", "c1/state.db", "c1/identity/node.key"} {
		info, err := os.Stat(c.path(private))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", private, err, info)
		}
	}

	c1.start()
	c.sealedNode(c1)
	c.reeve("", "site", "list").refused(t, "sealed", "reeve seal unseal")

	// Shares that are none: another cluster's, a mistyped one, and rubbish.
	other := bootstrapped(t, clusterOptions{shamir: true, lab: c.lab})
	c.reeve("", "seal", "unseal", "--share-file", other.share(2)).refused(t, "unseal_share_wrong", "share number 2")
	c.ok("seal", "unseal", "--share-file", c.share(2))
	for name, text := range c.corrupted(c.share(3)) {
		c.reeve(text, "seal", "unseal", "--share-file", "-").refused(t, "unseal_share_malformed", "share")
		if st, err := c1.status(); err != nil || !st.Sealed || *st.Seal.Progress != 1 {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
	}
	c.ok("seal", "unseal", "--share-file", c.share(2)) // twice is once
	if st, err := c1.status(); err != nil || *st.Seal.Progress != 1 || *st.Seal.Threshold != 2 || *st.Seal.Shares != 3 {
		t.Errorf("one share was given: %+v, %v", st, err)
	}
	c.ok("seal", "unseal", "--share-file", c.share(3))
	c.ready(c1)

	// Sealed nodes join, replicate and vote.
	for _, n := range []*node{c2, c3} {
		n.join()
		n.start()
	}
	c.allVote()
	c.sealedNode(c2)
	c.sealedNode(c3)
	c.ok("site", "add", "before")

	// All of them stop and start: they elect a leader that nobody has unsealed.
	for _, n := range c.nodes {
		n.proc.stop()
	}
	for _, n := range c.nodes {
		n.start()
	}
	lead := c.sealedLeader()
	c.reeve("", "site", "list").refused(t, "sealed")

	// One that is unsealed takes the lead from one that is not.
	follower := c.others(lead)[0]
	c.unseal(follower)
	took := eventually(t, 30*time.Second, func() error {
		if a := c.reeve("", "site", "add", "while-others-are-sealed"); a.status != 0 {
			return fmt.Errorf("%s", a)
		}
		return nil
	})
	t.Logf("the one unsealed node took the lead within %s", took.Round(time.Millisecond))
	if got := c.leader(); got != follower {
		t.Errorf("%s leads, %s alone is unsealed", got.name, follower.name)
	}
	for _, n := range c.others(follower) {
		c.unseal(n)
		c.ready(n)
	}

	// Sealing a follower seals that one and no other.
	lead = c.leader()
	bystander, follower := c.others(lead)[0], c.others(lead)[1]
	c.ok("seal", "seal", "--address", follower.api)
	c.sealedNode(follower)
	c.ready(lead)
	c.ready(bystander)
	if got := c.leader(); got != lead {
		t.Errorf("%s leads after a follower was sealed, before %s did", got.name, lead.name)
	}

	// Sealing the leader moves leadership to the one that is still unsealed.
	c.ok("seal", "seal", "--address", lead.api)
	eventually(t, 30*time.Second, func() error {
		if a := c.reeve("", "site", "add", "after-the-leader-was-sealed"); a.status != 0 {
			return fmt.Errorf("%s", a)
		}
		return nil
	})
	c.sealedNode(lead)
	if got := c.leader(); got != bystander {
		t.Errorf("%s leads, %s alone is unsealed", got.name, bystander.name)
	}
	sealings := map[string]bool{}
	for _, r := range c.auditTrail() {
		if r.Action == "node.seal" {
			sealings[r.Object] = true
		}
	}
	for _, n := range []*node{lead, follower} {
		if st, err := n.status(); err != nil || !sealings[st.Node] {
			t.Errorf("the sealing of %s is not on record: %v, %v", n.name, sealings, err)
		}
	}
	c.noShareOnDisk()
}

// sealedNode fails the test unless the node says in every way that it is sealed.
func (c *cluster) sealedNode(n *node) {
	c.t.Helper()
	eventually(c.t, 20*time.Second, func() error {
		st, err := n.status()
		if err == nil && (!st.Sealed || !st.Initialized || st.Seal.Scheme != "shamir") {
			err = fmt.Errorf("%s is not initialised and sealed: %+v", n.name, st)
		}
		return err
	})
	if code, body := n.get("/readyz"); code != http.StatusServiceUnavailable || body != "sealed\n" {
		c.t.Errorf("%s is sealed and /readyz says %d %q", n.name, code, body)
	}
	if code, body := n.get("/livez"); code != http.StatusOK || body != "ok\n" {
		c.t.Errorf("%s: /livez says %d %q", n.name, code, body)
	}
	if n.metric("reeve_raft_term") < 1 {
		c.t.Errorf("%s: the metrics do not know the term", n.name)
	}
}

func (c *cluster) ready(n *node) {
	c.t.Helper()
	eventually(c.t, 20*time.Second, func() error {
		if code, body := n.get("/readyz"); code != http.StatusOK {
			return fmt.Errorf("%s: /readyz says %d %q", n.name, code, body)
		}
		return nil
	})
}

// sealedLeader waits until all nodes, sealed, agree on who leads.
func (c *cluster) sealedLeader() (lead *node) {
	c.t.Helper()
	eventually(c.t, 30*time.Second, func() error {
		lead = nil
		known := map[string]bool{}
		for _, n := range c.nodes {
			st, err := n.status()
			if err != nil || !st.Sealed || st.LeaderAddress == nil {
				return fmt.Errorf("%s: %+v, %w", n.name, st, err)
			}
			known[*st.LeaderAddress] = true
			if st.Leader {
				lead = n
			}
		}
		if len(known) != 1 || lead == nil {
			return fmt.Errorf("they believe in %v", known)
		}
		return nil
	})
	return lead
}

// corrupted are ways to spoil a share.
func (c *cluster) corrupted(path string) map[string]string {
	c.t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		c.t.Fatal(err)
	}
	text := strings.TrimSpace(string(raw))
	flipped := []byte(text)
	if i := len(flipped) - 10; flipped[i] == 'a' {
		flipped[i] = 'b'
	} else {
		flipped[i] = 'a'
	}
	return map[string]string{"one character changed": string(flipped), "cut short": text[:len(text)-3], "no share": "correct horse battery staple"}
}

// noShareOnDisk looks for shares and the root token in everything the controllers wrote.
func (c *cluster) noShareOnDisk() {
	c.t.Helper()
	secrets := []string{c.readContext().Token}
	for i := range 3 {
		raw, err := os.ReadFile(c.share(i + 1))
		if err != nil {
			c.t.Fatal(err)
		}
		secrets = append(secrets, strings.TrimSpace(string(raw)))
	}
	seen := 0
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path == c.context || strings.HasPrefix(path, c.path("shares")) {
			return err
		}
		raw, err := os.ReadFile(path)
		seen++
		for i, s := range secrets {
			if strings.Contains(string(raw), s) {
				c.t.Errorf("secret %d is in %s", i, path)
			}
		}
		return err
	})
	if err != nil || seen < 10 {
		c.t.Errorf("%d files read: %v", seen, err)
	}
}
