package pki

import (
	"bytes"
	"context"
	"crypto/x509"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

const (
	// overlap is how long calls made with an agent's certificate are still good after
	// its next one was first used. An agent closes connections made with the old one
	// well before.
	overlap = time.Minute
	// seenGrain is how exact Agent.LastSeen is.
	seenGrain = time.Minute
)

const reasonStale = "a certificate was used that a newer one had replaced: its key was copied"

// place is where a certificate stands among those of its agent.
type place int

const (
	current  place = iota
	next           // issued, and not used before now
	previous       // just replaced
	stale
)

// CheckAgent says which agent a certificate stands for, and whether it may be served
// now. It only reads and may be repeated often, as for open streams; [Authority.Admit]
// is for the beginning of each call. Codes: certificate_foreign (another cluster's),
// certificate_wrong_role, certificate_expired, agent_unknown, agent_banned,
// agent_quarantined, agent_replaced, agent_certificate_stale.
//
// signedBy is the authority whose signature on cert crypto/tls has checked: that it is
// still trusted is checked here, the signature is not checked again. nil: it is.
func CheckAgent(tx *store.Tx, cert, signedBy *x509.Certificate) (*Agent, error) {
	a, p, err := look(tx, cert, signedBy)
	if err != nil {
		return nil, err
	}
	if p == stale {
		return nil, staleCertificate(a)
	}
	return a, nil
}

// Admit is CheckAgent at the beginning of a call on the leader, with its consequences:
// the first use of a renewed certificate makes it the current one, a stale certificate
// quarantines the agent, and the time is remembered for [Authority.NoteSeen].
func (a *Authority) Admit(ctx context.Context, cert, signedBy *x509.Certificate) (*Agent, error) {
	var agent *Agent
	var settled bool
	err := a.store.View(ctx, func(tx *store.Tx) error {
		got, p, err := look(tx, cert, signedBy)
		if err != nil {
			return err
		}
		agent = got
		settled = p == current || p == previous
		if settled && tx.Now().Sub(got.LastSeen) >= seenGrain {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.seen[got.ID] = tx.Now()
		}
		return nil
	})
	if err != nil || settled {
		return agent, err
	}
	var refused error
	err = a.store.Update(ctx, func(tx *store.Tx) (err error) {
		agent, refused, err = settle(tx, cert, signedBy)
		return err
	})
	if err != nil {
		return nil, err
	}
	if refused != nil {
		a.log.Warn("agent refused", "error", refused)
		return nil, refused
	}
	return agent, nil
}

// noteAtOnce is how many agents share a transaction of NoteSeen.
const noteAtOnce = 200

// NoteSeen writes down when agents were seen since the last time, many of them in one
// transaction: thousands that come back after a failover do not wait for a write each.
// What it fails to write is noted at the agent's next call.
func (a *Authority) NoteSeen(ctx context.Context) error {
	a.mu.Lock()
	seen := a.seen
	a.seen = map[reeve.AgentID]time.Time{}
	a.mu.Unlock()
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(seen)), noteAtOnce) {
		err := a.store.Update(ctx, func(tx *store.Tx) error {
			for _, id := range ids {
				agent, err := GetAgent(tx, id)
				if err != nil {
					return err
				}
				if agent.LastSeen.After(seen[id]) {
					continue
				}
				agent.LastSeen = seen[id]
				if err := agents.Put(tx, agent); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// settle returns the agent, or why it is refused although the transaction is to be
// committed, or an error that undoes the transaction.
func settle(tx *store.Tx, cert, signedBy *x509.Certificate) (agent *Agent, refused, err error) {
	a, p, err := look(tx, cert, signedBy)
	if err != nil {
		return nil, nil, err
	}
	if p == stale {
		return nil, staleCertificate(a), a.quarantine(tx, reasonStale)
	}
	a.LastSeen = tx.Now()
	if p != next {
		return a, nil, agents.Put(tx, a)
	}
	a.promote(tx.Now())
	if err := agents.Put(tx, a); err != nil {
		return nil, nil, err
	}
	return a, nil, audit.Record(tx, audit.Event{By: audit.Actor{Kind: string(RoleAgent), ID: string(a.ID), Name: a.Name},
		Action: "agent.switch_certificate", Object: string(a.ID), Details: map[string]string{"certificate": a.Current.Hash}})
}

// look finds the active agent of a certificate and where the certificate stands.
func look(tx *store.Tx, cert, signedBy *x509.Certificate) (*Agent, place, error) {
	cas, err := generations(tx, RoleAgent)
	if err != nil {
		return nil, 0, err
	}
	ca, err := issuingOf(cas, RoleAgent)
	if err != nil {
		return nil, 0, err
	}
	site, id, err := agentOf(ca.Cluster, cert)
	if err != nil {
		return nil, 0, err
	}
	if !tx.Now().Before(cert.NotAfter) {
		return nil, 0, reeve.Errorf(reeve.Unauthenticated, "certificate_expired", "the agent's certificate expired at %s", cert.NotAfter.Format(time.RFC3339)).
			WithFix("enrol the agent anew with a new join token")
	}
	// The authority's signature is what makes it an agent's certificate.
	if err := verifyIssued(tx, cas, cert, signedBy); err != nil {
		return nil, 0, err
	}
	a, err := agents.Get(tx, string(id))
	if reeve.KindOf(err) == reeve.NotFound || err == nil && a.SiteID != site {
		return nil, 0, reeve.Errorf(reeve.Unauthenticated, "agent_unknown", "agent %s of site %s is not registered here", id, site).
			WithFix("enrol the agent with a join token")
	}
	if err != nil {
		return nil, 0, err
	}
	if err := a.refusal(); err != nil {
		return nil, 0, err
	}
	switch hash := fingerprint(cert.Raw); {
	case hash == a.Current.Hash:
		return a, current, nil
	case a.Next != nil && hash == a.Next.Hash:
		return a, next, nil
	case hash == a.Previous && tx.Now().Before(a.PreviousUntil):
		return a, previous, nil
	default:
		return a, stale, nil
	}
}

// verifyIssued checks that one of the agent authority's generations signed cert. Where
// crypto/tls has found out which one, it only must be one of them still: a signature costs
// more to check than all the rest of a call's admission.
func verifyIssued(tx *store.Tx, cas []*CA, cert, signedBy *x509.Certificate) error {
	if signedBy != nil {
		if !slices.ContainsFunc(cas, func(ca *CA) bool { return bytes.Equal(ca.Certificate, signedBy.Raw) }) {
			return foreign("is not signed by this cluster's agent authority")
		}
		return nil
	}
	bundle, err := parseAll(cas)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	for _, c := range bundle {
		roots.AddCert(c)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: tx.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return foreign("is not signed by this cluster's agent authority").Wrap(err)
	}
	return nil
}

func staleCertificate(a *Agent) *reeve.Error {
	return reeve.Errorf(reeve.Denied, "agent_certificate_stale", "the certificate of agent %s was replaced by a newer one that is in use", a.Name).
		WithFix("find out who has its key, then enrol it anew with a new join token")
}

func foreign(why string) *reeve.Error {
	return reeve.Errorf(reeve.Unauthenticated, "certificate_foreign", "the certificate %s: it belongs to another cluster", why).
		WithFix("enrol or join here with a join token of this cluster")
}

func wrongRole(want Role) *reeve.Error {
	return reeve.Errorf(reeve.Denied, "certificate_wrong_role", "the certificate is not that of a %s", map[Role]string{RoleNode: "controller", RoleAgent: "agent"}[want])
}

func nodeURI(cluster string, id reeve.NodeID) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: cluster, Path: "/node/" + string(id)}
}

func agentURI(cluster string, site reeve.SiteID, id reeve.AgentID) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: cluster, Path: "/site/" + string(site) + "/agent/" + string(id)}
}

