package identity

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

var root = Caller{Principal: Principal{ID: "prin_root", Name: "root", Kind: Root}}

// CVE-2024-7594, CVE-2023-1299: what is empty is nothing, never everything.
func TestAnEmptyScopeOrPAMRoleGivesNothing_CVE_2024_7594_CVE_2023_1299(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	rapid.Check(t, func(r *rapid.T) {
		w := drawWorld(r)
		o := w.object(r)
		w.in(t, st, func(tx *store.Tx) {
			for _, s := range []Scope{{}, {Sites: []reeve.SiteID{}, Tags: map[string]string{}}, {Sites: []reeve.SiteID{""}}, {Tags: map[string]string{"": ""}}, {Tags: map[string]string{"none": ""}},
				{Types: []string{}, AssetGroups: []reeve.AssetGroupID{}}, {Types: []string{""}}, {AssetGroups: []reeve.AssetGroupID{""}}} {
				if newGroupings(tx).covers(s, o) {
					r.Fatalf("%#v covers %+v", s, o)
				}
			}
		})
	})
	ada := principal(t, st, "ada")
	err := st.Update(t.Context(), func(tx *store.Tx) error {
		_, err := Assign(tx, by, root, NewAssignment{Role: Administrator, Subject: "ada"})
		return err
	})
	if reeve.CodeOf(err) != "scope_empty" {
		t.Errorf("an assignment without a scope: %v", err)
	}
	update(t, st, func(tx *store.Tx) error {
		if _, err := CreatePAMRole(tx, by, root, "nothing", PAMRoleText{}); err != nil {
			return err
		}
		_, err := Assign(tx, by, root, NewAssignment{Role: "nothing", Subject: "ada", Scope: Scope{Everything: true}})
		return err
	})
	for _, p := range all() {
		if may(t, st, Caller{Principal: *ada}, p, Installation) {
			t.Errorf("a PAM role without privileges gives %s", p)
		}
	}
}

// CVE-2025-4922: names are exact, a prefix of a privilege or of a site is another one.
func TestPrivilegesAndSitesMatchExactly_CVE_2025_4922(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada := principal(t, st, "ada")
	give(t, st, "ada", "asset-manager", Scope{Sites: []reeve.SiteID{"site_ab"}})
	for site, want := range map[reeve.SiteID]bool{"site_ab": true, "site_a": false, "site_abc": false, "": false, "SITE_AB": false} {
		if may(t, st, Caller{Principal: *ada}, AssetManage, Object{Placed: true, Site: site}) != want {
			t.Errorf("site %q: want %t", site, want)
		}
	}
	for _, p := range []Privilege{"asset", "asset.", "asset.manag", "asset.manage2", "Asset.Manage", "*", ""} {
		if may(t, st, Caller{Principal: *ada}, p, Object{Placed: true, Site: "site_ab"}) {
			t.Errorf("%q is allowed", p)
		}
		if err := CheckPrivilege(p); reeve.CodeOf(err) != "privilege_unknown" {
			t.Errorf("%q is a privilege: %v", p, err)
		}
	}
}

