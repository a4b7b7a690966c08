package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// world is a small installation that a property is tried in: three asset groups, of which
// one does not exist, and assets that were put into them.
type world struct {
	rules map[reeve.AssetGroupID]Scope
	put   map[reeve.AssetGroupID][]reeve.AssetID
}

var (
	worldGroups = []reeve.AssetGroupID{"agrp_a", "agrp_b", "agrp_gone"}
	worldSites  = []reeve.SiteID{"site_a", "site_b", "site_c"}
	worldTypes  = []string{"ssh", "winrm"}
	worldAssets = []reeve.AssetID{"asset_1", "asset_2"}
)

func drawWorld(t *rapid.T) world {
	w := world{map[reeve.AssetGroupID]Scope{}, map[reeve.AssetGroupID][]reeve.AssetID{}}
	for _, g := range worldGroups[:2] {
		w.rules[g] = narrow(t, "rule of "+string(g), "sites", "types", "tags")
		w.put[g] = some(t, "put into "+string(g), worldAssets)
	}
	return w
}

func some[T any](t *rapid.T, label string, from []T) (out []T) {
	for i, v := range from {
		if rapid.Bool().Draw(t, fmt.Sprint(label, " ", i)) {
			out = append(out, v)
		}
	}
	return out
}

// narrow is a scope of one or two conditions of those that are named, or of none.
func narrow(t *rapid.T, label string, conditions ...string) (s Scope) {
	for i := range rapid.SampledFrom([]int{1, 1, 1, 2, 2, 0}).Draw(t, label+" conditions") {
		label := fmt.Sprint(label, " ", i)
		switch rapid.SampledFrom(conditions).Draw(t, label) {
		case "sites":
			s.Sites = some(t, label+" site", worldSites)
		case "types":
			s.Types = some(t, label+" type", worldTypes)
		case "tags":
			s.Tags = drawTags(t, label)
		case "groups":
			s.AssetGroups = some(t, label+" group", worldGroups)
		}
	}
	return s
}

func drawTags(t *rapid.T, label string) map[string]string {
	out := map[string]string{}
	for _, k := range []string{"env", "team"} {
		if v := rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, label+" "+k); v != "" {
			out[k] = v
		}
	}
	return out
}

func drawScope(t *rapid.T, label string) Scope {
	if rapid.IntRange(0, 5).Draw(t, label+" everything") == 0 {
		return everything()
	}
	return narrow(t, label, "sites", "types", "tags", "groups", "groups")
}

// objects draws a few of the installation, sites, places for assets, and assets.
func (w world) objects(t *rapid.T) (out []Object) {
	for range 8 {
		out = append(out, w.object(t))
	}
	return out
}

// object draws the installation, a site, a place for an asset, or an asset.
func (w world) object(t *rapid.T) Object {
	o := Object{Kind: rapid.SampledFrom([]string{"installation", "site", "place", "asset", "asset", "asset"}).Draw(t, "kind")}
	if o.Kind == "installation" {
		return Installation
	}
	o.Placed, o.Site = true, rapid.SampledFrom(append(slices.Clone(worldSites), "site_d")).Draw(t, "site")
	if o.Kind == "site" {
		return o
	}
	o.Tags, o.Type = drawTags(t, "object"), rapid.SampledFrom(append(slices.Clone(worldTypes), "mysql")).Draw(t, "type")
	if o.Kind == "asset" {
		o.Asset = rapid.SampledFrom(append(slices.Clone(worldAssets), "asset_3")).Draw(t, "asset")
	}
	return o
}

var errUndo = errors.New("undone")

// in runs fn in a transaction that sees the world, and undoes it.
func (w world) in(t testing.TB, st *store.Store, fn func(tx *store.Tx)) {
	t.Helper()
	err := st.Update(context.Background(), func(tx *store.Tx) error {
		for id, rule := range w.rules {
			err := assetGroups.Put(tx, &AssetGroup{ID: id, Name: string(id), Rule: rule})
			for _, asset := range w.put[id] {
				err = errors.Join(err, groupedAssets.Put(tx, &groupedAsset{Group: id, Asset: asset}))
			}
			if err != nil {
				return err
			}
		}
		fn(tx)
		return errUndo
	})
	if !errors.Is(err, errUndo) {
		t.Fatal(err)
	}
}

// covers says what a scope covers a second time, from the words of the contract: all
// conditions that are set, of which there is one.
func (w world) covers(s Scope, o Object) bool {
	if s.Everything {
		return true
	}
	var met []bool
	if len(s.Sites) > 0 {
		met = append(met, slices.Contains(s.Sites, o.Site))
	}
	if len(s.Types) > 0 {
		met = append(met, slices.Contains(s.Types, o.Type))
	}
	for k, v := range s.Tags {
		met = append(met, o.Tags[k] == v)
	}
	if len(s.AssetGroups) > 0 {
		in := false
		for _, g := range s.AssetGroups {
			_, exists := w.rules[g]
			in = in || exists && o.Type != "" && (slices.Contains(w.put[g], o.Asset) || w.covers(w.rules[g], o))
		}
		met = append(met, in)
	}
	return o.Placed && len(met) > 0 && !slices.Contains(met, false)
}

