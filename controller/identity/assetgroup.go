package identity

import (
	"iter"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// AssetGroup is a named set of assets that scopes can name: the assets that were put into
// it, and those that its rule covers. Groups hold no groups.
type AssetGroup struct {
	ID          reeve.AssetGroupID `cbor:"1,keyasint"`
	Name        string             `cbor:"2,keyasint"` // unique
	Description string             `cbor:"3,keyasint,omitempty"`
	Rule        Scope              `cbor:"4,keyasint,omitzero"` // by types, sites and tags; an empty one covers nothing
	CreatedAt   time.Time          `cbor:"5,keyasint"`
}

var assetGroups = store.NewTable("asset_group",
	store.Key(func(g *AssetGroup) string { return string(g.ID) }),
	store.Unique("name", func(g *AssetGroup) []string { return []string{g.Name} }),
)

// groupedAsset says that somebody put an asset into an asset group.
type groupedAsset struct {
	Group reeve.AssetGroupID `cbor:"1,keyasint"`
	Asset reeve.AssetID      `cbor:"2,keyasint"`
	Since time.Time          `cbor:"3,keyasint"`
}

var groupedAssets = store.NewTable("asset_group_member",
	store.Key(func(m *groupedAsset) string { return groupedKey(m.Group, m.Asset) }),
	store.Index("group", func(m *groupedAsset) []string { return []string{string(m.Group)} }),
)

func groupedKey(g reeve.AssetGroupID, a reeve.AssetID) string { return string(g) + "/" + string(a) }

// groupUse says that the scope of an assignment or an access policy names an asset group.
type groupUse struct {
	Group reeve.AssetGroupID `cbor:"1,keyasint"`
	By    string             `cbor:"2,keyasint"` // asgn_… or apol_…
}

var groupUses = store.NewTable("asset_group_use",
	store.Key(func(u *groupUse) string { return string(u.Group) + "/" + u.By }),
	store.Index("group", func(u *groupUse) []string { return []string{string(u.Group)} }),
)

// noteUses keeps what the scope of an assignment or a policy names, instead of what it
// named before.
func noteUses(tx *store.Tx, by string, was, is Scope) error {
	for _, id := range was.AssetGroups {
		if err := groupUses.Delete(tx, string(id)+"/"+by); err != nil && reeve.KindOf(err) != reeve.NotFound {
			return err
		}
	}
	for _, id := range is.AssetGroups {
		if err := groupUses.Put(tx, &groupUse{Group: id, By: by}); err != nil {
			return err
		}
	}
	return nil
}

// AssetGroupText is what can be changed of an asset group.
type AssetGroupText struct {
	Description string
	Rule        Scope
}

func (in AssetGroupText) check() error {
	if err := checkText(in.Description); err != nil {
		return err
	}
	if in.Rule.Everything || len(in.Rule.AssetGroups) > 0 {
		return reeve.Errorf(reeve.Invalid, "asset_group_rule_invalid", "the rule of an asset group is about types, sites and tags").WithField("/rule")
	}
	return in.Rule.checkSize("/rule")
}

// CreateAssetGroup adds an asset group into which nothing was put yet: codes name_invalid,
// asset_group_name_taken.
func CreateAssetGroup(tx *store.Tx, by audit.Actor, name string, in AssetGroupText) (*AssetGroup, error) {
	if !validName(name) {
		return nil, reeve.Errorf(reeve.Invalid, "name_invalid", "the name of an asset group is 1 to 64 of a-z, 0-9, '.', '-', '_' and '@'").WithField("/name")
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	g := &AssetGroup{ID: reeve.NewAssetGroupID(), Name: name, Description: in.Description, Rule: in.Rule, CreatedAt: tx.Now()}
	if err := assetGroups.Insert(tx, g); err != nil {
		return nil, err
	}
	return g, audit.Record(tx, audit.Event{By: by, Action: "asset_group.create", Object: string(g.ID), After: g.audited()})
}

// FindAssetGroup returns an asset group by id or name; code asset_group_not_found.
func FindAssetGroup(tx *store.Tx, ref string) (*AssetGroup, error) {
	var g *AssetGroup
	var err error
	if reeve.ValidID("agrp", ref) {
		g, err = assetGroups.Get(tx, ref)
	} else {
		g, err = assetGroups.Find(tx, "name", ref)
	}
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, reeve.Errorf(reeve.NotFound, "asset_group_not_found", "there is no asset group %q", ref).WithFix("see what there is: reeve asset-group list")
	}
	return g, err
}

// ListAssetGroups yields the asset groups, oldest first, those after the id given only.
func ListAssetGroups(tx *store.Tx, after string) iter.Seq2[*AssetGroup, error] {
	return assetGroups.List(tx, after)
}

// EditAssetGroup replaces what an asset group says. Who widens its rule must hold, in all
// that the new rule covers, what its users hold through it: code grant_exceeds.
func EditAssetGroup(tx *store.Tx, by audit.Actor, grantor Caller, id reeve.AssetGroupID, in AssetGroupText) (*AssetGroup, error) {
	g, err := FindAssetGroup(tx, string(id))
	if err == nil {
		err = in.check()
	}
	if err != nil {
		return nil, err
	}
	if !g.Rule.Contains(in.Rule) {
		if err := mayWiden(tx, grantor, g, in.Rule); err != nil {
			return nil, err
		}
	}
	before := g.audited()
	g.Description, g.Rule = in.Description, in.Rule
	if err := assetGroups.Put(tx, g); err != nil {
		return nil, err
	}
	return g, audit.Record(tx, audit.Event{By: by, Action: "asset_group.edit", Object: string(id), Before: before, After: g.audited()})
}

// mayWiden fails unless the grantor holds in all of the rule what the group's users get.
func mayWiden(tx *store.Tx, grantor Caller, g *AssetGroup, rule Scope) error {
	held, shown, err := usesOf(tx, g.ID)
	if err != nil {
		return err
	}
	for _, a := range held {
		role, err := GetPAMRole(tx, a.Role)
		if err == nil {
			err = mayGrant(tx, grantor, role.Privileges, rule)
		}
		if err != nil {
			return err
		}
	}
	if len(shown) > 0 {
		return mayGrant(tx, grantor, []Privilege{AccessGrant}, rule)
	}
	return nil
}

// usesOf are the assignments and access policies whose scope names the group.
func usesOf(tx *store.Tx, id reeve.AssetGroupID) (held []*Assignment, shown []*AccessPolicy, err error) {
	for u, err := range groupUses.Scan(tx, "group", store.Range{Prefix: []string{string(id)}}) {
		if err != nil {
			return nil, nil, err
		}
		if reeve.ValidID("apol", u.By) {
			p, err := accessPolicies.Get(tx, u.By)
			if err != nil {
				return nil, nil, err
			}
			shown = append(shown, p)
			continue
		}
		a, err := assignments.Get(tx, u.By)
		if err != nil {
			return nil, nil, err
		}
		held = append(held, a)
	}
	return held, shown, nil
}

// DeleteAssetGroup deletes an asset group that no scope names: code asset_group_in_use.
func DeleteAssetGroup(tx *store.Tx, by audit.Actor, id reeve.AssetGroupID) error {
	g, err := FindAssetGroup(tx, string(id))
	if err != nil {
		return err
	}
	held, shown, err := usesOf(tx, id)
	switch {
	case err != nil:
		return err
	case len(held) > 0:
		return reeve.Errorf(reeve.Conflict, "asset_group_in_use", "asset group %q is the scope of %d assignment(s), such as %s", g.Name, len(held), held[0].ID).
			WithFix("delete those first; see reeve asset-group show %s", g.Name)
	case len(shown) > 0:
		return reeve.Errorf(reeve.Conflict, "asset_group_in_use", "asset group %q is in the scope of %d access polic(ies), such as %s", g.Name, len(shown), shown[0].Name).
			WithFix("change those first; see reeve asset-group show %s", g.Name)
	}
	for m, err := range groupedAssets.Scan(tx, "group", store.Range{Prefix: []string{string(id)}}) {
		if err == nil {
			err = groupedAssets.Delete(tx, groupedKey(id, m.Asset))
		}
		if err != nil {
			return err
		}
	}
	if err := assetGroups.Delete(tx, string(id)); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "asset_group.delete", Object: string(id), Before: g.audited()})
}

