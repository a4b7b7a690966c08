package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/reeve-pam/reeve/controller/cluster/clustertest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

const testCluster = "test"

// authority is a certificate authority.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nodes"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert: cert, key: key, pool: pool}
}

func nodeURI(cluster string, id reeve.NodeID) string {
	return fmt.Sprintf("spiffe://%s/node/%s", cluster, id)
}

// issue makes a certificate with the URIs, for both ends of a connection.
func (a *authority) issue(t testing.TB, notAfter time.Time, uris ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) config(cert tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: a.pool, ClientCAs: a.pool,
	}
}

// ledger is an applier that remembers what it was told. It stands for storage that
// survives the node, and counts.
type ledger struct {
	mu       sync.Mutex
	Index    uint64
	Entries  []string
	applies  int
	restores int
	term     uint64 // leading in; 0: following
	failOn   string
}

func (l *ledger) Apply(index, _ uint64, entry []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failOn != "" && string(entry) == l.failOn {
		return reeve.Errorf(reeve.Internal, "entry_version_unknown", "made to fail")
	}
	l.applies++
	l.Index = index
	l.Entries = append(l.Entries, string(entry))
	return nil
}

func (l *ledger) AppliedIndex() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Index
}

type ledgerSnapshot []byte

func (s ledgerSnapshot) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(s)
	return int64(n), err
}
func (ledgerSnapshot) Release() {}

func (l *ledger) Snapshot() (snapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, err := json.Marshal(l)
	return ledgerSnapshot(b), err
}

func (l *ledger) Restore(r io.Reader) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.restores++
	return json.NewDecoder(r).Decode(l)
}

func (l *ledger) Lead(term uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != 0 {
		return fmt.Errorf("leads term %d already", l.term)
	}
	l.term = term
	return nil
}

func (l *ledger) Follow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term = 0
}

func (l *ledger) failWith(entry string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failOn = entry
}

func (l *ledger) entries() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.Entries)
}

func (l *ledger) counts() (applies, restores int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.applies, l.restores
}

// lab is a cluster in this process.
type lab struct {
	t       testing.TB
	ca      *authority
	net     *clustertest.Network
	members []*member
}

// member is a node, its state, and the run it is in.
type member struct {
	*Node
	lab   *lab
	cfg   Config
	state applier
	open  func(*Node) (applier, func()) // not nil: opens state at each start, and returns what closes it
	stop  func() error                  // ends Run and returns what it returned
	exits chan int
}

func newLab(t testing.TB) *lab {
	return &lab{t: t, ca: newAuthority(t), net: &clustertest.Network{}}
}

func waitForEnd(ctx context.Context, _ uint64) error {
	<-ctx.Done()
	return nil
}

// add starts a node that belongs to no cluster yet. change may adjust its
// configuration.
func (l *lab) add(state applier, change ...func(*Config)) *member {
	l.t.Helper()
	id := reeve.NewNodeID()
	cert := l.ca.issue(l.t, time.Now().Add(time.Hour), nodeURI(testCluster, id))
	m := &member{lab: l, state: state, exits: make(chan int, 1)}
	m.cfg = Config{
		ID: id, Cluster: testCluster, Bind: "127.0.0.1:0", DataDir: l.t.TempDir(),
		TLS:       func() (*tls.Config, error) { return l.ca.config(cert), nil },
		Lead:      waitForEnd,
		Timeouts:  TimeoutsLAN,
		Logger:    slog.New(slog.DiscardHandler),
		StableFor: 100 * time.Millisecond,
		Exit:      func(status int) { m.exits <- status },
		Dial:      l.net.Dialer(id),
	}
	for _, c := range change {
		c(&m.cfg)
	}
	tune := m.cfg.Tune
	m.cfg.Tune = func(r *raft.Config) {
		r.HeartbeatTimeout, r.ElectionTimeout = 400*time.Millisecond, 400*time.Millisecond
		r.LeaderLeaseTimeout = 400 * time.Millisecond // as long as it may be: machines that test are busy
		if tune != nil {
			tune(r)
		}
	}
	if s, ok := state.(*stored); ok {
		m.open = s.open
	}
	m.start()
	l.members = append(l.members, m)
	return m
}

