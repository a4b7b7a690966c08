package inventory

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

var keyA, printA = newHostKey()
var keyB, printB = newHostKey()

func newHostKey() (line, fingerprint string) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	k, err := ssh.NewPublicKey(public)
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))), ssh.FingerprintSHA256(k)
}

func newCertificate(t testing.TB) (block, fingerprint string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), "SHA256:" + hex.EncodeToString(sum[:])
}

func TestKnownHostsLinesOfOtherHostsAreNotTrusted_C83(t *testing.T) {
	t.Parallel()
	hashed := knownhosts.HashHostname("[10.0.0.1]:2222") + " " + keyA
	for name, c := range map[string]struct {
		text string
		want []string
		code string
	}{
		"bare key":              {keyA, []string{keyA}, ""},
		"key with comment":      {keyA + " root@web1\n# comment\n\n", []string{keyA}, ""},
		"of this host and port": {"[10.0.0.1]:2222 " + keyA, []string{keyA}, ""},
		"hashed":                {hashed, []string{keyA}, ""},
		"one of several names":  {"web1,[10.0.0.1]:2222 " + keyA + "\nweb2 " + keyB, []string{keyA}, ""},
		"twice":                 {keyA + "\n" + keyA, []string{keyA}, ""},
		"another port":          {"10.0.0.1 " + keyA, nil, "host_key_not_listed"},
		"another host":          {"10.0.0.2 " + keyA, nil, "host_key_not_listed"},
		"hashed of another":     {knownhosts.HashHostname("[10.0.0.2]:2222") + " " + keyA, nil, "host_key_not_listed"},
		"wildcard":              {"* " + keyA, nil, "host_key_not_listed"},
		"empty":                 {"", nil, "host_key_not_listed"},
		"certificate authority": {"@cert-authority * " + keyA, nil, "host_key_invalid"},
		"revoked":               {"@revoked [10.0.0.1]:2222 " + keyA, nil, "host_key_invalid"},
		"rubbish":               {"rubbish", nil, "host_key_invalid"},
		"type does not fit":     {"ssh-rsa " + strings.Fields(keyA)[1], nil, "host_key_invalid"},
	} {
		got, err := parseHostKeys(c.text, "10.0.0.1", 2222)
		if reeve.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %q", name, err, c.code)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestShownCertificateIsApprovedByItsFingerprint_C83(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.asset("db1").ID
	r.manage(id)
	block, fingerprint := newCertificate(t)
	r.probe(id, Probe{HostKey: block, Failure: &Failure{Class: reeve.ClassHostKeyUnknown, Message: "unknown authority"}})
	r.wantCode("fingerprint_mismatch", func(tx *store.Tx) error { _, err := ApproveHostKey(tx, alice, id, printA); return err })
	r.do(func(tx *store.Tx) error { _, err := ApproveHostKey(tx, alice, id, fingerprint); return err })
	if got := r.get(id).Trust.CAPEM; got != block {
		t.Errorf("trusted: %q", got)
	}
}

func TestOnlyCertificatesAreTaken(t *testing.T) {
	t.Parallel()
	block, fingerprint := newCertificate(t)
	for name, text := range map[string]string{
		"text after":       block + "hello",
		"not DER":          "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"private key":      block + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"nothing but text": "hello",
	} {
		if certs, err := parseCertificates(text); reeve.CodeOf(err) != "ca_invalid" {
			t.Errorf("%s: %d certificates, %v", name, len(certs), err)
		}
	}
	trust := Trust{CAPEM: block + block}
	if diff := cmp.Diff([]string{fingerprint, fingerprint}, trust.Fingerprints()); diff != "" {
		t.Errorf("fingerprints (-want +got):\n%s", diff)
	}
}

func FuzzHostKeys(f *testing.F) {
	f.Add(keyA)
	f.Add("[h]:22 " + keyA + "\n@revoked h " + keyB)
	f.Add("|1|AAAA|AAAA ssh-ed25519 AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := parseHostKeys(text, "h", 22)
		if (err == nil) != (len(keys) > 0) {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		for _, k := range keys {
			if again, err := parseHostKeys(k, "h", 22); err != nil || len(again) != 1 || again[0] != k {
				t.Fatalf("%q does not read back: %v", k, err)
			}
		}
	})
}

func FuzzShownKey(f *testing.F) {
	block, _ := newCertificate(f)
	f.Add(keyA)
	f.Add(block)
	f.Add("-----BEGIN CERTIFICATE-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := parseShownKey(text)
		if err == nil && (k.Key == "" || !strings.HasPrefix(k.Fingerprint, "SHA256:")) {
			t.Fatalf("%+v", k)
		}
	})
}
