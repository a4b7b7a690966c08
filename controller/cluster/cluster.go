package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Timeouts names a profile of election timing. All members must use the same one.
type Timeouts string

// The profiles, with the time from kill -9 of a leader to the next write (measured
// on loopback, n=30).
const (
	TimeoutsDefault Timeouts = ""    // 1 s: any network; median 2.2 s, at most 2.6 s
	TimeoutsLAN     Timeouts = "lan" // 300 ms: one quiet building; median 0.7 s, at most 0.9 s
)

// ExitFenced is the process exit status of a leader that ended itself because its
// storage hung or filled up: EX_TEMPFAIL of sysexits.h, so a supervisor restarts it.
const ExitFenced = 75

// Config is what a Node needs. Fields without a stated default are required.
type Config struct {
	ID        reeve.NodeID // must be the one in the node's certificate
	Cluster   string       // trust domain: peers must be spiffe://<Cluster>/node/<id>
	Bind      string       // host:port to listen on; port 0 picks one
	Advertise string       // host:port peers dial; empty: the address bound, which must then be a specific one
	DataDir   string       // made if missing; holds the log, the snapshots and the watchdog's canary

	// TLS returns the node's certificate (Certificates) and the node CA (RootCAs and
	// ClientCAs). It is called for each handshake, so both can be renewed while
	// running. Everything else in it is ours to decide, but a VerifyConnection in it
	// runs after our own checks and may refuse a peer, such as a banned one.
	TLS func() (*tls.Config, error)

	// Lead is the leader's work in the given term. It is called when this node leads,
	// has applied everything committed before, and its store takes updates. It must
	// return soon after ctx ends, with everything it started stopped. An error while
	// still leading gives leadership to another node; nil means that nothing is left to do.
	Lead func(ctx context.Context, term uint64) error

	Timeouts  Timeouts
	Election  time.Duration         // how long a leader may be silent; 0: what Timeouts says
	Logger    *slog.Logger          // nil: slog.Default
	Registry  prometheus.Registerer // nil: no metrics
	StableFor time.Duration         // how long a new member must be healthy before it votes; 0: 10 s
	DiskLimit time.Duration         // how long a leader's storage may hang before it is ended; 0: 10 s

	// Exit ends the process with a status, after storage failed on a leader. It must
	// not wait for anything that touches the disk. nil: every connection of the process
	// is shut down, then os.Exit.
	Exit func(status int)

	// Dial opens connections to peers. nil: a net.Dialer. Tests partition a cluster
	// with it.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Tune may change raft's own settings, and WrapLogs what the log is kept in. nil: they
	// stay as they are. Tests make snapshots happen and disks hang with them.
	Tune     func(*raft.Config)
	WrapLogs func(raft.LogStore) raft.LogStore

	freeDisk func() (float64, error) // tests: a disk that fills up
}

// Node is one member of the cluster. Make it with Open, drive it with Run.
type Node struct {
	cfg    Config
	log    *slog.Logger
	hclog  hclog.Logger
	conf   *raft.Config
	stream *stream
	bolt   *raftboltdb.BoltStore
	logs   raft.LogStore
	terms  raft.StableStore
	snaps  *raft.FileSnapshotStore
	trans  *raft.NetworkTransport

	mu       sync.Mutex // guards the life of the node
	ran      bool
	closed   bool
	released atomic.Bool               // the files are given back; raft's transport may still be at a heartbeat
	raft     atomic.Pointer[raft.Raft] // nil before Run and if it could not start
	fsm      atomic.Pointer[fsm]
	calls    sync.WaitGroup // raft futures somebody waits for; all are answered before raft stops

	proposing sync.Mutex     // keeps the order of proposals
	leading   atomic.Uint64  // term in which Lead is running, or 0; changes under proposing
	diskFull  atomic.Bool    // proposals are refused
	queue     chan *proposal // what raft has taken, in order
	pending   sync.WaitGroup // what is in queue or being waited for

	// Instants of the monotonic clock, see now; 0: nothing waits.
	opened   time.Time
	enqueued atomic.Int64 // start of the Propose or barrier that raft has not taken yet
	oldest   atomic.Int64 // start of the oldest proposal raft has taken and not answered
	canaryOK atomic.Int64 // when the canary was last written
	canaryAt atomic.Int64 // start of the canary's write under way

	canaryTook atomic.Int64          // how long its last write took, in nanoseconds
	canaryErr  atomic.Pointer[error] // why its last write failed; nil: it did not
	free       atomic.Uint64         // free fraction of the disk, a float64's bits

	transfers chan transfer
	stopping  chan struct{} // closed when nobody receives from transfers any more
	peers     peers
}

