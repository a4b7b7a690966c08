//go:build linux

package process

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/api/client"
)

// keysAreWhole waits until everything is sealed under the newest terms, and fails the
// test unless every purpose has one active term and everything can be read.
func (c *cluster) keysAreWhole(sites []string) client.Seal {
	c.t.Helper()
	var s client.Seal
	eventually(c.t, 60*time.Second, func() error {
		a := c.reeve("", "seal", "status", "-o", "json")
		if a.status != 0 {
			return fmt.Errorf("%s", a)
		}
		c.json(&s, "seal", "status")
		if !s.Rewrapped {
			return fmt.Errorf("not everything is sealed again: %+v", s)
		}
		return nil
	})
	active, purposes := map[string]int{}, map[string]bool{}
	for _, t := range s.Terms {
		purposes[t.Purpose] = true
		if t.Active {
			active[t.Purpose]++
		}
	}
	for p := range purposes {
		if active[p] != 1 {
			c.t.Errorf("%d active terms for %s", active[p], p)
		}
	}
	have := c.sites()
	for _, name := range sites {
		if !strings.Contains(strings.Join(have, " ")+" ", name+" ") {
			c.t.Errorf("site %s is gone or unreadable: %v", name, have)
		}
	}
	return s
}

// The leader is killed at several moments of rotating and of a rekeying; whatever was
// answered holds, and what was not is either all done or not at all. A controller that
// was down meanwhile comes back with the next line of its key file.
func TestKillingTheLeaderWhileKeysChange_K4(t *testing.T) {
	t.Parallel()
	c := newCluster(t, clusterOptions{controllers: 3})
	var sites []string
	for i := range 8 {
		sites = append(sites, fmt.Sprint("site-", i))
		c.ok("site", "add", sites[i])
	}
	terms := len(c.keysAreWhole(sites).Terms)
	for round, delay := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond, 60 * time.Millisecond} {
		lead := c.leader()
		answered := make(chan answer, 1)
		go func() { answered <- c.reeve("", "seal", "rotate") }()
		time.Sleep(delay + 10*time.Millisecond) // the command has to start; any moment will do
		lead.proc.kill()
		a := <-answered
		lead.start()
		c.unseal(lead)
		now := len(c.keysAreWhole(sites).Terms)
		if added := now - terms; added%6 != 0 || a.status == 0 && added == 0 {
			t.Errorf("round %d: %d terms, then %d: %s", round, terms, now, a)
		}
		terms = now
	}

	// A rekeying to the next line of the key file, with one controller down.
	run(t, nil, c.dir, "", "reeved", "key-file", "--add", c.path("seal.key")).must(t)
	away := c.others(c.leader())[0]
	away.proc.stop()
	var made client.StartedRekey
	c.json(&made, "seal", "rekey", "start", "--key-file", c.path("seal.key"))
	away.start()
	c.unseal(away) // with the line of before
	c.allVote()
	away.proc.stop()
	c.ok("seal", "rekey", "prove", made.Rekey.Id, "--key-file", c.path("seal.key"))
	lead := c.leader()
	lead.proc.kill()
	for _, n := range []*node{away, lead} {
		n.start()
		c.unseal(n) // with the next one
	}
	c.allVote()
	if s := c.keysAreWhole(sites); s.Generation != 2 || s.Rekey != nil {
		t.Errorf("after the rekeying: %+v", s)
	}

	// The line of before opens nothing any more.
	lines, err := os.ReadFile(c.path("seal.key"))
	if err != nil {
		t.Fatal(err)
	}
	old, next, _ := strings.Cut(string(lines), "\n")
	away.proc.stop()
	c.write("seal.key", old+"\n")
	away.start()
	eventually(t, 20*time.Second, func() error {
		if st, err := away.status(); err != nil || !st.Sealed || !strings.Contains(away.proc.logged(), "unseal_key_wrong") {
			return fmt.Errorf("%+v, %w", st, err)
		}
		return nil
	})
	c.write("seal.key", next)
	c.unseal(away) // it tries on
	c.keysAreWhole(sites)
}
