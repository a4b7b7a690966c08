package rest

import (
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/lifecycle"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// names turns ids into the names people know. What cannot be found keeps its id.
type names struct{ tx *store.Tx }

func (n names) site(id reeve.SiteID) string {
	if s, err := inventory.GetSite(n.tx, string(id)); err == nil {
		return s.Name
	}
	return string(id)
}

func (n names) assetGroup(id reeve.AssetGroupID) string {
	if g, err := identity.FindAssetGroup(n.tx, string(id)); err == nil {
		return g.Name
	}
	return string(id)
}

func (n names) asset(id reeve.AssetID) string {
	if id == "" {
		return ""
	}
	if a, err := inventory.GetAsset(n.tx, string(id)); err == nil {
		return a.Name
	}
	return string(id)
}

// legacy reports whether an asset is marked so.
func (n names) legacy(id reeve.AssetID) bool {
	if id == "" {
		return false
	}
	a, err := inventory.GetAsset(n.tx, string(id))
	return err == nil && a.Legacy()
}

func (n names) account(id reeve.AccountID) string {
	if id == "" {
		return ""
	}
	if a, err := lifecycle.Get(n.tx, string(id)); err == nil {
		return a.Name + "@" + a.AssetName
	}
	return string(id)
}

func (n names) agent(id reeve.AgentID) string {
	if id == "" {
		return ""
	}
	if a, err := pki.GetAgent(n.tx, id); err == nil {
		return a.Name
	}
	return string(id)
}
