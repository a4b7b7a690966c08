package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

// place is a scope for people.
func place(s client.Scope) string {
	if s.Everything != nil && *s.Everything {
		return "everything"
	}
	var parts []string
	if groups := list(s.AssetGroups); len(groups) > 0 {
		parts = append(parts, "asset group "+strings.Join(groups, " or "))
	}
	if rule := ruled(&client.AssetGroupRule{Sites: s.Sites, Tags: s.Tags, Types: s.Types}); rule != "" {
		parts = append(parts, rule)
	}
	return strings.Join(parts, ", ")
}

// ruled is the rule of an asset group for people; empty if there is none.
func ruled(r *client.AssetGroupRule) string {
	var parts []string
	if r == nil {
		return ""
	}
	if types := list(r.Types); len(types) > 0 {
		parts = append(parts, "type "+strings.Join(types, " or "))
	}
	if sites := list(r.Sites); len(sites) > 0 {
		parts = append(parts, "site "+strings.Join(sites, " or "))
	}
	if r.Tags != nil {
		for _, k := range slices.Sorted(maps.Keys(*r.Tags)) {
			parts = append(parts, "tag "+k+"="+(*r.Tags)[k])
		}
	}
	return strings.Join(parts, ", ")
}

// ruleFlags narrow by what an asset is.
type ruleFlags struct {
	sites, types []string
	tags         map[string]string
}

func (r *ruleFlags) on(c *cobra.Command) {
	f := c.Flags()
	f.StringSliceVar(&r.sites, "site", nil, "in this site; may be repeated: in any of them")
	f.StringSliceVar(&r.types, "type", nil, "assets of this type, the name of a connector; may be repeated: of any of them")
	f.StringToStringVar(&r.tags, "tag", nil, "assets with this tag, key=value; may be repeated: with all of them")
}

func (r *ruleFlags) rule() *client.AssetGroupRule {
	out := &client.AssetGroupRule{}
	if len(r.sites) > 0 {
		out.Sites = &r.sites
	}
	if len(r.types) > 0 {
		out.Types = &r.types
	}
	if len(r.tags) > 0 {
		out.Tags = &r.tags
	}
	return out
}

// scopeFlags are a scope on the command line.
type scopeFlags struct {
	ruleFlags
	assetGroups []string
	everything  bool
}

// scopeNames are the flags of a scope.
var scopeNames = []string{"site", "type", "tag", "asset-group", "everything"}

func (s *scopeFlags) on(c *cobra.Command) {
	s.ruleFlags.on(c)
	c.Flags().StringSliceVar(&s.assetGroups, "asset-group", nil, "assets in this asset group; may be repeated: in any of them")
	c.Flags().BoolVar(&s.everything, "everything", false, "everywhere")
}

func (s *scopeFlags) scope() client.Scope {
	r := s.rule()
	out := client.Scope{Everything: &s.everything, Sites: r.Sites, Types: r.Types, Tags: r.Tags}
	if len(s.assetGroups) > 0 {
		out.AssetGroups = &s.assetGroups
	}
	return out
}

// anyGiven reports whether any of the flags was given.
func anyGiven(c *cobra.Command, flags ...string) bool {
	return slices.ContainsFunc(flags, func(name string) bool { return c.Flags().Changed(name) })
}
