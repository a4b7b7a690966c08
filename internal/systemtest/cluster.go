package systemtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Options say what cluster to start.
type Options struct {
	Nodes     int  // 1, 3 or 5; 0: 1
	Shamir    bool // sealed with 3 shares of which 2 are needed; else with a key file
	Processes bool // each controller is a process of its own, which Kill kills as kill -9 does
	// Terms replace the times of leases, which are long for a test; not with Processes.
	Terms jobs.Terms
	// Clock and Steady replace the clocks of all nodes; see controller.Config. Not with Processes.
	Clock  func() time.Time
	Steady func() time.Duration
}

// Cluster is a running cluster. Nodes are numbered from 0.
type Cluster struct {
	t testing.TB // what fails, and with what agents end
	*running
}

// running is a cluster, whichever tests use it.
type running struct {
	Dir       string // data of all nodes and agents is below it
	CA        []byte // PEM: whom to trust as a controller
	RootToken reeve.Secret
	Shares    []reeve.Secret // of the seal key, with Shamir
	Log       *Log

	opts  Options
	nodes []*node

	mu     sync.Mutex
	http   *http.Client
	agents int

	registering sync.Mutex
	registered  map[string]bool // connectors
}

// For is the cluster for the use of another test, such as a subtest: methods fail that
// one, and agents end with it.
func (c *Cluster) For(t testing.TB) *Cluster { return &Cluster{t: t, running: c.running} }

// node is one controller, running or not.
type node struct {
	cfg controller.Config

	mu   sync.Mutex
	stop func(hard bool) // nil: not running
	done chan error
}

// Start bootstraps a cluster, joins the other nodes and returns once all of them vote
// and, unless Shamir says otherwise for later starts, are unsealed.
func Start(t testing.TB, opts Options) *Cluster {
	t.Helper()
	if opts.Nodes == 0 {
		opts.Nodes = 1
	}
	c := &Cluster{t: t, running: &running{opts: opts, Dir: t.TempDir(), Log: &Log{}, registered: map[string]bool{}}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the cluster's log:\n%s", c.Log.tail(60))
		}
	})
	keyFile := ""
	if !opts.Shamir {
		keyFile = filepath.Join(c.Dir, "seal.key")
		if err := seal.CreateKeyFile(keyFile); err != nil {
			t.Fatal(err)
		}
	}
	for i := range opts.Nodes {
		c.nodes = append(c.nodes, &node{cfg: c.config(i, keyFile)})
	}
	t.Cleanup(c.stopAll)
	made, err := controller.Bootstrap(t.Context(), c.nodes[0].cfg, controller.BootstrapOptions{Shares: 3, Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	c.CA, c.RootToken, c.Shares = made.CA, made.RootToken, made.Shares
	c.Restart(0)
	for i := 1; i < opts.Nodes; i++ {
		c.join(i)
	}
	c.AwaitVoters(opts.Nodes)
	return c
}

// config says where node i lives. Its ports are below those the kernel gives out, on an
// address of its own, so that nobody takes them while the node is stopped.
func (c *Cluster) config(i int, keyFile string) controller.Config {
	for {
		ip := fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(64), rand.IntN(256), 1+rand.IntN(250)) //nolint:gosec // an address
		l, err := (&net.ListenConfig{}).Listen(c.t.Context(), "tcp", ip+":7001")
		if err != nil {
			continue
		}
		_ = l.Close()
		at := func(port int) controller.Listener {
			return controller.Listener{Bind: fmt.Sprintf("%s:%d", ip, port)}
		}
		name := fmt.Sprintf("c%d", i)
		return controller.Config{Name: name, DataDir: filepath.Join(c.Dir, name), KeyFile: keyFile, Timing: "lan",
			Terms: c.opts.Terms, Clock: c.opts.Clock, Steady: c.opts.Steady, StableFor: 500 * time.Millisecond, Election: c.election(),
			API: at(7001), Agents: at(7002), Raft: at(7003), Logger: c.Log.logger()}
	}
}

// election is how long a leader here may be silent. Three nodes, their agents and the tests share this process: on a busy
// machine none of them may run for longer than the 300 ms of a quiet network, and leaders would fall that nobody wanted to
// fall. A node alone needs nobody's answer. Nodes that are stopped hand leadership over at once whatever this is.
func (c *Cluster) election() time.Duration {
	if c.opts.Nodes == 1 {
		return 0
	}
	return 3 * time.Second
}

func (c *Cluster) join(i int) {
	c.t.Helper()
	token := Call[client.JoinToken](c, func(api *client.Client) (*http.Response, error) {
		return api.CreateNodeJoinToken(c.t.Context(), client.NodeJoinTokenRequest{Name: c.nodes[i].cfg.Name})
	})
	if err := controller.Join(c.t.Context(), c.nodes[i].cfg, reeve.SecretString(token.Token)); err != nil {
		c.t.Fatal(err)
	}
	c.Restart(i)
}

// URL is where node i serves the API.
func (c *Cluster) URL(i int) string { return "https://" + c.nodes[i].cfg.API.Address() }

// Config is the configuration of node i.
func (c *Cluster) Config(i int) controller.Config { return c.nodes[i].cfg }

// Nodes is how many nodes the cluster has, running or not.
func (c *Cluster) Nodes() int { return len(c.nodes) }

