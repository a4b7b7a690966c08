//go:build linux

package process

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
)

// diskFault is something that happens to a controller's disk, and what must follow.
type diskFault struct {
	name   string
	strike func(*testlab.Disk)
	gap    time.Duration // for which writes may stand still
	ends   bool          // the controller ends by itself
	says   []string      // in its log: one of them
	status string        // part of what its status says, while it goes on
}

// Whatever the leader's disk does, writes go on through the others within 15 s.
func TestLeaderWithASickDisk_O6(t *testing.T) {
	t.Parallel()
	const limit = 15 * time.Second
	c := newCluster(t, clusterOptions{controllers: 3, disks: true})
	for _, f := range []diskFault{
		{"hung", (*testlab.Disk).Hang, limit, true, []string{`"because":"this leader's storage hangs"`}, ""},
		{"slow", slowDisk, limit, false, []string{`"disk":"slow"`}, "takes longer than a second"},
		{"full", (*testlab.Disk).Full, limit, true, []string{"disk is full", "no space left on device"}, ""},
		{"failing", (*testlab.Disk).Fail, limit, true, diskErrors, ""},
	} {
		c.strike(c.leader(), f)
	}
}

// A follower's disk is no reason to wait.
func TestFollowerWithASickDisk_O6(t *testing.T) {
	t.Parallel()
	const limit = 3 * time.Second
	c := newCluster(t, clusterOptions{controllers: 3, disks: true})
	for _, f := range []diskFault{
		{"hung", (*testlab.Disk).Hang, limit, false, []string{`"disk":"hanging"`}, "does not answer"},
		{"slow", slowDisk, limit, false, []string{`"disk":"slow"`}, "takes longer than a second"},
		{"full", (*testlab.Disk).Full, limit, true, []string{"disk is full", "no space left on device"}, ""},
		{"failing", (*testlab.Disk).Fail, limit, true, diskErrors, ""},
	} {
		c.strike(c.others(c.leader())[0], f)
	}
}

func slowDisk(d *testlab.Disk) { d.Slow(2 * time.Second) }

// diskErrors are how a disk shows itself that can be neither written nor read: files are
// read through memory maps, and then a read that fails ends the process.
var diskErrors = []string{"input/output error", "SIGBUS"}

// strike makes a controller's disk sick while sites are being added, heals it, and sees
// the controller back in the cluster. No site that was acknowledged may be lost.
func (c *cluster) strike(n *node, f diskFault) {
	c.t.Helper()
	w := c.addSites(f.name + "-" + n.name)
	w.waitFor(20)
	before := len(n.proc.logged())
	struck := time.Now()
	f.strike(n.disk)
	c.t.Cleanup(n.disk.Heal)
	frozen := false
	eventually(c.t, 30*time.Second, func() error {
		log := n.proc.logged()[before:]
		if slices.ContainsFunc(f.says, func(s string) bool { return strings.Contains(log, s) }) {
			return nil
		}
		if frozen = f.name == "hung" && time.Since(struck) > frozenAfter && n.faulting(); frozen {
			return nil
		}
		return fmt.Errorf("%s with a %s disk does not say %q:\n%s", n.name, f.name, f.says, tail(log, 2000))
	})
	switch {
	case frozen:
		c.t.Logf("%s stands still as a whole", n.name)
	case f.ends:
		// Also while its threads wait for the disk: whoever is connected goes elsewhere.
		eventually(c.t, 20*time.Second, func() error {
			if _, err := n.status(); err == nil {
				return fmt.Errorf("%s answers still", n.name)
			}
			return nil
		})
	default:
		eventually(c.t, 10*time.Second, func() error {
			st, err := n.status()
			if err == nil && (st.DiskProblem == nil || !strings.Contains(*st.DiskProblem, f.status)) {
				err = fmt.Errorf("the status of %s with a %s disk: %v", n.name, f.name, st.DiskProblem)
			}
			return err
		})
	}
	w.waitFor(5)
	gap := w.longestGap(struck)
	c.t.Logf("%s disk of %s: writes stood still for %s", f.name, n.name, gap.Round(10*time.Millisecond))
	if gap > f.gap {
		c.t.Errorf("%s disk of %s: no write for %s", f.name, n.name, gap)
	}
	n.disk.Heal()
	ended := f.ends
	if f.name == "slow" || frozen { // on a busy machine several slow writes in a row are as good as a disk that hangs
		select {
		case <-n.proc.done:
			ended = true
		case <-time.After(time.Second):
			ended = false
		}
	}
	if ended {
		if status := n.proc.status(); status == 0 {
			c.t.Errorf("%s ended with 0", n.name)
		}
		n.supervised()
	}
	eventually(c.t, 20*time.Second, func() error {
		st, err := n.status()
		if err == nil && st.DiskProblem != nil {
			err = errors.New(*st.DiskProblem)
		}
		return err
	})
	c.allVote()
	w.waitFor(20)
	w.stop()
}

