package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// tlsPolicy decides who is a peer. A certificate of the node CA is not enough: it must
// name a node of this cluster, so that no other certificate the CA might issue, now or
// by mistake, opens the Raft port (Consul's CVE-2021-37218).
type tlsPolicy struct {
	cluster string
	self    reeve.NodeID
	base    func() (*tls.Config, error)
}

// config is the base configuration under our rules, checked to be usable.
func (p tlsPolicy) config(protocol string) (*tls.Config, error) {
	base, err := p.base()
	if err != nil {
		return nil, reeve.Errorf(reeve.Internal, "node_certificate_missing", "the node's certificate cannot be had").Wrap(err)
	}
	if len(base.Certificates) == 0 || base.RootCAs == nil || base.ClientCAs == nil {
		return nil, reeve.Errorf(reeve.Internal, "node_certificate_missing",
			"the node's certificate or its certificate authority is missing")
	}
	leaf := base.Certificates[0].Leaf
	if leaf == nil {
		if leaf, err = x509.ParseCertificate(base.Certificates[0].Certificate[0]); err != nil {
			return nil, reeve.Errorf(reeve.Internal, "node_certificate_invalid", "the node's certificate cannot be read").Wrap(err)
		}
	}
	if id, err := p.node(leaf); err != nil || id != p.self {
		return nil, reeve.Errorf(reeve.Invalid, "node_certificate_invalid",
			"the certificate is not one of node %s of cluster %s", p.self, p.cluster).Wrap(err)
	}
	c := base.Clone()
	c.MinVersion = tls.VersionTLS13
	c.NextProtos = []string{protocol}
	c.SessionTicketsDisabled = true // a renewed or banned certificate counts at once
	return c, nil
}

// server is the configuration for incoming connections, made anew for each.
func (p tlsPolicy) server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			c, err := p.config(protocolRaft)
			if err != nil {
				return nil, err
			}
			c.NextProtos = []string{protocolRaft, protocolStatus}
			c.ClientAuth = tls.RequireAndVerifyClientCert
			then := c.VerifyConnection
			c.VerifyConnection = func(cs tls.ConnectionState) error {
				if cs.NegotiatedProtocol == "" {
					return fmt.Errorf("the peer does not say which protocol it speaks")
				}
				_, err := p.node(cs.PeerCertificates[0])
				return check(err, then, cs)
			}
			return c, nil
		},
	}
}

// client is the configuration for one outgoing connection to the node want, or to any
// node if want is empty.
func (p tlsPolicy) client(protocol string, want reeve.NodeID) (*tls.Config, error) {
	c, err := p.config(protocol)
	if err != nil {
		return nil, err
	}
	// Nodes are known by their id, not by host name, so the chain is verified below
	// instead of by crypto/tls.
	c.InsecureSkipVerify = true // #nosec G402 -- VerifyConnection verifies chain and identity
	then := c.VerifyConnection
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := verifyChain(cs.PeerCertificates, c.RootCAs, c.Time); err != nil {
			return err
		}
		id, err := p.node(cs.PeerCertificates[0])
		switch {
		case err != nil:
		case cs.NegotiatedProtocol != protocol:
			err = fmt.Errorf("the peer does not speak %s", protocol)
		case want != "" && id != want:
			err = fmt.Errorf("the peer is node %s instead of %s", id, want)
		}
		return check(err, then, cs)
	}
	return c, nil
}

func check(err error, then func(tls.ConnectionState) error, cs tls.ConnectionState) error {
	if err != nil || then == nil {
		return err
	}
	return then(cs)
}

func verifyChain(certs []*x509.Certificate, roots *x509.CertPool, now func() time.Time) error {
	opts := x509.VerifyOptions{
		Roots:         roots,
		Intermediates: x509.NewCertPool(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if now != nil {
		opts.CurrentTime = now()
	}
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := certs[0].Verify(opts)
	return err
}

// node is the node a certificate speaks for: it must have exactly one URI, and that
// must be spiffe://<cluster>/node/<id>.
func (p tlsPolicy) node(cert *x509.Certificate) (reeve.NodeID, error) {
	if len(cert.URIs) != 1 {
		return "", fmt.Errorf("the certificate has %d URIs instead of one", len(cert.URIs))
	}
	id, ok := strings.CutPrefix(cert.URIs[0].String(), "spiffe://"+p.cluster+"/node/")
	if !ok || !reeve.ValidID("node", id) {
		return "", fmt.Errorf("the certificate of %s is not one of a node of this cluster", cert.URIs[0])
	}
	return reeve.NodeID(id), nil
}
