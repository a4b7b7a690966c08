//go:build linux

package testlab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
)

// echo answers every connection on the node with its name.
func echo(t *testing.T, n *testlab.Node) {
	t.Helper()
	l, err := n.Listen(t.Context(), "tcp", n.Addr+":7")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, n.Name)
			_ = c.Close()
		}
	}()
}

// patience is how long to wait for something: long if it is expected to come.
func patience(expected bool) time.Duration {
	if expected {
		return 20 * time.Second
	}
	return 250 * time.Millisecond
}

// reaches reports whether one node gets the other's name.
func reaches(t *testing.T, from, to *testlab.Node, want bool) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience(want))
	defer cancel()
	c, err := from.Dial(ctx, "tcp", to.Addr+":7")
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }()
	name, err := io.ReadAll(c)
	return err == nil && string(name) == to.Name
}

func TestNetworkIsCutWhereAskedFor(t *testing.T) {
	t.Parallel()
	net := testlab.Net(t, "a", "b", "c")
	a, b, c := net.Node("a"), net.Node("b"), net.Node("c")
	for _, n := range []*testlab.Node{a, b, c} {
		echo(t, n)
	}
	check := func(state string, ab, ac, bc bool) {
		t.Helper()
		got := fmt.Sprint(reaches(t, a, b, ab), reaches(t, a, c, ac), reaches(t, b, c, bc))
		if want := fmt.Sprint(ab, ac, bc); got != want {
			t.Errorf("%s: a-b, a-c, b-c reachable: %s, want %s", state, got, want)
		}
	}
	check("whole", true, true, true)
	if err := net.Cut(a, b); err != nil {
		t.Fatal(err)
	}
	check("a cut from b", false, true, true)
	if err := errors.Join(net.Heal(), net.Isolate(c)); err != nil {
		t.Fatal(err)
	}
	check("c isolated", true, false, false)
	if err := net.Heal(); err != nil {
		t.Fatal(err)
	}
	check("healed again", true, true, true)
}

func TestCutOneWayLeavesTheOtherDirection(t *testing.T) {
	t.Parallel()
	net := testlab.Net(t, "a", "b")
	a, b := net.Node("a"), net.Node("b")
	l, err := b.Listen(t.Context(), "tcp", b.Addr+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	out, err := a.Dial(t.Context(), "tcp", b.Addr+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()

	if err := net.CutOneWay(a, b); err != nil {
		t.Fatal(err)
	}
	arrives := func(from io.Writer, to interface {
		io.Reader
		SetReadDeadline(time.Time) error
	}, want bool) bool {
		_, _ = from.Write([]byte{1})
		_ = to.SetReadDeadline(time.Now().Add(patience(want)))
		_, err := to.Read(make([]byte, 16))
		return err == nil
	}
	if !arrives(in, out, true) {
		t.Error("b no longer reaches a")
	}
	if arrives(out, in, false) {
		t.Error("a still reaches b")
	}
}

func TestLossLosesSomeAndNotAll(t *testing.T) {
	t.Parallel()
	net := testlab.Net(t, "a", "b")
	if err := net.Loss(net.Node("b"), 50); err != nil {
		t.Fatal(err)
	}
	ping := exec.CommandContext(t.Context(), "ping", "-q", "-A", "-c60", "-W1", "-i0.002", net.Node("b").Addr)
	net.Node("a").Enter(ping)
	out, _ := ping.CombinedOutput() // status 1 if one is lost
	var sent, received int
	for line := range strings.Lines(string(out)) {
		_, _ = fmt.Sscanf(line, "%d packets transmitted, %d received", &sent, &received)
	}
	if sent != 60 || received < 2 || received > 40 { // each answer passes two coins
		t.Errorf("%d of %d arrived\n%s", received, sent, out)
	}
}

func TestServersRunOnNodes(t *testing.T) {
	t.Parallel()
	lab := testlab.New(t)
	net := testlab.NewNet(t, lab, "host", "db", "agent")
	h := testlab.NewHost(t, lab, testlab.HostOptions{Node: net.Node("host"),
		Accounts: []testlab.HostAccount{{Name: "root", Password: rootPassword}}})
	d := testlab.NewMariaDB(t, lab, testlab.MariaDBOptions{Node: net.Node("db")})

	if err := h.Login(t.Context(), "root", rootPassword); err != nil {
		t.Errorf("host on a node: %v", err)
	}
	if err := d.Login(t.Context(), testlab.Management, d.ManagementPassword); err != nil {
		t.Errorf("database on a node: %v", err)
	}
	h.Crash()
	if err := h.Restart(); err != nil {
		t.Fatalf("restart on a node: %v", err)
	}
	ping := exec.CommandContext(t.Context(), "ping", "-q", "-c1", "-W2", h.Addr)
	net.Node("agent").Enter(ping)
	if out, err := ping.CombinedOutput(); err != nil {
		t.Errorf("ping from another node: %v: %s", err, out)
	}
	if err := net.Isolate(net.Node("host")); err != nil {
		t.Fatal(err)
	}
	ping = exec.CommandContext(t.Context(), "ping", "-q", "-c1", "-W1", h.Addr)
	net.Node("agent").Enter(ping)
	if out, err := ping.CombinedOutput(); err == nil || !strings.Contains(string(out), "100% packet loss") {
		t.Errorf("ping to an isolated node: %v: %s", err, out)
	}
}
