package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// The files of a node's identity, all of mode 0600.
const (
	keyFile  = "node.key" // PKCS #8 PEM
	certFile = "node.crt"
	caFile   = "ca.crt" // bundle of the node authority
)

// NodeIdentity is a node's own key and certificate, in files of a directory of its
// own. It is what TLS uses, also on a sealed node. Safe for concurrent use.
type NodeIdentity struct {
	dir string
	key *ecdsa.PrivateKey
	now func() time.Time // by which certificates are valid

	mu sync.RWMutex
	in *installed // nil: not certified yet
}

// installed is a certificate in use.
type installed struct {
	cluster string
	id      reeve.NodeID
	leaf    *x509.Certificate
	chain   tls.Certificate // leaf and the authority that signed it
	roots   *x509.CertPool
}

// OpenNodeIdentity reads the identity in dir. Where there is none it makes the
// directory and a key; the identity is then not certified until Install. Files that
// others may read are refused: code identity_exposed.
func OpenNodeIdentity(dir string) (*NodeIdentity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	i := &NodeIdentity{dir: dir, now: time.Now}
	keyPEM, err := readPrivate(filepath.Join(dir, keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return i, i.makeKey()
	}
	if err != nil {
		return nil, err
	}
	defer clear(keyPEM)
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, corruptIdentity(keyFile)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, corruptIdentity(keyFile)
	}
	var ok bool
	if i.key, ok = key.(*ecdsa.PrivateKey); !ok {
		return nil, corruptIdentity(keyFile)
	}
	certPEM, err := readPrivate(filepath.Join(dir, certFile))
	if errors.Is(err, fs.ErrNotExist) {
		return i, nil
	}
	if err != nil {
		return nil, err
	}
	caPEM, err := readPrivate(filepath.Join(dir, caFile))
	if err != nil {
		return nil, err
	}
	block, _ = pem.Decode(certPEM)
	if block == nil {
		return nil, corruptIdentity(certFile)
	}
	i.in, err = i.check(block.Bytes, caPEM)
	return i, err
}

func (i *NodeIdentity) makeKey() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	defer clear(der)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	defer clear(text)
	i.key = key
	return i.write(keyFile, text)
}

// KeepTime makes now the time by which certificates are valid, in place of this host's
// clock, which may be wrong. Call it before the identity is used.
func (i *NodeIdentity) KeepTime(now func() time.Time) { i.now = now }

// Request is a certificate request for the node's key.
func (i *NodeIdentity) Request() ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, i.key)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return der, nil
}

// Install takes a certificate into use and writes it to disk. It refuses one that is
// not for this node's key or not signed by the authority that came with it.
func (i *NodeIdentity) Install(e *NodeEnrollment) error {
	in, err := i.check(e.Certificate, e.CA)
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	// The bundle first: with an older certificate a newer bundle is still good.
	if err := i.write(caFile, e.CA); err != nil {
		return err
	}
	if err := i.write(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Certificate})); err != nil {
		return err
	}
	i.in = in
	return nil
}

func (i *NodeIdentity) check(der, caPEM []byte) (*installed, error) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, corruptIdentity(certFile).Wrap(err)
	}
	if !i.key.PublicKey.Equal(leaf.PublicKey) {
		return nil, reeve.Errorf(reeve.Invalid, "identity_mismatch", "the certificate is for another key than this node's")
	}
	in := &installed{leaf: leaf, roots: x509.NewCertPool()}
	if len(leaf.URIs) == 1 {
		in.cluster = leaf.URIs[0].Host
	}
	if in.id, err = nodeOf(in.cluster, leaf); err != nil {
		return nil, err
	}
	in.chain = tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: i.key, Leaf: leaf}
	for rest := caPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, corruptIdentity(caFile).Wrap(err)
		}
		in.roots.AddCert(ca)
		// The authority goes along, so that a newcomer who knows only the hash of its
		// key can check the chain.
		if bytes.Equal(ca.RawSubject, leaf.RawIssuer) && leaf.CheckSignatureFrom(ca) == nil {
			in.chain.Certificate = append(in.chain.Certificate, ca.Raw)
		}
	}
	if len(in.chain.Certificate) != 2 {
		return nil, reeve.Errorf(reeve.Invalid, "identity_mismatch", "the certificate is not signed by the authority it came with")
	}
	return in, nil
}

// Certified reports whether the node has a certificate.
func (i *NodeIdentity) Certified() bool {
	_, err := i.get()
	return err == nil
}

// Node returns the cluster and id the certificate is for; code node_not_certified.
func (i *NodeIdentity) Node() (cluster string, id reeve.NodeID, err error) {
	in, err := i.get()
	if err != nil {
		return "", "", err
	}
	return in.cluster, in.id, nil
}

// RenewalDue is when to renew: at half of the certificate's life. Zero: not certified.
func (i *NodeIdentity) RenewalDue() time.Time {
	in, err := i.get()
	if err != nil {
		return time.Time{}
	}
	return in.leaf.NotBefore.Add(in.leaf.NotAfter.Sub(in.leaf.NotBefore) / 2)
}

// Certificate is the certificate in use; code node_not_certified.
func (i *NodeIdentity) Certificate() (*x509.Certificate, error) {
	in, err := i.get()
	if err != nil {
		return nil, err
	}
	return in.leaf, nil
}

func (i *NodeIdentity) get() (*installed, error) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	if i.in == nil {
		return nil, reeve.Errorf(reeve.Precondition, "node_not_certified", "this node has no certificate").WithFix("bootstrap a cluster or join one")
	}
	return i.in, nil
}

// write replaces a file in one step, durably.
func (i *NodeIdentity) write(name string, data []byte) (err error) {
	f, err := os.CreateTemp(i.dir, name+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	if err := os.Rename(f.Name(), filepath.Join(i.dir, name)); err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	dir, err := os.Open(i.dir)
	if err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func readPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, reeve.Errorf(reeve.Precondition, "identity_exposed", "others may read the node's %s", filepath.Base(path)).WithFix("chmod 600 %s", path)
	}
	b, err := os.ReadFile(path) //nolint:gosec // a file of the node's own directory
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return b, nil
}

func corruptIdentity(file string) *reeve.Error {
	return reeve.Errorf(reeve.Invalid, "identity_corrupt", "the node's %s cannot be read", file).WithFix("restore it, or remove the node and let it join anew")
}