func (c *Cluster) runs(i int) bool {
	c.nodes[i].mu.Lock()
	defer c.nodes[i].mu.Unlock()
	return c.nodes[i].stop != nil
}

// Restart starts a node that is not running, unseals it, and returns once it answers.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	n := c.nodes[i]
	n.mu.Lock()
	n.done = make(chan error, 1)
	var err error
	if c.opts.Processes {
		err = c.startProcess(n)
	} else {
		err = startHere(n)
	}
	n.mu.Unlock()
	if err != nil {
		c.t.Fatal(err)
	}
	c.Eventually(n.cfg.Name+" answers", func() (bool, string) {
		select {
		case err := <-n.done:
			n.done <- err
			c.t.Fatalf("%s ended: %v", n.cfg.Name, err)
		default:
		}
		s, err := c.Status(i)
		if err != nil {
			return false, err.Error()
		}
		if s.Sealed && c.opts.Shamir && s.Initialized {
			c.Unseal(i)
		}
		return s.Initialized && !s.Sealed, fmt.Sprintf("initialized %v, sealed %v", s.Initialized, s.Sealed)
	})
}

func startHere(n *node) error {
	ctrl, err := controller.New(n.cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = func(bool) { cancel() }
	done := n.done
	go func() { done <- ctrl.Run(ctx) }()
	return nil
}

func (c *Cluster) startProcess(n *node) error {
	bin, err := program("reeved", "controller/cmd/reeved")
	if err != nil {
		return err
	}
	path := filepath.Join(c.Dir, n.cfg.Name+".yaml")
	body := fmt.Sprintf("name: %s\ndata_dir: %s\nraft: {bind: %q}\napi: {bind: %q}\nagents: {bind: %q}\nkey_file: %q\n",
		n.cfg.Name, n.cfg.DataDir, n.cfg.Raft.Bind, n.cfg.API.Bind, n.cfg.Agents.Bind, n.cfg.KeyFile)
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, bin, "server", "--config", path, "--log-level", "debug") //nolint:gosec // our own
	cmd.Stdout, cmd.Stderr = c.Log, c.Log
	if err := cmd.Start(); err != nil {
		cancel()
		return err
	}
	n.stop = func(hard bool) {
		if hard {
			cancel()
			return
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	done := n.done
	go func() { done <- cmd.Wait(); cancel() }()
	return nil
}

// Stop stops a node in order and waits for it. Its error fails the test.
func (c *Cluster) Stop(i int) {
	c.t.Helper()
	if err := c.end(i, false); err != nil {
		c.t.Errorf("%s: %v", c.nodes[i].cfg.Name, err)
	}
}

// Kill ends a node: one that is a process as kill -9 does. One in this process cannot
// be ended so; it is stopped, and hands its leadership over if it can.
func (c *Cluster) Kill(i int) { _ = c.end(i, true) }

func (c *Cluster) end(i int, hard bool) error {
	n := c.nodes[i]
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stop == nil {
		return nil
	}
	n.stop(hard)
	n.stop = nil
	select {
	case err := <-n.done:
		return err
	case <-time.After(Patience):
		return fmt.Errorf("it did not stop within %s", Patience)
	}
}

func (c *Cluster) stopAll() {
	var wg sync.WaitGroup
	for i := range c.nodes {
		wg.Go(func() {
			if err := c.end(i, c.opts.Processes); err != nil && !c.opts.Processes {
				c.t.Errorf("%s: %v", c.nodes[i].cfg.Name, err)
			}
		})
	}
	wg.Wait()
	c.HTTP().CloseIdleConnections()
}

// Status is what node i says of itself. It may be called from any goroutine.
func (c *Cluster) Status(i int) (client.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return fleet.Answer[client.Status](c.Client(i).GetStatus(ctx)) //nolint:bodyclose // Answer does
}

// Unseal gives node i enough shares.
func (c *Cluster) Unseal(i int) {
	c.t.Helper()
	for _, s := range c.Shares[:2] {
		share := s.Reveal()
		if _, err := fleet.Answer[client.Status](c.Client(i).UnsealNode(c.t.Context(), client.UnsealRequest{Share: &share})); err != nil { //nolint:bodyclose // Answer does
			c.t.Fatalf("unseal: %v", err)
		}
	}
}

// Leader waits until a running node leads and serves, and returns its number.
func (c *Cluster) Leader() (leader int) {
	c.t.Helper()
	c.Eventually("an election", func() (bool, string) {
		for i := range c.nodes {
			if !c.runs(i) {
				continue
			}
			if s, err := c.Status(i); err == nil && s.Leader && !s.Sealed {
				leader = i
				return true, ""
			}
		}
		return false, "nobody leads"
	})
	return leader
}

// AwaitVoters waits until n members vote and are healthy.
func (c *Cluster) AwaitVoters(n int) {
	c.t.Helper()
	c.Eventually(fmt.Sprintf("a cluster of %d voters", n), func() (bool, string) {
		m, err := Try[client.Cluster](c, func(api *client.Client) (*http.Response, error) { return api.GetCluster(c.t.Context()) })
		if err != nil {
			return false, err.Error()
		}
		voters := 0
		for _, m := range m.Members {
			if m.Voter && m.Healthy {
				voters++
			}
		}
		return voters == n, fmt.Sprintf("%d healthy voters of %d members", voters, len(m.Members))
	})
}
