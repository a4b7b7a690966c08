package cert_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/cert"
)

// handshake is one with a server, as a connector makes it.
func handshake(t *testing.T, s *httptest.Server, trust sdk.Trust) error {
	t.Helper()
	address := s.Listener.Addr().String()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := cert.Config(sdk.Target{Address: host, Trust: trust})
	if err != nil {
		return err
	}
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", address)
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cert.Untrusted(address, trust, e)
	}
	if err == nil {
		err = conn.Close()
	}
	return err
}

func TestACertificateIsWhatTheTrustSettingsSay(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	own := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	sum := sha256.Sum256(s.Certificate().Raw)
	other := otherCA(t)
	for _, c := range []struct {
		name         string
		trust        sdk.Trust
		class        sdk.Class
		said, detail string
	}{
		{"the right one", sdk.Trust{CAPEM: own}, "", "", ""},
		{"the right one, by name", sdk.Trust{CAPEM: own, ServerName: "example.com"}, "", "", ""},
		{"one that nobody has approved", sdk.Trust{}, sdk.ClassHostKeyUnknown, "not been approved", own},
		{"another", sdk.Trust{CAPEM: other}, sdk.ClassHostKeyChanged, "not what", own},
		{"for another name", sdk.Trust{CAPEM: own, ServerName: "db.test"}, sdk.ClassHostKeyChanged, "another name", own},
		{"no PEM", sdk.Trust{CAPEM: "x"}, sdk.ClassInvalid, "not PEM", ""},
	} {
		err := handshake(t, s, c.trust)
		if sdk.ClassOf(err) != c.class {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if err == nil {
			continue
		}
		e, _ := errors.AsType[*sdk.Error](err)
		if !strings.Contains(e.Message, c.said) || e.Fix == "" || e.Details["host_key"] != c.detail ||
			c.detail != "" && e.Details["fingerprint"] != "SHA256:"+hex.EncodeToString(sum[:]) {
			t.Errorf("%s: %q, %q, %v", c.name, e.Message, e.Fix, e.Details)
		}
	}
}

func TestOldVersionsOfTLSAreRefused(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(nil)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11} //nolint:gosec // that is what is refused
	s.StartTLS()
	defer s.Close()
	own := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	if err := handshake(t, s, sdk.Trust{CAPEM: own}); err == nil {
		t.Error("TLS 1.1 is accepted")
	}
}

// otherCA is a certificate that has signed nothing.
func otherCA(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))
}
