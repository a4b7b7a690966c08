//go:build linux

package process

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
)

// One command, for trying out: it serves at once, and goes on where it was.
func TestDevModeProvisionsAndKeepsItsData(t *testing.T) {
	t.Parallel()
	lab := testlab.New(t)
	ip, err := lab.Address()
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, dir: t.TempDir(), lab: lab}
	data := c.path("data")
	c.context = data + "/admin.yaml"
	dev := func() *process {
		p := start(t, nil, c.dir, "dev", "reeved", "dev", "--data", data, "--host", ip, "--port", "8443")
		took := eventually(t, 30*time.Second, func() error {
			if a := c.reeve("", "agent", "list"); a.status != 0 || !strings.Contains(a.out, "yes") {
				return fmt.Errorf("no agent is connected: %s", a)
			}
			return nil
		})
		t.Logf("dev mode was ready after %s", took.Round(time.Millisecond))
		return p
	}
	p := dev()
	if !strings.Contains(p.logged(), "export REEVE_CONTEXT="+c.context) {
		t.Errorf("it does not say what to do next:\n%s", p.logged())
	}
	for _, private := range []string{"admin.yaml", "seal.key"} {
		if info, err := os.Stat(data + "/" + private); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", private, info, err)
		}
	}
	h := c.host("web01", nil)
	c.addHost(h, "dev")
	live := c.ok("account", "provision", "alice", "--role", "linux-standard", "--asset", "web01", "--watch").err
	for _, step := range []string{"alice@web01", "login"} {
		if !strings.Contains(live, step) {
			t.Errorf("the live log does not show %q:\n%s", step, live)
		}
	}
	c.logsIn(h, "alice")
	before := c.reveal("alice@web01")

	p.stop()
	if code := p.status(); code != 0 {
		t.Errorf("it ended with %d when asked to stop", code)
	}
	dev()
	if now := c.reveal("alice@web01"); now != before {
		t.Error("the restart has lost the password")
	}
	c.ok("account", "rotate", "alice@web01", "--watch")
	c.logsIn(h, "alice")
	c.ok("account", "deprovision", "alice@web01", "--watch")
	if _, there, err := h.Passwd("alice"); err != nil || there {
		t.Errorf("alice is still in /etc/passwd: %v, %v", there, err)
	}
	run(t, nil, c.dir, "", "reeved", "dev", "--data", c.path("other"), "--connectors", c.path("none"), "--host", ip, "--port", "9443").
		refused(t, "connectors_missing", "make build")
}