// GHSA-76cc: who may grant cannot give, by any of the ways there are, more than they hold.
func TestNobodyGrantsMoreThanTheyHold_GHSA_76cc(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	dmz, lan := Scope{Sites: []reeve.SiteID{"site_dmz"}}, Scope{Sites: []reeve.SiteID{"site_lan"}}
	ada, bob, eve := principal(t, st, "ada"), principal(t, st, "bob"), principal(t, st, "eve")
	give(t, st, "ada", Administrator, Scope{Everything: true})
	give(t, st, "eve", "asset-manager", dmz)
	update(t, st, func(tx *store.Tx) error {
		if _, err := CreatePAMRole(tx, by, root, "granter", PAMRoleText{Privileges: []Privilege{AccessGrant, IdentityManage, TokenManage}}); err != nil {
			return err
		}
		if _, err := CreateGroup(tx, by, "admins", ""); err != nil {
			return err
		}
		if _, err := Assign(tx, by, root, NewAssignment{Role: Administrator, Subject: "admins", Group: true, Scope: Scope{Everything: true}}); err != nil {
			return err
		}
		_, err := CreatePrincipal(tx, by, "robot", Service, Profile{})
		return err
	})
	give(t, st, "eve", "granter", Scope{Everything: true})
	give(t, st, "robot", Administrator, Scope{Everything: true})
	caller := Caller{Principal: *eve}
	var group *Group
	var robot *Principal
	var adas *Assignment
	update(t, st, func(tx *store.Tx) (err error) {
		if group, err = FindGroup(tx, "admins"); err != nil {
			return err
		}
		for a, err := range AssignmentsOf(tx, string(ada.ID)) {
			if err != nil {
				return err
			}
			adas = a
		}
		robot, err = FindPrincipal(tx, "robot")
		return err
	})
	for what, do := range map[string]func(*store.Tx) error{
		"assign another PAM role": func(tx *store.Tx) error {
			_, err := Assign(tx, by, caller, NewAssignment{Role: Administrator, Subject: "eve", Scope: Scope{Everything: true}})
			return err
		},
		"assign hers elsewhere": func(tx *store.Tx) error {
			_, err := Assign(tx, by, caller, NewAssignment{Role: "asset-manager", Subject: "bob", Scope: lan})
			return err
		},
		"assign hers everywhere": func(tx *store.Tx) error {
			_, err := Assign(tx, by, caller, NewAssignment{Role: "asset-manager", Subject: "bob", Scope: Scope{Everything: true}})
			return err
		},
		"write a PAM role": func(tx *store.Tx) error {
			_, err := CreatePAMRole(tx, by, caller, "mine", PAMRoleText{Privileges: []Privilege{VaultReveal}})
			return err
		},
		"extend her own": func(tx *store.Tx) error {
			_, err := EditPAMRole(tx, by, caller, "granter", PAMRoleText{Privileges: []Privilege{AccessGrant, VaultReveal}})
			return err
		},
		"join a stronger group":      func(tx *store.Tx) error { return AddMember(tx, by, caller, group.ID, eve.ID) },
		"put a friend into it":       func(tx *store.Tx) error { return AddMember(tx, by, caller, group.ID, bob.ID) },
		"empty it":                   func(tx *store.Tx) error { return RemoveMember(tx, by, caller, group.ID, ada.ID) },
		"remove it":                  func(tx *store.Tx) error { return RemoveGroup(tx, by, caller, group.ID) },
		"take back what is not hers": func(tx *store.Tx) error { return Unassign(tx, by, caller, adas.ID) },
		"disable somebody stronger":  func(tx *store.Tx) error { _, err := DisablePrincipal(tx, by, caller, ada.ID); return err },
		"redirect a stronger's mail": func(tx *store.Tx) error {
			_, err := EditPrincipal(tx, by, caller, ada.ID, Profile{Email: "eve@example.com"})
			return err
		},
		"token of a stronger service": func(tx *store.Tx) error {
			_, _, err := IssueToken(tx, by, caller, NewToken{Principal: robot.ID})
			return err
		},
	} {
		if err := st.Update(context.Background(), do); reeve.CodeOf(err) != "grant_exceeds" {
			t.Errorf("%s: %v", what, err)
		}
	}
	err := st.Update(context.Background(), func(tx *store.Tx) error {
		_, _, err := IssueToken(tx, by, Caller{Principal: *ada}, NewToken{Principal: bob.ID})
		return err
	})
	if reeve.CodeOf(err) != "token_for_person" {
		t.Errorf("an administrator makes a token for a person: %v", err)
	}
	update(t, st, func(tx *store.Tx) error { // and what she does hold, she may give
		_, err := Assign(tx, by, caller, NewAssignment{Role: "asset-manager", Subject: "bob", Scope: dmz})
		return err
	})
	if !may(t, st, Caller{Principal: *bob}, AssetManage, Object{Placed: true, Site: "site_dmz"}) {
		t.Error("what may be given was not")
	}
}

