package cluster

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// BenchmarkPropose compares three nodes of this package, over mutual TLS, with three
// bare hashicorp/raft nodes on plain TCP with the same log store, in the same run. Both
// keep 64 proposals of 1 KB in flight and wait for all.
func BenchmarkPropose(b *testing.B) {
	entry := make([]byte, 1<<10)
	b.Run("reeve", func(b *testing.B) {
		l := newLab(b)
		l.cluster(3)
		leader := l.leader()
		b.ResetTimer()
		window(b, func() func() error { return leader.Propose(entry).Wait })
	})
	b.Run("bare", func(b *testing.B) {
		leader := bareCluster(b)
		b.ResetTimer()
		window(b, func() func() error { return leader.Apply(entry, 0).Error })
	})
}

// window keeps 64 proposals in flight.
func window(b *testing.B, propose func() (wait func() error)) {
	b.Helper()
	waits := make(chan func() error, 64)
	var waiter sync.WaitGroup
	waiter.Go(func() {
		for wait := range waits {
			if err := wait(); err != nil {
				b.Error(err)
			}
		}
	})
	for range b.N {
		waits <- propose()
	}
	close(waits)
	waiter.Wait()
}

func bareCluster(b *testing.B) *raft.Raft {
	b.Helper()
	var servers []raft.Server
	var nodes []*raft.Raft
	for i := range 3 {
		dir := b.TempDir()
		logs, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, "log.db")})
		if err != nil {
			b.Fatal(err)
		}
		cache, err := raft.NewLogCache(512, logs)
		if err != nil {
			b.Fatal(err)
		}
		log := newHCLog(slog.New(slog.DiscardHandler))
		snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, 1, log)
		if err != nil {
			b.Fatal(err)
		}
		addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
		listener, err := net.ListenTCP("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		trans := raft.NewNetworkTransportWithLogger(plain{listener}, 4, 10*time.Second, log)
		c := raft.DefaultConfig()
		c.LocalID = raft.ServerID(fmt.Sprint(i))
		c.Logger = log
		c.BatchApplyCh = true
		r, err := raft.NewRaft(c, newFSM(&ledger{}), cache, logs, snaps, trans)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := r.Shutdown().Error(); err != nil {
				b.Error(err)
			}
			trans.CloseStreams()
			_ = trans.Close()
			_ = logs.Close()
		})
		nodes = append(nodes, r)
		servers = append(servers, raft.Server{ID: c.LocalID, Address: trans.LocalAddr()})
	}
	if err := nodes[0].BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		b.Fatal(err)
	}
	var leader *raft.Raft
	until(b, "bare leader", func() bool {
		for _, r := range nodes {
			if r.State() == raft.Leader {
				leader = r
			}
		}
		return leader != nil
	})
	return leader
}

type plain struct{ *net.TCPListener }

func (plain) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(addr), timeout)
}
