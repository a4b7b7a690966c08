//go:build linux

package process

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/jointoken"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Join tokens let in one key, once, for a while, into their own cluster.
func TestJoinTokens_A1(t *testing.T) {
	t.Parallel()
	a := newCluster(t, clusterOptions{})
	b := newCluster(t, clusterOptions{lab: a.lab})
	for _, c := range []*cluster{a, b} {
		c.ok("site", "add", "dmz")
	}
	a.reeve("", "cluster", "join-token", "c9", "--ttl", "1").refused(t, "field_invalid", "ttl_seconds")

	joins := func(c *cluster, name, token string) answer {
		ip, err := c.lab.Address()
		if err != nil {
			t.Fatal(err)
		}
		n := &node{c: c, name: name, raft: ip + ":8445", api: ip + ":8443", agents: ip + ":8444"}
		return run(t, nil, c.dir, token, "reeved", "join", "--config", c.write(name+".yaml", n.yaml()))
	}
	enrols := func(name, token string) answer {
		return run(t, nil, a.dir, token, "reeve-agent", "enroll", "--data", a.path("enrol-"+name), "--token-file", "-")
	}
	nodeToken := func(c *cluster, name string, more ...string) string {
		var made client.JoinToken
		c.json(&made, append([]string{"cluster", "join-token", name}, more...)...)
		return made.Token
	}

	t.Run("expired", func(t *testing.T) {
		t.Parallel()
		forNode, forAgent := nodeToken(a, "late", "--ttl", "60"), a.agentToken("late", "dmz", "--ttl", "60")
		time.Sleep(61 * time.Second) // the shortest life a token can have
		joins(a, "late", forNode).refused(t, "join_token_expired", "have a new one made")
		enrols("late", forAgent).refused(t, "join_token_expired", "have a new one made")
	})
	t.Run("node", func(t *testing.T) {
		t.Parallel()
		token := nodeToken(a, "n2")
		joins(a, "n2", token).must(t)
		joins(a, "n2", token).refused(t, "already_joined") // the same directory
		joins(a, "n3", token).refused(t, "join_token_used", "somebody else has the token")
		if !slices.ContainsFunc(a.auditTrail(), func(r client.AuditRecord) bool { return r.Action == "join_token.misuse" && r.Outcome == "denied" }) {
			t.Error("the misuse is not on record")
		}
		a.reeve("", "cluster", "join-token", "n2").refused(t, "node_name_taken")
		joins(a, "n4", a.agentToken("an-agent", "dmz")).refused(t, "cluster_unreachable", "reeve cluster join-token")
	})
	t.Run("agent", func(t *testing.T) {
		t.Parallel()
		token := a.agentToken("g1", "dmz")
		enrols("g1", token).must(t)
		enrols("g1", token).refused(t, "agent_enrolled")
		enrols("g1-again", token).refused(t, "join_token_used", "somebody else has the token")
		if g, err := a.agent("g1"); err != nil || g.Status != "quarantined" {
			t.Errorf("the agent that was let in first is %+v, %v", g, err)
		}
		enrols("node", nodeToken(a, "n5")).refused(t, "enrolment_refused", "reeve agent join-token")
		a.reeve("", "agent", "join-token", "g2", "--site", "nowhere").refused(t, "site_not_found")
	})
	t.Run("tampered", func(t *testing.T) {
		t.Parallel()
		for what, spoil := range map[string]func(string) string{
			"mistyped":  func(s string) string { return s[:40] + flip(s[40]) + s[41:] },
			"cut":       func(s string) string { return s[:len(s)-5] },
			"no token":  func(string) string { return "correct horse battery staple" },
			"empty":     func(string) string { return "" },
			"two lines": func(s string) string { return s[:50] + "\n" + s[50:] },
		} {
			joins(a, "n6", spoil(nodeToken(a, "n6"))).refused(t, "join_token_invalid")
			got := enrols("n6", spoil(a.agentToken("g3", "dmz")))
			got.refused(t, "join_token_invalid")
			if t.Failed() {
				t.Fatal(what)
			}
		}
		// One that is well made, with another secret.
		forged := a.parse(nodeToken(a, "n7"))
		forged.Secret = reeve.SecretString("made up by somebody who has seen a token")
		joins(a, "n7", encode(t, forged)).refused(t, "join_token_unknown")
	})
	t.Run("another cluster's", func(t *testing.T) {
		t.Parallel()
		// b's token with a's addresses: a is not the cluster the token trusts.
		ofB := a.parse(nodeToken(b, "x"))
		ofB.Addresses = []string{a.nodes[0].api}
		joins(a, "x", encode(t, ofB)).refused(t, "cluster_unreachable", "controller_untrusted")
		forAgent := a.parse(b.agentToken("x", "dmz"))
		forAgent.Addresses = []string{a.nodes[0].agents}
		enrols("x", encode(t, forAgent)).refused(t, "controller_untrusted")
		// a's secret, sent to b by one who trusts b: b does not know it.
		mixed := a.parse(nodeToken(b, "y"))
		mixed.Secret = a.parse(nodeToken(a, "y")).Secret
		joins(a, "y", encode(t, mixed)).refused(t, "join_token_unknown")
	})
}

func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

func (c *cluster) parse(token string) jointoken.Token {
	c.t.Helper()
	parsed, err := jointoken.Parse(reeve.SecretString(token))
	if err != nil {
		c.t.Fatal(err)
	}
	return parsed
}

