package rest

import (
	"context"
	"iter"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func showAssetGroup(tx *store.Tx, g *identity.AssetGroup) (client.AssetGroup, error) {
	out := client.AssetGroup{Id: string(g.ID), Name: g.Name, Description: optional(g.Description), CreatedAt: g.CreatedAt}
	if rule := showRule(tx, g.Rule); rule != (client.AssetGroupRule{}) {
		out.Rule = &rule
	}
	return out, nil
}

// ListAssetGroups implements the contract.
func (s *Server) ListAssetGroups(ctx context.Context, r ListAssetGroupsRequestObject) (ListAssetGroupsResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	var out client.AssetGroupPage
	err = s.view(ctx, func(tx *store.Tx) (err error) {
		out.Items, out.Next, err = page(identity.ListAssetGroups(tx, after), r.Params.Limit, func(g *identity.AssetGroup) string { return string(g.ID) },
			func(g *identity.AssetGroup) (client.AssetGroup, error) { return showAssetGroup(tx, g) })
		return err
	})
	return ListAssetGroups200JSONResponse(out), err
}

// CreateAssetGroup implements the contract.
func (s *Server) CreateAssetGroup(ctx context.Context, r CreateAssetGroupRequestObject) (CreateAssetGroupResponseObject, error) {
	in := r.Body
	out, err := s.savedAssetGroup(ctx, r.Params.IdempotencyKey, in, client.AssetGroupText{Description: in.Description, Rule: in.Rule},
		func(tx *store.Tx, by audit.Actor, text identity.AssetGroupText) (*identity.AssetGroup, error) {
			return identity.CreateAssetGroup(tx, by, in.Name, text)
		})
	return CreateAssetGroup201JSONResponse(out), err
}

// EditAssetGroup implements the contract.
func (s *Server) EditAssetGroup(ctx context.Context, r EditAssetGroupRequestObject) (EditAssetGroupResponseObject, error) {
	out, err := s.savedAssetGroup(ctx, r.Params.IdempotencyKey, r.Body, *r.Body, func(tx *store.Tx, by audit.Actor, text identity.AssetGroupText) (*identity.AssetGroup, error) {
		g, err := identity.FindAssetGroup(tx, r.AssetGroup)
		if err != nil {
			return nil, err
		}
		return identity.EditAssetGroup(tx, by, caller(ctx), g.ID, text)
	})
	return EditAssetGroup200JSONResponse(out), err
}

func (s *Server) savedAssetGroup(ctx context.Context, key *string, request any, in client.AssetGroupText,
	change func(*store.Tx, audit.Actor, identity.AssetGroupText) (*identity.AssetGroup, error),
) (client.AssetGroup, error) {
	return update(ctx, s, key, request, func(tx *store.Tx, by audit.Actor) (client.AssetGroup, error) {
		rule, err := asRule(tx, in.Rule, "/rule")
		if err != nil {
			return client.AssetGroup{}, err
		}
		g, err := change(tx, by, identity.AssetGroupText{Description: value(in.Description), Rule: rule})
		if err != nil {
			return client.AssetGroup{}, err
		}
		return showAssetGroup(tx, g)
	})
}

// DeleteAssetGroup implements the contract.
func (s *Server) DeleteAssetGroup(ctx context.Context, r DeleteAssetGroupRequestObject) (DeleteAssetGroupResponseObject, error) {
	_, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		g, err := identity.FindAssetGroup(tx, r.AssetGroup)
		if err != nil {
			return none{}, err
		}
		return none{}, identity.DeleteAssetGroup(tx, by, g.ID)
	})
	return DeleteAssetGroup204Response{}, err
}

