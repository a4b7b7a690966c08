package pki

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// EnrollRequest is what a new agent sends.
type EnrollRequest struct {
	Secret  reeve.Secret // of the join token
	CSR     []byte       // PKCS #10; only its key is used
	HPKEKey []byte
	Version string
	From    string // remote address, for audit
}

// Enrollment is what an agent is given.
type Enrollment struct {
	Agent       *Agent
	Cluster     string
	Certificate []byte // DER
	CA          []byte // PEM: bundle of the node authority, which signs the controllers
	NotAfter    time.Time
	Generation  uint64
}

const maxVersion = 64 // bytes of a version string that are kept

// Enroll trades a join token for an agent's first certificate, in one transaction. The
// same token with the same key gives the same agent and certificate again, for a day,
// until that agent has renewed: a lost answer strands nobody. With another key it is
// refused, and the agent first enrolled is quarantined, since one of the two is an
// intruder. An older agent of the name is replaced, unless it is banned.
//
// Codes: join_token_unknown, join_token_expired, join_token_used, agent_banned,
// csr_invalid, csr_key_unsupported, hpke_key_invalid.
func (a *Authority) Enroll(ctx context.Context, req EnrollRequest) (*Enrollment, error) {
	key, err := parseRequest(req.CSR)
	if err != nil {
		return nil, err
	}
	if _, err := envelope.ParsePublicKey(req.HPKEKey); err != nil {
		return nil, err
	}
	var enrolled *Enrollment
	var refused error
	err = a.store.Update(ctx, func(tx *store.Tx) (err error) {
		enrolled, refused, err = a.enroll(tx, req, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	if refused != nil {
		a.log.Warn("enrolment refused", "error", refused, "from", req.From)
		return nil, refused
	}
	return enrolled, nil
}

// enroll returns the enrolment, or why it is refused although the transaction is to be
// committed, or an error that undoes the transaction.
func (a *Authority) enroll(tx *store.Tx, req EnrollRequest, key publicKey) (enrolled *Enrollment, refused, err error) {
	t, err := findToken(tx, RoleAgent, req.Secret)
	if err != nil {
		return nil, nil, err
	}
	if t.Used.IsZero() {
		if !tx.Now().Before(t.Expires) {
			return nil, nil, tokenExpired(t)
		}
		enrolled, err = a.admitAgent(tx, t, req, key)
		return enrolled, nil, err
	}
	agent, err := agents.Get(tx, t.UsedBy)
	if err != nil {
		return nil, nil, err
	}
	if t.UsedKey != key.hash {
		if err := misused(tx, t, req.From, key.hash); err != nil {
			return nil, nil, err
		}
		return nil, tokenUsed(t), agent.quarantine(tx, "its join token was used again with another key, from "+req.From)
	}
	if err := agent.refusal(); err != nil {
		return nil, nil, err
	}
	if agent.Current.Generation != 1 || !tx.Now().Before(agent.Current.NotAfter) {
		return nil, nil, tokenUsed(t)
	}
	agent.Current.HPKEKey = req.HPKEKey // it may have lost the one it made first
	if err := agents.Put(tx, agent); err != nil {
		return nil, nil, err
	}
	enrolled, err = enrollment(tx, agent, &agent.Current)
	return enrolled, nil, err
}

// admitAgent makes the agent that a fresh token allows.
func (a *Authority) admitAgent(tx *store.Tx, t *JoinToken, req EnrollRequest, key publicKey) (*Enrollment, error) {
	agent := &Agent{ID: reeve.NewAgentID(), SiteID: t.SiteID, Name: t.Name, Status: Active, Token: t.ID,
		Version: clip(req.Version), Enrolled: tx.Now(), LastSeen: tx.Now()}
	by := audit.Actor{Kind: string(RoleAgent), ID: string(agent.ID), Name: agent.Name, From: req.From}
	old, err := holderOf(tx, t.SiteID, t.Name)
	if err != nil {
		return nil, err
	}
	if old != nil {
		if old.Status == Banned {
			return nil, old.refusal()
		}
		if err := old.become(tx, by, "agent.replace", Replaced, "replaced by "+string(agent.ID)); err != nil {
			return nil, err
		}
	}
	issued, err := a.certify(tx, agent, key, req.HPKEKey)
	if err != nil {
		return nil, err
	}
	agent.Current = *issued
	if err := agents.Insert(tx, agent); err != nil {
		return nil, err
	}
	if !mutant.Is(mutant.TokenKept) {
		t.Used, t.UsedKey, t.UsedBy = tx.Now(), key.hash, string(agent.ID)
	}
	if err := joinTokens.Put(tx, t); err != nil {
		return nil, err
	}
	if err := audit.Record(tx, audit.Event{By: by, Action: "agent.enroll", Object: string(agent.ID), Details: map[string]string{
		"name": agent.Name, "site": string(agent.SiteID), "token": string(t.ID), "certificate": issued.Hash}}); err != nil {
		return nil, err
	}
	return enrollment(tx, agent, issued)
}

// certify issues the agent's next certificate. The caller stores the agent.
func (a *Authority) certify(tx *store.Tx, agent *Agent, key publicKey, hpkeKey []byte) (*Credential, error) {
	ca, err := issuing(tx, RoleAgent)
	if err != nil {
		return nil, err
	}
	notAfter := tx.Now().Add(AgentLifetime)
	der, err := a.issue(tx, RoleAgent, key, &x509.Certificate{
		Subject:     pkix.Name{CommonName: agent.Name, Organization: []string{ca.Cluster}},
		NotAfter:    notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{agentURI(ca.Cluster, agent.SiteID, agent.ID)},
	})
	if err != nil {
		return nil, err
	}
	agent.Generations++
	return &Credential{Certificate: der, Hash: fingerprint(der), KeyHash: key.hash, HPKEKey: hpkeKey,
		Generation: agent.Generations, NotAfter: notAfter}, nil
}

func enrollment(tx *store.Tx, agent *Agent, c *Credential) (*Enrollment, error) {
	ca, err := issuing(tx, RoleNode)
	if err != nil {
		return nil, err
	}
	bundle, err := BundlePEM(tx, RoleNode)
	if err != nil {
		return nil, err
	}
	return &Enrollment{Agent: agent, Cluster: ca.Cluster, Certificate: c.Certificate, CA: bundle,
		NotAfter: c.NotAfter, Generation: c.Generation}, nil
}

func clip(version string) string { return version[:min(len(version), maxVersion)] }
