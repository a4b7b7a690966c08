//go:build linux

package testlab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Network is a switch with nodes on it, apart from every other network. It consists
// of namespaces that only open files of this process keep alive.
type Network struct {
	ctx   context.Context
	hub   *os.File // network namespace of the switch
	nodes map[string]*Node

	mu    sync.Mutex
	drops map[string]bool // rules of the switch, as nft writes them
}

// Node is a machine on a Network: a network namespace with one address.
type Node struct {
	Name string
	Addr string // IP address

	ns *os.File
}

// Network makes a switch and a node for each name.
func (l *Lab) Network(names ...string) (*Network, error) {
	if len(names) > 250 {
		return nil, errors.New("a network has at most 250 nodes")
	}
	n := &Network{ctx: l.ctx, nodes: make(map[string]*Node), drops: make(map[string]bool)}
	var err error
	if n.hub, err = newNamespace(); err != nil {
		return nil, err
	}
	if err := l.onClose(n.close); err != nil {
		return nil, err
	}
	links := "link add br0 type bridge\nlink set br0 up\n"
	for i, name := range names {
		node := &Node{Name: name, Addr: fmt.Sprintf("10.97.0.%d", i+1)}
		if node.ns, err = newNamespace(); err != nil {
			return nil, err
		}
		n.nodes[name] = node
		links += fmt.Sprintf("link add p%d type veth peer name eth0 netns %s\nlink set p%[1]d master br0 up\n",
			i, nsPath(node.ns))
	}
	if err := n.run(n.hub, links, "ip", "-batch", "-"); err != nil {
		return nil, err
	}
	for _, node := range n.nodes {
		setup := "addr add " + node.Addr + "/24 dev eth0\nlink set eth0 up\nlink set lo up\n"
		if err := n.run(node.ns, setup, "ip", "-batch", "-"); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *Network) close() {
	for _, node := range n.nodes {
		_ = node.ns.Close()
	}
	_ = n.hub.Close()
}

// Node is the node of that name; a name that was not given to Network panics.
func (n *Network) Node(name string) *Node {
	if node, ok := n.nodes[name]; ok {
		return node
	}
	panic("testlab: the network has no node " + name)
}

// Cut drops everything between two nodes, both ways. They see timeouts; others still
// reach both.
func (n *Network) Cut(a, b *Node) error {
	return n.drop(flow(a, b)+" drop", flow(b, a)+" drop")
}

// CutOneWay drops what one node sends to the other, and only that.
func (n *Network) CutOneWay(from, to *Node) error { return n.drop(flow(from, to) + " drop") }

// Isolate drops everything to and from a node.
func (n *Network) Isolate(node *Node) error {
	return n.drop("ip saddr "+node.Addr+" drop", "ip daddr "+node.Addr+" drop")
}

// Loss drops a share of the packets to and from a node, at random: 0 to 99 percent.
func (n *Network) Loss(node *Node, percent int) error {
	chance := fmt.Sprintf(" numgen random mod 100 < %d drop", percent)
	return n.drop("ip saddr "+node.Addr+chance, "ip daddr "+node.Addr+chance)
}

// Heal undoes every cut and loss. Connections that were open during a cut go on, if
// neither end has given up.
func (n *Network) Heal() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.drops)
	return n.apply()
}

func flow(from, to *Node) string { return "ip saddr " + from.Addr + " ip daddr " + to.Addr }

func (n *Network) drop(rules ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range rules {
		n.drops[r] = true
	}
	return n.apply()
}

// apply replaces all rules of the switch in one transaction.
func (n *Network) apply() error {
	script := "add table bridge cut\ndelete table bridge cut\nadd table bridge cut\n" +
		"add chain bridge cut f { type filter hook forward priority 0; policy accept; }\n"
	for _, r := range slices.Sorted(maps.Keys(n.drops)) {
		script += "add rule bridge cut f " + r + "\n"
	}
	return n.run(n.hub, script, "nft", "-f", "-")
}

// run runs a program in a network namespace.
func (n *Network) run(ns *os.File, stdin string, argv ...string) error {
	cmd := exec.CommandContext(n.ctx, argv[0], argv[1:]...)
	enter(cmd, ns)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("network: %s: %w: %s", argv[0], err, out)
	}
	return nil
}

// Enter makes a command that has not been started run in the node's network.
func (n *Node) Enter(cmd *exec.Cmd) { enter(cmd, n.ns) }

// enter puts nsenter, which replaces itself with the command, in front of it.
func enter(cmd *exec.Cmd, ns *os.File) {
	args := append([]string{"nsenter", "--net=" + nsPath(ns), "--", cmd.Path}, cmd.Args[1:]...)
	file, err := exec.LookPath("nsenter")
	if err != nil {
		cmd.Err = err
		return
	}
	cmd.Path, cmd.Args = file, args
}

// Dial connects from the node. The address must be an IP address and a port.
func (n *Node) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.within(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens on the node. The address must be an IP address and a port.
func (n *Node) Listen(ctx context.Context, network, address string) (listener net.Listener, err error) {
	err = n.within(func() (err error) {
		listener, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	return listener, err
}

// within runs f on a thread that is in the node's network. A socket stays in the
// network it was made in.
func (n *Node) within(f func() error) error {
	return apart(func() error {
		if err := unix.Setns(int(n.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network of %s: %w", n.Name, err)
		}
		return f()
	})
}

// newNamespace makes a network namespace that lives as long as the file is open.
func newNamespace() (ns *os.File, err error) {
	err = apart(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("new network namespace: %w", err)
		}
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return ns, err
}

// apart runs f, which may change the network of its thread, and puts the thread back.
// The thread is not simply thrown away, as the runtime would do for a goroutine that
// ends while locked to it: servers that were started from it would die with it.
func apart(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer func() { _ = home.Close() }()
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic("testlab: a thread cannot leave a network: " + back.Error())
	}
	return err
}

// nsPath names an open namespace for other programs.
func nsPath(ns *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd()) }