func encode(t testing.TB, token jointoken.Token) string {
	t.Helper()
	text, err := token.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text.Reveal()
}

// Certificates are good for their own cluster and their own listener.
func TestListenersRefuseForeignCertificates(t *testing.T) {
	t.Parallel()
	a := newCluster(t, clusterOptions{controllers: 2})
	b := newCluster(t, clusterOptions{lab: a.lab})
	for _, c := range []*cluster{a, b} {
		c.ok("site", "add", "dmz")
	}
	mine, theirs := a.nodes[0], b.nodes[0]
	ownNode, foreignNode := nodeCertificate(t, a.nodes[1]), nodeCertificate(t, theirs)
	ownAgent := agentCertificate(t, a.enroll("g", "dmz", nil))
	foreignAgent := agentCertificate(t, b.enroll("g", "dmz", nil))
	for _, tc := range []struct {
		listener, address string
		alpn              []string
		cert              *tls.Certificate
		what              string
		served            bool
	}{
		{"raft", mine.raft, []string{"reeve-raft/1"}, ownNode, "a node of the cluster", true},
		{"raft", mine.raft, []string{"reeve-raft/1"}, foreignNode, "another cluster's node", false},
		{"raft", mine.raft, []string{"reeve-raft/1"}, ownAgent, "an agent", false},
		{"raft", mine.raft, []string{"reeve-raft/1"}, foreignAgent, "another cluster's agent", false},
		{"raft", mine.raft, []string{"reeve-raft/1"}, nil, "nobody", false},
		{"API", mine.api, []string{"h2"}, ownNode, "a node of the cluster", true},
		{"API", mine.api, []string{"h2"}, nil, "nobody", true}, // people have tokens
		{"API", mine.api, []string{"h2"}, foreignNode, "another cluster's node", false},
		{"API", mine.api, []string{"h2"}, ownAgent, "an agent", false},
		{"gateway", mine.agents, []string{"h2"}, ownAgent, "an agent of the cluster", true},
		{"gateway", mine.agents, []string{"h2"}, nil, "nobody", true}, // may enrol
		{"gateway", mine.agents, []string{"h2"}, foreignAgent, "another cluster's agent", false},
		{"gateway", mine.agents, []string{"h2"}, ownNode, "a node", false},
		{"gateway", mine.agents, []string{"h2"}, foreignNode, "another cluster's node", false},
	} {
		err := greet(t, tc.address, tc.alpn, tc.cert)
		if (err == nil) != tc.served {
			t.Errorf("%s, %s: want served=%v, got %v", tc.listener, tc.what, tc.served, err)
		}
	}

	// A controller that was removed is refused from then on, and serves nobody.
	removed := a.nodes[1]
	if lead := a.leader(); lead != mine {
		a.ok("cluster", "transfer", mine.name)
	}
	a.reeve("", "cluster", "remove", mine.name).refused(t, "node_leads", "reeve cluster transfer")
	a.ok("cluster", "remove", removed.name)
	if err := greet(t, mine.raft, []string{"reeve-raft/1"}, ownNode); err == nil {
		t.Error("the removed controller still speaks Raft")
	}
	eventually(t, 20*time.Second, func() error {
		if code, body := removed.get("/v1/sites"); code == 200 {
			return fmt.Errorf("the removed controller answers %s", body)
		}
		return nil
	})
	m, err := a.members()
	if err != nil || len(m.Members) != 1 {
		t.Errorf("the members are %+v, %v", m, err)
	}
	a.ok("site", "add", "alone")
	a.reeve("", "cluster", "remove", "c9").refused(t, "node_not_found")
}

// greet connects and tells whether the listener keeps the connection: it refuses a
// certificate after its own part of the handshake, which shows at the first read.
func greet(t testing.TB, address string, alpn []string, cert *tls.Certificate) error {
	t.Helper()
	config := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: alpn, InsecureSkipVerify: true} //nolint:gosec // it is the server that is tested
	if cert != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if slices.Equal(alpn, []string{"h2"}) {
		if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
			return err
		}
	}
	_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	_, err = conn.Read(make([]byte, 1))
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return nil // it waits for us to speak
	}
	return err
}

// nodeCertificate is a controller's own.
func nodeCertificate(t testing.TB, n *node) *tls.Certificate {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(n.data()+"/identity/node.crt", n.data()+"/identity/node.key")
	if err != nil {
		t.Fatal(err)
	}
	return &cert
}

// agentIdentity is what is of interest here in an agent's identity file.
type agentIdentity struct {
	Cluster       string           `json:"cluster"`
	Current, Next *agentCredential // the next one has not been used
}

type agentCredential struct {
	Key         []byte `json:"tls_pkcs8"`
	Certificate []byte `json:"certificate_der"`
	Generation  uint64 `json:"generation"`
}

func readAgentIdentity(t testing.TB, data string) (id agentIdentity) {
	t.Helper()
	raw, err := os.ReadFile(data + "/identity.json")
	if err == nil {
		err = json.Unmarshal(raw, &id)
	}
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// agentCertificate is an agent's own.
func agentCertificate(t testing.TB, g *agentProcess) *tls.Certificate {
	t.Helper()
	id := readAgentIdentity(t, g.data)
	c := id.Current
	if c == nil {
		c = id.Next
	}
	key, err := x509.ParsePKCS8PrivateKey(c.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{c.Certificate}, PrivateKey: key}
}