func TestAScopeCoversWhatMeetsAllItsConditions(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	rapid.Check(t, func(r *rapid.T) {
		w := drawWorld(r)
		s, all := drawScope(r, "scope"), w.objects(r)
		w.in(t, st, func(tx *store.Tx) {
			for _, o := range all {
				if got, want := newGroupings(tx).covers(s, o), w.covers(s, o); got != want {
					r.Fatalf("%s covers %+v: %t, want %t (%+v)", s, o, got, want, w)
				}
			}
		})
	})
}

func TestAScopeThatContainsAnotherCoversAllThatOneCovers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		a, b := drawScope(t, "a"), drawScope(t, "b")
		for _, o := range w.objects(t) {
			if a.Contains(b) && w.covers(b, o) && !w.covers(a, o) {
				t.Fatalf("%s contains %s, which covers %+v", a, b, o)
			}
		}
		if !a.Contains(a) {
			t.Fatalf("%s does not contain itself", a)
		}
	})
}

// A5.19: what somebody may do is what some assignment gives them for what some access
// policy shows them, if any applies; no policy gives, and none touches what is not in a
// site but what shows all sites.
func TestAccessPoliciesOnlyTakeFromWhatAssignmentsGive_A5_19(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	type given struct {
		subject string
		scope   Scope
	}
	rapid.Check(t, func(r *rapid.T) {
		w := drawWorld(r)
		all := w.objects(r)
		vendor := rapid.Bool().Draw(r, "vendor")
		applies := map[string]bool{"prin_ada": true, "grp_hers": true, vendors: vendor} // not to prin_bob and grp_his
		draw := func(what string, subjects ...string) (out []given) {
			for i := range rapid.IntRange(0, 3).Draw(r, what+"s") {
				label := fmt.Sprint(what, " ", i)
				out = append(out, given{rapid.SampledFrom(subjects).Draw(r, label+" for"), drawScope(r, label)})
			}
			return out
		}
		held := draw("assignment", "prin_ada", "prin_ada", "grp_hers", "prin_bob", "grp_his")
		limits := draw("policy", "prin_ada", "grp_hers", vendors, vendors, "prin_bob", "grp_his")
		p := rapid.SampledFrom([]Privilege{AssetRead, AssetRead, AuditRead, IdentityRead, RoleRead}).Draw(r, "privilege")
		want := func(o Object) bool {
			gives, limited, shows, anything := false, false, false, false
			for _, h := range held {
				gives = gives || applies[h.subject] && w.covers(h.scope, o)
				anything = anything || applies[h.subject]
			}
			for _, l := range limits {
				limited = limited || applies[l.subject]
				shows = shows || applies[l.subject] && w.covers(l.scope, o)
			}
			if p == RoleRead { // of the catalogue
				return anything
			}
			return gives && (!limited || shows || !o.Placed && p != AuditRead)
		}
		w.in(t, st, func(tx *store.Tx) {
			ada := &Principal{ID: "prin_ada", Name: "ada", Kind: User, Profile: Profile{Vendor: vendor}}
			err := errors.Join(principals.Put(tx, ada), groups.Put(tx, &Group{ID: "grp_hers", Name: "hers"}), memberships.Put(tx, &membership{Group: "grp_hers", Principal: ada.ID}),
				pamRoles.Put(tx, &PAMRole{Name: "tried", Privileges: []Privilege{p}}))
			for i, h := range held {
				err = errors.Join(err, assignments.Put(tx, &Assignment{ID: reeve.AssignmentID(fmt.Sprint("asgn_", i)), Role: "tried", Subject: h.subject, Scope: h.scope}))
			}
			for i, l := range limits {
				id := reeve.AccessPolicyID(fmt.Sprint("apol_", i))
				err = errors.Join(err, accessPolicies.Put(tx, &AccessPolicy{ID: id, Name: string(id), Scope: l.scope}), policySubjects.Put(tx, &policySubject{Subject: l.subject, Policy: id}))
			}
			sight, lookErr := Look(tx, Caller{Principal: *ada})
			if err := errors.Join(err, lookErr); err != nil {
				r.Fatal(err)
			}
			for _, o := range all {
				if d := sight.Decide(p, o); d.Allowed != want(o) || d.Because == "" || d.Allowed != (d.Assignment != nil) {
					r.Fatalf("%s for %+v with %v under %v: %+v, want %t", p, o, held, limits, d, want(o))
				}
			}
		})
	})
}
