package pki

import (
	"crypto/ecdsa"
	"crypto/x509"
	"net/url"

	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// CAKeyForTest is the private scalar of a role's authority.
func CAKeyForTest(tx *store.Tx, m *seal.Manager, role Role) ([]byte, error) {
	ca, err := issuing(tx, role)
	if err != nil {
		return nil, err
	}
	plain, err := m.OpenFor(seal.CAWrap, ca.binding(), ca.SealedKey)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return nil, err
	}
	return key.(*ecdsa.PrivateKey).Bytes()
}

// MoveAgentForTest changes the site of an agent in the registry.
func MoveAgentForTest(tx *store.Tx, id reeve.AgentID, site reeve.SiteID) error {
	a, err := GetAgent(tx, id)
	if err != nil {
		return err
	}
	a.SiteID = site
	return agents.Put(tx, a)
}

// IssueForTest signs a certificate with an authority that would never name this URI.
func (a *Authority) IssueForTest(tx *store.Tx, role Role, key *ecdsa.PrivateKey, uri *url.URL) ([]byte, error) {
	return a.issue(tx, role, publicKey{key: key.Public()}, &x509.Certificate{NotAfter: tx.Now().Add(AgentLifetime),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, URIs: []*url.URL{uri}})
}

// ParseRequestForTest is parseRequest.
func ParseRequestForTest(der []byte) error {
	_, err := parseRequest(der)
	return err
}