// Open checks the configuration, takes the data directory and binds the address.
// Nothing runs before Run. A node that is never run must be closed.
//
// Errors: Invalid for a wrong configuration, Conflict "data_dir_in_use",
// Internal when the disk refuses.
func Open(cfg Config) (*Node, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg:       cfg,
		log:       cfg.Logger,
		hclog:     newHCLog(cfg.Logger),
		queue:     make(chan *proposal, maxInFlight),
		opened:    time.Now(),
		transfers: make(chan transfer),
		stopping:  make(chan struct{}),
	}
	n.conf = n.raftConfig()
	dir := filepath.Join(cfg.DataDir, "raft")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, reeve.Errorf(reeve.Internal, "data_dir_unusable", "cannot make %s", dir).Wrap(err)
	}
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path: logPath(cfg.DataDir),
		// The freelist is rebuilt at start instead of rewritten with every append: it
		// grows with the log's high-water mark (pitfall C77).
		BoltOptions:             &bbolt.Options{Timeout: lockTimeout, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
		MsgpackUseNewTimeFormat: true,
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, reeve.Errorf(reeve.Conflict, "data_dir_in_use", "another process uses %s", dir).
			WithFix("stop the other reeved, or give this one its own data directory").Wrap(err)
	}
	if err != nil {
		return nil, reeve.Errorf(reeve.Internal, "data_dir_unusable", "cannot open the log in %s", dir).Wrap(err)
	}
	n.bolt = bolt
	n.logs, n.terms = logStore{bolt}, termStore{bolt, n}
	if cfg.WrapLogs != nil {
		n.logs = cfg.WrapLogs(n.logs)
	}
	n.snaps, err = raft.NewFileSnapshotStoreWithLogger(dir, keepSnapshots, n.hclog.Named("snapshot"))
	if err != nil {
		return nil, errors.Join(
			reeve.Errorf(reeve.Internal, "data_dir_unusable", "cannot open the snapshots in %s", dir).Wrap(err), bolt.Close())
	}
	n.stream, err = listen(n)
	if err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	n.canaryOK.Store(n.now())
	n.free.Store(math.Float64bits(1)) // until the canary knows
	return n, nil
}

const (
	lockTimeout   = time.Second // for the lock on the log file
	keepSnapshots = 2           // the newest, and one in case it cannot be read
	maxInFlight   = 4096        // proposals raft has taken and not answered
)

func logPath(dataDir string) string { return filepath.Join(dataDir, "raft", "log.db") }

func (c *Config) complete() error {
	invalid := func(field, format string, args ...any) error {
		return reeve.Errorf(reeve.Invalid, "cluster_config_invalid", format, args...).WithField("/" + field)
	}
	switch {
	case !reeve.ValidID("node", string(c.ID)):
		return invalid("ID", "%q is not a node id", c.ID)
	case c.Cluster == "":
		return invalid("Cluster", "the cluster has no name")
	case c.DataDir == "":
		return invalid("DataDir", "no data directory given")
	case c.TLS == nil:
		return invalid("TLS", "no certificates given")
	case c.Lead == nil:
		return invalid("Lead", "no leader's work given")
	case c.Timeouts != TimeoutsDefault && c.Timeouts != TimeoutsLAN:
		return invalid("Timeouts", "timeouts %q are unknown: use \"lan\" or leave it empty", c.Timeouts)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.StableFor == 0 {
		c.StableFor = 10 * time.Second
	}
	if c.DiskLimit == 0 {
		c.DiskLimit = 10 * time.Second
	}
	if c.Exit == nil {
		c.Exit = exit
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.freeDisk == nil {
		c.freeDisk = func() (float64, error) { return freeFraction(c.DataDir) }
	}
	return nil
}

func (n *Node) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.cfg.ID)
	c.Logger = n.hclog
	c.BatchApplyCh = true // group commit; see DESIGN.md
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	if n.cfg.Timeouts == TimeoutsLAN {
		c.HeartbeatTimeout = 300 * time.Millisecond
		c.ElectionTimeout = 300 * time.Millisecond
		c.LeaderLeaseTimeout = 200 * time.Millisecond
		c.CommitTimeout = 20 * time.Millisecond
	}
	if d := n.cfg.Election; d > 0 {
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = d, d, d
	}
	if n.cfg.Tune != nil {
		n.cfg.Tune(c)
	}
	return c
}

// ID is this node's own identifier.
func (n *Node) ID() reeve.NodeID { return n.cfg.ID }

// Addr is the address peers dial.
func (n *Node) Addr() string { return n.stream.Addr().String() }

// Close gives back what Open took, for a node that is not run. Run closes the node
// itself; Close does nothing then.
func (n *Node) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ran {
		return nil
	}
	n.ran = true
	return n.release()
}

func (n *Node) release() error {
	n.closed = true
	n.released.Store(true)
	return errors.Join(n.stream.Close(), n.bolt.Close())
}

// Run replicates until ctx ends, driving state: it alone calls its Apply, Snapshot,
// Restore, Lead and Follow. A node that leads hands leadership away first. When Run
// returns everything is stopped and joined; it can be called once.
//
// It returns nil after ctx ended, and otherwise the reason why this node must not go
// on: an entry that could not be applied ("apply_failed"), a snapshot that could not
// be restored ("restore_failed"), or storage that contradicts itself
// ("state_ahead_of_log").
func (n *Node) Run(ctx context.Context, state *store.Store) error {
	return n.run(ctx, replica{state})
}

