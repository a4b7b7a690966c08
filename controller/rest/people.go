package rest

import (
	"context"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func showUser(p *identity.Principal) (client.User, error) {
	f := p.Profile
	return client.User{Id: string(p.ID), Name: p.Name, Kind: string(p.Kind), Status: p.Status(), Directory: optional(p.Directory), CreatedAt: p.Created, Profile: client.UserProfile{
		FullName: optional(f.FullName), Email: optional(f.Email), Department: optional(f.Department), TimeZone: optional(f.TimeZone), Vendor: optional(f.Vendor)}}, nil
}

// showWholeUser adds the user's groups and what it holds.
func showWholeUser(tx *store.Tx, p *identity.Principal) (client.User, error) {
	out, err := showUser(p)
	if err != nil {
		return out, err
	}
	in, err := identity.GroupsOf(tx, p.ID)
	if err != nil {
		return out, err
	}
	groups, held := []string{}, []client.Assignment{}
	subjects := []string{string(p.ID)}
	for _, g := range in {
		groups, subjects = append(groups, g.Name), append(subjects, string(g.ID))
	}
	for _, subject := range subjects {
		more, err := assignmentsOf(tx, subject)
		if err != nil {
			return out, err
		}
		held = append(held, more...)
	}
	limits, err := identity.PoliciesOf(tx, p)
	if err != nil {
		return out, err
	}
	out.Groups, out.Assignments, out.AccessPolicies = &groups, &held, policyNames(limits)
	return out, nil
}

func asProfile(in *client.UserProfile) identity.Profile {
	if in == nil {
		return identity.Profile{}
	}
	return identity.Profile{FullName: value(in.FullName), Email: value(in.Email), Department: value(in.Department), TimeZone: value(in.TimeZone), Vendor: value(in.Vendor)}
}

// ListUsers implements the contract.
func (s *Server) ListUsers(ctx context.Context, r ListUsersRequestObject) (ListUsersResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	var out client.UserPage
	err = s.view(ctx, func(tx *store.Tx) (err error) {
		out.Items, out.Next, err = page(identity.ListPrincipals(tx, after, value(r.Params.Removed)), r.Params.Limit,
			func(p *identity.Principal) string { return string(p.ID) }, showUser)
		return err
	})
	return ListUsers200JSONResponse(out), err
}

// GetUser implements the contract.
func (s *Server) GetUser(ctx context.Context, r GetUserRequestObject) (GetUserResponseObject, error) {
	var out client.User
	err := s.view(ctx, func(tx *store.Tx) error {
		p, err := identity.FindPrincipal(tx, r.User)
		if err != nil {
			return err
		}
		out, err = showWholeUser(tx, p)
		return err
	})
	return GetUser200JSONResponse(out), err
}

// AddUser implements the contract.
func (s *Server) AddUser(ctx context.Context, r AddUserRequestObject) (AddUserResponseObject, error) {
	kind := identity.User
	if value(r.Body.Service) {
		kind = identity.Service
	}
	out, err := update(ctx, s, r.Params.IdempotencyKey, r.Body, func(tx *store.Tx, by audit.Actor) (client.User, error) {
		if in := value(r.Body.Directory); in != "" {
			if kind != identity.User {
				return client.User{}, reeve.Errorf(reeve.Invalid, "directory_for_people", "a service account signs in nowhere: a directory is for people").WithField("/directory")
			}
			p, err := identity.CreateDirectoryUser(tx, by, r.Body.Name, in, asProfile(r.Body.Profile))
			if err != nil {
				return client.User{}, err
			}
			return showUser(p)
		}
		p, err := identity.CreatePrincipal(tx, by, r.Body.Name, kind, asProfile(r.Body.Profile))
		if err != nil {
			return client.User{}, err
		}
		return showUser(p)
	})
	return AddUser201JSONResponse(out), err
}

// changeUser finds a user, changes it and shows it.
func (s *Server) changeUser(ctx context.Context, key *string, ref string, request any,
	change func(tx *store.Tx, by audit.Actor, grantor identity.Caller, id reeve.PrincipalID) (*identity.Principal, error),
) (client.User, error) {
	return update(ctx, s, key, request, func(tx *store.Tx, by audit.Actor) (client.User, error) {
		p, err := identity.FindPrincipal(tx, ref)
		if err == nil {
			p, err = change(tx, by, caller(ctx), p.ID)
		}
		if err != nil {
			return client.User{}, err
		}
		return showUser(p)
	})
}

// EditUser implements the contract.
func (s *Server) EditUser(ctx context.Context, r EditUserRequestObject) (EditUserResponseObject, error) {
	out, err := s.changeUser(ctx, r.Params.IdempotencyKey, r.User, r.Body, func(tx *store.Tx, by audit.Actor, grantor identity.Caller, id reeve.PrincipalID) (*identity.Principal, error) {
		return identity.EditPrincipal(tx, by, grantor, id, asProfile(r.Body))
	})
	return EditUser200JSONResponse(out), err
}

// DisableUser implements the contract.
func (s *Server) DisableUser(ctx context.Context, r DisableUserRequestObject) (DisableUserResponseObject, error) {
	out, err := s.changeUser(ctx, r.Params.IdempotencyKey, r.User, nil, identity.DisablePrincipal)
	return DisableUser200JSONResponse(out), err
}

// EnableUser implements the contract.
func (s *Server) EnableUser(ctx context.Context, r EnableUserRequestObject) (EnableUserResponseObject, error) {
	out, err := s.changeUser(ctx, r.Params.IdempotencyKey, r.User, nil, identity.EnablePrincipal)
	return EnableUser200JSONResponse(out), err
}

// RemoveUser implements the contract.
func (s *Server) RemoveUser(ctx context.Context, r RemoveUserRequestObject) (RemoveUserResponseObject, error) {
	_, err := s.changeUser(ctx, r.Params.IdempotencyKey, r.User, nil, identity.RemovePrincipal)
	return RemoveUser204Response{}, err
}

func showGroup(g *identity.Group) (client.Group, error) {
	return client.Group{Id: string(g.ID), Name: g.Name, Description: optional(g.Description), Directory: optional(g.Directory), External: optional(g.External), CreatedAt: g.CreatedAt}, nil
}

// ListGroups implements the contract.
func (s *Server) ListGroups(ctx context.Context, r ListGroupsRequestObject) (ListGroupsResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	var out client.GroupPage
	err = s.view(ctx, func(tx *store.Tx) (err error) {
		out.Items, out.Next, err = page(identity.ListGroups(tx, after), r.Params.Limit, func(g *identity.Group) string { return string(g.ID) }, showGroup)
		return err
	})
	return ListGroups200JSONResponse(out), err
}

// AddGroup implements the contract.
func (s *Server) AddGroup(ctx context.Context, r AddGroupRequestObject) (AddGroupResponseObject, error) {
	out, err := update(ctx, s, r.Params.IdempotencyKey, r.Body, func(tx *store.Tx, by audit.Actor) (client.Group, error) {
		var g *identity.Group
		var err error
		if in := value(r.Body.Directory); in != "" || value(r.Body.External) != "" {
			g, err = identity.CreateMappedGroup(tx, by, r.Body.Name, value(r.Body.Description), in, value(r.Body.External))
		} else {
			g, err = identity.CreateGroup(tx, by, r.Body.Name, value(r.Body.Description))
		}
		if err != nil {
			return client.Group{}, err
		}
		return showGroup(g)
	})
	return AddGroup201JSONResponse(out), err
}

// GetGroup implements the contract.
func (s *Server) GetGroup(ctx context.Context, r GetGroupRequestObject) (GetGroupResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	var out client.GroupMembers
	err = s.view(ctx, func(tx *store.Tx) error {
		g, err := identity.FindGroup(tx, r.Group)
		if err != nil {
			return err
		}
		if out.Group, err = showGroup(g); err != nil {
			return err
		}
		if out.Assignments, err = assignmentsOf(tx, string(g.ID)); err != nil {
			return err
		}
		out.Items, out.Next, err = page(identity.Members(tx, g.ID, after), r.Params.Limit, func(p *identity.Principal) string { return string(p.ID) }, showUser)
		return err
	})
	return GetGroup200JSONResponse(out), err
}

// RemoveGroup implements the contract.
func (s *Server) RemoveGroup(ctx context.Context, r RemoveGroupRequestObject) (RemoveGroupResponseObject, error) {
	_, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		g, err := identity.FindGroup(tx, r.Group)
		if err != nil {
			return none{}, err
		}
		return none{}, identity.RemoveGroup(tx, by, caller(ctx), g.ID)
	})
	return RemoveGroup204Response{}, err
}

