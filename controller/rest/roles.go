package rest

import (
	"context"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/store"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

func showRole(tx *store.Tx, r *inventory.Role) (client.Role, error) {
	m := r.Role.M
	out := client.Role{Name: r.Key.Name, Connector: r.Key.Connector, Category: r.Category, Version: int(r.Key.Version), Predefined: r.BuiltIn,
		Title: m.GetTitle(), Description: optional(m.GetDescription()), HighRisk: m.GetHighRisk(), Params: []client.RoleParam{},
		Phases: []client.RolePhase{}, CreatedAt: r.CreatedAt, CreatedBy: optional(r.CreatedBy), RetiredAt: instant(r.RetiredAt)}
	for _, p := range m.GetParams() {
		out.Params = append(out.Params, client.RoleParam{Name: p.GetName(), Help: p.GetHelp(), Pattern: optional(p.GetPattern()), Required: p.GetRequired()})
	}
	for _, ph := range m.GetPhases() {
		out.Phases = append(out.Phases, client.RolePhase{Phase: ph.GetPhase(), Commands: ph.GetCommands()})
	}
	c, err := inventory.GetConnector(tx, r.Key.Connector)
	if err != nil {
		return out, err
	}
	advice := []client.RoleAdvice{}
	for _, a := range r.Advice(c.Description.M.GetDialect()) {
		advice = append(advice, client.RoleAdvice{Phase: a.Phase, Command: a.Command, Modern: a.Modern, Reason: a.Reason})
	}
	if len(advice) > 0 {
		out.Advice = &advice
	}
	return out, nil
}

// asked is the role a request describes.
func asked(title string, description *string, highRisk *bool, params *[]client.RoleParamRequest, phases *[]client.RolePhaseRequest) *connectorv1.Role {
	r := &connectorv1.Role{Title: title, Description: value(description), HighRisk: value(highRisk)}
	for _, p := range value(params) {
		r.Params = append(r.Params, &connectorv1.RoleParam{Name: p.Name, Help: value(p.Help), Pattern: p.Pattern, Required: value(p.Required)})
	}
	for _, ph := range value(phases) {
		r.Phases = append(r.Phases, &connectorv1.RolePhase{Phase: string(ph.Phase), Commands: ph.Commands})
	}
	return r
}

// ListRoles implements the contract.
func (s *Server) ListRoles(ctx context.Context, r ListRolesRequestObject) (ListRolesResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	var out client.RolePage
	err = s.view(ctx, func(tx *store.Tx) (err error) {
		out.Items, out.Next, err = page(func(yield func(*inventory.Role, error) bool) {
			for role, err := range inventory.ListRoles(tx, after) {
				if err == nil && r.Params.Connector != nil && role.Key.Connector != *r.Params.Connector {
					continue
				}
				if !yield(role, err) {
					return
				}
			}
		}, r.Params.Limit, func(r *inventory.Role) string { return r.Key.String() },
			func(r *inventory.Role) (client.Role, error) { return showRole(tx, r) })
		return err
	})
	return ListRoles200JSONResponse(out), err
}

// saved runs a change of a role and shows what became of it.
func (s *Server) saved(ctx context.Context, key *string, request any, change func(*store.Tx, audit.Actor) (*inventory.Role, error)) (client.Role, error) {
	return update(ctx, s, key, request, func(tx *store.Tx, by audit.Actor) (client.Role, error) {
		r, err := change(tx, by)
		if err != nil {
			return client.Role{}, err
		}
		return showRole(tx, r)
	})
}

// AddRole implements the contract.
func (s *Server) AddRole(ctx context.Context, r AddRoleRequestObject) (AddRoleResponseObject, error) {
	in := r.Body
	out, err := s.saved(ctx, r.Params.IdempotencyKey, in, func(tx *store.Tx, by audit.Actor) (*inventory.Role, error) {
		role := asked(in.Title, in.Description, in.HighRisk, in.Params, in.Phases)
		role.Name = in.Name
		return inventory.AddRole(tx, by, in.Connector, role)
	})
	return AddRole201JSONResponse(out), err
}

// CloneRole implements the contract.
func (s *Server) CloneRole(ctx context.Context, r CloneRoleRequestObject) (CloneRoleResponseObject, error) {
	out, err := s.saved(ctx, r.Params.IdempotencyKey, r.Body, func(tx *store.Tx, by audit.Actor) (*inventory.Role, error) {
		return inventory.CloneRole(tx, by, r.Role, r.Body.Name)
	})
	return CloneRole201JSONResponse(out), err
}

// EditRole implements the contract.
func (s *Server) EditRole(ctx context.Context, r EditRoleRequestObject) (EditRoleResponseObject, error) {
	in := r.Body
	out, err := s.saved(ctx, r.Params.IdempotencyKey, in, func(tx *store.Tx, by audit.Actor) (*inventory.Role, error) {
		return inventory.EditRole(tx, by, r.Role, uint32(in.Version), asked(in.Title, in.Description, in.HighRisk, in.Params, in.Phases)) //nolint:gosec // bounded by the contract
	})
	return EditRole200JSONResponse(out), err
}

// GetRole implements the contract.
func (s *Server) GetRole(ctx context.Context, r GetRoleRequestObject) (GetRoleResponseObject, error) {
	var out client.Role
	err := s.view(ctx, func(tx *store.Tx) error {
		found, err := inventory.FindRole(tx, r.Role, uint32(value(r.Params.Version))) //nolint:gosec // bounded by the contract
		if err != nil {
			return err
		}
		out, err = showRole(tx, found)
		return err
	})
	return GetRole200JSONResponse(out), err
}

// RetireRole implements the contract.
func (s *Server) RetireRole(ctx context.Context, r RetireRoleRequestObject) (RetireRoleResponseObject, error) {
	_, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		return none{}, inventory.RetireRole(tx, by, r.Role)
	})
	return RetireRole204Response{}, err
}

// CheckRights implements the contract.
func (s *Server) CheckRights(ctx context.Context, r CheckRightsRequestObject) (CheckRightsResponseObject, error) {
	out, err := update(ctx, s, r.Params.IdempotencyKey, r.Body, func(tx *store.Tx, by audit.Actor) (client.JobRef, error) {
		a, err := inventory.GetAsset(tx, r.Asset)
		if err != nil {
			return client.JobRef{}, err
		}
		j, err := s.Lifecycle.CheckRights(tx, by, a.ID, r.Body.Role, value(r.Body.Params))
		if err != nil {
			return client.JobRef{}, err
		}
		return jobRef(j), nil
	})
	return CheckRights202JSONResponse(out), err
}
