package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// bare is the floor of the store: three nodes of hashicorp/raft with raft-boltdb on plain TCP, a log entry for each
// update, and a state machine that does nothing. It has the options that make it fast: group commit, no freelist on disk.
type bare struct {
	leader *raft.Raft
	stops  []func() error
}

func startBare(ctx context.Context, e *env) (_ *bare, err error) {
	b := &bare{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	dir, err := e.tempDir("bare")
	if err != nil {
		return nil, err
	}
	var servers []raft.Server
	var nodes []*raft.Raft
	for i := range 3 {
		r, addr, err := b.open(filepath.Join(dir, fmt.Sprint(i)), i)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, r)
		servers = append(servers, raft.Server{ID: raft.ServerID(fmt.Sprint(i)), Address: addr})
	}
	if err := nodes[0].BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		return nil, err
	}
	return b, eventually(ctx, "bare Raft elects a leader", func() bool {
		for _, r := range nodes {
			if r.State() == raft.Leader {
				b.leader = r
			}
		}
		return b.leader != nil
	})
}

func (b *bare) open(dir string, i int) (*raft.Raft, raft.ServerAddress, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", err
	}
	logs, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, "log.db"),
		BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType}})
	if err != nil {
		return nil, "", err
	}
	b.stops = append(b.stops, logs.Close)
	silent := hclog.NewNullLogger()
	cache, err := raft.NewLogCache(512, logs)
	if err != nil {
		return nil, "", err
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, 1, silent)
	if err != nil {
		return nil, "", err
	}
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, "", err
	}
	trans := raft.NewNetworkTransportWithLogger(plain{listener}, 4, 10*time.Second, silent)
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(fmt.Sprint(i))
	c.Logger = silent
	c.BatchApplyCh = true
	r, err := raft.NewRaft(c, nothing{}, cache, logs, snaps, trans)
	if err != nil {
		return nil, "", errors.Join(err, trans.Close())
	}
	b.stops = append(b.stops, func() error {
		err := r.Shutdown().Error()
		trans.CloseStreams()
		return errors.Join(err, trans.Close())
	})
	return r, trans.LocalAddr(), nil
}

var entry = bytes.Repeat([]byte("v"), valueBytes)

// write makes one update and waits until it is committed.
func (b *bare) write(context.Context) error { return b.leader.Apply(entry, 0).Error() }

func (b *bare) close() (err error) {
	for i := len(b.stops) - 1; i >= 0; i-- {
		err = errors.Join(err, b.stops[i]())
	}
	return err
}

// nothing is a state machine without state.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                  { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error)  { return nothing{}, nil }
func (nothing) Restore(r io.ReadCloser) error        { return r.Close() }
func (nothing) Persist(sink raft.SnapshotSink) error { return sink.Close() }
func (nothing) Release()                             {}

// plain is TCP without TLS.
type plain struct{ *net.TCPListener }

func (plain) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return (&net.Dialer{}).DialContext(ctx, "tcp", string(addr))
}
