package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// connect does the handshake and says whether the node let the client in: with TLS 1.3
// a client learns of a refusal only when it reads.
func connect(t *testing.T, addr, protocol string, c *tls.Config) error {
	t.Helper()
	c.InsecureSkipVerify = true // the client's own checks are not what is tested
	if protocol != "" {
		c.NextProtos = []string{protocol}
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", addr, c)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	_, err = conn.Read(make([]byte, 1))
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return nil // the node waits for a request
	}
	return err
}

// Consul's CVE-2021-37218: any certificate of the CA opened the Raft port.
func TestOnlyNodesOfThisClusterAreLetIn(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(1)
	addr := l.leader().Addr()
	later, id := time.Now().Add(time.Hour), reeve.NewNodeID()
	good := nodeURI(testCluster, id)
	agent := "spiffe://" + testCluster + "/site/" + string(reeve.NewSiteID()) + "/agent/" + string(reeve.NewAgentID())
	other := newAuthority(t)
	none := &tls.Config{MinVersion: tls.VersionTLS13}
	for name, c := range map[string]struct {
		config   *tls.Config
		protocol string
		in       bool
	}{
		"a node":                    {l.ca.config(l.ca.issue(t, later, good)), protocolRaft, true},
		"no certificate":            {none, protocolRaft, false},
		"another authority's node":  {other.config(other.issue(t, later, good)), protocolRaft, false},
		"an agent":                  {l.ca.config(l.ca.issue(t, later, agent)), protocolRaft, false},
		"another cluster's node":    {l.ca.config(l.ca.issue(t, later, nodeURI("prod", id))), protocolRaft, false},
		"a node and an agent":       {l.ca.config(l.ca.issue(t, later, good, agent)), protocolRaft, false},
		"no URI":                    {l.ca.config(l.ca.issue(t, later)), protocolRaft, false},
		"no node id":                {l.ca.config(l.ca.issue(t, later, nodeURI(testCluster, "agent_1"))), protocolRaft, false},
		"a path behind the id":      {l.ca.config(l.ca.issue(t, later, good+"/x")), protocolRaft, false},
		"an expired node":           {l.ca.config(l.ca.issue(t, time.Now().Add(-time.Minute), good)), protocolRaft, false},
		"a node without a protocol": {l.ca.config(l.ca.issue(t, later, good)), "", false},
		"a node of another protocol": {
			l.ca.config(l.ca.issue(t, later, good)), "h2", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := connect(t, addr, c.protocol, c.config); (err == nil) != c.in {
				t.Fatalf("let in: %v, error %v", err == nil, err)
			}
		})
	}
}

