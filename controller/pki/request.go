package pki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// maxRequest is the largest certificate request in bytes that is read.
const maxRequest = 8 << 10

// publicKey is a peer's key that it proved to hold.
type publicKey struct {
	key  any
	hash string // SHA-256 of its SubjectPublicKeyInfo, hex
}

// parseRequest reads a PKCS #10 certificate request and checks that it is signed with
// the key it is for. Everything else in it is ignored: names come from the registry.
// Keys are ECDSA P-256 or Ed25519. Codes csr_invalid, csr_key_unsupported.
func parseRequest(der []byte) (publicKey, error) {
	if len(der) > maxRequest {
		return publicKey{}, reeve.Errorf(reeve.TooLarge, "csr_invalid", "the certificate request is larger than %d bytes", maxRequest)
	}
	req, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return publicKey{}, invalidRequest().Wrap(err)
	}
	switch k := req.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return publicKey{}, unsupportedKey()
		}
	case ed25519.PublicKey:
	default:
		return publicKey{}, unsupportedKey()
	}
	if err := req.CheckSignature(); err != nil {
		return publicKey{}, invalidRequest().Wrap(err)
	}
	return publicKey{key: req.PublicKey, hash: fingerprint(req.RawSubjectPublicKeyInfo)}, nil
}

func invalidRequest() *reeve.Error {
	return reeve.Errorf(reeve.Invalid, "csr_invalid", "the certificate request is malformed or not signed with its key")
}

func unsupportedKey() *reeve.Error {
	return reeve.Errorf(reeve.Invalid, "csr_key_unsupported", "the certificate request is for a key that is neither ECDSA P-256 nor Ed25519")
}
