// Package clustertest connects controllers that run in one process, so that tests can
// cut the cluster into pieces. Only tests import it.
package clustertest

import (
	"context"
	"net"
	"slices"
	"sync"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Network carries the connections between nodes whose Config.Dial came from Dialer. A
// cut is silent, like that of a pulled cable: what is sent vanishes, and whoever waits
// for an answer waits until a deadline. The zero Network is whole.
type Network struct {
	mu     sync.Mutex
	nodes  map[string]reeve.NodeID          // by address
	lost   func(from, to reeve.NodeID) bool // whether what one sends the other is lost; nil: the network is whole
	healed chan struct{}
	conns  map[*conn]struct{}
}

// Add tells the network where a node listens. Connections to addresses it does not
// know are never cut.
func (n *Network) Add(id reeve.NodeID, addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes == nil {
		n.nodes = map[string]reeve.NodeID{}
	}
	n.nodes[addr] = id
}

// Isolate cuts all links between the nodes given and the others. It replaces an
// earlier cut.
func (n *Network) Isolate(side ...reeve.NodeID) {
	n.cut(func(from, to reeve.NodeID) bool { return slices.Contains(side, from) != slices.Contains(side, to) })
}

// Mute cuts one way: what the node sends is lost, what others send it arrives on the
// connections there are. It replaces an earlier cut.
func (n *Network) Mute(node reeve.NodeID) {
	n.cut(func(from, _ reeve.NodeID) bool { return from == node })
}

// Deafen cuts the other way: what others send the node is lost. It replaces an earlier
// cut.
func (n *Network) Deafen(node reeve.NodeID) {
	n.cut(func(_, to reeve.NodeID) bool { return to == node })
}

func (n *Network) cut(lost func(from, to reeve.NodeID) bool) {
	n.Heal()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost = lost
	n.healed = make(chan struct{})
	for c := range n.conns {
		c.set(n.lost(c.from, c.to), n.lost(c.to, c.from))
	}
}

// Heal ends the cut. Connections that were cut break, because bytes are missing.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.healed != nil {
		close(n.healed)
	}
	n.lost, n.healed = nil, nil
	for c := range n.conns {
		if out, in := c.isCut(); out || in {
			_ = c.Conn.Close()
			delete(n.conns, c)
		}
	}
}

// Dialer returns the Config.Dial of the node.
func (n *Network) Dialer(from reeve.NodeID) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		n.mu.Lock()
		to, known := n.nodes[addr]
		cut, healed := known && n.lost != nil && (n.lost(from, to) || n.lost(to, from)), n.healed
		n.mu.Unlock()
		if cut {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-healed:
			}
		}
		raw, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil || !known {
			return raw, err
		}
		c := &conn{Conn: raw, network: n, from: from, to: to}
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.conns == nil {
			n.conns = map[*conn]struct{}{}
		}
		n.conns[c] = struct{}{}
		if n.lost != nil {
			c.set(n.lost(from, to), n.lost(to, from))
		}
		return c, nil
	}
}

type conn struct {
	net.Conn
	network  *Network
	from, to reeve.NodeID

	mu      sync.Mutex
	out, in bool // what is written is lost, what is read is
}

func (c *conn) set(out, in bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out, c.in = out, in
}

func (c *conn) isCut() (out, in bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out, c.in
}

func (c *conn) Write(p []byte) (int, error) {
	if out, _ := c.isCut(); out {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *conn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil {
			return n, err
		}
		if _, in := c.isCut(); !in {
			return n, nil
		}
	}
}

func (c *conn) Close() error {
	c.network.mu.Lock()
	delete(c.network.conns, c)
	c.network.mu.Unlock()
	return c.Conn.Close()
}
