package linearize

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/reeve-pam/reeve/controller/cluster"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/rest"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// tune gives busy machines a little longer to notice that a leader is gone, and keeps
// next to nothing of the log behind a snapshot, so that a follower that was away needs it.
func tune(c *raft.Config) {
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 400*time.Millisecond, 400*time.Millisecond, 400*time.Millisecond
	c.TrailingLogs = 1
}

// node is one controller: what package controller puts together, but for what no client
// here uses, and with a network and a disk that tests can spoil.
type node struct {
	cluster *Cluster
	name    string
	dir     string
	keyFile string
	info    pki.NodeInfo

	disk   gate         // what it writes to the log passes
	outlet gate         // what the store proposes passes
	refuse atomic.Int32 // how many proposals will be refused, as with a full disk
	now    atomic.Pointer[parts]
}

// parts live from one start to the next stop. Clients go on using those of a node that
// has stopped, as they go on knocking at a dead machine.
type parts struct {
	id        reeve.NodeID
	info      pki.NodeInfo
	stop      context.CancelFunc
	ended     chan struct{} // closed when they run no longer
	raft      *cluster.Node
	store     *store.Store
	seal      *seal.Manager
	vault     *vault.Vault
	authority *pki.Authority
	broker    *jobs.Broker
	failure   error // of the run; valid once ended is closed
}

// view reads as package rest does.
func (p *parts) view(ctx context.Context, fn func(*store.Tx) error) error {
	if err := p.raft.VerifyLeader(ctx); err != nil {
		return err
	}
	return p.store.View(ctx, fn)
}

// start opens what is on disk and runs it.
func (n *node) start() (err error) {
	log := slog.New(slog.DiscardHandler)
	if n.cluster.Log != nil {
		log = n.cluster.Log.With("node", n.name)
	}
	identity, err := pki.OpenNodeIdentity(filepath.Join(n.dir, "identity"))
	if err != nil {
		return err
	}
	name, id, err := identity.Node()
	if err != nil {
		return err
	}
	p := &parts{id: id, info: n.info, ended: make(chan struct{}), seal: seal.NewManager(log)}
	p.raft, err = cluster.Open(cluster.Config{
		ID: id, Cluster: name, Bind: n.info.RaftAddr, DataDir: n.dir, Logger: log, Timeouts: cluster.TimeoutsLAN,
		TLS:       func() (*tls.Config, error) { return identity.NodeTLS(func(reeve.NodeID) error { return nil }) },
		Lead:      func(ctx context.Context, _ uint64) error { return p.lead(ctx) },
		StableFor: 100 * time.Millisecond,
		Exit:      func(int) {}, // disks hang here for less than it takes
		Dial:      n.cluster.net.Dialer(id),
		Tune:      tune,
		WrapLogs:  func(logs raft.LogStore) raft.LogStore { return &hanging{LogStore: logs, disk: &n.disk} },
	})
	if err != nil {
		return err
	}
	n.cluster.net.Add(id, p.raft.Addr())
	p.store, err = store.Open(store.Config{Path: filepath.Join(n.dir, "state.db"), Cipher: p.seal, Replicator: proposer{p.raft, n}, Logger: log})
	if err != nil {
		return errors.Join(err, p.raft.Close())
	}
	p.vault, p.authority = vault.New(p.seal), pki.New(p.store, p.seal, log)
	p.broker = jobs.New(jobs.BrokerConfig{
		Store: p.store, Vault: p.vault, Cluster: name, Logger: log, Terms: terms, Rand: func() float64 { return 0 },
		Handlers:         jobs.Handlers{"linearize": func(*store.Tx, *jobs.Job, *agentv1.Result) error { return nil }},
		ConnectorDigests: func(*store.Tx, string) ([]string, error) { return []string{"d"}, nil },
		AgentKey: func(*store.Tx, reeve.SiteID, reeve.AgentID) ([]byte, error) {
			return n.cluster.keys.hpke, nil
		},
	})
	forward, err := identity.ForwardTLS()
	if err != nil {
		return errors.Join(err, p.raft.Close(), p.store.Close())
	}
	api, err := rest.New(rest.Config{Node: id, Name: n.name, Cluster: name, Version: "linearize", Store: p.store, Raft: p.raft,
		Seal: p.seal, Vault: p.vault, Broker: p.broker, Authority: p.authority, ForwardTLS: forward,
		Metrics: prometheus.NewRegistry(), Logger: log})
	if err != nil {
		return errors.Join(err, p.raft.Close(), p.store.Close())
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", n.info.APIAddr)
	if err != nil {
		return errors.Join(err, p.raft.Close(), p.store.Close())
	}
	server := &http.Server{Handler: api.Handler(), ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	n.now.Store(p)
	go func() {
		defer close(p.ended)
		p.failure = p.run(ctx, n.keyFile, server, tls.NewListener(listener, identity.APITLS()))
	}()
	return nil
}

// run runs all parts until ctx ends or one of them fails.
func (p *parts) run(ctx context.Context, keyFile string, server *http.Server, listener net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.store.Run(ctx) })
	g.Go(func() error { return p.raft.Run(ctx, p.store) })
	g.Go(func() error { return p.seal.Run(ctx, p.store) })
	g.Go(func() error { return p.unseal(ctx, keyFile) })
	g.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error { <-ctx.Done(); return server.Close() })
	err := g.Wait()
	return errors.Join(err, p.store.Close())
}

