package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"sync"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// ServerName is in every node's certificate beside its own addresses, for peers that
// know the cluster but dial an address: which node it is, its URI says.
const ServerName = "controller.reeve.internal"

// NodeTLS returns the node's certificate and authority for controller/cluster, which
// makes its own rules of them. Ask for each connection: certificates are renewed.
// refuse may shut a peer out although its certificate is good; nil refuses nobody.
func (i *NodeIdentity) NodeTLS(refuse func(reeve.NodeID) error) (*tls.Config, error) {
	in, err := i.get()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Time:         i.now,
		Certificates: []tls.Certificate{in.chain},
		RootCAs:      in.roots,
		ClientCAs:    in.roots,
		VerifyConnection: func(cs tls.ConnectionState) error {
			id, err := nodeOf(in.cluster, cs.PeerCertificates[0])
			if err != nil || refuse == nil {
				return err
			}
			return refuse(id)
		},
	}, nil
}

// APITLS is for the listener of the REST API. Clients need no certificate; one that is
// given must be a node's, as when a follower forwards a call, and is then in the
// connection's VerifiedChains.
func (i *NodeIdentity) APITLS() *tls.Config {
	return perConnection(func() (*tls.Config, error) {
		in, err := i.get()
		if err != nil {
			return nil, err
		}
		return &tls.Config{
			MinVersion:             tls.VersionTLS13,
			Time:                   i.now,
			NextProtos:             []string{"h2", "http/1.1"},
			Certificates:           []tls.Certificate{in.chain},
			ClientAuth:             tls.VerifyClientCertIfGiven,
			ClientCAs:              in.roots,
			SessionTicketsDisabled: true,
			VerifyConnection: func(cs tls.ConnectionState) error {
				if len(cs.PeerCertificates) == 0 {
					return nil
				}
				_, err := nodeOf(in.cluster, cs.PeerCertificates[0])
				return err
			},
		}, nil
	})
}

// GatewayTLS is for the listener to which agents connect. A certificate is needed for
// everything but enrolling, which the gateway checks; one that is given must be
// signed by the agent authority, which agentCAs returns (see [Bundle]).
//
// Connections that come while neither changes share one configuration: each keeps it, and
// the authorities in it, for as long as it lives.
func (i *NodeIdentity) GatewayTLS(agentCAs func() ([]*x509.Certificate, error)) *tls.Config {
	var mu sync.Mutex
	var last struct {
		in     *installed
		bundle []*x509.Certificate
		config *tls.Config
	}
	return perConnection(func() (*tls.Config, error) {
		in, err := i.get()
		if err != nil {
			return nil, err
		}
		bundle, err := agentCAs()
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		if last.in != in || !slices.EqualFunc(last.bundle, bundle, (*x509.Certificate).Equal) {
			last.in, last.bundle, last.config = in, bundle, i.gatewayTLS(in, bundle)
		}
		return last.config, nil
	})
}

func (i *NodeIdentity) gatewayTLS(in *installed, agentCAs []*x509.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	for _, ca := range agentCAs {
		pool.AddCert(ca)
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Time:                   i.now,
		NextProtos:             []string{"h2"},
		Certificates:           []tls.Certificate{in.chain},
		ClientAuth:             tls.VerifyClientCertIfGiven,
		ClientCAs:              pool,
		SessionTicketsDisabled: true, // a ban counts at once
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			_, _, err := agentOf(in.cluster, cs.PeerCertificates[0])
			return err
		},
	}
}

// ForwardTLS is for calls from this node to the API of another: mutual TLS, and the
// server must be a node of this cluster. The certificate is looked up for each
// connection; the authorities are those of now.
func (i *NodeIdentity) ForwardTLS() (*tls.Config, error) {
	in, err := i.get()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       i.now,
		ServerName: ServerName,
		RootCAs:    in.roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			in, err := i.get()
			if err != nil {
				return nil, err
			}
			return &in.chain, nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := nodeOf(in.cluster, cs.PeerCertificates[0])
			return err
		},
	}, nil
}

// perConnection makes the configuration anew for each client, so that renewed
// certificates and new authorities are used at once.
func perConnection(config func() (*tls.Config, error)) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return config() },
	}
}

// Explain turns what crypto/tls says about a peer's certificate into an error with a
// stable code: certificate_foreign, certificate_expired. Others are returned as they are.
func Explain(err error) error {
	if _, ok := errors.AsType[*reeve.Error](err); ok || err == nil {
		return err
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return foreign("is not signed by this cluster's authority").Wrap(err)
	}
	if bad, ok := errors.AsType[x509.CertificateInvalidError](err); ok && bad.Reason == x509.Expired {
		return reeve.Errorf(reeve.Unauthenticated, "certificate_expired", "the certificate expired at %s", bad.Cert.NotAfter.UTC().Format("2006-01-02T15:04:05Z")).Wrap(err)
	}
	return err
}