// A node speaks only to the very node it means, so a stolen node key cannot stand in
// for another one at a redirected address.
func TestANodeRefusesImpostors(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(1)
	node := l.leader()
	later := time.Now().Add(time.Hour)
	member := reeve.NewNodeID()
	other := newAuthority(t)
	for name, c := range map[string]struct {
		cert     tls.Certificate
		protocol string
		want     string
	}{
		"another authority": {other.issue(t, later, nodeURI(testCluster, member)), protocolRaft, "signed by unknown authority"},
		"another node":      {l.ca.issue(t, later, nodeURI(testCluster, reeve.NewNodeID())), protocolRaft, "instead of"},
		"an agent":          {l.ca.issue(t, later, "spiffe://test/site/s/agent/a"), protocolRaft, "not one of a node"},
		"expired":           {l.ca.issue(t, time.Now().Add(-time.Minute), nodeURI(testCluster, member)), protocolRaft, "expired"},
		"no protocol":       {l.ca.issue(t, later, nodeURI(testCluster, member)), "", "does not speak"},
		"the node itself":   {l.ca.issue(t, later, nodeURI(testCluster, member)), protocolRaft, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c.cert}}
			if c.protocol != "" {
				config.NextProtos = []string{c.protocol}
			}
			server, err := tls.Listen("tcp", "127.0.0.1:0", config)
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			go func() {
				conn, err := server.Accept()
				if err == nil {
					_, _ = io.Copy(io.Discard, conn)
					_ = conn.Close()
				}
			}()
			policy, err := node.stream.tls.client(protocolRaft, member)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := tls.Dial("tcp", server.Addr().String(), policy)
			if err == nil {
				_ = conn.Close()
			}
			if (c.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

// Certificates and the authority are asked for at every handshake, and what the owner
// of the certificates adds, such as a ban, counts.
func TestRenewalAndBansCountAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	next := newAuthority(t)
	var current atomic.Pointer[tls.Config]
	id := reeve.NewNodeID()
	banned := reeve.NewNodeID()
	later := time.Now().Add(time.Hour)
	current.Store(l.ca.config(l.ca.issue(t, later, nodeURI(testCluster, id))))
	node := l.add(&ledger{}, func(c *Config) {
		c.ID = id
		c.TLS = func() (*tls.Config, error) { return current.Load(), nil }
	})
	peer := func(a *authority, id reeve.NodeID) error {
		return connect(t, node.Addr(), protocolRaft, a.config(a.issue(t, later, nodeURI(testCluster, id))))
	}
	if err := peer(l.ca, banned); err != nil {
		t.Fatal(err)
	}
	if err := peer(next, banned); err == nil {
		t.Fatal("an authority that is not known yet is trusted")
	}
	renewed := next.config(next.issue(t, later, nodeURI(testCluster, id)))
	renewed.VerifyConnection = func(cs tls.ConnectionState) error {
		if strings.HasSuffix(cs.PeerCertificates[0].URIs[0].Path, string(banned)) {
			return errors.New("banned")
		}
		return nil
	}
	current.Store(renewed)
	if err := peer(next, reeve.NewNodeID()); err != nil {
		t.Fatal(err)
	}
	if err := peer(next, banned); err == nil {
		t.Fatal("a banned node is let in")
	}
	if err := peer(l.ca, reeve.NewNodeID()); err == nil {
		t.Fatal("the old authority is still trusted")
	}
}

// Connections that say nothing do not keep nodes apart, and their number is bounded.
func TestIdleConnectionsDoNotBlockNodes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(1)
	node := l.leader()
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			_ = c.Close()
		}
	}()
	for range 2 * maxHandshakes {
		c, err := net.Dial("tcp", node.Addr())
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	until(t, "the oldest is closed", func() bool {
		_ = idle[0].SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := idle[0].Read(make([]byte, 1))
		ne, timeout := errors.AsType[net.Error](err)
		return err != nil && (!timeout || !ne.Timeout())
	})
	node.stream.mu.Lock()
	pending := len(node.stream.pending)
	node.stream.mu.Unlock()
	if pending > maxHandshakes {
		t.Fatalf("%d handshakes are pending", pending)
	}
	l.join(l.add(&ledger{}))
	l.voters(2)
}

func FuzzNodeOfCertificate(f *testing.F) {
	f.Add("spiffe://test/node/node_00000000000000000000000000")
	f.Add("spiffe://test/site/site_1/agent/agent_1")
	f.Add("spiffe://test/node/../node/node_00000000000000000000000000?x#y")
	f.Fuzz(func(t *testing.T, uri string) {
		u, err := url.Parse(uri)
		if err != nil {
			return
		}
		p := tlsPolicy{cluster: "test"}
		id, err := p.node(&x509.Certificate{URIs: []*url.URL{u}})
		if err == nil && (!reeve.ValidID("node", string(id)) || uri != nodeURI("test", id)) {
			t.Fatalf("%q passes as node %q", uri, id)
		}
	})
}

func FuzzDecodeStatus(f *testing.F) {
	f.Add(`{"term":1,"last_index":2,"applied_index":3}`)
	f.Add(`{"term":-1}`)
	f.Fuzz(func(t *testing.T, in string) {
		r := strings.NewReader(in)
		if _, err := decodeStatus(r); err != nil {
			return
		}
		if read := len(in) - r.Len(); read > maxStatusBytes {
			t.Fatalf("read %d bytes", read)
		}
	})
}
