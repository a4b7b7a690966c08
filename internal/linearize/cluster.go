package linearize

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/reeve-pam/reeve/controller"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/cluster/clustertest"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/jointoken"
	"github.com/reeve-pam/reeve/internal/reeve"
)

const size = 3 // nodes

// Cluster is three controllers in this process.
type Cluster struct {
	Log   *slog.Logger // nil: nowhere
	nodes []*node
	net   *clustertest.Network
	http  *http.Client
	token reeve.Secret
	keys  *keys
}

// patience bounds waits for what must happen: far longer than it should take.
const patience = 30 * time.Second

// Start makes a cluster in dir and returns once all nodes vote.
func Start(ctx context.Context, dir string, log *slog.Logger) (_ *Cluster, err error) {
	c := &Cluster{Log: log, net: &clustertest.Network{}}
	if c.keys, err = newKeys(); err != nil {
		return nil, err
	}
	keyFile := filepath.Join(dir, "seal.key")
	if err := seal.CreateKeyFile(keyFile); err != nil {
		return nil, err
	}
	for i := range size {
		name := fmt.Sprintf("c%d", i)
		at, err := addresses()
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, &node{cluster: c, name: name, dir: filepath.Join(dir, name), keyFile: keyFile,
			info: pki.NodeInfo{Name: name, RaftAddr: at + ":7003", APIAddr: at + ":7001", AgentAddr: at + ":7002"}})
	}
	first := c.nodes[0]
	at := func(addr string) controller.Listener { return controller.Listener{Bind: addr} }
	made, err := controller.Bootstrap(ctx, controller.Config{Name: first.name, DataDir: first.dir, KeyFile: keyFile, Timing: "lan",
		Raft: at(first.info.RaftAddr), API: at(first.info.APIAddr), Agents: at(first.info.AgentAddr), Logger: slog.New(slog.DiscardHandler)},
		controller.BootstrapOptions{})
	if err != nil {
		return nil, err
	}
	c.token = made.RootToken
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(made.CA)
	c.http = &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, DialContext: dial,
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}}
	if err := first.start(); err != nil {
		return nil, err
	}
	for _, n := range c.nodes[1:] {
		if err := c.join(ctx, n); err != nil {
			return nil, errors.Join(err, c.Stop())
		}
	}
	return c, await(ctx, "all nodes to vote", func() bool {
		leader := c.leader()
		if leader == nil {
			return false
		}
		voters := 0
		for _, m := range leader.raft.Members() {
			if m.Voter {
				voters++
			}
		}
		return voters == size
	})
}

// dial says of a request that never left that it had no effect.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, reeve.Errorf(reeve.Unavailable, "not_listening", "nobody listens at %s", addr).Wrap(err)
	}
	return conn, nil
}

// addresses is an address of this machine for one node alone, with ports below those the
// kernel gives out, so that nobody takes them while the node is stopped.
func addresses() (string, error) {
	for range 100 {
		r, err := rand.Int(rand.Reader, big.NewInt(64<<16))
		if err != nil {
			return "", err
		}
		v := r.Int64()
		ip := fmt.Sprintf("127.%d.%d.%d", 64+v>>16, v>>8&0xff, 1+v&0xff%250)
		l, err := net.Listen("tcp", ip+":7001") //nolint:noctx // at start
		if err == nil {
			return ip, l.Close()
		}
	}
	return "", errors.New("linearize: no free address")
}

// join certifies a new node as package rest does, starts it, and lets it into raft.
func (c *Cluster) join(ctx context.Context, n *node) error {
	identity, err := pki.OpenNodeIdentity(filepath.Join(n.dir, "identity"))
	if err != nil {
		return err
	}
	csr, err := identity.Request()
	if err != nil {
		return err
	}
	return c.onLeader(ctx, func(leader *parts) error {
		var text reeve.Secret
		if !identity.Certified() {
			err := leader.store.Update(ctx, func(tx *store.Tx) (err error) {
				_, text, err = pki.CreateJoinToken(tx, audit.System("linearize"), pki.NewJoinToken{Role: pki.RoleNode, Name: n.name,
					Addresses: []string{leader.info.APIAddr}})
				return err
			})
			if err != nil {
				return err
			}
			t, err := jointoken.Parse(text)
			if err != nil {
				return err
			}
			enrolled, err := leader.authority.EnrollNode(ctx, t.Secret, csr, n.info, "127.0.0.1")
			if err != nil {
				return err
			}
			if err := identity.Install(enrolled); err != nil {
				return err
			}
			if err := n.start(); err != nil {
				return err
			}
		}
		p := n.now.Load()
		return leader.raft.AddNonvoter(ctx, p.id, p.raft.Addr())
	})
}

// onLeader repeats do on whoever leads until it succeeds.
func (c *Cluster) onLeader(ctx context.Context, do func(*parts) error) error {
	var last error
	err := await(ctx, "the leader to do it", func() bool {
		if l := c.leader(); l != nil {
			last = do(l)
			return last == nil
		}
		return false
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// leader is a node that believes it leads and is unsealed, nil if none does.
func (c *Cluster) leader() *parts {
	for _, n := range c.nodes {
		if p := n.now.Load(); p != nil && p.raft.IsLeader() && !p.seal.Sealed() {
			return p
		}
	}
	return nil
}

// Stop ends all nodes and reports those that had failed.
func (c *Cluster) Stop() (err error) {
	c.net.Heal()
	for _, n := range c.nodes {
		if p := n.now.Load(); p != nil {
			err = errors.Join(err, p.end())
		}
	}
	c.http.CloseIdleConnections()
	return err
}

// await polls: raft runs on the machine's clock.
func await(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("linearize: waited in vain for %s: %w", what, context.Cause(ctx))
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}