func TestATokenCarriesOnlyWhatItWasMadeFor(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada := principal(t, st, "ada")
	give(t, st, "ada", Administrator, Scope{Everything: true})
	home := netip.MustParsePrefix("192.0.2.0/24")
	_, secret := token(t, st, NewToken{Principal: ada.ID, Limited: true, Privileges: []Privilege{SiteRead}, Networks: []netip.Prefix{home}})
	_, whole := token(t, st, NewToken{Principal: ada.ID})
	err := st.View(t.Context(), func(tx *store.Tx) error {
		_, err := Authenticate(tx, secret, netip.MustParseAddr("198.51.100.1"))
		return err
	})
	if reeve.CodeOf(err) != "token_elsewhere" {
		t.Errorf("from elsewhere: %v", err)
	}
	var limited, unlimited Caller
	update(t, st, func(tx *store.Tx) (err error) {
		if limited, err = Authenticate(tx, secret, netip.MustParseAddr("192.0.2.7")); err == nil {
			unlimited, err = Authenticate(tx, whole, netip.Addr{})
		}
		return err
	})
	for _, p := range all() {
		if got, want := may(t, st, limited, p, Installation), p == SiteRead; got != want {
			t.Errorf("%s with a limited token: %t", p, got)
		}
		if got, want := may(t, st, unlimited, p, Installation), p != WorkflowApprove; got != want {
			t.Errorf("%s with a token: %t", p, got)
		}
	}
	for what, do := range map[string]func(*store.Tx) error{
		"token_limited": func(tx *store.Tx) error {
			_, _, err := IssueToken(tx, by, limited, NewToken{Principal: ada.ID})
			return err
		},
		"grant_exceeds": func(tx *store.Tx) error {
			_, err := Assign(tx, by, limited, NewAssignment{Role: "auditor", Subject: "ada", Scope: Scope{Everything: true}})
			return err
		},
	} {
		if err := st.Update(t.Context(), do); reeve.CodeOf(err) != what {
			t.Errorf("want %s: %v", what, err)
		}
	}
}

