package link

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"strings"

	"github.com/reeve-pam/reeve/internal/envelope"
)

// newKeys makes the private keys of a credential: P-256 for TLS, MLKEM768-X25519 for
// the secrets of jobs.
func newKeys() (*keys, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	seal, err := envelope.GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	raw, err := seal.Bytes()
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	return &keys{TLS: der, HPKE: raw}, nil
}

// request returns what a controller needs to certify the keys: a certificate request,
// of which only the public key counts, and the public HPKE key.
func (k *keys) request() (csr, hpkePublic []byte, err error) {
	key, err := x509.ParsePKCS8PrivateKey(k.TLS)
	if err != nil {
		return nil, nil, fmt.Errorf("link: %w", err)
	}
	csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "reeve-agent"}}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("link: %w", err)
	}
	seal, err := envelope.ParsePrivateKey(k.HPKE)
	if err != nil {
		return nil, nil, fmt.Errorf("link: %w", err)
	}
	return csr, seal.PublicKey().Bytes(), nil
}

// controllerTLS is TLS 1.3 to a controller of the cluster: its chain must verify and
// its certificate name a node, whatever address it was reached at. Either roots are
// given, or the hash of the CA's key, for the first contact.
func controllerTLS(cluster string, client *tls.Certificate, roots *x509.CertPool, caSPKI *[32]byte) *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Addresses change and are not what a controller is known by; VerifyConnection
		// checks the chain and the name.
		InsecureSkipVerify: true, //nolint:gosec // verified in VerifyConnection
		VerifyConnection: func(s tls.ConnectionState) error {
			return verifyController(cluster, s.PeerCertificates, roots, caSPKI)
		},
	}
	if client != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return client, nil }
	}
	return c
}

func verifyController(cluster string, chain []*x509.Certificate, roots *x509.CertPool, caSPKI *[32]byte) error {
	if len(chain) == 0 {
		return errors.New("link: the controller showed no certificate")
	}
	intermediates := x509.NewCertPool()
	if caSPKI != nil {
		roots = x509.NewCertPool()
	}
	for _, c := range chain[1:] {
		if caSPKI != nil && c.IsCA {
			if sum := sha256.Sum256(c.RawSubjectPublicKeyInfo); bytes.Equal(sum[:], caSPKI[:]) {
				roots.AddCert(c)
			}
		}
		intermediates.AddCert(c)
	}
	leaf := chain[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return fmt.Errorf("link: the controller's certificate is not from this cluster's CA: %w", err)
	}
	for _, u := range leaf.URIs {
		if u.Scheme == "spiffe" && u.Host == cluster && strings.HasPrefix(u.Path, "/node/") {
			return nil
		}
	}
	return errors.New("link: the certificate is not that of a controller of cluster " + cluster)
}
