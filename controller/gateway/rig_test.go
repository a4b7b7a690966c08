package gateway

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/jointoken"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

const cluster = "gateway.test"

var me = audit.Actor{Kind: "user", ID: "prin_me", Name: "me"}

// lockedBuffer keeps the server's log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// rig is a controller of one: store, seal, authorities, broker, and the gateway on
// loopback.
type rig struct {
	t       testing.TB
	store   *store.Store
	vault   *vault.Vault
	broker  *jobs.Broker
	address string
	node    reeve.NodeID
	leads   atomic.Bool
	log     *lockedBuffer
	roots   *x509.CertPool
	stop    func()
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, node: reeve.NewNodeID(), log: &lockedBuffer{}}
	r.leads.Store(true)
	logger := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	m := seal.NewManager(logger)
	r.store = storetest.New(t, storetest.WithCipher(m))
	r.vault = vault.New(m)
	authority := pki.New(r.store, m, logger)
	identity, err := pki.OpenNodeIdentity(t.TempDir())
	check(t, err)
	csr, err := identity.Request()
	check(t, err)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	check(t, err)
	r.address = listener.Addr().String()
	var enrolled *pki.NodeEnrollment
	_, err = m.Init(t.Context(), r.store, cluster, seal.Scheme{Shares: 3, Threshold: 2}, func(tx *store.Tx) (err error) {
		enrolled, err = authority.Bootstrap(tx, me, cluster, r.node, csr,
			pki.NodeInfo{Name: "n1", RaftAddr: "127.0.0.1:1", APIAddr: "127.0.0.1:2", AgentAddr: r.address})
		return err
	})
	check(t, err)
	check(t, identity.Install(enrolled))
	r.roots = x509.NewCertPool()
	r.roots.AppendCertsFromPEM(enrolled.CA)
	r.broker = jobs.New(jobs.BrokerConfig{Store: r.store, Vault: r.vault, Cluster: cluster, Logger: logger,
		Handlers:         jobs.Handlers{"test": func(*store.Tx, *jobs.Job, *agentv1.Result) error { return nil }},
		ConnectorDigests: func(*store.Tx, string) ([]string, error) { return []string{"d1"}, nil }, AgentKey: AgentKey})
	server := New(Config{Store: r.store, PKI: authority, Broker: r.broker, Logger: logger,
		TLS: identity.GatewayTLS(func() (cas []*x509.Certificate, err error) {
			err = r.store.View(context.Background(), func(tx *store.Tx) (err error) {
				cas, err = pki.Bundle(tx, pki.RoleAgent)
				return err
			})
			return cas, err
		}),
		Leader: func() (reeve.NodeID, bool) { return r.node, r.leads.Load() }})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func() error{func() error { return r.broker.Run(ctx) }, func() error { return server.Run(ctx, listener) }} {
		wg.Go(func() {
			if err := run(); err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	r.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(r.stop)
	return r
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) update(fn func(*store.Tx) error) {
	r.t.Helper()
	check(r.t, r.store.Update(context.Background(), fn))
}

// token makes a join token for an agent and returns its secret part.
func (r *rig) token(site reeve.SiteID, name string) []byte {
	r.t.Helper()
	var text reeve.Secret
	r.update(func(tx *store.Tx) (err error) {
		_, text, err = pki.CreateJoinToken(tx, me, pki.NewJoinToken{Role: pki.RoleAgent, SiteID: site, Name: name, Addresses: []string{r.address}})
		return err
	})
	parsed, err := jointoken.Parse(text)
	check(r.t, err)
	return parsed.Secret.Bytes()
}

// dial connects with a client certificate, or without.
func (r *rig) dial(certs ...tls.Certificate) agentv1.AgentServiceClient {
	r.t.Helper()
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: r.roots, ServerName: pki.ServerName}
	for _, c := range certs { // shown also where the server says that it will not do
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
	}
	conn, err := grpc.NewClient("passthrough:///"+r.address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	check(r.t, err)
	r.t.Cleanup(func() { _ = conn.Close() })
	return agentv1.NewAgentServiceClient(conn)
}

// agent is an agent as the network sees it.
type agent struct {
	agentv1.AgentServiceClient
	id   reeve.AgentID
	site reeve.SiteID
	key  *ecdsa.PrivateKey
	hpke hpke.PrivateKey
	cert tls.Certificate
	gen  uint64
}

func request(t testing.TB) (*ecdsa.PrivateKey, []byte, hpke.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	check(t, err)
	h, err := envelope.GenerateKey()
	check(t, err)
	return key, csr, h
}

func (r *rig) enrol(site reeve.SiteID, name string) *agent {
	r.t.Helper()
	key, csr, h := request(r.t)
	res, err := r.dial().Enroll(r.t.Context(), &agentv1.EnrollRequest{Token: r.token(site, name), CsrDer: csr,
		HpkePublicKey: h.PublicKey().Bytes(), Version: "test"})
	check(r.t, err)
	id := res.GetIdentity()
	if id.GetSite() != string(site) || id.GetCluster() != cluster || len(id.GetAddresses()) != 1 || id.GetAddresses()[0] != r.address {
		r.t.Fatalf("identity %v", id)
	}
	a := &agent{id: reeve.AgentID(id.GetAgent()), site: site, key: key, hpke: h, gen: id.GetGeneration(),
		cert: tls.Certificate{Certificate: [][]byte{id.GetCertificateDer()}, PrivateKey: key}}
	a.AgentServiceClient = r.dial(a.cert)
	return a
}

// pull opens a stream with credits and passes on what comes, heartbeats aside.
func (r *rig) pull(a *agent, credits uint32) (messages chan *agentv1.PullJobsResponse, ended chan error) {
	r.t.Helper()
	st, err := a.PullJobs(r.t.Context())
	check(r.t, err)
	check(r.t, st.Send(&agentv1.PullJobsRequest{Credits: credits, Connectors: []*agentv1.ConnectorInfo{{Name: "ssh"}}}))
	messages, ended = make(chan *agentv1.PullJobsResponse, 64), make(chan error, 1)
	beat := make(chan struct{})
	go func() {
		first := sync.OnceFunc(func() { close(beat) })
		for {
			m, err := st.Recv()
			if err != nil {
				first()
				ended <- err
				return
			}
			first()
			if m.GetHeartbeat() == nil {
				messages <- m
			}
		}
	}()
	<-beat // the first heartbeat comes when the stream is attached
	return messages, ended
}

func (r *rig) enqueue(s jobs.Spec) *jobs.Job {
	r.t.Helper()
	s.Connector, s.Class, s.Handler = "ssh", jobs.ClassApproved, "test"
	if s.Work == nil {
		s.Work = &agentv1.Work{Operation: "verify"}
	}
	var j *jobs.Job
	r.update(func(tx *store.Tx) (err error) {
		j, err = jobs.Enqueue(tx, me, s)
		return err
	})
	return j
}

func within[T any](t *testing.T, d time.Duration, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(d):
		t.Fatalf("no %s within %s", what, d)
		panic("unreachable")
	}
}

// expectStatus checks the gRPC code and the stable code of an error.
func expectStatus(t *testing.T, err error, want codes.Code, reason string) {
	t.Helper()
	st := status.Convert(err)
	got := ""
	for _, d := range st.Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			got = i.GetReason()
		}
	}
	if st.Code() != want || got != reason {
		t.Errorf("status %s %q (%s), want %s %q", st.Code(), got, st.Message(), want, reason)
	}
}
