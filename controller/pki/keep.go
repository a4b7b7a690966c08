package pki

import (
	"errors"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Keep makes nodes, agents, join tokens and authorities of to, a restored state, those
// of from: who is banned or removed stays so, a used token stays used, and an agent that
// has renewed since is not taken for a copy of itself.
func Keep(to, from *store.Tx) error {
	return errors.Join(cas.Replace(to, from), nodes.Replace(to, from), agents.Replace(to, from), joinTokens.Replace(to, from))
}

// Refound makes n the only controller of a cluster that goes on from a backup: the other
// controllers are forsaken, join tokens are forgotten and every agent is quarantined for
// the reason, because it is not known who was shut out since. Each enrols anew.
func (a *Authority) Refound(tx *store.Tx, by audit.Actor, id reeve.NodeID, csr []byte, info NodeInfo, reason string) (*NodeEnrollment, error) {
	key, err := parseRequest(csr)
	if err != nil {
		return nil, err
	}
	if err := Forsake(tx, id); err != nil {
		return nil, err
	}
	for t, err := range joinTokens.List(tx, "") {
		if err == nil {
			err = joinTokens.Delete(tx, string(t.ID))
		}
		if err != nil {
			return nil, err
		}
	}
	for g, err := range agents.List(tx, "") {
		if err == nil {
			err = g.quarantine(tx, reason)
		}
		if err != nil {
			return nil, err
		}
	}
	return a.admitNode(tx, by, &Node{ID: id}, key, info)
}
