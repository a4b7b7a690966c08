package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Lifetimes of certificates.
const (
	caLifetime = 10 * 365 * 24 * time.Hour
	// NodeLifetime of a node's certificate. A node that is off for longer joins anew.
	NodeLifetime = 90 * 24 * time.Hour
	// AgentLifetime of an agent's certificate. Agents renew at half of it, give or
	// take 10 %. One that is off for longer enrols anew, with a new token.
	AgentLifetime = 24 * time.Hour
	// backdate is how far behind a peer's clock may be.
	backdate = 5 * time.Minute
)

// Role is what a certificate is for.
type Role string

// The roles. Each has its own authority.
const (
	RoleNode  Role = "node"
	RoleAgent Role = "agent"
)

// Phase is where one generation of an authority is in its life. All generations of a
// role are trusted; exactly one issues.
type Phase string

// The phases.
const (
	Distribute Phase = "distribute" // trusted, not issuing yet: it may not have reached everybody
	Issue      Phase = "issue"
	Retire     Phase = "retire" // trusted until nothing it issued is valid any more
)

// CA is one generation of an authority.
type CA struct {
	Role        Role      `cbor:"1,keyasint,omitempty"`
	Generation  uint32    `cbor:"2,keyasint,omitempty"` // from 1
	Phase       Phase     `cbor:"3,keyasint,omitempty"`
	Cluster     string    `cbor:"4,keyasint,omitempty"`
	Certificate []byte    `cbor:"5,keyasint,omitempty"` // DER
	SealedKey   []byte    `cbor:"6,keyasint,omitempty"` // PKCS #8, sealed for seal.CAWrap
	Created     time.Time `cbor:"7,keyasint,omitempty"`
}

func (c *CA) id() string { return fmt.Sprintf("%s-%010d", c.Role, c.Generation) }

// binding is the additional data of the sealed key.
func (c *CA) binding() []byte { return []byte("ca/" + c.id()) }

// CATable is the name of the table of authorities. It is plain: certificates are public,
// keys are sealed, and sealed nodes must know whom to trust.
const CATable store.TableName = "ca"

var cas = store.NewTable(CATable, store.Key((*CA).id), store.Plain[CA]())

// Authority issues certificates and keeps the registries.
type Authority struct {
	store *store.Store
	seal  *seal.Manager
	log   *slog.Logger

	mu   sync.Mutex
	seen map[reeve.AgentID]time.Time // to be noted, see NoteSeen
}

// New returns the Authority over a store.
func New(st *store.Store, m *seal.Manager, log *slog.Logger) *Authority {
	return &Authority{store: st, seal: m, log: log, seen: map[reeve.AgentID]time.Time{}}
}

// ValidCluster reports whether s can name a cluster: a SPIFFE trust domain of 1 to 63
// lower-case letters, digits, dots and dashes.
func ValidCluster(s string) bool {
	return len(s) >= 1 && len(s) <= 63 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.-") == ""
}

// Bootstrap makes the authorities of a new cluster and certifies its first node, which
// already has an id. It runs in the transaction that initialises the cluster.
func (a *Authority) Bootstrap(tx *store.Tx, by audit.Actor, cluster string, id reeve.NodeID, csr []byte, info NodeInfo) (*NodeEnrollment, error) {
	if !ValidCluster(cluster) {
		return nil, reeve.Errorf(reeve.Invalid, "cluster_name_invalid", "a cluster is named with 1 to 63 of a-z, 0-9, '.' and '-'")
	}
	key, err := parseRequest(csr)
	if err != nil {
		return nil, err
	}
	for _, role := range []Role{RoleNode, RoleAgent} {
		ca, err := a.newCA(role, cluster, tx.Now())
		if err != nil {
			return nil, err
		}
		if err := cas.Insert(tx, ca); err != nil {
			return nil, err
		}
		if err := audit.Record(tx, audit.Event{By: by, Action: "ca.create", Object: ca.id(),
			Details: map[string]string{"cluster": cluster, "sha256": fingerprint(ca.Certificate)}}); err != nil {
			return nil, err
		}
	}
	return a.admitNode(tx, by, &Node{ID: id}, key, info)
}