// GetAssetGroup implements the contract. Of the group's assets it shows those that the
// caller sees.
func (s *Server) GetAssetGroup(ctx context.Context, r GetAssetGroupRequestObject) (GetAssetGroupResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	out := client.AssetGroupMembers{Assignments: []client.Assignment{}, AccessPolicies: []string{}}
	err = s.view(ctx, func(tx *store.Tx) error {
		g, err := identity.FindAssetGroup(tx, r.AssetGroup)
		if err != nil {
			return err
		}
		if out.AssetGroup, err = showAssetGroup(tx, g); err != nil {
			return err
		}
		held, shown, err := identity.GroupUsers(tx, g.ID)
		if err != nil {
			return err
		}
		for _, a := range held {
			out.Assignments = append(out.Assignments, showAssignment(tx, a))
		}
		for _, p := range shown {
			out.AccessPolicies = append(out.AccessPolicies, p.Name)
		}
		sees, err := identity.Look(tx, caller(ctx))
		if err != nil {
			return err
		}
		out.Items, out.Next, err = page(seen(assetsOf(tx, g, after), func(a *inventory.Asset) (bool, error) {
			return sees.Can(identity.AssetRead, assetObject(a)), nil
		}), r.Params.Limit, func(a *inventory.Asset) string { return string(a.ID) }, func(a *inventory.Asset) (client.GroupedAsset, error) {
			_, byRule, err := identity.Grouped(tx, g, assetObject(a))
			return client.GroupedAsset{Id: string(a.ID), Name: a.Name, Site: names{tx}.site(a.SiteID), Type: a.Connector, ByRule: byRule}, err
		})
		return err
	})
	return GetAssetGroup200JSONResponse(out), err
}

// assetsOf yields the active assets of a group, oldest first, after the id given. Only a
// group with a rule makes it look at all assets there are.
func assetsOf(tx *store.Tx, g *identity.AssetGroup, after string) iter.Seq2[*inventory.Asset, error] {
	if showRule(tx, g.Rule) != (client.AssetGroupRule{}) {
		return seen(inventory.ListAssets(tx, after), func(a *inventory.Asset) (bool, error) {
			in, _, err := identity.Grouped(tx, g, assetObject(a))
			return in, err
		})
	}
	return func(yield func(*inventory.Asset, error) bool) {
		for id, err := range identity.AssetsPut(tx, g.ID, after) {
			var a *inventory.Asset
			if err == nil {
				a, err = inventory.GetAsset(tx, string(id))
			}
			if err == nil && a.Status != inventory.Active || reeve.KindOf(err) == reeve.NotFound {
				continue // retired, or of a state that was replaced
			}
			if !yield(a, err) || err != nil {
				return
			}
		}
	}
}

// AddGroupedAsset implements the contract.
func (s *Server) AddGroupedAsset(ctx context.Context, r AddGroupedAssetRequestObject) (AddGroupedAssetResponseObject, error) {
	err := s.changeGrouped(ctx, r.Params.IdempotencyKey, r.AssetGroup, r.Asset, func(tx *store.Tx, by audit.Actor, id reeve.AssetGroupID, asset identity.Object) error {
		return identity.AddAsset(tx, by, caller(ctx), id, asset)
	})
	return AddGroupedAsset204Response{}, err
}

// RemoveGroupedAsset implements the contract.
func (s *Server) RemoveGroupedAsset(ctx context.Context, r RemoveGroupedAssetRequestObject) (RemoveGroupedAssetResponseObject, error) {
	err := s.changeGrouped(ctx, r.Params.IdempotencyKey, r.AssetGroup, r.Asset, identity.RemoveAsset)
	return RemoveGroupedAsset204Response{}, err
}

// changeGrouped finds an asset group and an asset and does something to both.
func (s *Server) changeGrouped(ctx context.Context, key *string, group, asset string,
	change func(tx *store.Tx, by audit.Actor, id reeve.AssetGroupID, asset identity.Object) error,
) error {
	_, err := update(ctx, s, key, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		g, err := identity.FindAssetGroup(tx, group)
		if err != nil {
			return none{}, err
		}
		a, err := inventory.GetAsset(tx, asset)
		if err != nil {
			return none{}, err
		}
		return none{}, change(tx, by, g.ID, assetObject(a))
	})
	return err
}
