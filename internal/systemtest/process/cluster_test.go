//go:build linux

package process

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// cluster is a cluster of separate processes in a directory of its own.
type cluster struct {
	t       testing.TB
	dir     string
	lab     *testlab.Lab
	from    *testlab.Node // where the command line runs; nil: here
	nodes   []*node
	shamir  bool
	context string // file for reeve --context
}

// node is one controller.
type node struct {
	name, config      string
	raft, api, agents string // addresses
	on                *testlab.Node
	disk              *testlab.Disk // of its data directory; nil: this machine's
	proc              *process
	c                 *cluster
}

// clusterOptions say what a cluster is like. The zero value is one controller that
// unseals itself with a key file.
type clusterOptions struct {
	controllers int
	shamir      bool             // two of three shares
	net         *testlab.Network // with nodes c1, c2, …
	lab         *testlab.Lab
	disks       bool // each controller has a disk of its own that can be sick
}

// newCluster bootstraps and starts a cluster, unsealed, with all controllers voting.
func newCluster(t testing.TB, opt clusterOptions) *cluster {
	t.Helper()
	c := bootstrapped(t, opt)
	first := c.nodes[0]
	first.start()
	c.unseal(first)
	for _, n := range c.nodes[1:] {
		n.join()
		n.start()
		c.unseal(n)
	}
	c.allVote()
	return c
}

// bootstrapped makes a cluster whose first controller exists and does not run.
func bootstrapped(t testing.TB, opt clusterOptions) *cluster {
	t.Helper()
	if opt.lab == nil {
		opt.lab = testlab.New(t)
	}
	c := &cluster{t: t, dir: t.TempDir(), lab: opt.lab, shamir: opt.shamir}
	c.context = filepath.Join(c.dir, "admin.yaml")
	if !opt.shamir {
		run(t, nil, c.dir, "", "reeved", "key-file", c.path("seal.key")).must(t)
	}
	for i := range max(opt.controllers, 1) {
		n := &node{c: c, name: fmt.Sprintf("c%d", i+1)}
		var ip string
		if opt.net != nil {
			n.on = opt.net.Node(n.name)
			ip = n.on.Addr
		} else {
			var err error
			if ip, err = c.lab.Address(); err != nil {
				t.Fatal(err)
			}
		}
		if opt.disks {
			n.disk = testlab.NewDisk(t, c.lab)
		}
		n.raft, n.api, n.agents = ip+":8445", ip+":8443", ip+":8444"
		n.config = c.write(n.name+".yaml", n.yaml())
		c.nodes = append(c.nodes, n)
	}
	c.from = c.nodes[0].on
	args := []string{"bootstrap", "--config", c.nodes[0].config, "--admin-context", c.context}
	if opt.shamir {
		args = append(args, "--shares", "3", "--threshold", "2", "--shares-dir", c.path("shares"))
	}
	run(t, c.from, c.dir, "", "reeved", args...).must(t)
	c.knowAll()
	return c
}

func (n *node) yaml() string {
	y := fmt.Sprintf("name: %s\ndata_dir: %s\nraft: {bind: %q}\napi: {bind: %q}\nagents: {bind: %q}\ntiming: lan\n",
		n.name, n.data(), n.raft, n.api, n.agents)
	if !n.c.shamir {
		y += "key_file: " + n.c.path("seal.key") + "\n"
	}
	return y
}

func (n *node) data() string {
	if n.disk != nil {
		return filepath.Join(n.disk.Dir(), "reeve")
	}
	return n.c.path(n.name)
}

func (n *node) start() {
	n.c.t.Helper()
	n.proc = start(n.c.t, n.on, n.c.dir, n.name, "reeved", "server", "--config", n.config)
	if n.disk != nil {
		n.c.t.Cleanup(n.disk.Heal) // before the process is stopped, which waits for its disk
	}
	eventually(n.c.t, 20*time.Second, func() error {
		_, err := n.status()
		return err
	})
}

