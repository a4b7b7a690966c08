package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// tls is the TLS side of a login. The certificate is verified by verify, as crypto/tls itself would:
// the driver gives errors of crypto/tls as text, and a person has to see the certificate.
func (l *link) tls(t sdk.Target) (*tls.Config, error) {
	roots := x509.NewCertPool() // empty: nothing verifies, and the error shows the certificate
	if t.Trust.CAPEM != "" && !roots.AppendCertsFromPEM([]byte(t.Trust.CAPEM)) {
		return nil, sdk.Errorf(sdk.ClassInvalid, "the trusted certificates are not PEM").
			WithFix("give one or more blocks of BEGIN CERTIFICATE")
	}
	name := t.Trust.ServerName
	if name == "" {
		name = t.Address
	}
	return &tls.Config{
		ServerName: name,
		MinVersion: tls.VersionTLS12,
		// Standard verification is replaced, not left out: VerifyConnection runs in every handshake.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection: func(state tls.ConnectionState) error {
			err := verify(state, roots, name)
			if err != nil {
				l.mu.Lock()
				l.cert = err
				l.mu.Unlock()
			}
			return err
		},
		DynamicRecordSizingDisabled: true, // servers want a packet in one record
	}, nil
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

// untrusted explains a certificate that does not verify, with what a person may approve.
func (l *link) untrusted(e *tls.CertificateVerificationError) error {
	out := sdk.Errorf(sdk.ClassHostKeyChanged, "the certificate of %s is not what the asset's trust settings ask for", l.address).
		WithFix("find out why; if the change is right, approve the new certificate").Wrap(e)
	if _, ok := errors.AsType[x509.HostnameError](e.Err); ok {
		out.Message = "the certificate of " + l.address + " is for another name"
		out.Fix = "set the asset's server name to one that is in the certificate"
	}
	if l.trust.CAPEM == "" {
		out.Class = sdk.ClassHostKeyUnknown
		out.Message = "the certificate of " + l.address + " has not been approved yet"
		out.Fix = "compare the fingerprint on the server, then approve it"
	}
	if chain := e.UnverifiedCertificates; len(chain) > 0 {
		sum := sha256.Sum256(chain[0].Raw)
		last := chain[len(chain)-1]
		out.Details = map[string]string{
			"host_key":    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: last.Raw})),
			"fingerprint": "SHA256:" + hex.EncodeToString(sum[:]),
			"subject":     chain[0].Subject.String(),
			"issuer":      chain[0].Issuer.String(),
		}
	}
	return out
}
