package identity

import (
	"maps"
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Scope says where an assignment holds, or what an access policy shows: everything, or
// whatever meets every condition that is set. A scope with nothing set is nothing.
type Scope struct {
	Everything  bool                 `cbor:"1,keyasint,omitempty"`
	Sites       []reeve.SiteID       `cbor:"2,keyasint,omitempty"` // any of them
	Tags        map[string]string    `cbor:"3,keyasint,omitempty"` // all of them
	Types       []string             `cbor:"4,keyasint,omitempty"` // any of them: connectors of assets
	AssetGroups []reeve.AssetGroupID `cbor:"5,keyasint,omitempty"` // any of them
}

// Object is what somebody wants to do something with, as far as scopes tell objects
// apart.
type Object struct {
	Kind string // asset, account, …: also the first word of the code <kind>_not_found
	ID   string
	Name string
	// Placed objects lie in a site. The others belong to the installation as a whole, and
	// only a scope of everything covers them.
	Placed bool
	Site   reeve.SiteID
	Tags   map[string]string
	Asset  reeve.AssetID // it is, or lies on; "": none
	Type   string        // the connector of that asset
	joins  reeve.AssetGroupID
}

// Installation is the object of what is not about anything in a site.
var Installation = Object{Kind: "installation"}

// Joining is the object as it would be in an asset group.
func (o Object) Joining(group reeve.AssetGroupID) Object {
	o.joins = group
	return o
}

// groupings knows which asset groups objects are in, as of a transaction. A failure to read
// makes an object be in none, and is kept in err.
type groupings struct {
	tx    *store.Tx
	known map[reeve.AssetGroupID]*AssetGroup
	err   error
}

func newGroupings(tx *store.Tx) *groupings {
	return &groupings{tx: tx, known: map[reeve.AssetGroupID]*AssetGroup{}}
}

// find is nil for a group that does not exist.
func (g *groupings) find(id reeve.AssetGroupID) *AssetGroup {
	if group, known := g.known[id]; known {
		return group
	}
	group, err := assetGroups.Get(g.tx, string(id))
	if err != nil {
		group = nil
		g.fail(err)
	}
	g.known[id] = group
	return group
}

func (g *groupings) fail(err error) {
	if reeve.KindOf(err) != reeve.NotFound && g.err == nil {
		g.err = err
	}
}

// has reports whether the object's asset is in the group, because it was put there or
// because the group's rule covers it. Nothing is in a group that does not exist.
func (g *groupings) has(id reeve.AssetGroupID, o Object) bool {
	if o.Asset == "" && o.Type == "" {
		return false
	}
	group := g.find(id)
	switch {
	case group == nil:
		return false
	case o.joins == id || g.covers(group.Rule, o):
		return true
	}
	return g.put(id, o.Asset)
}

// put reports whether somebody put the asset into the group.
func (g *groupings) put(id reeve.AssetGroupID, asset reeve.AssetID) bool {
	if asset == "" {
		return false
	}
	_, err := groupedAssets.Get(g.tx, groupedKey(id, asset))
	if err != nil {
		g.fail(err)
	}
	return err == nil
}

// covers reports whether the scope covers the object.
func (g *groupings) covers(s Scope, o Object) bool {
	switch {
	case s.Everything:
		return true
	case s.empty() || !o.Placed:
		return false
	case len(s.Sites) > 0 && !slices.Contains(s.Sites, o.Site), len(s.Types) > 0 && (o.Type == "" || !slices.Contains(s.Types, o.Type)):
		return false
	case !hasAll(o.Tags, s.Tags):
		return false
	}
	return len(s.AssetGroups) == 0 || slices.ContainsFunc(s.AssetGroups, func(id reeve.AssetGroupID) bool { return g.has(id, o) })
}

// text is the scope for people, with names of asset groups.
func (g *groupings) text(s Scope) string {
	return s.text(func(id reeve.AssetGroupID) string {
		if group := g.find(id); group != nil {
			return group.Name
		}
		return string(id)
	})
}

// Contains reports whether everything that other covers, now or later, s covers too. What
// is in an asset group changes: only a scope that names the group contains it.
func (s Scope) Contains(other Scope) bool {
	switch {
	case s.Everything || other.empty():
		return true
	case other.Everything || s.empty():
		return false
	}
	return narrower(other.Sites, s.Sites) && narrower(other.Types, s.Types) && narrower(other.AssetGroups, s.AssetGroups) && hasAll(other.Tags, s.Tags)
}

// narrower reports whether each of some alternatives is one of others. No alternatives
// stand for all.
func narrower[T comparable](some, others []T) bool {
	if len(others) == 0 {
		return true
	}
	return len(some) > 0 && !slices.ContainsFunc(some, func(v T) bool { return !slices.Contains(others, v) })
}

func (s Scope) empty() bool { return !s.Everything && !s.narrowed() }

func (s Scope) narrowed() bool {
	return len(s.Sites) > 0 || len(s.Tags) > 0 || len(s.Types) > 0 || len(s.AssetGroups) > 0
}

func hasAll(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

const maxScopeParts = 64

// check refuses scopes that mean nothing or two things at once, and asset groups that do
// not exist: codes scope_empty, scope_contradictory, scope_too_big, asset_group_not_found.
func (s Scope) check(tx *store.Tx) error {
	switch {
	case s.Everything && s.narrowed():
		return reeve.Errorf(reeve.Invalid, "scope_contradictory", "a scope is everything, or it is narrowed by sites, tags, types and asset groups").WithField("/scope")
	case s.empty():
		return reeve.Errorf(reeve.Invalid, "scope_empty", "an empty scope covers nothing").
			WithFix("name sites, tags, types or asset groups, or say everything").WithField("/scope")
	}
	for _, id := range s.AssetGroups {
		if _, err := FindAssetGroup(tx, string(id)); err != nil {
			return invalid(err, "/scope/asset_groups")
		}
	}
	return s.checkSize("/scope")
}

func (s Scope) checkSize(field string) error {
	if len(s.Sites) > maxScopeParts || len(s.Tags) > maxScopeParts || len(s.Types) > maxScopeParts || len(s.AssetGroups) > maxScopeParts {
		return reeve.Errorf(reeve.Invalid, "scope_too_big", "a scope has up to %d sites, tags, types and asset groups", maxScopeParts).WithField(field)
	}
	return nil
}

// String is the scope for people and for the audit trail, with ids of sites and asset
// groups.
func (s Scope) String() string {
	return s.text(func(id reeve.AssetGroupID) string { return string(id) })
}

func (s Scope) text(group func(reeve.AssetGroupID) string) string {
	if s.Everything {
		return "everything"
	}
	var parts []string
	alternatives := func(noun string, of []string) {
		if len(of) > 0 {
			slices.Sort(of)
			parts = append(parts, noun+" "+strings.Join(of, " or "))
		}
	}
	groups := make([]string, len(s.AssetGroups))
	for i, id := range s.AssetGroups {
		groups[i] = group(id)
	}
	alternatives("asset group", groups)
	alternatives("type", slices.Clone(s.Types))
	alternatives("site", texts(s.Sites))
	for _, k := range slices.Sorted(maps.Keys(s.Tags)) {
		parts = append(parts, "tag "+k+"="+s.Tags[k])
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

func texts[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}