// identityOf returns the path of the one URI in a certificate of this cluster.
func identityOf(cluster string, cert *x509.Certificate) (string, error) {
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != "spiffe" {
		return "", foreign("names no member of a cluster")
	}
	path, ok := strings.CutPrefix(cert.URIs[0].String(), "spiffe://"+cluster+"/")
	if !ok {
		return "", foreign("is for cluster " + cert.URIs[0].Host)
	}
	return path, nil
}

func nodeOf(cluster string, cert *x509.Certificate) (reeve.NodeID, error) {
	path, err := identityOf(cluster, cert)
	if err != nil {
		return "", err
	}
	id, ok := strings.CutPrefix(path, "node/")
	if !ok || !reeve.ValidID("node", id) {
		return "", wrongRole(RoleNode)
	}
	return reeve.NodeID(id), nil
}

func agentOf(cluster string, cert *x509.Certificate) (reeve.SiteID, reeve.AgentID, error) {
	path, err := identityOf(cluster, cert)
	if err != nil {
		return "", "", err
	}
	parts := strings.Split(path, "/")
	if len(parts) != 4 || parts[0] != "site" || parts[2] != "agent" || !reeve.ValidID("site", parts[1]) || !reeve.ValidID("agent", parts[3]) {
		return "", "", wrongRole(RoleAgent)
	}
	return reeve.SiteID(parts[1]), reeve.AgentID(parts[3]), nil
}
