package rest

import (
	"context"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/store"
)

func showAccessPolicy(tx *store.Tx, p *identity.AccessPolicy) client.AccessPolicy {
	out := client.AccessPolicy{Id: string(p.ID), Name: p.Name, Description: optional(p.Description), Users: []string{}, Groups: []string{}, Vendors: p.For.Vendors,
		Scope: showScope(tx, p.Scope), CreatedAt: p.CreatedAt}
	for _, id := range p.For.Principals {
		out.Users = append(out.Users, identity.SubjectName(tx, string(id)))
	}
	for _, id := range p.For.Groups {
		out.Groups = append(out.Groups, identity.SubjectName(tx, string(id)))
	}
	return out
}

func policyNames(all []*identity.AccessPolicy) *[]string {
	if len(all) == 0 {
		return nil
	}
	out := []string{}
	for _, p := range all {
		out = append(out, p.Name)
	}
	return &out
}

// asPolicy finds what a policy names.
func asPolicy(tx *store.Tx, in client.AccessPolicyText) (identity.AccessPolicyText, error) {
	out := identity.AccessPolicyText{Description: value(in.Description), For: identity.Limited{Vendors: value(in.Vendors)}}
	for _, ref := range value(in.Users) {
		p, err := identity.FindPrincipal(tx, ref)
		if err != nil {
			return out, err
		}
		out.For.Principals = append(out.For.Principals, p.ID)
	}
	for _, ref := range value(in.Groups) {
		g, err := identity.FindGroup(tx, ref)
		if err != nil {
			return out, err
		}
		out.For.Groups = append(out.For.Groups, g.ID)
	}
	scope, err := asScope(tx, in.Scope)
	out.Scope = scope
	return out, err
}

// ListAccessPolicies implements the contract.
func (s *Server) ListAccessPolicies(ctx context.Context, r ListAccessPoliciesRequestObject) (ListAccessPoliciesResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	var out client.AccessPolicyPage
	err = s.view(ctx, func(tx *store.Tx) (err error) {
		out.Items, out.Next, err = page(identity.ListAccessPolicies(tx, after), r.Params.Limit, func(p *identity.AccessPolicy) string { return string(p.ID) },
			func(p *identity.AccessPolicy) (client.AccessPolicy, error) { return showAccessPolicy(tx, p), nil })
		return err
	})
	return ListAccessPolicies200JSONResponse(out), err
}

// GetAccessPolicy implements the contract.
func (s *Server) GetAccessPolicy(ctx context.Context, r GetAccessPolicyRequestObject) (GetAccessPolicyResponseObject, error) {
	var out client.AccessPolicy
	err := s.view(ctx, func(tx *store.Tx) error {
		p, err := identity.FindAccessPolicy(tx, r.AccessPolicy)
		if err != nil {
			return err
		}
		out = showAccessPolicy(tx, p)
		return nil
	})
	return GetAccessPolicy200JSONResponse(out), err
}

// CreateAccessPolicy implements the contract.
func (s *Server) CreateAccessPolicy(ctx context.Context, r CreateAccessPolicyRequestObject) (CreateAccessPolicyResponseObject, error) {
	in := r.Body
	text := client.AccessPolicyText{Description: in.Description, Users: in.Users, Groups: in.Groups, Vendors: in.Vendors, Scope: in.Scope}
	out, err := s.savedAccessPolicy(ctx, r.Params.IdempotencyKey, in, text, func(tx *store.Tx, by audit.Actor, text identity.AccessPolicyText) (*identity.AccessPolicy, error) {
		return identity.CreateAccessPolicy(tx, by, caller(ctx), in.Name, text)
	})
	return CreateAccessPolicy201JSONResponse(out), err
}

// EditAccessPolicy implements the contract.
func (s *Server) EditAccessPolicy(ctx context.Context, r EditAccessPolicyRequestObject) (EditAccessPolicyResponseObject, error) {
	out, err := s.savedAccessPolicy(ctx, r.Params.IdempotencyKey, r.Body, *r.Body, func(tx *store.Tx, by audit.Actor, text identity.AccessPolicyText) (*identity.AccessPolicy, error) {
		p, err := identity.FindAccessPolicy(tx, r.AccessPolicy)
		if err != nil {
			return nil, err
		}
		return identity.EditAccessPolicy(tx, by, caller(ctx), p.ID, text)
	})
	return EditAccessPolicy200JSONResponse(out), err
}

func (s *Server) savedAccessPolicy(ctx context.Context, key *string, request any, in client.AccessPolicyText,
	change func(*store.Tx, audit.Actor, identity.AccessPolicyText) (*identity.AccessPolicy, error),
) (client.AccessPolicy, error) {
	return update(ctx, s, key, request, func(tx *store.Tx, by audit.Actor) (client.AccessPolicy, error) {
		text, err := asPolicy(tx, in)
		if err != nil {
			return client.AccessPolicy{}, err
		}
		p, err := change(tx, by, text)
		if err != nil {
			return client.AccessPolicy{}, err
		}
		return showAccessPolicy(tx, p), nil
	})
}

// DeleteAccessPolicy implements the contract.
func (s *Server) DeleteAccessPolicy(ctx context.Context, r DeleteAccessPolicyRequestObject) (DeleteAccessPolicyResponseObject, error) {
	_, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		p, err := identity.FindAccessPolicy(tx, r.AccessPolicy)
		if err != nil {
			return none{}, err
		}
		return none{}, identity.DeleteAccessPolicy(tx, by, caller(ctx), p.ID)
	})
	return DeleteAccessPolicy204Response{}, err
}