// changeMember finds a group and a user and does something to both.
func (s *Server) changeMember(ctx context.Context, key *string, group, user string,
	change func(tx *store.Tx, by audit.Actor, grantor identity.Caller, g reeve.GroupID, p reeve.PrincipalID) error,
) error {
	_, err := update(ctx, s, key, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		g, err := identity.FindGroup(tx, group)
		if err != nil {
			return none{}, err
		}
		p, err := identity.FindPrincipal(tx, user)
		if err != nil {
			return none{}, err
		}
		return none{}, change(tx, by, caller(ctx), g.ID, p.ID)
	})
	return err
}

// AddGroupMember implements the contract.
func (s *Server) AddGroupMember(ctx context.Context, r AddGroupMemberRequestObject) (AddGroupMemberResponseObject, error) {
	return AddGroupMember204Response{}, s.changeMember(ctx, r.Params.IdempotencyKey, r.Group, r.User, identity.AddMember)
}

// RemoveGroupMember implements the contract.
func (s *Server) RemoveGroupMember(ctx context.Context, r RemoveGroupMemberRequestObject) (RemoveGroupMemberResponseObject, error) {
	return RemoveGroupMember204Response{}, s.changeMember(ctx, r.Params.IdempotencyKey, r.Group, r.User, identity.RemoveMember)
}