// AddAsset puts an asset into an asset group; once is enough. The grantor must hold for the
// asset all that others come to hold by it: code grant_exceeds.
func AddAsset(tx *store.Tx, by audit.Actor, grantor Caller, id reeve.AssetGroupID, asset Object) error {
	g, err := FindAssetGroup(tx, string(id))
	if err != nil {
		return err
	}
	switch _, err := groupedAssets.Get(tx, groupedKey(id, asset.Asset)); {
	case err == nil:
		return nil
	case reeve.KindOf(err) != reeve.NotFound:
		return err
	}
	m, err := newMove(tx, grantor, asset, asset.Joining(id))
	if err == nil {
		err = m.into(id)
	}
	if err != nil {
		return err
	}
	if err := groupedAssets.Insert(tx, &groupedAsset{Group: id, Asset: asset.Asset, Since: tx.Now()}); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "asset_group.add_asset", Object: string(id), Details: groupedDetails(g, asset)})
}

// RemoveAsset takes an asset out of an asset group that somebody put it into. One that is
// in the group by its rule alone stays: code asset_grouped_by_rule.
func RemoveAsset(tx *store.Tx, by audit.Actor, id reeve.AssetGroupID, asset Object) error {
	g, err := FindAssetGroup(tx, string(id))
	if err != nil {
		return err
	}
	in := newGroupings(tx)
	if in.covers(g.Rule, asset) {
		return reeve.Errorf(reeve.Conflict, "asset_grouped_by_rule", "%s is in asset group %q by its rule", asset.Name, g.Name).
			WithFix("change the rule or the asset's tags; see reeve asset-group show %s", g.Name)
	}
	err = groupedAssets.Delete(tx, groupedKey(id, asset.Asset))
	if reeve.KindOf(err) == reeve.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "asset_group.remove_asset", Object: string(id), Details: groupedDetails(g, asset)})
}

