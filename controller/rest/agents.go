package rest

import (
	"context"

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
	for after := reeve.AgentID(""); ; {
		list, err := pki.ListAgents(tx, "", after, 1000)
		if err != nil {
			return nil, err
		}
		for _, a := range list {
			if a.Name != ref {
				continue
			}
			if found != nil {
				return nil, reeve.Errorf(reeve.Conflict, "agent_ambiguous", "two sites have an agent %q", ref).WithFix("give its id")
			}
			found = a
		}
		if len(list) < 1000 {
			break
		}
		after = list[len(list)-1].ID
	}
	if found == nil {
		return nil, reeve.Errorf(reeve.NotFound, "agent_not_found", "there is no agent %q", ref)
	}
	return found, nil
}

// ListAgents implements the contract.
func (s *Server) ListAgents(ctx context.Context, r ListAgentsRequestObject) (ListAgentsResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	limit := 100
	if r.Params.Limit != nil {
		limit = *r.Params.Limit
	}
	out := client.AgentPage{Items: []client.Agent{}}
	err = s.view(ctx, func(tx *store.Tx) error {
		list, err := pki.ListAgents(tx, "", reeve.AgentID(after), limit+1)
		for i, a := range list {
			if i == limit {
				out.Next = optional(encodeCursor(out.Items[i-1].Id))
				break
			}
			out.Items = append(out.Items, s.showAgent(tx, a))
		}
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
