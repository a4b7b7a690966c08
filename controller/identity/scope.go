package identity

import (
	"maps"
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Scope says where an assignment holds: everywhere, or wherever every condition that is
// set is met. A scope with nothing set is nowhere.
type Scope struct {
	Everything bool              `cbor:"1,keyasint,omitempty"`
	Sites      []reeve.SiteID    `cbor:"2,keyasint,omitempty"` // any of them
	Tags       map[string]string `cbor:"3,keyasint,omitempty"` // all of them
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
}

// Installation is the object of what is not about anything in a site.
var Installation = Object{Kind: "installation"}

// Covers reports whether the scope covers the object.
func (s Scope) Covers(o Object) bool {
	switch {
	case s.Everything:
		return true
	case s.empty() || !o.Placed:
		return false
	case len(s.Sites) > 0 && !slices.Contains(s.Sites, o.Site):
		return false
	}
	return hasAll(o.Tags, s.Tags)
}

// Contains reports whether everything that other covers, now or later, s covers too.
func (s Scope) Contains(other Scope) bool {
	switch {
	case s.Everything || other.empty():
		return true
	case other.Everything || s.empty():
		return false
	case len(s.Sites) > 0 && len(other.Sites) == 0:
		return false
	}
	for _, site := range other.Sites {
		if len(s.Sites) > 0 && !slices.Contains(s.Sites, site) {
			return false
		}
	}
	return hasAll(other.Tags, s.Tags)
}

func (s Scope) empty() bool { return !s.Everything && len(s.Sites) == 0 && len(s.Tags) == 0 }

func hasAll(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

const maxScopeParts = 64

// check refuses scopes that mean nothing or two things at once: code scope_empty,
// scope_contradictory, scope_too_big.
func (s Scope) check() error {
	narrowed := len(s.Sites) > 0 || len(s.Tags) > 0
	switch {
	case s.Everything && narrowed:
		return reeve.Errorf(reeve.Invalid, "scope_contradictory", "a scope is everything, or it is narrowed by sites and tags").WithField("/scope")
	case s.empty():
		return reeve.Errorf(reeve.Invalid, "scope_empty", "an empty scope covers nothing").
			WithFix("name sites or tags, or say everything").WithField("/scope")
	case len(s.Sites) > maxScopeParts || len(s.Tags) > maxScopeParts:
		return reeve.Errorf(reeve.Invalid, "scope_too_big", "a scope has up to %d sites and %d tags", maxScopeParts, maxScopeParts).WithField("/scope")
	}
	return nil
}

// String is the scope for people and for the audit trail, with ids of sites.
func (s Scope) String() string {
	if s.Everything {
		return "everything"
	}
	var parts []string
	if len(s.Sites) > 0 {
		sites := make([]string, len(s.Sites))
		for i, id := range s.Sites {
			sites[i] = string(id)
		}
		slices.Sort(sites)
		parts = append(parts, "site "+strings.Join(sites, " or "))
	}
	for _, k := range slices.Sorted(maps.Keys(s.Tags)) {
		parts = append(parts, "tag "+k+"="+s.Tags[k])
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}