// A token with a scope reaches what the scope covers, if its principal does, and gives
// nothing away outside it.
func TestATokenReachesOnlyItsScope(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	inside := Scope{Sites: []reeve.SiteID{"site_a"}, Tags: map[string]string{"team": "web"}}
	at := func(site reeve.SiteID, team string) Object {
		return Object{Kind: "asset", Placed: true, Site: site, Tags: map[string]string{"team": team}}
	}
	update(t, st, func(tx *store.Tx) error { _, err := CreatePrincipal(tx, by, "root", Root, Profile{}); return err })
	for user, scope := range map[string]Scope{"root": {}, "everywhere": {Everything: true}, "there": {Sites: []reeve.SiteID{"site_a"}}, "elsewhere": {Sites: []reeve.SiteID{"site_b"}}} {
		var p *Principal
		if user == "root" {
			update(t, st, func(tx *store.Tx) (err error) { p, err = FindPrincipal(tx, user); return err })
		} else {
			p = principal(t, st, user)
			give(t, st, user, Administrator, scope)
		}
		tok, secret := token(t, st, NewToken{Principal: p.ID, Scope: &inside})
		who, err := authenticate(st, secret)
		if err != nil || !tok.Narrow() {
			t.Fatal(err)
		}
		reaches := user != "elsewhere"
		for what, tt := range map[string]struct {
			p    Privilege
			o    Object
			want bool
		}{
			"inside":           {AssetRead, at("site_a", "web"), reaches},
			"another tag":      {AssetRead, at("site_a", "db"), false},
			"another site":     {AssetRead, at("site_b", "web"), false},
			"the installation": {ClusterRead, Installation, false},
			"the catalogue":    {RoleRead, Installation, true},
			"approval":         {WorkflowApprove, at("site_a", "web"), false},
		} {
			if got := may(t, st, who, tt.p, tt.o); got != tt.want {
				t.Errorf("%s, %s: %t", user, what, got)
			}
		}
		for what, scope := range map[string]Scope{"": inside, "grant_exceeds": {Sites: inside.Sites}} {
			err := st.View(t.Context(), func(tx *store.Tx) error { return mayGrant(tx, who, []Privilege{AssetRead}, scope) })
			if !reaches {
				what = "grant_exceeds"
			}
			if reeve.CodeOf(err) != what {
				t.Errorf("%s gives away in %s: %v", user, scope, err)
			}
		}
		err = st.Update(t.Context(), func(tx *store.Tx) error {
			_, _, err := IssueToken(tx, by, who, NewToken{Principal: who.ID})
			return err
		})
		if reeve.CodeOf(err) != "token_limited" {
			t.Errorf("%s makes a token without a scope with one that has one: %v", user, err)
		}
	}
	for code, bad := range map[string]Scope{"scope_empty": {}, "scope_contradictory": {Everything: true, Sites: inside.Sites}} {
		err := st.Update(t.Context(), func(tx *store.Tx) error {
			_, _, err := CreateToken(tx, by, NewToken{Principal: principalID(tx, "there"), Scope: &bad})
			return err
		})
		if reeve.CodeOf(err) != code {
			t.Errorf("want %s: %v", code, err)
		}
	}
}

func principalID(tx *store.Tx, name string) reeve.PrincipalID {
	p, err := FindPrincipal(tx, name)
	if err != nil {
		return ""
	}
	return p.ID
}

func TestWhoIsDisabledOrRemovedHoldsNothing(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada := principal(t, st, "ada")
	update(t, st, func(tx *store.Tx) error {
		g, err := CreateGroup(tx, by, "ops", "")
		if err != nil {
			return err
		}
		if _, err := Assign(tx, by, root, NewAssignment{Role: "auditor", Subject: "ops", Group: true, Scope: Scope{Everything: true}}); err != nil {
			return err
		}
		return AddMember(tx, by, root, g.ID, ada.ID)
	})
	_, secret := token(t, st, NewToken{Principal: ada.ID})
	steps := []struct {
		name string
		do   func(*store.Tx) error
		may  bool
		code string
	}{
		{"member", func(*store.Tx) error { return nil }, true, ""},
		{"disabled", func(tx *store.Tx) error { _, err := DisablePrincipal(tx, by, root, ada.ID); return err }, false, "principal_disabled"},
		{"enabled", func(tx *store.Tx) error { _, err := EnablePrincipal(tx, by, root, ada.ID); return err }, true, ""},
		{"removed", func(tx *store.Tx) error { _, err := RemovePrincipal(tx, by, root, ada.ID); return err }, false, "token_unknown"},
	}
	for _, s := range steps {
		update(t, st, s.do)
		if got := may(t, st, Caller{Principal: *ada}, AuditRead, Installation); got != s.may {
			t.Errorf("%s: may read the trail: %t", s.name, got)
		}
		if _, err := authenticate(st, secret); reeve.CodeOf(err) != s.code {
			t.Errorf("%s: token: %v", s.name, err)
		}
	}
	err := st.Update(t.Context(), func(tx *store.Tx) error {
		_, err := CreatePrincipal(tx, by, "ada", User, Profile{})
		return err
	})
	if reeve.CodeOf(err) != "principal_name_taken" {
		t.Errorf("the name of somebody removed is given away: %v", err)
	}
	update(t, st, func(tx *store.Tx) error {
		p, err := GetPrincipal(tx, ada.ID)
		if err == nil && (p.Name != "ada" || p.Status() != "removed") {
			t.Errorf("%+v", p)
		}
		return err
	})
}

