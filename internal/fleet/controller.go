//go:build linux

package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// Controller is one controller of a fleet, running or not.
type Controller struct {
	*Process
	Raft, API, Agents string // addresses, host:port
	DataDir           string
	Config            string // its configuration file
	Node              *testlab.Node
}

// ControllerOptions say where a controller lives. The zero value is a controller on the
// loopback address with a directory below the fleet's.
type ControllerOptions struct {
	Name    string        // default c1, c2, …
	IP      string        // optional: the ports there are 8443, 8444 and 8445; else free ports of 127.0.0.1
	Node    *testlab.Node // optional: the network node it is; stands for IP
	DataDir string        // optional, such as a mounted disk
}

// AddController adds a controller that is neither made nor runs.
func (f *Fleet) AddController(o ControllerOptions) (*Controller, error) {
	if o.Name == "" {
		o.Name = fmt.Sprintf("c%d", len(f.Controllers)+1)
	}
	if o.DataDir == "" {
		o.DataDir = filepath.Join(f.opts.Dir, o.Name)
	}
	c := &Controller{DataDir: o.DataDir, Config: filepath.Join(f.opts.Dir, o.Name+".yaml"), Node: o.Node}
	if o.Node != nil {
		o.IP = o.Node.Addr
	}
	if o.IP != "" {
		c.API, c.Agents, c.Raft = o.IP+":8443", o.IP+":8444", o.IP+":8445"
	} else {
		addrs, err := freeAddrs("127.0.0.1", 3)
		if err != nil {
			return nil, err
		}
		c.API, c.Agents, c.Raft = addrs[0], addrs[1], addrs[2]
	}
	if err := f.makeKey(); err != nil {
		return nil, err
	}
	body := fmt.Sprintf("name: %s\ndata_dir: %q\nraft: {bind: %q}\napi: {bind: %q}\nagents: {bind: %q}\nkey_file: %q\n",
		o.Name, c.DataDir, c.Raft, c.API, c.Agents, f.KeyFile())
	if f.opts.Timing != "" {
		body += "timing: " + f.opts.Timing + "\n"
	}
	if err := os.WriteFile(c.Config, []byte(body), 0o600); err != nil {
		return nil, err
	}
	args := append(append([]string{}, f.opts.Reeved[1:]...), "server", "--config", c.Config)
	c.Process = f.newProcess(o.Node, o.Name, f.opts.Reeved[0], args...)
	f.Controllers = append(f.Controllers, c)
	return c, nil
}

func (f *Fleet) makeKey() error {
	if _, err := os.Stat(f.KeyFile()); err == nil {
		return nil
	}
	_, err := f.Run(context.Background(), "", "reeved", "key-file", f.KeyFile())
	return err
}

// Bootstrap makes the cluster with the first controller, starts it and waits until it
// leads.
func (f *Fleet) Bootstrap(ctx context.Context) error {
	first := f.Controllers[0]
	if _, err := f.run(ctx, first.Node, "", "reeved", "bootstrap", "--config", first.Config, "--admin-context", f.Context()); err != nil {
		return err
	}
	if err := f.knowAll(); err != nil {
		return err
	}
	if err := first.Start(); err != nil {
		return err
	}
	return Eventually(ctx, 30*time.Second, func(ctx context.Context) error {
		m, err := f.Members(ctx)
		if err == nil && leader(m) == "" {
			err = errors.New("nobody leads")
		}
		return err
	})
}

// Join makes every controller but the first a member, one after the other, starts them,
// and waits until all vote.
func (f *Fleet) Join(ctx context.Context) error {
	for _, c := range f.Controllers[1:] {
		var token client.JoinToken
		if err := f.CLI(ctx, "", &token, "cluster", "join-token", c.Name); err != nil {
			return err
		}
		if _, err := f.run(ctx, c.Node, token.Token, "reeved", "join", "--config", c.Config); err != nil {
			return err
		}
		if err := c.Start(); err != nil {
			return err
		}
	}
	return Eventually(ctx, time.Minute, f.AllVote)
}

// StartControllers adds n controllers on this machine's loopback address, or on the given
// nodes, and makes them a cluster in which all vote.
func (f *Fleet) StartControllers(ctx context.Context, n int, nodes ...*testlab.Node) error {
	for i := range n {
		var o ControllerOptions
		if len(nodes) > 0 {
			o.Node = nodes[i]
		}
		if _, err := f.AddController(o); err != nil {
			return err
		}
	}
	if err := f.Bootstrap(ctx); err != nil {
		return err
	}
	return f.Join(ctx)
}

// AllVote fails unless every controller of the fleet is a healthy voter.
func (f *Fleet) AllVote(ctx context.Context) error {
	m, err := f.Members(ctx)
	if err != nil {
		return err
	}
	voting := 0
	for _, n := range m.Members {
		if n.Voter && n.Healthy {
			voting++
		}
	}
	if voting != len(f.Controllers) {
		return fmt.Errorf("%d of %d controllers vote and are healthy", voting, len(f.Controllers))
	}
	return nil
}

// Leader is the controller that leads, as the cluster says now.
func (f *Fleet) Leader(ctx context.Context) (*Controller, error) {
	m, err := f.Members(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range f.Controllers {
		if c.Name == leader(m) {
			return c, nil
		}
	}
	return nil, errors.New("nobody leads")
}

func leader(m client.Cluster) string {
	for _, n := range m.Members {
		if n.Leader {
			return n.Name
		}
	}
	return ""
}

// RegisterConnectors registers the connectors ssh and mysql, and others that are asked for.
func (f *Fleet) RegisterConnectors(ctx context.Context, others ...string) error {
	args := []string{"connector", "register"}
	for _, name := range append([]string{"ssh", "mysql"}, others...) {
		args = append(args, filepath.Join(f.Connectors(), "connector-"+name))
	}
	return f.CLI(ctx, "", nil, args...)
}
