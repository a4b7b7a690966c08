package pki_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// selfSigned makes a certificate with a URI, signed by parent, or an authority if nil.
func selfSigned(t testing.TB, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, uri string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Reeve agent CA 1"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{u}, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, DNSNames: []string{pki.ServerName}}
	if parent == nil {
		parent, parentKey = template, key
		template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
		template.ExtKeyUsage = nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// joined is another node of the cluster.
func (c *cluster) joined(name string) *pki.NodeIdentity {
	c.t.Helper()
	i, err := pki.OpenNodeIdentity(filepath.Join(c.t.TempDir(), "identity"))
	if err != nil {
		c.t.Fatal(err)
	}
	csr, err := i.Request()
	if err != nil {
		c.t.Fatal(err)
	}
	e, err := c.auth.EnrollNode(context.Background(), c.token(pki.NewJoinToken{Role: pki.RoleNode, Name: name}), csr, info("ignored"), "192.0.2.9")
	if err != nil {
		c.t.Fatal(err)
	}
	if err := i.Install(e); err != nil {
		c.t.Fatal(err)
	}
	return i
}

func TestANodeJoinsOnceWithItsToken_A1(t *testing.T) {
	t.Parallel()
	for name, fate := range map[string]storetest.Fate{"answer lost": storetest.Commit, "unknown": storetest.CommitUnknown, "lost": storetest.Lose} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, "c1")
			secret, csr := c.token(pki.NewJoinToken{Role: pki.RoleNode, Name: "c2"}), request(t, newKey(t))
			c.faults.Next(fate)
			first, err := c.auth.EnrollNode(t.Context(), secret, csr, info(""), "")
			if (err == nil) != (fate == storetest.Commit) || (err != nil) != (first == nil) {
				t.Fatal(first, err)
			}
			again, err := c.auth.EnrollNode(t.Context(), secret, csr, info(""), "")
			if err != nil || first != nil && first.Node.ID != again.Node.ID || again.Node.Name != "c2" {
				t.Fatal(err)
			}
			_, err = c.auth.EnrollNode(t.Context(), secret, request(t, newKey(t)), info(""), "")
			want(t, err, "join_token_used")
			if n := len(c.records("join_token.misuse")); n != 1 {
				t.Fatalf("%d misuses recorded", n)
			}
			var names []string
			c.view(func(tx *store.Tx) error {
				all, err := pki.ListNodes(tx)
				for _, n := range all {
					names = append(names, n.Name+" "+n.RaftAddr)
				}
				return err
			})
			if diff := cmp.Diff([]string{"c1 127.0.0.1:7001", "c2 127.0.0.1:7001"}, names); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestNodeAddressesAreChecked(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	secret := c.token(pki.NewJoinToken{Role: pki.RoleNode, Name: "c2"})
	for _, addr := range []string{"", "host", ":1", "0.0.0.0:1", "[::]:1", "host:"} {
		in := info("")
		in.APIAddr = addr
		_, err := c.auth.EnrollNode(t.Context(), secret, request(t, newKey(t)), in, "")
		want(t, err, "address_invalid")
	}
	if _, err := c.auth.EnrollNode(t.Context(), secret, request(t, newKey(t)), info(""), ""); err != nil {
		t.Fatalf("the token was used up: %v", err)
	}
}

func TestANodeRenewsItsOwnKeyOnly(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	second := c.joined("c2")
	cert, err := second.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	due := second.RenewalDue()
	if life := due.Sub(c.clock.Now()); life < 44*24*time.Hour || life > 46*24*time.Hour {
		t.Fatalf("renewal is due in %s", life)
	}
	csr, err := second.Request()
	if err != nil {
		t.Fatal(err)
	}
	moved := info("")
	moved.APIAddr = "c2.example:443"
	c.clock.Advance(24 * time.Hour)
	e, err := c.auth.RenewNode(t.Context(), cert, csr, moved)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Install(e); err != nil {
		t.Fatal(err)
	}
	if e.Node.Name != "c2" || e.Node.APIAddr != "c2.example:443" || !second.RenewalDue().After(due) {
		t.Fatalf("%+v", e.Node)
	}
	_, err = c.auth.RenewNode(t.Context(), cert, request(t, newKey(t)), moved)
	want(t, err, "node_key_changed")
	_, err = c.auth.RenewNode(t.Context(), c.enrolled(siteX, "a").cert, csr, moved)
	want(t, err, "certificate_wrong_role")
	c.update(func(tx *store.Tx) error { return pki.RemoveNode(tx, operator, e.Node.ID) })
	_, err = c.auth.RenewNode(t.Context(), cert, csr, moved)
	want(t, err, "node_removed")
	c.joined("c2") // the name is free again
}

func TestIdentityIsKeptOnDiskForItsOwnerOnly(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	dir := filepath.Join(t.TempDir(), "identity")
	i, err := pki.OpenNodeIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	if i.Certified() {
		t.Fatal("certified without a certificate")
	}
	_, err = i.ForwardTLS()
	want(t, err, "node_not_certified")
	csr, err := i.Request()
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.auth.EnrollNode(t.Context(), c.token(pki.NewJoinToken{Role: pki.RoleNode, Name: "c2"}), csr, info(""), "")
	if err != nil {
		t.Fatal(err)
	}
	stranger := *e
	stranger.CA = newCluster(t, "c1").bundle(pki.RoleNode)
	want(t, i.Install(&stranger), "identity_mismatch")
	want(t, c.first.Install(e), "identity_mismatch") // another node's certificate
	if err := i.Install(e); err != nil {
		t.Fatal(err)
	}
	again, err := pki.OpenNodeIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	cluster, id, err := again.Node()
	if err != nil || cluster != "c1" || id != e.Node.ID {
		t.Fatal(cluster, id, err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		fi, err := f.Info()
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Fatal(f.Name(), fi.Mode(), err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "node.key"), 0o640); err != nil {
		t.Fatal(err)
	}
	_, err = pki.OpenNodeIdentity(dir)
	want(t, err, "identity_exposed")
	if err := os.WriteFile(filepath.Join(dir, "node.key"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "node.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = pki.OpenNodeIdentity(dir)
	want(t, err, "identity_corrupt")
}

func (c *cluster) bundle(role pki.Role) (pem []byte) {
	c.t.Helper()
	c.view(func(tx *store.Tx) (err error) {
		pem, err = pki.BundlePEM(tx, role)
		return err
	})
	return pem
}

// The listeners' configurations, over real connections.
func TestListenersAdmitOnlyTheRightCertificates(t *testing.T) {
	t.Parallel()
	c, other := newCluster(t, "c1"), newCluster(t, "c2")
	second, foreignNode := c.joined("c2"), other.first
	agent, foreignAgent := c.enrolled(siteX, "edge-1"), other.enrolled(siteX, "edge-1")
	forgedCA, forgedKey := selfSigned(t, nil, nil, "spiffe://c1")
	forgedNode, forgedNodeKey := selfSigned(t, forgedCA, forgedKey, "spiffe://c1/node/"+string(reeve.NewNodeID()))

	agentCAs := func() (bundle []*x509.Certificate, err error) {
		err = c.st.View(context.Background(), func(tx *store.Tx) error {
			bundle, err = pki.Bundle(tx, pki.RoleAgent)
			return err
		})
		return bundle, err
	}
	ofNode := func(i *pki.NodeIdentity) tls.Certificate {
		conf, err := i.NodeTLS(nil)
		if err != nil {
			t.Fatal(err)
		}
		return conf.Certificates[0]
	}
	ofAgent := func(d *device) tls.Certificate {
		return tls.Certificate{Certificate: [][]byte{d.cert.Raw}, PrivateKey: d.key}
	}
	forged := tls.Certificate{Certificate: [][]byte{forgedNode.Raw, forgedCA.Raw}, PrivateKey: forgedNodeKey}
	// Signed by an authority that issues nothing of the kind.
	misissued := func(role pki.Role, uri *url.URL) *tls.Certificate {
		key := newKey(t)
		var der []byte
		c.update(func(tx *store.Tx) (err error) {
			der, err = c.auth.IssueForTest(tx, role, key, uri)
			return err
		})
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	agentByNodes := misissued(pki.RoleNode, agent.cert.URIs[0])
	nodeByAgents := misissued(pki.RoleAgent, forgedNode.URIs[0])
	raft := func() *tls.Config {
		conf, err := c.first.NodeTLS(nil)
		if err != nil {
			t.Fatal(err)
		}
		conf.ClientAuth = tls.RequireAndVerifyClientCert // as controller/cluster does
		return conf
	}
	tests := map[string]struct {
		server *tls.Config
		client *tls.Certificate
		code   string // of the server's error; "" admitted, "tls" refused by crypto/tls
	}{
		"api, nobody":                {c.first.APITLS(), nil, ""},
		"api, node":                  {c.first.APITLS(), ptr(ofNode(second)), ""},
		"api, agent":                 {c.first.APITLS(), ptr(ofAgent(agent)), "certificate_foreign"},
		"api, node of another":       {c.first.APITLS(), ptr(ofNode(foreignNode)), "certificate_foreign"},
		"api, forged":                {c.first.APITLS(), &forged, "certificate_foreign"},
		"api, agent by nodes":        {c.first.APITLS(), agentByNodes, "certificate_wrong_role"},
		"raft, agent by nodes":       {raft(), agentByNodes, "certificate_wrong_role"},
		"gateway, node by agents":    {c.first.GatewayTLS(agentCAs), nodeByAgents, "certificate_wrong_role"},
		"gateway, nobody":            {c.first.GatewayTLS(agentCAs), nil, ""},
		"gateway, agent":             {c.first.GatewayTLS(agentCAs), ptr(ofAgent(agent)), ""},
		"gateway, node":              {c.first.GatewayTLS(agentCAs), ptr(ofNode(second)), "certificate_foreign"},
		"gateway, agent of another":  {c.first.GatewayTLS(agentCAs), ptr(ofAgent(foreignAgent)), "certificate_foreign"},
		"gateway, agent with no key": {c.first.GatewayTLS(agentCAs), &tls.Certificate{Certificate: [][]byte{agent.cert.Raw}, PrivateKey: foreignAgent.key}, "tls"},
		"raft, nobody":               {raft(), nil, "tls"},
		"raft, node":                 {raft(), ptr(ofNode(second)), ""},
		"raft, agent":                {raft(), ptr(ofAgent(agent)), "certificate_foreign"},
		"raft, node of another":      {raft(), ptr(ofNode(foreignNode)), "certificate_foreign"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, err := second.ForwardTLS()
			if err != nil {
				t.Fatal(err)
			}
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if tt.client == nil {
					return &tls.Certificate{}, nil
				}
				return tt.client, nil // also if the server says that it will not like it
			}
			state, _, err := handshake(t, tt.server, client)
			switch {
			case tt.code == "" && err != nil:
				t.Fatal(err)
			case tt.code == "tls" && err == nil:
				t.Fatal("admitted")
			case tt.code != "" && tt.code != "tls":
				want(t, pki.Explain(err), tt.code)
			}
			if tt.code == "" && (tt.client != nil) != (len(state.VerifiedChains) > 0) {
				t.Fatal("the certificate was not verified")
			}
		})
	}

	t.Run("a node of another cluster is refused by the client", func(t *testing.T) {
		t.Parallel()
		client, err := second.ForwardTLS()
		if err != nil {
			t.Fatal(err)
		}
		_, fromClient, _ := handshake(t, foreignNode.APITLS(), client)
		want(t, pki.Explain(fromClient), "certificate_foreign")
	})
	t.Run("a server that is no node is refused by the client", func(t *testing.T) {
		t.Parallel()
		client, err := second.ForwardTLS()
		if err != nil {
			t.Fatal(err)
		}
		client.ServerName = "" // the name is not what saves us
		client.InsecureSkipVerify = true
		_, fromClient, _ := handshake(t, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*agentByNodes}}, client)
		want(t, pki.Explain(fromClient), "certificate_wrong_role")
	})
	t.Run("a removed node is refused", func(t *testing.T) {
		t.Parallel()
		server, err := c.first.NodeTLS(func(reeve.NodeID) error { return reeve.Errorf(reeve.Denied, "node_removed", "removed") })
		if err != nil {
			t.Fatal(err)
		}
		server.ClientAuth = tls.RequireAndVerifyClientCert
		client, err := second.ForwardTLS()
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = handshake(t, server, client)
		want(t, pki.Explain(err), "node_removed")
	})
	t.Run("a newcomer with the hash of the authority's key can check the chain", func(t *testing.T) {
		t.Parallel()
		var presented []*x509.Certificate
		client := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, //nolint:gosec // verified below, as an agent's first contact is
			VerifyConnection: func(cs tls.ConnectionState) error {
				presented = cs.PeerCertificates
				return nil
			}}
		if _, _, err := handshake(t, c.first.GatewayTLS(agentCAs), client); err != nil {
			t.Fatal(err)
		}
		var cas []*x509.Certificate
		c.view(func(tx *store.Tx) (err error) {
			cas, err = pki.Bundle(tx, pki.RoleNode)
			return err
		})
		if len(presented) != 2 || sha256.Sum256(presented[1].RawSubjectPublicKeyInfo) != sha256.Sum256(cas[0].RawSubjectPublicKeyInfo) ||
			presented[0].CheckSignatureFrom(presented[1]) != nil || presented[0].VerifyHostname("localhost") != nil || presented[0].VerifyHostname("::1") != nil {
			t.Fatal("the chain does not lead to the authority in the join token")
		}
	})
}

func ptr[T any](v T) *T { return &v }

// handshake connects client and server; it returns the server's view and both errors.
func handshake(t testing.TB, server, client *tls.Config) (seen tls.ConnectionState, fromClient, fromServer error) {
	t.Helper()
	a, b := net.Pipe()
	deadline := time.Now().Add(20 * time.Second)
	if err := errors.Join(a.SetDeadline(deadline), b.SetDeadline(deadline)); err != nil {
		t.Fatal(err)
	}
	s, c := tls.Server(a, server), tls.Client(b, client)
	clientErr := make(chan error, 1)
	go func() {
		err := c.HandshakeContext(context.Background())
		if err == nil {
			_, err = c.Read(make([]byte, 1)) // the server's verdict comes after the client's part
		}
		_ = b.Close()
		clientErr <- err
	}()
	fromServer = s.HandshakeContext(context.Background())
	if fromServer == nil {
		_, fromServer = s.Write([]byte{1})
	}
	_ = a.Close()
	return s.ConnectionState(), <-clientErr, fromServer
}

func FuzzParseRequest(f *testing.F) {
	f.Add(request(f, newKey(f)))
	f.Add([]byte{0x30, 0x82})
	f.Fuzz(func(t *testing.T, der []byte) {
		if err := pki.ParseRequestForTest(der); err != nil {
			switch reeve.CodeOf(err) {
			case "csr_invalid", "csr_key_unsupported":
			default:
				t.Fatal(err)
			}
		}
	})
}
