// Package agenttest is a controller as an agent sees it: real gRPC over real mutual
// TLS, with the rules of enrolment, renewal, leases and logs that the agent relies
// on, and with faults on demand. It decides nothing; tests say which jobs there are.
// Only tests of the agent import it.
package agenttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reeve-pam/reeve/internal/jointoken"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// Cluster is the cluster's name, Site the site of its agents.
const (
	Cluster = "test"
	Site    = "site_test"
)

// Controller is one controller with all state of its cluster. Fields may be set
// before the first call arrives, and afterwards through With.
type Controller struct {
	agentv1.UnimplementedAgentServiceServer

	Address string
	CA      *CA // signs controllers and agents

	// Lifetime of certificates it gives; one hour if zero.
	Lifetime time.Duration

	mu       sync.Mutex
	agents   map[string]*Agent // by id
	tokens   map[[32]byte]*Agent
	before   func(method string) error // refuses a call
	after    func(method string) error // loses an answer
	jobs     chan *agentv1.PullJobsResponse
	leases   func(*agentv1.LeaseRef) string
	logs     map[string][]*agentv1.LogChunk
	outcomes []*agentv1.ReportOutcomeRequest
	calls    []string
	changed  chan struct{}
}

// Agent is what the controller knows of an agent.
type Agent struct {
	ID         string
	HPKE       []byte
	Generation uint64
	key        [32]byte // of the public key last certified
	last       *agentv1.Identity
	serials    map[string]bool // of certificates that are accepted; true: used
}

// NewController starts a controller on a loopback address, until the test ends.
func NewController(t testing.TB) *Controller {
	t.Helper()
	c := &Controller{CA: NewCA(t, Cluster), agents: map[string]*Agent{}, tokens: map[[32]byte]*Agent{},
		jobs: make(chan *agentv1.PullJobsResponse, 1024), logs: map[string][]*agentv1.LogChunk{}, changed: make(chan struct{})}
	c.Address = c.Serve(t, c.CA.Node(t))
	return c
}

// Serve starts another listener of the same controller with a certificate of its own.
func (c *Controller) Serve(t testing.TB, cert tls.Certificate) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c.CA.cert)
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool})),
		grpc.UnaryInterceptor(c.unary), grpc.StreamInterceptor(c.stream))
	agentv1.RegisterAgentServiceServer(s, c)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String()
}

// With changes or reads the controller's state.
func (c *Controller) With(fn func(*State)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &State{Before: c.before, After: c.after, Leases: c.leases, Outcomes: c.outcomes, Calls: c.calls, Logs: c.logs, Agents: c.agents}
	fn(s)
	c.before, c.after, c.leases, c.outcomes = s.Before, s.After, s.Leases, s.Outcomes
	c.noteLocked("")
}

// State is what With shows.
type State struct {
	Before   func(method string) error // refuses a call before anything happens
	After    func(method string) error // loses the answer after everything has
	Leases   func(*agentv1.LeaseRef) string
	Outcomes []*agentv1.ReportOutcomeRequest
	Calls    []string
	Logs     map[string][]*agentv1.LogChunk // by job/attempt, in order of sequence
	Agents   map[string]*Agent
}

// Wait waits until cond is true of the state, and fails the test after 20 s.
func (c *Controller) Wait(t testing.TB, what string, cond func(*State) bool) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		ok := false
		c.mu.Lock()
		ok = cond(&State{Outcomes: c.outcomes, Calls: c.calls, Logs: c.logs, Agents: c.agents})
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("no %s within 20 s", what)
		}
	}
}

