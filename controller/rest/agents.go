package rest

import (
	"context"
	"iter"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func (s *Server) showAgent(tx *store.Tx, a *pki.Agent) client.Agent {
	connected := s.Broker.Connected(a.ID)
	return client.Agent{Id: string(a.ID), Name: a.Name, Site: names{tx}.site(a.SiteID), Status: client.AgentStatus(a.Status), StatusReason: optional(a.Reason),
		Connected: &connected, Version: optional(a.Version), EnrolledAt: a.Enrolled, LastSeenAt: instant(a.LastSeen), CertificateExpiresAt: instant(a.Current.NotAfter)}
}

// agent finds an agent by id or name. A name that two sites use must be given as an id.
func agent(tx *store.Tx, ref string) (*pki.Agent, error) {
	if reeve.ValidID("agent", ref) {
		return pki.GetAgent(tx, reeve.AgentID(ref))
	}
	var found *pki.Agent
	for a, err := range agentsAfter(tx, "") {
		switch {
		case err != nil:
			return nil, err
		case a.Name != ref:
			continue
		case found != nil:
			return nil, reeve.Errorf(reeve.Conflict, "agent_ambiguous", "two sites have an agent %q", ref).WithFix("give its id")
		}
		found = a
	}
	if found == nil {
		return nil, reeve.Errorf(reeve.NotFound, "agent_not_found", "there is no agent %q", ref)
	}
	return found, nil
}

// agentsAfter yields all agents after the one with the id.
func agentsAfter(tx *store.Tx, after reeve.AgentID) iter.Seq2[*pki.Agent, error] {
	return func(yield func(*pki.Agent, error) bool) {
		const most = 1000
		for {
			list, err := pki.ListAgents(tx, "", after, most)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, a := range list {
				if !yield(a, nil) {
					return
				}
			}
			if len(list) < most {
				return
			}
			after = list[most-1].ID
		}
	}
}

// ListAgents implements the contract.
func (s *Server) ListAgents(ctx context.Context, r ListAgentsRequestObject) (ListAgentsResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	out := client.AgentPage{Items: []client.Agent{}}
	err = s.view(ctx, func(tx *store.Tx) error {
		sees, err := sight(ctx, tx)
		if err != nil {
			return err
		}
		out.Items, out.Next, err = page(seen(agentsAfter(tx, reeve.AgentID(after)), func(a *pki.Agent) (bool, error) {
			return sees(inSite("agent", string(a.ID), a.SiteID)), nil
		}), r.Params.Limit, func(a *pki.Agent) string { return string(a.ID) }, func(a *pki.Agent) (client.Agent, error) { return s.showAgent(tx, a), nil })
		return err
	})
	return ListAgents200JSONResponse(out), err
}

// GetAgent implements the contract.
func (s *Server) GetAgent(ctx context.Context, r GetAgentRequestObject) (GetAgentResponseObject, error) {
	var out client.Agent
	err := s.view(ctx, func(tx *store.Tx) error {
		a, err := agent(tx, r.Agent)
		if err != nil {
			return err
		}
		out = s.showAgent(tx, a)
		return nil
	})
	return GetAgent200JSONResponse(out), err
}

// CreateAgentJoinToken implements the contract.
func (s *Server) CreateAgentJoinToken(ctx context.Context, r CreateAgentJoinTokenRequestObject) (CreateAgentJoinTokenResponseObject, error) {
	t, err := s.joinToken(ctx, func(tx *store.Tx) (pki.NewJoinToken, error) {
		if err := permit(ctx, tx, siteKind, r.Body.Site); err != nil {
			return pki.NewJoinToken{}, err
		}
		site, err := inventory.GetSite(tx, r.Body.Site)
		if err != nil {
			return pki.NewJoinToken{}, err
		}
		return pki.NewJoinToken{Role: pki.RoleAgent, SiteID: site.ID, Name: r.Body.Name, Lifetime: seconds(r.Body.TtlSeconds, 0)}, nil
	})
	return CreateAgentJoinToken201JSONResponse(t), err
}

// BanAgent implements the contract.
func (s *Server) BanAgent(ctx context.Context, r BanAgentRequestObject) (BanAgentResponseObject, error) {
	out, err := update(ctx, s, r.Params.IdempotencyKey, r.Body, func(tx *store.Tx, by audit.Actor) (client.Agent, error) {
		a, err := agent(tx, r.Agent)
		if err == nil {
			a, err = pki.BanAgent(tx, by, a.ID, r.Body.Reason)
		}
		if err != nil {
			return client.Agent{}, err
		}
		return s.showAgent(tx, a), nil
	})
	return BanAgent200JSONResponse(out), err
}

// UnbanAgent implements the contract.
func (s *Server) UnbanAgent(ctx context.Context, r UnbanAgentRequestObject) (UnbanAgentResponseObject, error) {
	out, err := update(ctx, s, r.Params.IdempotencyKey, r.Body, func(tx *store.Tx, by audit.Actor) (client.Agent, error) {
		a, err := agent(tx, r.Agent)
		if err == nil {
			a, err = pki.UnbanAgent(tx, by, a.ID)
		}
		if err != nil {
			return client.Agent{}, err
		}
		return s.showAgent(tx, a), nil
	})
	return UnbanAgent200JSONResponse(out), err
}
