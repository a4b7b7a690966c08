package rest

import (
	"context"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// ListPrivileges implements the contract.
func (s *Server) ListPrivileges(context.Context, ListPrivilegesRequestObject) (ListPrivilegesResponseObject, error) {
	out := client.PrivilegeList{Items: []client.PrivilegeInfo{}}
	for _, p := range identity.Privileges() {
		out.Items = append(out.Items, client.PrivilegeInfo{Privilege: string(p.Privilege), Help: p.Help})
	}
	return ListPrivileges200JSONResponse(out), nil
}

func showPAMRole(r *identity.PAMRole) (client.PAMRole, error) {
	return client.PAMRole{Name: r.Name, Title: r.Title, Description: optional(r.Description), Privileges: words(r.Privileges), BuiltIn: r.BuiltIn, CreatedAt: instant(r.CreatedAt)}, nil
}

func words[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = string(p)
	}
	return out
}

func asPrivileges(list []string) []identity.Privilege {
	out := make([]identity.Privilege, len(list))
	for i, p := range list {
		out[i] = identity.Privilege(p)
	}
	return out
}

// ListPAMRoles implements the contract.
func (s *Server) ListPAMRoles(ctx context.Context, r ListPAMRolesRequestObject) (ListPAMRolesResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	var out client.PAMRolePage
	err = s.view(ctx, func(tx *store.Tx) (err error) {
		out.Items, out.Next, err = page(identity.ListPAMRoles(tx, after), r.Params.Limit, func(r *identity.PAMRole) string { return r.Name }, showPAMRole)
		return err
	})
	return ListPAMRoles200JSONResponse(out), err
}

// GetPAMRole implements the contract.
func (s *Server) GetPAMRole(ctx context.Context, r GetPAMRoleRequestObject) (GetPAMRoleResponseObject, error) {
	var out client.PAMRole
	err := s.view(ctx, func(tx *store.Tx) error {
		role, err := identity.GetPAMRole(tx, r.PamRole)
		if err != nil {
			return err
		}
		out, err = showPAMRole(role)
		return err
	})
	return GetPAMRole200JSONResponse(out), err
}

// AddPAMRole implements the contract.
func (s *Server) AddPAMRole(ctx context.Context, r AddPAMRoleRequestObject) (AddPAMRoleResponseObject, error) {
	in := r.Body
	out, err := s.savedPAMRole(ctx, r.Params.IdempotencyKey, in, func(tx *store.Tx, by audit.Actor) (*identity.PAMRole, error) {
		return identity.CreatePAMRole(tx, by, caller(ctx), in.Name, identity.PAMRoleText{Title: value(in.Title), Description: value(in.Description), Privileges: asPrivileges(in.Privileges)})
	})
	return AddPAMRole201JSONResponse(out), err
}

// EditPAMRole implements the contract.
func (s *Server) EditPAMRole(ctx context.Context, r EditPAMRoleRequestObject) (EditPAMRoleResponseObject, error) {
	in := r.Body
	out, err := s.savedPAMRole(ctx, r.Params.IdempotencyKey, in, func(tx *store.Tx, by audit.Actor) (*identity.PAMRole, error) {
		return identity.EditPAMRole(tx, by, caller(ctx), r.PamRole, identity.PAMRoleText{Title: value(in.Title), Description: value(in.Description), Privileges: asPrivileges(in.Privileges)})
	})
	return EditPAMRole200JSONResponse(out), err
}

func (s *Server) savedPAMRole(ctx context.Context, key *string, request any, change func(*store.Tx, audit.Actor) (*identity.PAMRole, error)) (client.PAMRole, error) {
	return update(ctx, s, key, request, func(tx *store.Tx, by audit.Actor) (client.PAMRole, error) {
		role, err := change(tx, by)
		if err != nil {
			return client.PAMRole{}, err
		}
		return showPAMRole(role)
	})
}

// DeletePAMRole implements the contract.
func (s *Server) DeletePAMRole(ctx context.Context, r DeletePAMRoleRequestObject) (DeletePAMRoleResponseObject, error) {
	_, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		return none{}, identity.DeletePAMRole(tx, by, r.PamRole)
	})
	return DeletePAMRole204Response{}, err
}

func showScope(tx *store.Tx, s identity.Scope) client.Scope {
	out := client.Scope{Everything: optional(s.Everything), Tags: mapped(s.Tags)}
	if len(s.Sites) > 0 {
		sites := []string{}
		for _, id := range s.Sites {
			sites = append(sites, names{tx}.site(id))
		}
		out.Sites = &sites
	}
	return out
}

// asScope finds what a scope names.
func asScope(tx *store.Tx, in client.Scope) (identity.Scope, error) {
	out := identity.Scope{Everything: value(in.Everything), Tags: value(in.Tags)}
	for _, ref := range value(in.Sites) {
		site, err := inventory.GetSite(tx, ref)
		if err != nil {
			return identity.Scope{}, err
		}
		out.Sites = append(out.Sites, site.ID)
	}
	return out, nil
}