func (n *Node) run(ctx context.Context, state applier) error {
	n.mu.Lock()
	if n.ran {
		n.mu.Unlock()
		return reeve.Errorf(reeve.Conflict, "node_already_ran", "node %s was run or closed before", n.cfg.ID)
	}
	n.ran = true
	f := newFSM(state)
	r, err := n.start(f)
	if err != nil {
		err = errors.Join(err, n.release())
		n.mu.Unlock()
		return err
	}
	n.mu.Unlock()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unregister := n.registerMetrics()
	defer unregister()

	var leadership, watching sync.WaitGroup
	leadership.Go(func() { n.runLeadership(ctx, r, f) })
	watching.Go(func() { n.runAnswers() })
	watching.Go(func() { n.runVigil(ctx, r) })
	watchCtx, stopWatching := context.WithCancel(context.Background())
	defer stopWatching()
	watching.Go(func() { n.runWatchdog(watchCtx, r) })
	watching.Go(func() { n.runCanary(watchCtx) })

	var failure error
	select {
	case <-ctx.Done():
	case <-f.failed:
		failure = f.failure()
		n.log.Error("raft: this node stops: it cannot apply the log", "error", failure)
	}
	// The order matters: raft forgets to answer some futures when it is shut down, so
	// it goes last, when nobody waits for one (DESIGN.md, "Stopping").
	cancel()
	// A leader whose followers answer heartbeats but cannot write never commits and never
	// steps down. Without a network it does, and then raft answers everybody.
	cutOff := time.AfterFunc(time.Second+2*n.conf.ElectionTimeout, func() { _ = n.stream.Close() })
	defer cutOff.Stop()
	leadership.Wait()
	close(n.stopping)
	n.mu.Lock()
	n.closed = true // no new calls
	n.mu.Unlock()
	n.calls.Wait()
	close(n.queue)
	stopWatching()
	watching.Wait()
	stopped := r.Shutdown()
	err = n.stream.Close() // or raft waits until its I/O with silent peers times out
	err = errors.Join(err, stopped.Error())
	n.trans.CloseStreams()
	n.mu.Lock()
	defer n.mu.Unlock()
	return errors.Join(failure, err, n.release())
}

// start builds the raft instance on the files Open took.
func (n *Node) start(f *fsm) (*raft.Raft, error) {
	behind, err := n.behindSnapshot(f.applied)
	if err != nil {
		return nil, err
	}
	n.conf.NoSnapshotRestoreOnStart = !behind
	n.trans = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Logger:                  n.hclog.Named("transport"),
		Stream:                  n.stream,
		MaxPool:                 4,
		Timeout:                 10 * time.Second,
		MsgpackUseNewTimeFormat: true,
	})
	n.stream.serve()
	cache, err := raft.NewLogCache(512, n.logs)
	if err != nil {
		return nil, fmt.Errorf("cluster: log cache: %w", err)
	}
	r, err := raft.NewRaft(n.conf, f, cache, n.terms, n.snaps, transport{n.trans})
	if err != nil {
		return nil, errors.Join(
			reeve.Errorf(reeve.Internal, "raft_start_failed", "node %s cannot start", n.cfg.ID).
				Wrap(errors.Join(err, f.restoreError)), n.trans.Close())
	}
	f.started = true
	n.fsm.Store(f)
	n.raft.Store(r)
	return r, nil
}

// Bootstrap makes this node the first and only member of a new cluster. It may be
// called before Run and while running.
//
// Errors: Conflict "already_bootstrapped" when this node has any state.
func (n *Node) Bootstrap() error {
	first := raft.Configuration{Servers: []raft.Server{{
		ID: raft.ServerID(n.cfg.ID), Address: raft.ServerAddress(n.Addr()), Suffrage: raft.Voter,
	}}}
	n.mu.Lock()
	r := n.raft.Load()
	if n.closed {
		n.mu.Unlock()
		return errStopped()
	}
	var err error
	if r == nil {
		// Protocol version 3 does not look at the transport.
		err = raft.BootstrapCluster(n.conf, n.logs, n.bolt, n.snaps, nil, first)
		n.mu.Unlock()
	} else {
		n.calls.Add(1)
		n.mu.Unlock()
		err = r.BootstrapCluster(first).Error()
		n.calls.Done()
	}
	switch {
	case errors.Is(err, raft.ErrCantBootstrap):
		return reeve.Errorf(reeve.Conflict, "already_bootstrapped", "node %s already belongs to a cluster", n.cfg.ID).
			WithFix("a cluster is bootstrapped once, on one node; the others join it")
	case err != nil:
		return reeve.Errorf(reeve.Internal, "bootstrap_failed", "node %s could not write its first log entry", n.cfg.ID).Wrap(err)
	}
	n.log.Info("raft: cluster bootstrapped", "node", n.cfg.ID)
	return nil
}

func errStopped() *reeve.Error {
	return reeve.Errorf(reeve.Unavailable, "node_stopped", "this controller is not running")
}