func (c *Controller) noteLocked(call string) {
	if call != "" {
		c.calls = append(c.calls, call)
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// Token makes a join token.
func (c *Controller) Token(t testing.TB, addresses ...string) reeve.Secret {
	t.Helper()
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	c.mu.Lock()
	c.tokens[sha256.Sum256(secret)] = nil
	c.mu.Unlock()
	if len(addresses) == 0 {
		addresses = []string{c.Address}
	}
	s, err := jointoken.Token{Cluster: Cluster, CASPKIHash: sha256.Sum256(c.CA.cert.RawSubjectPublicKeyInfo), Addresses: addresses,
		Secret: reeve.NewSecret(secret)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Send puts a message on the stream of jobs.
func (c *Controller) Send(m *agentv1.PullJobsResponse) { c.jobs <- m }

func method(full string) string { return full[len(agentv1.AgentService_ServiceDesc.ServiceName)+2:] }

func (c *Controller) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	m := method(info.FullMethod)
	if err := c.admit(ctx, m); err != nil {
		return nil, err
	}
	res, err := h(ctx, req)
	if lose := c.hook(m, false); lose != nil {
		return nil, lose
	}
	return res, err
}

func (c *Controller) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	if err := c.admit(ss.Context(), method(info.FullMethod)); err != nil {
		return err
	}
	return h(srv, ss)
}

func (c *Controller) hook(m string, before bool) error {
	c.mu.Lock()
	fn := c.after
	if before {
		fn = c.before
		c.noteLocked(m)
	}
	c.mu.Unlock()
	if fn == nil {
		return nil
	}
	return fn(m)
}

func (c *Controller) admit(ctx context.Context, m string) error {
	if err := c.hook(m, true); err != nil {
		return err
	}
	if m == "Enroll" {
		return nil
	}
	_, err := c.agent(ctx)
	return err
}

// agent is who calls: the certificate must be one of the agent's valid ones. The first
// use of a new one ends those before it.
func (c *Controller) agent(ctx context.Context) (*Agent, error) {
	p, _ := peer.FromContext(ctx)
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil, status.Error(codes.Unauthenticated, "no certificate")
	}
	cert := info.State.PeerCertificates[0]
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.agents[cert.Subject.CommonName]
	serial := cert.SerialNumber.String()
	if a == nil {
		return nil, status.Error(codes.Unauthenticated, "no such agent")
	}
	used, valid := a.serials[serial]
	if !valid {
		return nil, status.Error(codes.Unauthenticated, "this certificate was replaced")
	}
	if !used {
		clear(a.serials)
		a.serials[serial] = true
	}
	return a, nil
}

// Enroll implements AgentServiceServer.
func (c *Controller) Enroll(_ context.Context, req *agentv1.EnrollRequest) (*agentv1.EnrollResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	hash := sha256.Sum256(req.Token)
	a, known := c.tokens[hash]
	if !known {
		return nil, status.Error(codes.Unauthenticated, "unknown token")
	}
	pub, key, err := publicKey(req.CsrDer)
	if err != nil {
		return nil, err
	}
	if a != nil {
		if a.key != key {
			return nil, status.Error(codes.PermissionDenied, "token was used with another key")
		}
		return &agentv1.EnrollResponse{Identity: a.last}, nil
	}
	a = &Agent{ID: string(reeve.NewAgentID()), serials: map[string]bool{}}
	c.tokens[hash], c.agents[a.ID] = a, a
	id, err := c.certify(a, pub, key, req.HpkePublicKey)
	return &agentv1.EnrollResponse{Identity: id}, err
}

// Renew implements AgentServiceServer.
func (c *Controller) Renew(ctx context.Context, req *agentv1.RenewRequest) (*agentv1.RenewResponse, error) {
	a, err := c.agent(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	pub, key, err := publicKey(req.CsrDer)
	if err != nil {
		return nil, err
	}
	if a.key == key {
		return &agentv1.RenewResponse{Identity: a.last}, nil
	}
	if req.Generation != a.Generation {
		return nil, status.Error(codes.PermissionDenied, "stale generation: a copy of this agent runs")
	}
	id, err := c.certify(a, pub, key, req.HpkePublicKey)
	return &agentv1.RenewResponse{Identity: id}, err
}

func publicKey(csr []byte) (pub any, hash [32]byte, err error) {
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil || r.CheckSignature() != nil {
		return nil, hash, status.Error(codes.InvalidArgument, "bad request")
	}
	return r.PublicKey, sha256.Sum256(r.RawSubjectPublicKeyInfo), nil
}

func (c *Controller) certify(a *Agent, pub any, key [32]byte, hpke []byte) (*agentv1.Identity, error) {
	life := c.Lifetime
	if life == 0 {
		life = time.Hour
	}
	a.Generation++
	cert := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: a.ID}, NotBefore: time.Now().Add(-time.Second),
		NotAfter: time.Now().Add(life), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, cert, c.CA.cert, pub, c.CA.key)
	if err != nil {
		return nil, err
	}
	a.key, a.HPKE = key, hpke
	a.serials[cert.SerialNumber.String()] = false
	a.last = &agentv1.Identity{Cluster: Cluster, Site: Site, Agent: a.ID, Name: "agent-1", CertificateDer: der, CaPem: c.CA.PEM(),
		Addresses: []string{c.Address}, NotAfter: timestamppb.New(cert.NotAfter), Generation: a.Generation}
	return a.last, nil
}