// AssetsPut yields the assets that somebody put into a group, oldest first, after the id
// given.
func AssetsPut(tx *store.Tx, id reeve.AssetGroupID, after string) iter.Seq2[reeve.AssetID, error] {
	return func(yield func(reeve.AssetID, error) bool) {
		for m, err := range groupedAssets.Scan(tx, "group", store.Range{Prefix: []string{string(id)}}) {
			switch {
			case err != nil:
				yield("", err)
				return
			case string(m.Asset) <= after:
			case !yield(m.Asset, nil):
				return
			}
		}
	}
}

// Grouped reports whether an asset is in a group, and whether it is there by the rule.
func Grouped(tx *store.Tx, g *AssetGroup, asset Object) (in, byRule bool, err error) {
	is := newGroupings(tx)
	byRule = is.covers(g.Rule, asset)
	return byRule || is.put(g.ID, asset.Asset), byRule, is.err
}

// GroupUsers are the assignments and the access policies whose scope names the group.
func GroupUsers(tx *store.Tx, id reeve.AssetGroupID) ([]*Assignment, []*AccessPolicy, error) {
	return usesOf(tx, id)
}

func groupedDetails(g *AssetGroup, asset Object) map[string]string {
	return map[string]string{"group": g.Name, "asset": string(asset.Asset), "name": asset.Name}
}

func (g *AssetGroup) audited() map[string]string {
	m := map[string]string{"name": g.Name, "rule": g.Rule.String()}
	if g.Description != "" {
		m["description"] = g.Description
	}
	return m
}