// newCA makes the first generation of an authority.
func (a *Authority) newCA(role Role, cluster string, now time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: fmt.Sprintf("Reeve %s CA 1", role), Organization: []string{cluster}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: cluster}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	defer clear(plain)
	ca := &CA{Role: role, Generation: 1, Phase: Issue, Cluster: cluster, Certificate: der, Created: now}
	ca.SealedKey, err = a.seal.SealFor(seal.CAWrap, ca.binding(), plain)
	return ca, err
}

// Rewrap seals the keys of authorities again that are sealed under an older term, and
// returns how many.
func (a *Authority) Rewrap(tx *store.Tx) (rewrapped int, err error) {
	for ca, err := range cas.List(tx, "") {
		if err != nil {
			return 0, err
		}
		if !a.seal.Stale(seal.CAWrap, ca.SealedKey) {
			continue
		}
		plain, err := a.seal.OpenFor(seal.CAWrap, ca.binding(), ca.SealedKey)
		if err != nil {
			return 0, err
		}
		ca.SealedKey, err = a.seal.SealFor(seal.CAWrap, ca.binding(), plain)
		clear(plain)
		if err != nil {
			return 0, err
		}
		if err := cas.Put(tx, ca); err != nil {
			return 0, err
		}
		rewrapped++
	}
	return rewrapped, nil
}

// issue signs a certificate for key with the issuing generation of the role. The
// template says who it is for and until when.
func (a *Authority) issue(tx *store.Tx, role Role, key publicKey, template *x509.Certificate) ([]byte, error) {
	if tx.ClockInDoubt() {
		return nil, reeve.Errorf(reeve.Unavailable, "clock_in_doubt", "this controller does not believe its clock, so it makes no certificates").
			WithFix("set its clock right, or accept it: reeve cluster accept-clock")
	}
	ca, err := issuing(tx, role)
	if err != nil {
		return nil, err
	}
	parent, err := x509.ParseCertificate(ca.Certificate)
	if err != nil {
		return nil, fmt.Errorf("pki: %s: %w", ca.id(), err)
	}
	plain, err := a.seal.OpenFor(seal.CAWrap, ca.binding(), ca.SealedKey)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	signer, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return nil, fmt.Errorf("pki: %s: the key cannot be read", ca.id())
	}
	template.SerialNumber = newSerial()
	template.NotBefore = tx.Now().Add(-backdate)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.key, signer)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return der, nil
}

// issuing is the generation of a role's authority that issues.
func issuing(tx *store.Tx, role Role) (*CA, error) {
	all, err := generations(tx, role)
	if err != nil {
		return nil, err
	}
	return issuingOf(all, role)
}

func issuingOf(all []*CA, role Role) (*CA, error) {
	for _, ca := range all {
		if ca.Phase == Issue {
			return ca, nil
		}
	}
	return nil, reeve.Errorf(reeve.Precondition, "not_initialised", "this cluster has no %s authority", role).WithFix("bootstrap it first")
}

func generations(tx *store.Tx, role Role) ([]*CA, error) {
	var all []*CA
	for ca, err := range cas.List(tx, "") {
		if err != nil {
			return nil, err
		}
		if ca.Role == role {
			all = append(all, ca)
		}
	}
	return all, nil
}

// Bundle returns the certificates to trust for a role: all generations of its
// authority. It works on sealed nodes.
func Bundle(tx *store.Tx, role Role) ([]*x509.Certificate, error) {
	all, err := generations(tx, role)
	if err != nil {
		return nil, err
	}
	return parseAll(all)
}

func parseAll(cas []*CA) (bundle []*x509.Certificate, err error) {
	for _, ca := range cas {
		cert, err := x509.ParseCertificate(ca.Certificate)
		if err != nil {
			return nil, fmt.Errorf("pki: %s: %w", ca.id(), err)
		}
		bundle = append(bundle, cert)
	}
	return bundle, nil
}

// BundlePEM is Bundle as PEM, for files and the wire.
func BundlePEM(tx *store.Tx, role Role) ([]byte, error) {
	bundle, err := Bundle(tx, role)
	if err != nil {
		return nil, err
	}
	return encodeCertificates(bundle), nil
}

func encodeCertificates(certs []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a Buffer does not fail
	}
	return b.Bytes()
}

// newSerial is 127 random bits.
func newSerial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

// fingerprint is the SHA-256 of DER bytes in hex.
func fingerprint(der []byte) string { return fmt.Sprintf("%x", sha256.Sum256(der)) }
