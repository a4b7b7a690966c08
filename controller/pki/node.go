package pki

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"iter"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// NodeInfo is what a node says of itself.
type NodeInfo struct {
	Name      string // unique; 1 to 64 of a-z, 0-9, dot and dash
	RaftAddr  string // host:port each, as others reach them
	APIAddr   string
	AgentAddr string
}

// Node is a controller of the cluster.
type Node struct {
	ID        reeve.NodeID `cbor:"1,keyasint,omitempty"`
	Name      string       `cbor:"2,keyasint,omitempty"`
	RaftAddr  string       `cbor:"3,keyasint,omitempty"`
	APIAddr   string       `cbor:"4,keyasint,omitempty"`
	AgentAddr string       `cbor:"5,keyasint,omitempty"`
	Removed   time.Time    `cbor:"6,keyasint,omitempty"` // zero: a member
	Joined    time.Time    `cbor:"7,keyasint,omitempty"`
	KeyHash   string       `cbor:"8,keyasint,omitempty"` // of its public key
	NotAfter  time.Time    `cbor:"9,keyasint,omitempty"` // of its newest certificate
}

// NodeTable is the name of the registry of controllers, which is plain: a node must know
// the others before it is unsealed.
const NodeTable store.TableName = "node"

var nodes = store.NewTable(NodeTable,
	store.Key(func(n *Node) string { return string(n.ID) }),
	store.Unique("name", func(n *Node) []string {
		if !n.Removed.IsZero() {
			return nil
		}
		return []string{n.Name}
	}),
	store.Plain[Node](),
)

// NodeEnrollment is what a node is given.
type NodeEnrollment struct {
	Node        *Node
	Cluster     string
	Certificate []byte // DER
	CA          []byte // PEM: bundle of the node authority
}

// EnrollNode trades a join token for a node's certificate. The same token with the
// same key gives the same node again; codes as for [Authority.Enroll], and
// address_invalid and node_name_taken.
func (a *Authority) EnrollNode(ctx context.Context, secret reeve.Secret, csr []byte, info NodeInfo, from string) (*NodeEnrollment, error) {
	key, err := parseRequest(csr)
	if err != nil {
		return nil, err
	}
	var enrolled *NodeEnrollment
	var refused error
	err = a.store.Update(ctx, func(tx *store.Tx) (err error) {
		enrolled, refused = nil, nil
		t, err := findToken(tx, RoleNode, secret)
		if err != nil {
			return err
		}
		info.Name = t.Name
		by := audit.Actor{Kind: string(RoleNode), Name: t.Name, From: from}
		switch {
		case t.Used.IsZero() && !tx.Now().Before(t.Expires):
			return tokenExpired(t)
		case t.Used.IsZero():
			enrolled, err = a.admitNode(tx, by, &Node{ID: reeve.NewNodeID()}, key, info)
			if err != nil {
				return err
			}
			t.Used, t.UsedKey, t.UsedBy = tx.Now(), key.hash, string(enrolled.Node.ID)
			return joinTokens.Put(tx, t)
		case t.UsedKey != key.hash:
			refused = tokenUsed(t)
			return misused(tx, t, from, key.hash)
		}
		n, err := nodes.Get(tx, t.UsedBy)
		if err != nil {
			return err
		}
		if !n.Removed.IsZero() || !tx.Now().Before(t.Used.Add(MaxTokenLifetime)) {
			return tokenUsed(t)
		}
		enrolled, err = a.admitNode(tx, by, n, key, info)
		return err
	})
	if err != nil {
		return nil, err
	}
	return enrolled, refused
}

// RenewNode gives a node a new certificate for the key it has, and takes its current
// addresses. cert is the verified certificate it came with.
func (a *Authority) RenewNode(ctx context.Context, cert *x509.Certificate, csr []byte, info NodeInfo) (*NodeEnrollment, error) {
	key, err := parseRequest(csr)
	if err != nil {
		return nil, err
	}
	var renewed *NodeEnrollment
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		n, err := CheckNode(tx, cert)
		if err != nil {
			return err
		}
		if key.hash != n.KeyHash {
			return reeve.Errorf(reeve.Denied, "node_key_changed", "node %s has another key than it asks a certificate for", n.Name).
				WithFix("remove the node and let it join anew")
		}
		info.Name = n.Name
		renewed, err = a.admitNode(tx, audit.Actor{Kind: string(RoleNode), ID: string(n.ID), Name: n.Name}, n, key, info)
		return err
	})
	if err != nil {
		return nil, err
	}
	return renewed, nil
}

