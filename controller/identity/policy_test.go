package identity

import (
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func everything() Scope { return Scope{Everything: true} }

func policy(t testing.TB, st *store.Store, name string, in AccessPolicyText) *AccessPolicy {
	t.Helper()
	var p *AccessPolicy
	update(t, st, func(tx *store.Tx) (err error) {
		p, err = CreateAccessPolicy(tx, by, root, name, in)
		return err
	})
	return p
}

// GHSA-76cc: whom an access policy limits gets out of it by none of the ways there are, and
// gives nobody what it hides.
func TestNobodyGetsOutOfAnAccessPolicyByThemselves_GHSA_76cc(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	eve, bob, robot := principal(t, st, "eve"), principal(t, st, "bob"), principal(t, st, "robot")
	give(t, st, "eve", Administrator, everything())
	give(t, st, "robot", Administrator, everything())
	winrm, ssh := Scope{Types: []string{"winrm"}}, Scope{Types: []string{"ssh"}}
	var outsiders, insiders *Group
	var mine *AssetGroup
	update(t, st, func(tx *store.Tx) (err error) {
		if outsiders, err = CreateGroup(tx, by, "outsiders", ""); err != nil {
			return err
		}
		if insiders, err = CreateGroup(tx, by, "insiders", ""); err != nil {
			return err
		}
		if err = AddMember(tx, by, root, outsiders.ID, eve.ID); err != nil {
			return err
		}
		if mine, err = CreateAssetGroup(tx, by, "mine", AssetGroupText{}); err != nil {
			return err
		}
		_, err = EditPrincipal(tx, by, root, eve.ID, Profile{Vendor: true})
		return err
	})
	first := policy(t, st, "first", AccessPolicyText{For: Limited{Groups: []reeve.GroupID{outsiders.ID}}, Scope: winrm})
	policy(t, st, "second", AccessPolicyText{For: Limited{Vendors: true}, Scope: Scope{AssetGroups: []reeve.AssetGroupID{mine.ID}}})
	policy(t, st, "wider", AccessPolicyText{For: Limited{Groups: []reeve.GroupID{insiders.ID}}, Scope: everything()})
	caller := Caller{Principal: *eve}
	hidden := Object{Kind: "asset", Placed: true, Site: "site_a", Type: "ssh", Asset: "asset_1", Name: "db"}
	shown := Object{Kind: "asset", Placed: true, Site: "site_a", Type: "winrm", Asset: "asset_2", Name: "web"}
	if may(t, st, caller, AssetRead, hidden) || !may(t, st, caller, AssetRead, shown) || !may(t, st, caller, IdentityManage, Installation) {
		t.Fatal("the policies do not limit what they are to limit")
	}
	for what, do := range map[string]func(*store.Tx) error{
		"delete it":               func(tx *store.Tx) error { return DeleteAccessPolicy(tx, by, caller, first.ID) },
		"leave the group":         func(tx *store.Tx) error { return RemoveMember(tx, by, caller, outsiders.ID, eve.ID) },
		"join one that sees more": func(tx *store.Tx) error { return AddMember(tx, by, caller, insiders.ID, eve.ID) },
		"be no vendor": func(tx *store.Tx) error {
			_, err := EditPrincipal(tx, by, caller, eve.ID, Profile{})
			return err
		},
		"take it off herself": func(tx *store.Tx) error {
			_, err := EditAccessPolicy(tx, by, caller, first.ID, AccessPolicyText{For: Limited{Principals: []reeve.PrincipalID{bob.ID}}, Scope: winrm})
			return err
		},
		"write a wider one": func(tx *store.Tx) error {
			_, err := CreateAccessPolicy(tx, by, caller, "mine", AccessPolicyText{For: Limited{Principals: []reeve.PrincipalID{eve.ID}}, Scope: everything()})
			return err
		},
		"write one for another": func(tx *store.Tx) error {
			_, err := CreateAccessPolicy(tx, by, caller, "his", AccessPolicyText{For: Limited{Principals: []reeve.PrincipalID{bob.ID}}, Scope: winrm})
			return err
		},
		"put the hidden asset into what it shows": func(tx *store.Tx) error { return AddAsset(tx, by, caller, mine.ID, hidden) },
		"make a rule that shows it": func(tx *store.Tx) error {
			_, err := EditAssetGroup(tx, by, caller, mine.ID, AssetGroupText{Rule: ssh})
			return err
		},
		"give it to another": func(tx *store.Tx) error {
			_, err := Assign(tx, by, caller, NewAssignment{Role: Administrator, Subject: "bob", Scope: ssh})
			return err
		},
		"give everything to another": func(tx *store.Tx) error {
			_, err := Assign(tx, by, caller, NewAssignment{Role: Administrator, Subject: "bob", Scope: everything()})
			return err
		},
		"write a PAM role": func(tx *store.Tx) error {
			_, err := CreatePAMRole(tx, by, caller, "mine", PAMRoleText{Privileges: []Privilege{AssetRead}})
			return err
		},
		"be somebody whom it does not limit": func(tx *store.Tx) error { return MayActFor(tx, caller, robot.ID) },
	} {
		if err := st.Update(t.Context(), do); reeve.CodeOf(err) != "grant_exceeds" {
			t.Errorf("%s: %v", what, err)
		}
	}
	err := st.Update(t.Context(), func(tx *store.Tx) error { return RemoveGroup(tx, by, root, outsiders.ID) })
	if reeve.CodeOf(err) != "group_in_use" {
		t.Errorf("the group of a policy is removed: %v", err)
	}
	if may(t, st, caller, AssetRead, hidden) {
		t.Error("she got out")
	}
	update(t, st, func(tx *store.Tx) error { // and what she sees, she may give
		_, err := Assign(tx, by, caller, NewAssignment{Role: "asset-manager", Subject: "bob", Scope: winrm})
		return err
	})
}

// A policy may hide everything from everybody, and somebody can take it back: whoever wrote
// it, as long as it does not limit them, and root, whom none limits.
func TestNoAccessPolicyLocksTheLastAdministratorOut(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada, boss := principal(t, st, "ada"), principal(t, st, "boss")
	give(t, st, "ada", Administrator, everything())
	give(t, st, "boss", Administrator, everything())
	update(t, st, func(tx *store.Tx) error { _, err := CreatePrincipal(tx, by, "root", Root, Profile{}); return err })
	nothing := Scope{Types: []string{"none"}}
	try := func(who Caller, name string, l Limited, in Scope) string {
		return reeve.CodeOf(st.Update(t.Context(), func(tx *store.Tx) error {
			_, err := CreateAccessPolicy(tx, by, who, name, AccessPolicyText{For: l, Scope: in})
			return err
		}))
	}
	adas := Caller{Principal: *ada}
	both := Limited{Principals: []reeve.PrincipalID{ada.ID, boss.ID}}
	if got := try(adas, "all", both, nothing); got != "access_policy_limits_oneself" {
		t.Errorf("a policy over all administrators: %q", got)
	}
	if may(t, st, Caller{Principal: *boss}, AuditRead, Installation) != true {
		t.Error("what was refused holds")
	}
	if got := try(adas, "both", both, everything()); got != "" {
		t.Errorf("one that hides nothing: %q", got)
	}
	if got := try(adas, "boss", Limited{Principals: []reeve.PrincipalID{boss.ID}}, nothing); got != "" {
		t.Errorf("one for the other: %q", got)
	}
	var roots *Principal
	update(t, st, func(tx *store.Tx) (err error) { roots, err = FindPrincipal(tx, "root"); return err })
	for want, l := range map[string]Limited{"access_policy_for_root": {Principals: []reeve.PrincipalID{roots.ID}}, "access_policy_for_nobody": {}} {
		if got := try(root, "root", l, nothing); got != want {
			t.Errorf("%+v: %q, want %s", l, got, want)
		}
	}
	if got := try(root, "all", both, nothing); got != "" {
		t.Errorf("by root: %q", got)
	}
	limited := Caller{Principal: *boss}
	for p, want := range map[Privilege]bool{IdentityManage: true, ClusterManage: true, SealManage: true, AuditRead: true, AssetRead: true} {
		if got := may(t, st, limited, p, Installation); got != want { // policy "both" shows everything
			t.Errorf("%s: %t", p, got)
		}
	}
	update(t, st, func(tx *store.Tx) error {
		p, err := FindAccessPolicy(tx, "both")
		if err != nil {
			return err
		}
		return DeleteAccessPolicy(tx, by, root, p.ID)
	})
	for p, want := range map[Privilege]bool{IdentityManage: true, ClusterManage: true, SealManage: true, AuditRead: false, AuditExport: false, AuditConfigure: false} {
		if got := may(t, st, limited, p, Installation); got != want {
			t.Errorf("%s under a policy that shows nothing: %t", p, got)
		}
	}
	placed := Object{Kind: "asset", Placed: true, Site: "site_a", Type: "ssh", Asset: "asset_1"}
	if may(t, st, limited, AssetRead, placed) || may(t, st, adas, AssetRead, placed) || !may(t, st, root, AssetRead, placed) {
		t.Error("an asset that no policy shows is seen, or root does not see it")
	}
	update(t, st, func(tx *store.Tx) error {
		for p, err := range ListAccessPolicies(tx, "") {
			if err == nil {
				err = DeleteAccessPolicy(tx, by, root, p.ID)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if !may(t, st, limited, AssetRead, placed) || !may(t, st, limited, AuditRead, Installation) {
		t.Error("what the policies hid is not there again")
	}
}

func TestADecisionNamesThePoliciesThatHideAndTheGroupThatGives(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada := principal(t, st, "ada")
	var servers *AssetGroup
	update(t, st, func(tx *store.Tx) (err error) {
		servers, err = CreateAssetGroup(tx, by, "servers", AssetGroupText{Rule: Scope{Types: []string{"ssh", "winrm"}}})
		return err
	})
	give(t, st, "ada", "user", Scope{AssetGroups: []reeve.AssetGroupID{servers.ID}})
	because := func(o Object) string {
		var d Decision
		err := st.View(t.Context(), func(tx *store.Tx) error {
			s, err := Look(tx, Caller{Principal: *ada})
			d = s.Decide(AssetRead, o)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return d.Because
	}
	of := func(kind string) Object {
		return Object{Kind: "asset", Placed: true, Site: "site_a", Type: kind, Asset: reeve.AssetID("asset_" + kind)}
	}
	only := Limited{Principals: []reeve.PrincipalID{ada.ID}}
	for _, step := range []struct{ what, do, object, want string }{
		{"in the group", "", "ssh", "PAM role user in asset group servers"},
		{"outside", "", "mysql", "PAM role user holds asset.read, but only in asset group servers"},
		{"under a policy that hides it", "windows", "ssh", "PAM role user in asset group servers, but what may be seen is limited by access policy windows to type winrm"},
		{"under a policy that shows it", "", "winrm", "PAM role user in asset group servers, shown by access policy windows"},
		{"under another as well", "mysql", "ssh", "PAM role user in asset group servers, but what may be seen is limited by access policy windows to type winrm and by access policy mysql to type mysql"},
		{"a policy gives nothing", "", "mysql", "PAM role user holds asset.read, but only in asset group servers"},
	} {
		if step.do != "" {
			policy(t, st, step.do, AccessPolicyText{For: only, Scope: Scope{Types: []string{strings.Replace(step.do, "windows", "winrm", 1)}}})
		}
		if got := because(of(step.object)); got != step.want {
			t.Errorf("%s: %q, want %q", step.what, got, step.want)
		}
	}
}