func (n *node) join() {
	n.c.t.Helper()
	var token client.JoinToken
	n.c.json(&token, "cluster", "join-token", n.name)
	run(n.c.t, n.on, n.c.dir, token.Token, "reeved", "join", "--config", n.config).must(n.c.t)
}

// status asks this node how it is.
func (n *node) status() (st client.Status, err error) {
	a := n.c.reeve("", "status", "--address", n.api, "-o", "json")
	if a.status != 0 {
		return st, fmt.Errorf("%s", a)
	}
	return st, json.Unmarshal([]byte(a.out), &st)
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

func (c *cluster) write(name, body string) string {
	c.t.Helper()
	if err := os.WriteFile(c.path(name), []byte(body), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return c.path(name)
}

type contextFile struct {
	Addresses []string `yaml:"addresses"`
	CA        string   `yaml:"ca"`
	Token     string   `yaml:"token"`
}

func (c *cluster) readContext() (ctx contextFile) {
	c.t.Helper()
	raw, err := os.ReadFile(c.context)
	if err == nil {
		err = yaml.Unmarshal(raw, &ctx)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return ctx
}

// knowAll tells the command line of every controller.
func (c *cluster) knowAll() {
	c.t.Helper()
	ctx := c.readContext()
	ctx.Addresses = nil
	for _, n := range c.nodes {
		ctx.Addresses = append(ctx.Addresses, n.api)
	}
	body, err := yaml.Marshal(ctx)
	if err == nil {
		err = os.WriteFile(c.context, body, 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) share(number int) string { return c.path(fmt.Sprintf("shares/share-%d.txt", number)) }

// unseal opens a node with two shares, or waits until it has opened itself.
func (c *cluster) unseal(n *node) {
	c.t.Helper()
	if c.shamir {
		for _, number := range []int{1, 3} {
			// A node that has just joined learns of the seal with its first entries.
			eventually(c.t, 20*time.Second, func() error {
				if a := c.reeve("", "seal", "unseal", "--address", n.api, "--share-file", c.share(number)); a.status != 0 {
					return fmt.Errorf("%s", a)
				}
				return nil
			})
		}
	}
	eventually(c.t, 20*time.Second, func() error {
		st, err := n.status()
		if err == nil && st.Sealed {
			err = fmt.Errorf("%s is sealed", n.name)
		}
		return err
	})
}

// reeve runs the command line.
func (c *cluster) reeve(stdin string, args ...string) answer {
	c.t.Helper()
	return run(c.t, c.from, c.dir, stdin, "reeve", append([]string{"--context", c.context}, args...)...)
}

// ok runs the command line and fails the test unless it succeeds.
func (c *cluster) ok(args ...string) answer {
	c.t.Helper()
	return c.reeve("", args...).must(c.t)
}

// json runs the command line with -o json and reads what it printed.
func (c *cluster) json(into any, args ...string) {
	c.t.Helper()
	a := c.ok(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(a.out), into); err != nil {
		c.t.Fatalf("%v\n%s", err, a)
	}
}

func (c *cluster) members() (m client.Cluster, err error) {
	a := c.reeve("", "cluster", "status", "-o", "json")
	if a.status != 0 {
		return m, fmt.Errorf("%s", a)
	}
	return m, json.Unmarshal([]byte(a.out), &m)
}

// allVote waits until every controller is a healthy voter.
func (c *cluster) allVote() {
	c.t.Helper()
	eventually(c.t, 60*time.Second, func() error {
		m, err := c.members()
		if err != nil {
			return err
		}
		voting := 0
		for _, n := range m.Members {
			if n.Voter && n.Healthy {
				voting++
			}
		}
		if voting != len(c.nodes) {
			return fmt.Errorf("%d of %d vote: %+v", voting, len(c.nodes), m.Members)
		}
		return nil
	})
}

// leader is the node that leads, as the cluster says.
func (c *cluster) leader() *node {
	c.t.Helper()
	var lead *node
	eventually(c.t, 30*time.Second, func() error {
		m, err := c.members()
		if err != nil {
			return err
		}
		for _, x := range m.Members {
			if x.Leader {
				lead = c.node(x.Name)
				return nil
			}
		}
		return fmt.Errorf("nobody leads: %+v", m)
	})
	return lead
}

func (c *cluster) node(name string) *node {
	c.t.Helper()
	i := slices.IndexFunc(c.nodes, func(n *node) bool { return n.name == name })
	if i < 0 {
		c.t.Fatalf("there is no controller %s", name)
	}
	return c.nodes[i]
}

// others are all controllers but one.
func (c *cluster) others(but *node) (out []*node) {
	for _, n := range c.nodes {
		if n != but {
			out = append(out, n)
		}
	}
	return out
}

// auditHead is the hash of the newest audit record: it moves with every change.
func (c *cluster) auditHead() string {
	c.t.Helper()
	var page client.AuditPage
	c.json(&page, "audit", "list", "--limit", "1")
	return page.Head
}

// auditTrail is every record.
func (c *cluster) auditTrail() (all []client.AuditRecord) {
	c.t.Helper()
	for after := int64(0); ; {
		var page client.AuditPage
		c.json(&page, "audit", "list", "--limit", "1000", "--after", fmt.Sprint(after))
		all = append(all, page.Items...)
		if page.Next == nil {
			return all
		}
		after = *page.Next
	}
}

// roots trusts the cluster's authority.
func (c *cluster) roots() *x509.CertPool {
	c.t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(c.readContext().CA)) {
		c.t.Fatal("the context file holds no authority")
	}
	return pool
}

// get reads a path of a node's API without the command line.
func (n *node) get(path string) (status int, body string) {
	n.c.t.Helper()
	h := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: n.c.roots(), MinVersion: tls.VersionTLS13},
	}}
	req, err := http.NewRequestWithContext(n.c.t.Context(), http.MethodGet, "https://"+n.api+path, nil)
	if err != nil {
		n.c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+n.c.readContext().Token)
	resp, err := h.Do(req)
	if err != nil {
		n.c.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		n.c.t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

// metric reads one gauge of a node, by its whole name with labels.
func (n *node) metric(name string) (value float64) {
	n.c.t.Helper()
	_, body := n.get("/metrics")
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			if _, err := fmt.Sscan(rest, &value); err != nil {
				n.c.t.Fatal(err)
			}
			return value
		}
	}
	n.c.t.Fatalf("%s has no metric %s", n.name, name)
	return 0
}

// agentProcess is an enrolled agent.
type agentProcess struct {
	*process
	c                      *cluster
	name, data, connectors string
	on                     *testlab.Node
}

// site adds a site and registers the connectors, once.
func (c *cluster) site(name string) {
	c.t.Helper()
	c.ok("site", "add", name)
	c.ok("connector", "register", filepath.Join(bin(c.t), "connectors/connector-ssh"), filepath.Join(bin(c.t), "connectors/connector-mysql"))
}

// agentToken makes a join token for an agent.
func (c *cluster) agentToken(name, site string, more ...string) string {
	c.t.Helper()
	var token client.JoinToken
	c.json(&token, append([]string{"agent", "join-token", name, "--site", site}, more...)...)
	return token.Token
}

// enroll makes an agent that does not run, with connectors of its own.
func (c *cluster) enroll(name, site string, on *testlab.Node) *agentProcess {
	c.t.Helper()
	g := &agentProcess{c: c, name: name, data: c.path("agent-" + name), connectors: c.path("connectors-" + name), on: on}
	if err := os.CopyFS(g.connectors, os.DirFS(filepath.Join(bin(c.t), "connectors"))); err != nil {
		c.t.Fatal(err)
	}
	run(c.t, on, c.dir, c.agentToken(name, site), "reeve-agent", "enroll", "--data", g.data, "--token-file", "-").must(c.t)
	return g
}

func (g *agentProcess) start() {
	g.c.t.Helper()
	g.process = start(g.c.t, g.on, g.c.dir, "agent-"+g.name, "reeve-agent", "run", "--data", g.data, "--connectors", g.connectors)
}

// startAgent enrols an agent, starts it and waits until it is connected.
func (c *cluster) startAgent(name, site string, on *testlab.Node) *agentProcess {
	c.t.Helper()
	g := c.enroll(name, site, on)
	g.start()
	c.connected(name, true, 20*time.Second)
	return g
}

func (c *cluster) agent(name string) (client.Agent, error) {
	a := c.reeve("", "agent", "list", "-o", "json")
	var all []client.Agent
	if a.status != 0 {
		return client.Agent{}, fmt.Errorf("%s", a)
	}
	if err := json.Unmarshal([]byte(a.out), &all); err != nil {
		return client.Agent{}, err
	}
	for _, g := range all {
		if g.Name == name {
			return g, nil
		}
	}
	return client.Agent{}, fmt.Errorf("there is no agent %s", name)
}

// connected waits until the cluster says so of the agent.
func (c *cluster) connected(name string, want bool, limit time.Duration) time.Duration {
	c.t.Helper()
	return eventually(c.t, limit, func() error {
		g, err := c.agent(name)
		if err == nil && (g.Connected != nil && *g.Connected) != want {
			err = fmt.Errorf("agent %s: want connected=%v: %+v", name, want, g)
		}
		return err
	})
}

const rootPassword = "root-of-the-lab-1"

// host starts a Linux host whose root password Reeve gets.
func (c *cluster) host(name string, on *testlab.Node) *testlab.Host {
	c.t.Helper()
	return testlab.NewHost(c.t, c.lab, testlab.HostOptions{Name: name, Node: on,
		Accounts: []testlab.HostAccount{{Name: "root", Password: rootPassword}}})
}

// addHost makes a host an asset with a verified management account. Its host key is
// imported.
func (c *cluster) addHost(h *testlab.Host, site string) {
	c.t.Helper()
	keys := c.write(h.Name+".pub", h.HostKey()+"\n")
	c.reeve(rootPassword, "asset", "add", h.Name, "--site", site, "--connector", "ssh", "--address", h.Addr,
		"--host-key-file", keys, "--username", "root", "--password-file", "-", "--watch").must(c.t)
}

// provision makes an account on a host and logs in to it with a plain client.
func (c *cluster) provision(h *testlab.Host, name string) {
	c.t.Helper()
	c.ok("account", "provision", name, "--role", "linux-standard", "--asset", h.Name, "--watch")
	c.logsIn(h, name)
}

func (c *cluster) account(ref string) (a client.Account) {
	c.t.Helper()
	c.json(&a, "account", "show", ref)
	return a
}

func (c *cluster) job(id string) (j client.Job) {
	c.t.Helper()
	c.json(&j, "job", "show", id)
	return j
}

// reveal is the password the vault holds.
func (c *cluster) reveal(ref string) string {
	c.t.Helper()
	var s client.RevealedSecret
	c.json(&s, "account", "reveal", ref, "--reason", "a test logs in")
	return s.Password
}

// logsIn proves with a plain client that the vault's password opens the account.
func (c *cluster) logsIn(h *testlab.Host, name string) {
	c.t.Helper()
	if err := h.Login(c.t.Context(), name, c.reveal(name+"@"+h.Name)); err != nil {
		c.t.Errorf("plain login: %v", err)
	}
}

// begin asks for an action on an account and returns its job without waiting.
func (c *cluster) begin(action, ref string) string {
	c.t.Helper()
	var j client.JobRef
	c.json(&j, "account", action, ref)
	return j.Job
}

// jobState waits until a job is in one of the states.
func (c *cluster) jobState(id string, limit time.Duration, want ...client.JobState) (j client.Job) {
	c.t.Helper()
	eventually(c.t, limit, func() error {
		if j = c.job(id); !slices.Contains(want, j.State) {
			return fmt.Errorf("job %s is %s, not %v: %+v", id, j.State, want, j)
		}
		return nil
	})
	return j
}

func host(address string) string {
	h, _, _ := net.SplitHostPort(address)
	return h
}
