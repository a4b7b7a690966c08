package main

import (
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// tolerated is by how much the floor may send less or more than the connector. What it leaves out is how the connector wraps its scripts: over SSH
// each waits until it is told to go, over Telnet a loop takes the login shell's place.
var tolerated = map[string]float64{"ssh": 0.2, "telnet": 0.3, "mysql": 0.02, "postgres": 0.02, "ad": 0.02}

// TestFloorsSendWhatConnectorsSend compares both sides of the connector rows on the wire, so that a connector that changes what it sends is not
// measured against what it sent before: as many connections for an account's life with one rotation, and as many bytes.
func TestFloorsSendWhatConnectorsSend(t *testing.T) {
	t.Parallel()
	testlab.Require(t)
	for _, s := range subjects() {
		t.Run(s.connector, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			program := filepath.Join(dir, "connector-"+s.connector)
			out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "nomsgpack", "-o", program, "../../plugins/"+s.connector).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			target, err := s.start(t.Context(), testlab.New(t))
			if err != nil {
				t.Fatal(err)
			}
			e := &env{log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
			there, floor := newMeter(t, target)
			bare, err := s.bare(there)
			if err != nil {
				t.Fatal(err)
			}
			live(t, bare)
			there, reeve := newMeter(t, target)
			ours, err := s.open(t.Context(), dir, there, e)
			if err != nil {
				t.Fatal(err)
			}
			reeve.reset() // of the probe
			live(t, ours)
			t.Logf("connections, bytes to and from the server: floor %v, reeve %v", floor.read(), reeve.read())
			if floor.connections.Load() != reeve.connections.Load() {
				t.Error("the floor makes not as many connections as the connector")
			}
			if r := float64(floor.to.Load()) / float64(reeve.to.Load()); math.Abs(r-1) > tolerated[s.connector] {
				t.Errorf("the floor sends %.2f times what the connector sends: the connector has changed, or the floor", r)
			}
		})
	}
}

// live is an account's life, and the end of its keeper.
func live(t *testing.T, k keeper) {
	t.Helper()
	a := newAccount()
	if err := k.provision(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	next := newPassword()
	if err := k.rotate(t.Context(), a, next); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(k.deprovision(t.Context(), a), k.close()); err != nil {
		t.Fatal(err)
	}
}

// meter counts what goes to a server and comes from it.
type meter struct {
	connections, to, from atomic.Int64
	open                  sync.WaitGroup
}

func (m *meter) reset() { m.to.Store(0); m.from.Store(0); m.connections.Store(0) }

// read waits until all connections have ended.
func (m *meter) read() [3]int64 {
	m.open.Wait()
	return [3]int64{m.connections.Load(), m.to.Load(), m.from.Load()}
}

// newMeter returns the target as it is seen through a meter.
func newMeter(t *testing.T, target sdk.Target) (sdk.Target, *meter) {
	t.Helper()
	server := address(target)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &meter{}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			m.connections.Add(1)
			m.open.Add(1)
			wg.Go(func() {
				defer m.open.Done()
				m.pass(client, server)
			})
		}
	})
	there := l.Addr().(*net.TCPAddr)
	target.Address, target.Port = there.IP.String(), there.Port
	return target, m
}

func (m *meter) pass(client net.Conn, server string) {
	defer func() { _ = client.Close() }()
	conn, err := net.Dial("tcp", server) //nolint:noctx // ends with the client
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	for _, way := range []struct {
		to, from net.Conn
		count    *atomic.Int64
	}{{conn, client, &m.to}, {client, conn, &m.from}} {
		wg.Go(func() {
			_, _ = io.Copy(io.MultiWriter(way.to, counter{way.count}), way.from)
			_ = way.to.(*net.TCPConn).CloseWrite()
		})
	}
	wg.Wait()
	_ = conn.Close()
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}