func (p *parts) unseal(ctx context.Context, keyFile string) error {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for p.seal.UnsealWithKeyFile(keyFile) != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
	return nil
}

func (p *parts) lead(ctx context.Context) error {
	for p.seal.Sealed() {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
	return p.broker.Run(ctx)
}

// end stops the node in order.
func (p *parts) end() error {
	p.stop()
	<-p.ended
	return p.failure
}

// kill ends the node as losing its power does, as far as that can be had in a process
// that goes on: it is cut off, and of the state only what is on disk already remains. To
// this end the store is given an entry that makes it fail, after which it writes nothing.
func (n *node) kill() {
	p := n.now.Load()
	n.cluster.net.Isolate(p.id)
	_ = p.store.Apply(math.MaxUint64, 1, []byte{0xff}) // fails, on purpose
	<-p.ended
	p.stop()
}

// gate lets everybody pass until it is shut.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // not nil: until it is closed
}

// close shuts the gate until open is called.
func (g *gate) close() (open func()) {
	c := make(chan struct{})
	g.mu.Lock()
	g.shut = c
	g.mu.Unlock()
	return sync.OnceFunc(func() { close(c) })
}

func (g *gate) pass() {
	g.mu.Lock()
	c := g.shut
	g.mu.Unlock()
	if c != nil {
		<-c
	}
}

// hanging is a log on a disk that can hang.
type hanging struct {
	raft.LogStore
	disk *gate
}

// StoreLogs implements raft.LogStore.
func (h *hanging) StoreLogs(logs []*raft.Log) error {
	h.disk.pass()
	return h.LogStore.StoreLogs(logs)
}

// StoreLog implements raft.LogStore.
func (h *hanging) StoreLog(l *raft.Log) error { return h.StoreLogs([]*raft.Log{l}) }

// proposer is what the store proposes to. It may hold a proposal back, as a machine does
// that stops a goroutine at the worst moment, and refuse some.
type proposer struct {
	*cluster.Node
	node *node
}

// Propose implements store.Replicator.
func (p proposer) Propose(entry []byte) store.Proposal {
	p.node.outlet.pass()
	if p.node.refuse.Load() > 0 && p.node.refuse.Add(-1) >= 0 {
		return refusal{}
	}
	return p.Node.Propose(entry)
}

// refusal is a proposal that is not made, which becomes known after others were computed
// on top of it.
type refusal struct{}

// Wait implements store.Proposal.
func (refusal) Wait() error {
	time.Sleep(20 * time.Millisecond)
	return reeve.Errorf(reeve.Unavailable, "disk_full", "made to refuse")
}
