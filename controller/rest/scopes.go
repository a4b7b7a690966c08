package rest

import (
	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// asScope finds what a scope names. Ids and names are exact.
func asScope(tx *store.Tx, in client.Scope) (identity.Scope, error) {
	scope, err := asRule(tx, &client.AssetGroupRule{Sites: in.Sites, Tags: in.Tags, Types: in.Types}, "/scope")
	if err != nil {
		return identity.Scope{}, err
	}
	scope.Everything = value(in.Everything)
	for _, ref := range value(in.AssetGroups) {
		g, err := identity.FindAssetGroup(tx, ref)
		if err != nil {
			return identity.Scope{}, err
		}
		scope.AssetGroups = append(scope.AssetGroups, g.ID)
	}
	return scope, nil
}

// asRule finds what the rule of an asset group names; nil is an empty one.
func asRule(tx *store.Tx, in *client.AssetGroupRule, field string) (identity.Scope, error) {
	if in == nil {
		return identity.Scope{}, nil
	}
	rule := identity.Scope{Tags: value(in.Tags)}
	for _, ref := range value(in.Sites) {
		site, err := inventory.GetSite(tx, ref)
		if err != nil {
			return identity.Scope{}, err
		}
		rule.Sites = append(rule.Sites, site.ID)
	}
	for _, name := range value(in.Types) {
		_, err := inventory.GetConnector(tx, name)
		if reeve.KindOf(err) == reeve.NotFound {
			return identity.Scope{}, reeve.Errorf(reeve.Invalid, "asset_type_unknown", "there is no asset type %q: types are the names of connectors", name).
				WithFix("see what there is: reeve connector list").WithField(field + "/types")
		}
		if err != nil {
			return identity.Scope{}, err
		}
		rule.Types = append(rule.Types, name)
	}
	return rule, nil
}

func showScope(tx *store.Tx, s identity.Scope) client.Scope {
	rule := showRule(tx, s)
	out := client.Scope{Everything: optional(s.Everything), Sites: rule.Sites, Tags: rule.Tags, Types: rule.Types}
	if len(s.AssetGroups) > 0 {
		groups := []string{}
		for _, id := range s.AssetGroups {
			groups = append(groups, names{tx}.assetGroup(id))
		}
		out.AssetGroups = &groups
	}
	return out
}

func showRule(tx *store.Tx, s identity.Scope) client.AssetGroupRule {
	out := client.AssetGroupRule{Tags: mapped(s.Tags)}
	if len(s.Sites) > 0 {
		sites := []string{}
		for _, id := range s.Sites {
			sites = append(sites, names{tx}.site(id))
		}
		out.Sites = &sites
	}
	if len(s.Types) > 0 {
		out.Types = &s.Types
	}
	return out
}
