package pki_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/jointoken"
	"github.com/reeve-pam/reeve/internal/reeve"
)

var (
	operator = audit.Actor{Kind: "user", ID: "prin_op", Name: "op"}
	siteX    = reeve.NewSiteID()
	siteY    = reeve.NewSiteID()
)

// cluster is a bootstrapped cluster of one node, as composition makes it.
type cluster struct {
	t      testing.TB
	st     *store.Store
	node   *storetest.Node
	seal   *seal.Manager
	auth   *pki.Authority
	first  *pki.NodeIdentity
	clock  *storetest.Clock
	faults *storetest.Faults
	path   string
	shares []reeve.Secret
	log    *bytes.Buffer
	names  int
}

func info(name string) pki.NodeInfo {
	return pki.NodeInfo{Name: name, RaftAddr: "127.0.0.1:7001", APIAddr: "localhost:7002", AgentAddr: "[::1]:7003"}
}

func newCluster(t testing.TB, name string) *cluster {
	t.Helper()
	c := &cluster{t: t, clock: storetest.NewClock(time.Now()), faults: new(storetest.Faults), log: new(bytes.Buffer),
		path: filepath.Join(t.TempDir(), "state.db")}
	log := slog.New(slog.NewJSONHandler(&locked{w: c.log}, nil))
	c.seal = seal.NewManager(log)
	c.node = storetest.Start(t, storetest.WithCipher(c.seal), storetest.WithClock(c.clock.Now), storetest.WithFaults(c.faults), storetest.WithPath(c.path))
	c.st = c.node.Store
	c.auth = pki.New(c.st, c.seal, log)
	var err error
	if c.first, err = pki.OpenNodeIdentity(filepath.Join(t.TempDir(), "identity")); err != nil {
		t.Fatal(err)
	}
	csr, err := c.first.Request()
	if err != nil {
		t.Fatal(err)
	}
	var e *pki.NodeEnrollment
	c.shares, err = c.seal.Init(t.Context(), c.st, name, seal.Scheme{Shares: 2, Threshold: 2}, func(tx *store.Tx) (err error) {
		e, err = c.auth.Bootstrap(tx, operator, name, reeve.NewNodeID(), csr, info("c1"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.first.Install(e); err != nil {
		t.Fatal(err)
	}
	return c
}

// freshName is a name nobody has.
func (c *cluster) freshName() string {
	c.names++
	return fmt.Sprintf("edge-%d", c.names)
}

// drain uses up to n fates that no log entry has met.
func (c *cluster) drain(n int) {
	for range n {
		_ = c.st.Update(context.Background(), func(tx *store.Tx) error { // whatever becomes of it
			return audit.Record(tx, audit.Event{By: operator, Action: "test.drain"})
		})
	}
}

// locked is a writer for several goroutines.
type locked struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (c *cluster) update(fn func(*store.Tx) error) {
	c.t.Helper()
	if err := c.st.Update(context.Background(), fn); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) view(fn func(*store.Tx) error) {
	c.t.Helper()
	if err := c.st.View(context.Background(), fn); err != nil {
		c.t.Fatal(err)
	}
}

// token makes a join token and returns its secret part.
func (c *cluster) token(in pki.NewJoinToken) reeve.Secret {
	c.t.Helper()
	in.Addresses = []string{"127.0.0.1:7003"}
	var text reeve.Secret
	c.update(func(tx *store.Tx) (err error) {
		_, text, err = pki.CreateJoinToken(tx, operator, in)
		return err
	})
	tok, err := jointoken.Parse(text)
	if err != nil {
		c.t.Fatal(err)
	}
	return tok.Secret
}

func (c *cluster) agentToken(site reeve.SiteID, name string) reeve.Secret {
	c.t.Helper()
	return c.token(pki.NewJoinToken{Role: pki.RoleAgent, SiteID: site, Name: name})
}

func (c *cluster) agent(id reeve.AgentID) *pki.Agent {
	c.t.Helper()
	var a *pki.Agent
	c.view(func(tx *store.Tx) (err error) {
		a, err = pki.GetAgent(tx, id)
		return err
	})
	return a
}

func (c *cluster) check(cert *x509.Certificate) (a *pki.Agent, err error) {
	_ = c.st.View(context.Background(), func(tx *store.Tx) error {
		a, err = pki.CheckAgent(tx, cert, nil)
		return err
	})
	return a, err
}

func (c *cluster) records(action string) []*audit.Entry {
	c.t.Helper()
	var got []*audit.Entry
	c.view(func(tx *store.Tx) (err error) {
		got, err = audit.List(tx, 0, 0, audit.Filter{Action: action})
		return err
	})
	return got
}

// device is the agent's side: its keys and the certificate it uses.
type device struct {
	t          testing.TB
	c          *cluster
	key        *ecdsa.PrivateKey
	hpke       []byte
	cert       *x509.Certificate
	generation uint64
	id         reeve.AgentID
}

func (c *cluster) device() *device {
	return &device{t: c.t, c: c, key: newKey(c.t), hpke: hpkeKey(c.t)}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// freshHPKE is a key that no other device has.
func freshHPKE(t testing.TB) []byte {
	t.Helper()
	key, err := envelope.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key.PublicKey().Bytes()
}

var hpkeOnce = sync.OnceValues(func() (hpke.PrivateKey, error) { return envelope.GenerateKey() })

// hpkeKey is one key for all devices: making one takes long, and no rule here
// depends on the value.
func hpkeKey(t testing.TB) []byte {
	t.Helper()
	key, err := hpkeOnce()
	if err != nil {
		t.Fatal(err)
	}
	return key.PublicKey().Bytes()
}

func request(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (d *device) enroll(secret reeve.Secret) error {
	d.t.Helper()
	e, err := d.c.auth.Enroll(context.Background(), pki.EnrollRequest{Secret: secret, CSR: request(d.t, d.key), HPKEKey: d.hpke, Version: "1.0", From: "192.0.2.1"})
	if err != nil {
		if e != nil {
			d.t.Error("a certificate beside an error")
		}
		return err
	}
	return d.use(e)
}

// ask requests the next certificate, for key, without using it.
func (d *device) ask(key *ecdsa.PrivateKey) (*pki.Enrollment, error) {
	return d.c.auth.Renew(context.Background(), d.cert, pki.RenewRequest{CSR: request(d.t, key), HPKEKey: d.hpke, Version: "1.1", Generation: d.generation})
}

func (d *device) renew() error {
	d.key = newKey(d.t)
	e, err := d.ask(d.key)
	if err != nil {
		return err
	}
	return d.use(e)
}

// use takes what it was given into use.
func (d *device) use(e *pki.Enrollment) error {
	cert, err := x509.ParseCertificate(e.Certificate)
	if err != nil {
		return err
	}
	d.cert, d.generation, d.id = cert, e.Generation, e.Agent.ID
	return nil
}

// call is any RPC.
func (d *device) call() error {
	_, err := d.c.auth.Admit(context.Background(), d.cert, nil)
	return err
}

// clone is a copy of the device's whole disk.
func (d *device) clone() *device {
	c := *d
	return &c
}

func (c *cluster) enrolled(site reeve.SiteID, name string) *device {
	c.t.Helper()
	d := c.device()
	if err := d.enroll(c.agentToken(site, name)); err != nil {
		c.t.Fatal(err)
	}
	return d
}

func want(t testing.TB, err error, code string) {
	t.Helper()
	if got := reeve.CodeOf(err); got != code {
		t.Fatalf("error is %v, want code %q", err, code)
	}
}
