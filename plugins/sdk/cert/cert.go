// Package cert is how connectors check a server's certificate, and what they say of one that is not trusted. Connectors whose target
// speaks TLS import it.
package cert

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Config is for connections to a target: its trust settings decide, and nothing else. Without any, no certificate verifies, and the
// error holds the one that a person may approve.
func Config(t sdk.Target) (*tls.Config, error) {
	roots := x509.NewCertPool()
	if t.Trust.CAPEM != "" && !roots.AppendCertsFromPEM([]byte(t.Trust.CAPEM)) {
		return nil, sdk.Errorf(sdk.ClassInvalid, "the trusted certificates are not PEM").
			WithFix("give one or more blocks of BEGIN CERTIFICATE")
	}
	name := t.Trust.ServerName
	if name == "" {
		name = t.Address
	}
	return &tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS12}, nil
}

// Untrusted explains a certificate that does not verify. Its details are what a person may approve: host_key, the last certificate of
// the chain in PEM, and the fingerprint of the server's own; address is how messages call the server.
func Untrusted(address string, trust sdk.Trust, e *tls.CertificateVerificationError) *sdk.Error {
	out := sdk.Errorf(sdk.ClassHostKeyChanged, "the certificate of %s is not what the asset's trust settings ask for", address).
		WithFix("find out why; if the change is right, approve the new certificate").Wrap(e)
	if _, ok := errors.AsType[x509.HostnameError](e.Err); ok {
		out.Message = "the certificate of " + address + " is for another name"
		out.Fix = "set the asset's server name to one that is in the certificate"
	}
	if trust.CAPEM == "" {
		out.Class = sdk.ClassHostKeyUnknown
		out.Message = "the certificate of " + address + " has not been approved yet"
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