func showAssignment(tx *store.Tx, a *identity.Assignment) client.Assignment {
	out := client.Assignment{Id: string(a.ID), Role: a.Role, CreatedAt: a.CreatedAt, Scope: showScope(tx, a.Scope)}
	name := identity.SubjectName(tx, a.Subject)
	if reeve.ValidID("grp", a.Subject) {
		out.Group = &name
	} else {
		out.User = &name
	}
	return out
}

// assignmentsOf are those of a user or of a group.
func assignmentsOf(tx *store.Tx, subject string) ([]client.Assignment, error) {
	out := []client.Assignment{}
	for a, err := range identity.AssignmentsOf(tx, subject) {
		if err != nil {
			return nil, err
		}
		out = append(out, showAssignment(tx, a))
	}
	return out, nil
}

// ListAssignments implements the contract.
func (s *Server) ListAssignments(ctx context.Context, r ListAssignmentsRequestObject) (ListAssignmentsResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	var out client.AssignmentPage
	err = s.view(ctx, func(tx *store.Tx) error {
		f := identity.AssignmentFilter{Role: value(r.Params.Role)}
		if r.Params.User != nil {
			p, err := identity.FindPrincipal(tx, *r.Params.User)
			if err != nil {
				return err
			}
			f.Subject = string(p.ID)
		}
		if r.Params.Group != nil {
			g, err := identity.FindGroup(tx, *r.Params.Group)
			if err != nil {
				return err
			}
			f.Subject = string(g.ID)
		}
		out.Items, out.Next, err = page(identity.ListAssignments(tx, after, f), r.Params.Limit,
			func(a *identity.Assignment) string { return string(a.ID) },
			func(a *identity.Assignment) (client.Assignment, error) { return showAssignment(tx, a), nil })
		return err
	})
	return ListAssignments200JSONResponse(out), err
}

// AddAssignment implements the contract.
func (s *Server) AddAssignment(ctx context.Context, r AddAssignmentRequestObject) (AddAssignmentResponseObject, error) {
	in := r.Body
	if (in.User == nil) == (in.Group == nil) {
		return nil, reeve.Errorf(reeve.Invalid, "subject_unclear", "an assignment is for a user or for a group").WithFix("give user or group").WithField("/user")
	}
	out, err := update(ctx, s, r.Params.IdempotencyKey, in, func(tx *store.Tx, by audit.Actor) (client.Assignment, error) {
		scope, err := asScope(tx, in.Scope)
		if err != nil {
			return client.Assignment{}, err
		}
		a, err := identity.Assign(tx, by, caller(ctx), identity.NewAssignment{Role: in.Role, Subject: value(in.User) + value(in.Group), Group: in.Group != nil, Scope: scope})
		if err != nil {
			return client.Assignment{}, err
		}
		return showAssignment(tx, a), nil
	})
	return AddAssignment201JSONResponse(out), err
}

// DeleteAssignment implements the contract.
func (s *Server) DeleteAssignment(ctx context.Context, r DeleteAssignmentRequestObject) (DeleteAssignmentResponseObject, error) {
	_, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		return none{}, identity.Unassign(tx, by, caller(ctx), reeve.AssignmentID(r.Assignment))
	})
	return DeleteAssignment204Response{}, err
}

// Can implements the contract. Who asks about an object must see it.
func (s *Server) Can(ctx context.Context, r CanRequestObject) (CanResponseObject, error) {
	var out client.Decision
	err := s.view(ctx, func(tx *store.Tx) error {
		who := caller(ctx)
		mine, err := identity.Look(tx, who)
		if err != nil {
			return err
		}
		if ref := r.Params.User; ref != nil && *ref != who.Name && *ref != string(who.ID) {
			if err := mine.Authorize(identity.IdentityRead, identity.Installation); err != nil {
				return err
			}
			other, err := identity.FindPrincipal(tx, *ref)
			if err != nil {
				return err
			}
			who = identity.Caller{Principal: *other}
		}
		p := identity.Privilege(r.Params.Privilege)
		if err := identity.CheckPrivilege(p); err != nil {
			return err
		}
		object := identity.Installation
		for k, ref := range map[*kind]*string{siteKind: r.Params.Site, assetKind: r.Params.Asset, accountKind: r.Params.Account} {
			if ref == nil {
				continue
			}
			if object.Placed {
				return reeve.Errorf(reeve.Invalid, "object_unclear", "one object at a time").WithFix("give site, asset or account")
			}
			found, err := k.find(tx, *ref)
			if reeve.KindOf(err) == reeve.NotFound || err == nil && !mine.Can(k.sees, found) {
				return reeve.Errorf(reeve.NotFound, k.name+"_not_found", "there is no %s %q", k.name, *ref)
			}
			if err != nil {
				return err
			}
			object = found
		}
		sight, err := identity.Look(tx, who)
		if err != nil {
			return err
		}
		d := sight.Decide(p, object)
		if who.Status() != "active" {
			d.Because = who.Name + " is " + who.Status()
		}
		out = client.Decision{Allowed: d.Allowed, Because: d.Because}
		if d.Assignment != nil {
			shown := showAssignment(tx, d.Assignment)
			out.Assignment = &shown
		}
		return nil
	})
	return Can200JSONResponse(out), err
}