func TestBuiltInPAMRolesAreSortedAndKnown(t *testing.T) {
	t.Parallel()
	if !slices.IsSortedFunc(builtIn, func(a, b PAMRole) int { return slices.Compare([]string{a.Name}, []string{b.Name}) }) {
		t.Error("ListPAMRoles merges them by name")
	}
	for _, r := range builtIn {
		for _, p := range r.Privileges {
			if err := CheckPrivilege(p); err != nil {
				t.Errorf("%s: %v", r.Name, err)
			}
		}
	}
	st := storetest.New(t)
	update(t, st, func(tx *store.Tx) error {
		for _, name := range []string{"aaa", "bbb", "zzz"} {
			if _, err := CreatePAMRole(tx, by, root, name, PAMRoleText{}); err != nil {
				return err
			}
		}
		for after := ""; ; {
			var names []string
			for r, err := range ListPAMRoles(tx, after) {
				if err != nil {
					return err
				}
				names = append(names, r.Name)
			}
			if !slices.IsSorted(names) || after == "" && len(names) != len(builtIn)+3 || len(names) > 0 && names[0] <= after {
				t.Errorf("after %q: %v", after, names)
			}
			if len(names) == 0 {
				return nil
			}
			after = names[0]
		}
	})
}

// give assigns a PAM role, as root.
func give(t testing.TB, st *store.Store, user, role string, in Scope) {
	t.Helper()
	update(t, st, func(tx *store.Tx) error {
		_, err := Assign(tx, by, root, NewAssignment{Role: role, Subject: user, Scope: in})
		return err
	})
}

func may(t testing.TB, st *store.Store, who Caller, p Privilege, o Object) (yes bool) {
	t.Helper()
	err := st.View(context.Background(), func(tx *store.Tx) error {
		s, err := Look(tx, who)
		yes = s.Can(p, o)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return yes
}

// CVE-2025-5999, CVE-2025-64761: a PAM role or a principal has one spelling, and none that
// looks like a built-in one can be made.
func TestNoNameIsAnotherSpellingOfOneWithPower_CVE_2025_5999_CVE_2025_64761(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	principal(t, st, "ada")
	update(t, st, func(tx *store.Tx) error { _, err := CreatePrincipal(tx, by, "root", Root, Profile{}); return err })
	try := func(fn func(tx *store.Tx) error) string { return reeve.CodeOf(st.Update(t.Context(), fn)) }
	for _, spelled := range []string{"%s", "%s ", " %s", "%s\x00", "%s\u200b", "%s\u200d"} {
		for _, name := range []string{"administrator", "Administrator", "ADMINISTRATOR", "аdministrator", "ａdministrator"} {
			name := fmt.Sprintf(spelled, name)
			exact := name == Administrator
			if got := try(func(tx *store.Tx) error { _, err := CreatePAMRole(tx, by, root, name, PAMRoleText{}); return err }); got != "name_invalid" && (!exact || got != "pam_role_exists") {
				t.Errorf("PAM role %q: %s", name, got)
			}
			got := try(func(tx *store.Tx) error {
				_, err := Assign(tx, by, root, NewAssignment{Role: name, Subject: "ada", Scope: Scope{Everything: true}})
				return err
			})
			if want := map[bool]string{true: "", false: "pam_role_not_found"}[exact]; got != want {
				t.Errorf("giving %q: %s", name, got)
			}
		}
		for _, name := range []string{"root", "Root", "ROOT", "rооt", "ｒoot"} {
			name := fmt.Sprintf(spelled, name)
			if got := try(func(tx *store.Tx) error { _, err := CreatePrincipal(tx, by, name, User, Profile{}); return err }); got != "name_invalid" && (name != "root" || got != "principal_name_taken") {
				t.Errorf("user %q: %s", name, got)
			}
		}
	}
}
