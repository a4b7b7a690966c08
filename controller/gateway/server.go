package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// Limits of the listener.
const (
	maxMessage       = 2 << 20          // bytes of one message; a result has up to 1 MiB
	maxConnections   = 4096             // more wait in the kernel's queue
	maxStreams       = 64               // calls at a time on one connection
	maxChunksAtOnce  = 16               // log chunks that share a transaction
	maxLogAtOnce     = 256 << 10        // bytes of them, about
	maxLeasesAtOnce  = 1024             // in one RenewLeases
	handshakeTimeout = 10 * time.Second // to say hello, and again for the rest, without the time in the queue
	drainTimeout     = 5 * time.Second  // what calls under way get when the server stops
	heartbeatEvery   = 10 * time.Second
	recheck          = 2 * time.Second  // of the certificates of open streams, after a change of agents or authorities
	recheckAnyway    = 30 * time.Second // without one: certificates expire
	noteEvery        = 5 * time.Second  // when agents were seen
	keepaliveEvery   = 20 * time.Second
	keepaliveAnswer  = 10 * time.Second
	idleTimeout      = time.Minute     // of a connection without a call: agents have a stream open
	pingsAtMostEvery = 5 * time.Second // of a client
)

// Config is what a Server works with. All fields are needed.
type Config struct {
	Store  *store.Store
	PKI    *pki.Authority
	Broker *jobs.Broker
	// TLS is that of pki.NodeIdentity.GatewayTLS.
	TLS *tls.Config
	// Leader is the leader as far as this node knows ("" if nobody), and whether this
	// node is it.
	Leader func() (id reeve.NodeID, here bool)
	Logger *slog.Logger
}

// Server serves agents.
type Server struct {
	agentv1.UnimplementedAgentServiceServer
	cfg Config
	log *slog.Logger

	mu      sync.Mutex
	streams map[*stream]struct{}
	nodes   nodes

	swept time.Time // when sweep last looked at all streams; its own
}

// nodes is where the controllers are, as of a revision of the store.
type nodes struct {
	revision uint64
	all      []string
	by       map[reeve.NodeID]string
}

// New makes a Server.
func New(cfg Config) *Server {
	return &Server{cfg: cfg, log: cfg.Logger, streams: map[*stream]struct{}{}}
}

// Run serves the listener until ctx ends, then lets calls under way finish for a
// moment and closes it. It returns nil then, and an error when the listener fails.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	server := grpc.NewServer(
		grpc.Creds(newQueued(s.cfg.TLS, newTurns(handshakesAtOnce(), ctx.Done()))),
		grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream),
		// Thousands of agents are connected and nearly always silent: they hold no buffers.
		// TLS has read a whole record before the framer asks for the first byte of it.
		grpc.ReadBufferSize(0), // and grpc shares the write buffers by itself
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTimeout), grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveEvery, Timeout: keepaliveAnswer, MaxConnectionIdle: idleTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingsAtMostEvery, PermitWithoutStream: true}),
	)
	agentv1.RegisterAgentServiceServer(server, s)
	changed, unwatch := s.cfg.Store.Watch(pki.AgentTable, pki.CATable)
	defer unwatch()
	failed := make(chan error, 1)
	var serving sync.WaitGroup
	serving.Go(func() { failed <- server.Serve(netutil.LimitListener(l, maxConnections)) })
	noting, done := context.WithCancel(ctx)
	serving.Go(func() { s.note(noting) })
	defer serving.Wait()
	defer done()
	t := time.NewTicker(recheck)
	defer t.Stop()
	for {
		select {
		case err := <-failed:
			server.Stop()
			return err
		case <-t.C:
			s.sweep(ctx, changed)
		case <-ctx.Done():
			s.closeStreams(reeve.Errorf(reeve.Unavailable, "shutting_down", "this controller is shutting down"))
			late := time.AfterFunc(drainTimeout, server.Stop)
			defer late.Stop()
			server.GracefulStop()
			return nil
		}
	}
}

// note has it written down when agents were seen, until ctx ends.
func (s *Server) note(ctx context.Context) {
	t := time.NewTicker(noteEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if _, here := s.cfg.Leader(); !here {
			continue
		}
		if err := s.cfg.PKI.NoteSeen(ctx); err != nil && ctx.Err() == nil {
			s.log.Info("when agents were seen is noted later", "error", err)
		}
	}
}

// AgentKey is the HPKE key of an active agent of the site, for jobs.BrokerConfig. It
// fails with Denied "agent_not_active" for all others.
func AgentKey(tx *store.Tx, site reeve.SiteID, id reeve.AgentID) ([]byte, error) {
	a, err := pki.GetAgent(tx, id)
	if err != nil {
		return nil, err
	}
	if a.SiteID != site || a.Status != pki.Active {
		return nil, reeve.Errorf(reeve.Denied, "agent_not_active", "agent %s may not work in site %s", a.Name, site)
	}
	return a.HPKEKey(), nil
}

// addresses are the agent addresses of all controllers, and that of one of them. Every
// agent asks with every heartbeat, so they are read once for each change of the store.
func (s *Server) addresses(ctx context.Context, of reeve.NodeID) (all []string, one string, err error) {
	s.mu.Lock()
	known := s.nodes
	s.mu.Unlock()
	err = s.cfg.Store.View(ctx, func(tx *store.Tx) error {
		if known.by != nil && known.revision == tx.Revision() {
			return nil
		}
		known = nodes{revision: tx.Revision(), by: map[reeve.NodeID]string{}}
		list, err := pki.ListNodes(tx)
		for _, n := range list {
			if n.Removed.IsZero() && n.AgentAddr != "" {
				known.all, known.by[n.ID] = append(known.all, n.AgentAddr), n.AgentAddr
			}
		}
		return err
	})
	if err != nil {
		return nil, "", err
	}
	s.mu.Lock()
	s.nodes = known
	s.mu.Unlock()
	return known.all, known.by[of], nil
}

// caller is who makes a call.
type caller struct {
	agent          reeve.AgentID
	site           reeve.SiteID
	cert, signedBy *x509.Certificate // the authority's certificate
}

type callerKey struct{}

// callerOf is the agent that admit found. Handlers behind admit have one.
func callerOf(ctx context.Context) caller { return ctx.Value(callerKey{}).(caller) } //nolint:forcetypeassert,errcheck // set by admit
