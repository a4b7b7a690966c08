package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/cert"
)

// tls is the TLS side of a login. The certificate is verified by verify, as crypto/tls itself would:
// the driver gives errors of crypto/tls as text, and a person has to see the certificate.
func (l *link) tls(t sdk.Target) (*tls.Config, error) {
	cfg, err := cert.Config(t)
	if err != nil {
		return nil, err
	}
	// Standard verification is replaced, not left out: VerifyConnection runs in every handshake.
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		err := verify(state, cfg.RootCAs, cfg.ServerName)
		if err != nil {
			l.mu.Lock()
			l.cert = err
			l.mu.Unlock()
		}
		return err
	}
	cfg.DynamicRecordSizingDisabled = true // servers want a packet in one record
	return cfg, nil
}

// verify checks a server's chain of certificates against roots and its name.
func verify(state tls.ConnectionState, roots *x509.CertPool, name string) error {
	chain := state.PeerCertificates
	if len(chain) == 0 {
		return &tls.CertificateVerificationError{Err: errors.New("the server showed no certificate")}
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: name}); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
	}
	return nil
}