// start opens and runs the node, at the address it had before.
func (m *member) start() {
	t := m.lab.t
	t.Helper()
	node, err := Open(m.cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.Node = node
	m.cfg.Bind = node.Addr()
	m.lab.net.Add(m.cfg.ID, node.Addr())
	closeState := func() {}
	if m.open != nil {
		m.state, closeState = m.open(node)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var result error
	go func() {
		defer close(done)
		result = node.run(ctx, m.state)
		closeState()
	}()
	m.stop = func() error {
		cancel()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			panic("node does not stop")
		}
		return result
	}
	t.Cleanup(func() { _ = m.stop() })
	until(t, "node runs", func() bool { return node.raft.Load() != nil })
}

// ended waits for Run to return by itself.
func (m *member) ended() error {
	until(m.lab.t, "Run to return", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.closed })
	return m.stop()
}

// cluster starts n voting members with a ledger each. The first one leads.
func (l *lab) cluster(n int, change ...func(*Config)) {
	l.t.Helper()
	first := l.add(&ledger{}, change...)
	if err := first.Bootstrap(); err != nil {
		l.t.Fatal(err)
	}
	until(l.t, "first leader", first.IsLeader)
	for range n - 1 {
		l.join(l.add(&ledger{}, change...))
	}
	l.voters(n)
}

func (l *lab) join(m *member) {
	l.t.Helper()
	until(l.t, "join", func() bool { return l.leader().AddNonvoter(l.t.Context(), m.cfg.ID, m.Addr()) == nil })
}

func (l *lab) voters(n int) {
	l.t.Helper()
	until(l.t, fmt.Sprintf("%d voters", n), func() bool {
		count := 0
		for _, m := range l.leader().Members() {
			if m.Voter {
				count++
			}
		}
		return count == n
	})
}

// leader waits for a leader other than the ones given.
func (l *lab) leader(not ...*member) *member {
	l.t.Helper()
	var found *member
	until(l.t, "a leader", func() bool {
		for _, m := range l.members {
			if !slices.Contains(not, m) && m.IsLeader() {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

func (l *lab) followers() []*member {
	leader := l.leader()
	return slices.DeleteFunc(slices.Clone(l.members), func(m *member) bool { return m == leader })
}

func (m *member) ledger() *ledger { return m.state.(*ledger) }

// put proposes the entry and waits for it.
func (m *member) put(entry string) error { return m.Propose([]byte(entry)).Wait() }

// mustPut writes through whoever leads, and never twice. After an unknown outcome the
// next leadership knows: what it does not have after its barrier will never commit.
func (l *lab) mustPut(entry string, not ...*member) {
	l.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; {
		err := l.leader(not...).put(entry)
		switch {
		case err == nil:
			return
		case time.Now().After(deadline):
			l.t.Fatalf("write %q: %v", entry, err)
		case reeve.KindOf(err) != reeve.OutcomeUnknown:
			continue
		}
		var held []string
		until(l.t, "certainty after an unknown outcome", func() bool {
			m := l.leader(not...)
			err := m.VerifyLeader(l.t.Context())
			held = m.ledger().entries()
			return err == nil
		})
		if slices.Contains(held, entry) {
			return
		}
	}
}

// agree waits until all members hold the same entries as the first one given.
func agree(t testing.TB, want []string, members ...*member) {
	t.Helper()
	var diff string
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		diff = ""
		for _, m := range members {
			diff += cmp.Diff(want, m.ledger().entries())
		}
		if diff == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("members do not hold the same entries (-want +got):\n%s", diff)
		}
	}
}

// until polls, because raft runs on the machine's clock.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func wantCode(t testing.TB, err error, kind reeve.Kind, code string) {
	t.Helper()
	if reeve.KindOf(err) != kind || reeve.CodeOf(err) != code {
		t.Fatalf("got %v, want kind %s, code %s", err, kind, code)
	}
}

// smallLog makes snapshots cut the log at once.
func smallLog(c *Config) {
	c.Tune = func(r *raft.Config) { r.TrailingLogs = 1 }
}

// replaceByDirectory makes a path unwritable, for root as well.
// replaceByDirectory puts a directory where a file is that somebody writes again and again.
func replaceByDirectory(path string) (err error) {
	for range 100 {
		if err = os.RemoveAll(path); err != nil {
			return err
		}
		if err = os.Mkdir(path, 0o700); !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return err
}