// frozenAfter is when a watchdog that is alive has long barked.
const frozenAfter = 20 * time.Second

// faulting reports whether a thread of the controller waits for a page of a memory map. Go
// cannot interrupt such a thread, so the next garbage collection stops all others, the
// watchdog among them, until the disk answers. To the others the controller is then as good
// as dead: no heartbeat leaves it.
func (n *node) faulting() bool {
	stacks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stack", n.proc.cmd.Process.Pid))
	return slices.ContainsFunc(stacks, func(file string) bool {
		stack, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(stack), "filemap_fault")
	})
}

// supervised starts a controller until it stays: the first to sync a file after writes
// were lost is told so by the kernel, and a start may end with that.
func (n *node) supervised() {
	n.c.t.Helper()
	for range 5 {
		n.proc = start(n.c.t, n.on, n.c.dir, n.name, "reeved", "server", "--config", n.config)
		for {
			if _, err := n.status(); err == nil {
				return
			}
			select {
			case <-n.proc.done:
			case <-time.After(50 * time.Millisecond):
				continue
			}
			break
		}
	}
	n.c.t.Fatalf("%s does not start again:\n%s", n.name, tail(n.proc.logged(), 2000))
}

// adding adds sites over the API of every controller, and remembers which it was told
// are there.
type adding struct {
	c       *cluster
	cancel  context.CancelFunc
	writers sync.WaitGroup

	mu    sync.Mutex
	names []string
	at    []time.Time // when each was acknowledged
}

func (c *cluster) addSites(prefix string) *adding {
	ctx, cancel := context.WithCancel(c.t.Context())
	w := &adding{c: c, cancel: cancel}
	token := c.readContext().Token
	for _, n := range c.nodes {
		h := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: c.roots(), MinVersion: tls.VersionTLS13},
		}}
		w.writers.Go(func() {
			defer h.CloseIdleConnections()
			for i := 0; ctx.Err() == nil; i++ {
				name := fmt.Sprintf("%s-by-%s-%d", prefix, n.name, i)
				if err := addSite(ctx, h, n.api, token, name); err != nil {
					time.Sleep(20 * time.Millisecond)
					continue
				}
				w.mu.Lock()
				w.names, w.at = append(w.names, name), append(w.at, time.Now())
				w.mu.Unlock()
			}
		})
	}
	c.t.Cleanup(func() { cancel(); w.writers.Wait() })
	return w
}

func addSite(ctx context.Context, h *http.Client, api, token, name string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+api+"/v1/sites", strings.NewReader(`{"name":"`+name+`"}`))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := h.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("%d %s", resp.StatusCode, answer)
	}
	return err
}

func (w *adding) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.names)
}

// waitFor waits for more acknowledged sites.
func (w *adding) waitFor(more int) {
	w.c.t.Helper()
	from := w.count()
	eventually(w.c.t, 60*time.Second, func() error { return atLeast(from+more, w.count()) })
}

// longestGap is the longest time without an acknowledged site since then, up to now.
func (w *adding) longestGap(since time.Time) (longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := since
	for _, at := range append(slices.Clone(w.at), time.Now()) {
		if at.After(last) {
			longest, last = max(longest, at.Sub(last)), at
		}
	}
	return longest
}

// stop ends the adding and looks for every acknowledged site.
func (w *adding) stop() {
	w.c.t.Helper()
	w.cancel()
	w.writers.Wait()
	there := map[string]bool{}
	for _, name := range w.c.sites() {
		there[name] = true
	}
	for _, name := range w.names {
		if !there[name] {
			w.c.t.Errorf("site %s was acknowledged and is gone", name)
		}
	}
}