// PullJobs implements AgentServiceServer: each credit lets one message of Send out;
// messages that are no job need none.
func (c *Controller) PullJobs(s agentv1.AgentService_PullJobsServer) error {
	credits := make(chan struct{}, 1024)
	go func() {
		for {
			req, err := s.Recv()
			if err != nil {
				return
			}
			for range req.Credits {
				credits <- struct{}{}
			}
		}
	}()
	if err := s.Send(&agentv1.PullJobsResponse{Message: &agentv1.PullJobsResponse_Heartbeat{
		Heartbeat: &agentv1.Heartbeat{Addresses: []string{c.Address}}}}); err != nil {
		return err
	}
	for {
		select {
		case <-s.Context().Done():
			return s.Context().Err()
		case m := <-c.jobs:
			if m.GetJob() != nil {
				select {
				case <-credits:
				case <-s.Context().Done():
					c.jobs <- m
					return s.Context().Err()
				}
			}
			if err := s.Send(m); err != nil {
				return err
			}
		}
	}
}

// RenewLeases implements AgentServiceServer.
func (c *Controller) RenewLeases(_ context.Context, req *agentv1.RenewLeasesRequest) (*agentv1.RenewLeasesResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	res := &agentv1.RenewLeasesResponse{}
	for _, l := range req.Leases {
		state := "held"
		if c.leases != nil {
			state = c.leases(l)
		}
		res.Leases = append(res.Leases, &agentv1.LeaseState{Job: l.Job, Fence: l.Fence, State: state})
	}
	return res, nil
}

// StreamLogs implements AgentServiceServer: chunks are stored in order, once.
func (c *Controller) StreamLogs(s agentv1.AgentService_StreamLogsServer) error {
	for {
		req, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.hook("chunk", true); err != nil {
			return err
		}
		ch := req.Chunk
		c.mu.Lock()
		key := fmt.Sprintf("%s/%d", ch.Job, ch.Attempt)
		if uint64(len(c.logs[key]))+1 == ch.Sequence {
			c.logs[key] = append(c.logs[key], ch)
		}
		res := &agentv1.StreamLogsResponse{Job: ch.Job, Attempt: ch.Attempt, Sequence: uint64(len(c.logs[key]))}
		c.noteLocked("")
		c.mu.Unlock()
		if err := c.hook("chunk", false); err != nil {
			return err
		}
		if err := s.Send(res); err != nil {
			return err
		}
	}
}

// ReportOutcome implements AgentServiceServer: the first report of a delivery counts.
func (c *Controller) ReportOutcome(_ context.Context, req *agentv1.ReportOutcomeRequest) (*agentv1.ReportOutcomeResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.ContainsFunc(c.outcomes, func(o *agentv1.ReportOutcomeRequest) bool { return o.Job == req.Job && o.Fence == req.Fence }) {
		c.outcomes = append(c.outcomes, req)
	}
	c.noteLocked("")
	return &agentv1.ReportOutcomeResponse{}, nil
}

// CA is a certificate authority.
type CA struct {
	cluster string
	key     *ecdsa.PrivateKey
	cert    *x509.Certificate
}

// NewCA makes an authority for a cluster.
func NewCA(t testing.TB, cluster string) *CA {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: "CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &CA{cluster: cluster, key: key, cert: cert}
}

// PEM is the authority's certificate.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// Node makes a controller's certificate, with the authority's behind it.
func (ca *CA) Node(t testing.TB) tls.Certificate { return ca.Issue(t, "/node/node_1") }

// Issue makes a server certificate with the path of its SPIFFE id.
func (ca *CA) Issue(t testing.TB, path string) tls.Certificate {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{SerialNumber: serial(), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{{Scheme: "spiffe", Host: ca.cluster, Path: path}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: key}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial() *big.Int {
	n, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	return n
}

// Client is the TLS configuration of an agent that was never enrolled and is accepted
// all the same, for tests of one stream.
func (c *Controller) Client(t testing.TB) *tls.Config {
	t.Helper()
	key := newKey(t)
	a := &Agent{ID: string(reeve.NewAgentID()), serials: map[string]bool{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.agents[a.ID] = a
	id, err := c.certify(a, key.Public(), [32]byte{}, nil)
	if err != nil {
		t.Error(err)
		return nil
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.CA.cert)
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{id.CertificateDer}, PrivateKey: key}},
		InsecureSkipVerify: true, RootCAs: roots} //nolint:gosec // the test's own controller
}