// admitNode registers n, or what is new about it, and issues its certificate.
func (a *Authority) admitNode(tx *store.Tx, by audit.Actor, n *Node, key publicKey, info NodeInfo) (*NodeEnrollment, error) {
	if !validName(info.Name) {
		return nil, invalidName()
	}
	ips, names, err := hosts(info)
	if err != nil {
		return nil, err
	}
	ca, err := issuing(tx, RoleNode)
	if err != nil {
		return nil, err
	}
	action, before := "node.renew", n.addresses()
	if n.Joined.IsZero() {
		action, before, n.Joined = "node.join", nil, tx.Now()
	}
	n.Name, n.RaftAddr, n.APIAddr, n.AgentAddr = info.Name, info.RaftAddr, info.APIAddr, info.AgentAddr
	n.KeyHash, n.NotAfter = key.hash, tx.Now().Add(NodeLifetime)
	der, err := a.issue(tx, RoleNode, key, &x509.Certificate{
		Subject:     pkix.Name{CommonName: n.Name, Organization: []string{ca.Cluster}},
		NotAfter:    n.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{nodeURI(ca.Cluster, n.ID)},
		IPAddresses: ips,
		DNSNames:    append(names, ServerName),
	})
	if err != nil {
		return nil, err
	}
	if err := nodes.Put(tx, n); err != nil {
		return nil, err
	}
	bundle, err := BundlePEM(tx, RoleNode)
	if err != nil {
		return nil, err
	}
	if err := audit.Record(tx, audit.Event{By: by, Action: action, Object: string(n.ID), Before: before, After: n.addresses(),
		Details: map[string]string{"certificate": fingerprint(der), "not_after": n.NotAfter.Format(time.RFC3339)}}); err != nil {
		return nil, err
	}
	return &NodeEnrollment{Node: n, Cluster: ca.Cluster, Certificate: der, CA: bundle}, nil
}

func (n *Node) addresses() map[string]string {
	return map[string]string{"name": n.Name, "raft": n.RaftAddr, "api": n.APIAddr, "agent": n.AgentAddr}
}

// hosts are the names a node's certificate is valid for.
func hosts(info NodeInfo) (ips []net.IP, names []string, err error) {
	for _, addr := range []string{info.RaftAddr, info.APIAddr, info.AgentAddr} {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || host == "" || port == "" {
			return nil, nil, reeve.Errorf(reeve.Invalid, "address_invalid", "%q is not host:port", addr)
		}
		ip := net.ParseIP(host)
		switch {
		case ip != nil && ip.IsUnspecified():
			return nil, nil, reeve.Errorf(reeve.Invalid, "address_invalid", "%q is not an address that others can reach", addr)
		case ip != nil:
			if !slices.ContainsFunc(ips, ip.Equal) {
				ips = append(ips, ip)
			}
		case !slices.Contains(names, host):
			names = append(names, host)
		}
	}
	return ips, names, nil
}

// CheckNode returns the node a verified certificate belongs to, if it is a member.
// Codes certificate_foreign, certificate_wrong_role, node_removed.
func CheckNode(tx *store.Tx, cert *x509.Certificate) (*Node, error) {
	ca, err := issuing(tx, RoleNode)
	if err != nil {
		return nil, err
	}
	id, err := nodeOf(ca.Cluster, cert)
	if err != nil {
		return nil, err
	}
	n, err := nodes.Get(tx, string(id))
	if err != nil {
		return nil, err
	}
	if !n.Removed.IsZero() {
		return nil, nodeRemoved(n)
	}
	return n, nil
}

func nodeRemoved(n *Node) *reeve.Error {
	return reeve.Errorf(reeve.Denied, "node_removed", "node %s was removed from the cluster", n.Name).WithFix("let it join anew with an empty data directory")
}

// GetNode returns a node; code node_not_found.
func GetNode(tx *store.Tx, id reeve.NodeID) (*Node, error) { return nodes.Get(tx, string(id)) }

// ListNodes returns the members in the order in which they joined.
func ListNodes(tx *store.Tx) ([]*Node, error) {
	return page(nodes.List(tx, ""), 1<<10, func(n *Node) bool { return n.Removed.IsZero() })
}

// RemoveNode takes a node out of the registry: its certificate is refused from then on.
// Removing it from Raft is the caller's part.
func RemoveNode(tx *store.Tx, by audit.Actor, id reeve.NodeID) error {
	n, err := nodes.Get(tx, string(id))
	if err != nil {
		return err
	}
	if !n.Removed.IsZero() {
		return nil
	}
	n.Removed = tx.Now()
	if err := nodes.Put(tx, n); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "node.remove", Object: string(id), Details: map[string]string{"name": n.Name}})
}

// Forsake takes all nodes but one out of the registry, without a record: nobody has
// unsealed anything yet.
func Forsake(tx *store.Tx, but reeve.NodeID) error {
	lost, err := page(nodes.List(tx, ""), 1<<10, func(n *Node) bool { return n.ID != but && n.Removed.IsZero() })
	if err != nil {
		return err
	}
	for _, n := range lost {
		n.Removed = tx.Now()
		if err := nodes.Put(tx, n); err != nil {
			return err
		}
	}
	return nil
}

func nodeNameFree(tx *store.Tx, name string) error {
	_, err := nodes.Find(tx, "name", name)
	if err == nil {
		return reeve.Errorf(reeve.Conflict, "node_name_taken", "there is a node named %s", name).WithField("/name")
	}
	if reeve.KindOf(err) == reeve.NotFound {
		return nil
	}
	return err
}

// page collects at most limit wanted records.
func page[T any](seq iter.Seq2[*T, error], limit int, wanted func(*T) bool) ([]*T, error) {
	var out []*T
	for r, err := range seq {
		if err != nil {
			return nil, err
		}
		if len(out) == limit {
			break
		}
		if wanted(r) {
			out = append(out, r)
		}
	}
	return out, nil
}
