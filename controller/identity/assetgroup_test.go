package identity

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func assetGroup(t testing.TB, st *store.Store, name string, rule Scope) *AssetGroup {
	t.Helper()
	var g *AssetGroup
	update(t, st, func(tx *store.Tx) (err error) {
		g, err = CreateAssetGroup(tx, by, name, AssetGroupText{Rule: rule})
		return err
	})
	return g
}

func inGroup(g *AssetGroup) Scope { return Scope{AssetGroups: []reeve.AssetGroupID{g.ID}} }

// GHSA-76cc, CVE-2022-36130: what is put into an asset group is given to whoever holds
// something there: who puts it there, by hand, by a rule or by a tag, must hold all of it.
func TestAssetsComeIntoAGroupOnlyByWhoHoldsWhatItGives_GHSA_76cc(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	eve, boss := principal(t, st, "eve"), principal(t, st, "boss")
	principal(t, st, "bob")
	dmz := Scope{Sites: []reeve.SiteID{"site_dmz"}}
	give(t, st, "eve", "asset-manager", dmz)
	give(t, st, "eve", "asset-manager", Scope{Types: []string{"ssh"}})
	give(t, st, "boss", Administrator, dmz)
	seen, revealed, tagged, unused := assetGroup(t, st, "seen", Scope{}), assetGroup(t, st, "revealed", Scope{}),
		assetGroup(t, st, "tagged", Scope{Tags: map[string]string{"env": "test"}}), assetGroup(t, st, "unused", Scope{})
	update(t, st, func(tx *store.Tx) error {
		_, err := CreatePAMRole(tx, by, root, "revealer", PAMRoleText{Privileges: []Privilege{VaultReveal}})
		return err
	})
	give(t, st, "bob", "asset-manager", inGroup(seen))
	give(t, st, "bob", "revealer", inGroup(revealed))
	give(t, st, "bob", "revealer", inGroup(tagged))
	at := func(site reeve.SiteID, kind, env string) Object {
		return Object{Kind: "asset", Placed: true, Site: site, Type: kind, Asset: "asset_1", Name: "db", Tags: map[string]string{"env": env}}
	}
	db := at("site_dmz", "mysql", "prod")
	eves, bosses := Caller{Principal: *eve}, Caller{Principal: *boss}
	add := func(who Caller, g *AssetGroup, o Object) func(*store.Tx) error {
		return func(tx *store.Tx) error { return AddAsset(tx, by, who, g.ID, o) }
	}
	rule := func(who Caller, g *AssetGroup, in Scope) func(*store.Tx) error {
		return func(tx *store.Tx) error {
			_, err := EditAssetGroup(tx, by, who, g.ID, AssetGroupText{Rule: in})
			return err
		}
	}
	for _, c := range []struct {
		what string
		do   func(*store.Tx) error
		want string
	}{
		{"what she does not hold", add(eves, revealed, db), "grant_exceeds"},
		{"what she holds elsewhere", add(eves, seen, at("site_lan", "mysql", "prod")), "grant_exceeds"},
		{"what she holds there", add(eves, seen, db), ""},
		{"again", add(eves, seen, db), ""},
		{"into a group that gives nothing", add(eves, unused, at("site_lan", "mysql", "prod")), ""},
		{"who holds it may", add(bosses, revealed, db), ""},
		{"a rule over what she does not hold", rule(eves, revealed, dmz), "grant_exceeds"},
		{"a rule over more than she holds", rule(eves, seen, Scope{Tags: map[string]string{"env": "test"}}), "grant_exceeds"},
		{"a rule over what she holds", rule(eves, seen, Scope{Types: []string{"ssh"}, Tags: map[string]string{"env": "test"}}), ""},
		{"a narrower one", rule(eves, tagged, Scope{Types: []string{"ssh"}, Tags: map[string]string{"env": "test"}}), ""},
		{"and back", rule(eves, tagged, Scope{Tags: map[string]string{"env": "test"}}), "grant_exceeds"},
		{"a tag of its rule", func(tx *store.Tx) error {
			return MayMove(tx, eves, at("site_dmz", "ssh", "prod"), at("site_dmz", "ssh", "test"))
		}, "grant_exceeds"},
		{"a tag of its rule, by who may", func(tx *store.Tx) error {
			return MayMove(tx, bosses, at("site_dmz", "ssh", "prod"), at("site_dmz", "ssh", "test"))
		}, ""},
		{"a tag that takes it out", func(tx *store.Tx) error {
			return MayMove(tx, eves, at("site_dmz", "ssh", "test"), at("site_dmz", "ssh", "prod"))
		}, ""},
		{"a scope that names no group of hers", func(tx *store.Tx) error {
			_, err := Assign(tx, by, bosses, NewAssignment{Role: "revealer", Subject: "bob", Scope: inGroup(unused)})
			return err
		}, "grant_exceeds"},
		{"a group that is not there", func(tx *store.Tx) error {
			_, err := Assign(tx, by, root, NewAssignment{Role: "revealer", Subject: "bob", Scope: Scope{AssetGroups: []reeve.AssetGroupID{unused.ID[:len(unused.ID)-1]}}})
			return err
		}, "asset_group_not_found"},
		{"a rule of rules", rule(root, unused, inGroup(seen)), "asset_group_rule_invalid"},
		{"a rule of everything", rule(root, unused, everything()), "asset_group_rule_invalid"},
		{"out of it, though the rule says in", func(tx *store.Tx) error {
			return RemoveAsset(tx, by, seen.ID, at("site_dmz", "ssh", "test"))
		}, "asset_grouped_by_rule"},
	} {
		if err := st.Update(t.Context(), c.do); reeve.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
	for id, want := range map[reeve.AssetID]bool{"asset_1": true, "asset_": false, "asset_12": false, "": false} {
		o := db
		o.Asset = id
		if got := may(t, st, Caller{Principal: *mustFind(t, st, "bob")}, VaultReveal, o); got != want {
			t.Errorf("CVE-2025-4922: bob reveals on %q: %t", id, got)
		}
	}
}

func mustFind(t testing.TB, st *store.Store, name string) (p *Principal) {
	t.Helper()
	update(t, st, func(tx *store.Tx) (err error) { p, err = FindPrincipal(tx, name); return err })
	return p
}

// Deleting never widens: a group that a scope names stays, and one that is gone is empty,
// whatever is made under its name later.
func TestADeletedAssetGroupMatchesNothing(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada := principal(t, st, "ada")
	g := assetGroup(t, st, "servers", Scope{Types: []string{"ssh"}})
	web := Object{Kind: "asset", Placed: true, Site: "site_a", Type: "ssh", Asset: "asset_web"}
	give(t, st, "ada", "user", inGroup(g))
	shows := policy(t, st, "shows", AccessPolicyText{For: Limited{Principals: []reeve.PrincipalID{ada.ID}}, Scope: inGroup(g)})
	remove := func() string {
		return reeve.CodeOf(st.Update(t.Context(), func(tx *store.Tx) error { return DeleteAssetGroup(tx, by, g.ID) }))
	}
	sees := func() bool { return may(t, st, Caller{Principal: *ada}, AssetRead, web) }
	if got := remove(); got != "asset_group_in_use" || !sees() {
		t.Errorf("while it is used: %q", got)
	}
	update(t, st, func(tx *store.Tx) error {
		for a, err := range AssignmentsOf(tx, string(ada.ID)) {
			if err == nil {
				err = Unassign(tx, by, root, a.ID)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if got := remove(); got != "asset_group_in_use" {
		t.Errorf("while a policy uses it: %q", got)
	}
	update(t, st, func(tx *store.Tx) error {
		_, err := EditAccessPolicy(tx, by, root, shows.ID, AccessPolicyText{For: shows.For, Scope: Scope{Types: []string{"ssh"}}})
		return err
	})
	if got := remove(); got != "" {
		t.Errorf("unused: %q", got)
	}
	update(t, st, func(tx *store.Tx) error { // as no call of the API can
		return assignments.Insert(tx, &Assignment{ID: "asgn_x", Role: "user", Subject: string(ada.ID), Scope: inGroup(g)})
	})
	assetGroup(t, st, "servers", Scope{Types: []string{"ssh"}})
	if sees() {
		t.Error("a deleted group covers something")
	}
}

func TestTheTrailSaysWhatAGroupAndAPolicyWereAndAre(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada := principal(t, st, "ada")
	g := assetGroup(t, st, "servers", Scope{Types: []string{"ssh"}})
	p := policy(t, st, "shows", AccessPolicyText{For: Limited{Principals: []reeve.PrincipalID{ada.ID}}, Scope: inGroup(g)})
	update(t, st, func(tx *store.Tx) error {
		if _, err := EditAssetGroup(tx, by, root, g.ID, AssetGroupText{Rule: Scope{Types: []string{"winrm"}}, Description: "windows"}); err != nil {
			return err
		}
		_, err := EditAccessPolicy(tx, by, root, p.ID, AccessPolicyText{For: Limited{Vendors: true}, Scope: everything()})
		return err
	})
	type change struct{ Before, After map[string]string }
	got := map[string]change{}
	update(t, st, func(tx *store.Tx) error {
		all, err := audit.List(tx, 0, 0, audit.Filter{})
		for _, e := range all {
			got[e.Action] = change{e.Before, e.After}
		}
		return err
	})
	want := map[string]change{
		"asset_group.create":   {nil, map[string]string{"name": "servers", "rule": "type ssh"}},
		"asset_group.edit":     {map[string]string{"name": "servers", "rule": "type ssh"}, map[string]string{"name": "servers", "rule": "type winrm", "description": "windows"}},
		"access_policy.create": {nil, map[string]string{"name": "shows", "for": "ada", "subjects": string(ada.ID), "scope": "asset group " + string(g.ID)}},
		"access_policy.edit": {map[string]string{"name": "shows", "for": "ada", "subjects": string(ada.ID), "scope": "asset group " + string(g.ID)},
			map[string]string{"name": "shows", "for": "vendors", "subjects": "vendors", "scope": "everything"}},
	}
	for action, w := range want {
		if diff := cmp.Diff(w, got[action]); diff != "" {
			t.Errorf("%s: %s", action, diff)
		}
	}
}

// A restored snapshot neither brings a policy that was deleted back nor takes one away.
func TestARestoredSnapshotKeepsGroupsAndPolicies(t *testing.T) {
	t.Parallel()
	now, restored := storetest.New(t), storetest.New(t)
	ada := principal(t, now, "ada")
	give(t, now, "ada", Administrator, everything())
	g := assetGroup(t, now, "servers", Scope{})
	web := Object{Kind: "asset", Placed: true, Site: "site_a", Type: "ssh", Asset: "asset_web"}
	update(t, now, func(tx *store.Tx) error { return AddAsset(tx, by, root, g.ID, web) })
	policy(t, now, "shows", AccessPolicyText{For: Limited{Principals: []reeve.PrincipalID{ada.ID}}, Scope: inGroup(g)})
	assetGroup(t, restored, "older", Scope{})
	update(t, now, func(from *store.Tx) error {
		return restored.Update(t.Context(), func(to *store.Tx) error { return Keep(to, from) })
	})
	other := web
	other.Asset = "asset_other"
	if !may(t, restored, Caller{Principal: *ada}, AssetRead, web) || may(t, restored, Caller{Principal: *ada}, AssetRead, other) {
		t.Error("after the restore the policy or the group is another")
	}
	update(t, restored, func(tx *store.Tx) error {
		if _, err := FindAssetGroup(tx, "older"); reeve.CodeOf(err) != "asset_group_not_found" {
			t.Errorf("a group of the older state: %v", err)
		}
		if err := DeleteAssetGroup(tx, by, g.ID); reeve.CodeOf(err) != "asset_group_in_use" {
			t.Errorf("what uses a group was forgotten: %v", err)
		}
		return nil
	})
}
