package pki

import (
	"context"
	"crypto/x509"
	"strconv"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// RenewRequest is what an agent sends to renew its certificate.
type RenewRequest struct {
	CSR        []byte // for its next key; retry with the same until answered
	HPKEKey    []byte
	Version    string
	Generation uint64 // of the certificate in use
}

// Renew gives an agent its next certificate. cert is the one it came with. Nothing
// changes for the agent until it first uses the new one: asking again, with the same
// key or a new one, is always safe while the answer has not been used.
//
// Each certificate but the newest two is stale. Using a stale one, or claiming
// another generation, means that the key has been copied: the agent is quarantined.
// Codes as for [CheckAgent], and agent_generation_stale.
func (a *Authority) Renew(ctx context.Context, cert *x509.Certificate, req RenewRequest) (*Enrollment, error) {
	key, err := parseRequest(req.CSR)
	if err != nil {
		return nil, err
	}
	if _, err := envelope.ParsePublicKey(req.HPKEKey); err != nil {
		return nil, err
	}
	var renewed *Enrollment
	var refused error
	err = a.store.Update(ctx, func(tx *store.Tx) (err error) {
		renewed, refused, err = a.renew(tx, cert, req, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	if refused != nil {
		a.log.Warn("renewal refused", "error", refused)
		return nil, refused
	}
	return renewed, nil
}

// renew returns like enroll.
func (a *Authority) renew(tx *store.Tx, cert *x509.Certificate, req RenewRequest, key publicKey) (renewed *Enrollment, refused, err error) {
	agent, place, err := look(tx, cert, nil)
	if err != nil {
		return nil, nil, err
	}
	switch place {
	case previous: // perhaps a request of the agent itself that was overtaken: no harm, no certificate
		return nil, staleCertificate(agent), nil
	case stale:
		return nil, staleCertificate(agent), agent.quarantine(tx, reasonStale)
	}
	if place == next {
		agent.promote(tx.Now())
	}
	if req.Generation != agent.Current.Generation {
		refused = reeve.Errorf(reeve.Denied, "agent_generation_stale", "agent %s asks with generation %d, but has %d", agent.Name, req.Generation, agent.Current.Generation).
			WithFix("find out who has its key, then enrol it anew with a new join token")
		return nil, refused, agent.quarantine(tx, "it claimed generation "+strconv.FormatUint(req.Generation, 10)+": its key or state was copied")
	}
	agent.Version, agent.LastSeen = clip(req.Version), tx.Now()
	if n := agent.Next; n != nil && n.KeyHash == key.hash && n.NotAfter.Sub(tx.Now()) > AgentLifetime/2 {
		n.HPKEKey = req.HPKEKey // the answer was lost: give it again
		if err := agents.Put(tx, agent); err != nil {
			return nil, nil, err
		}
		renewed, err = enrollment(tx, agent, n)
		return renewed, nil, err
	}
	agent.Next, err = a.certify(tx, agent, key, req.HPKEKey)
	if err != nil {
		return nil, nil, err
	}
	if err := agents.Put(tx, agent); err != nil {
		return nil, nil, err
	}
	if err := audit.Record(tx, audit.Event{By: audit.Actor{Kind: string(RoleAgent), ID: string(agent.ID), Name: agent.Name},
		Action: "agent.renew", Object: string(agent.ID), Details: map[string]string{
			"generation": strconv.FormatUint(agent.Next.Generation, 10), "certificate": agent.Next.Hash,
			"not_after": agent.Next.NotAfter.Format(time.RFC3339)}}); err != nil {
		return nil, nil, err
	}
	renewed, err = enrollment(tx, agent, agent.Next)
	return renewed, nil, err
}

// promote makes Next current: it was used.
func (a *Agent) promote(now time.Time) {
	a.Previous, a.PreviousUntil = a.Current.Hash, now.Add(overlap)
	a.Current, a.Next = *a.Next, nil
}
