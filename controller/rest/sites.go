package rest

import (
	"context"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func showSite(s *inventory.Site) (client.Site, error) {
	return client.Site{Id: string(s.ID), Name: s.Name, Description: optional(s.Description), CreatedAt: s.CreatedAt}, nil
}

// ListSites implements the contract.
func (s *Server) ListSites(ctx context.Context, r ListSitesRequestObject) (ListSitesResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	var out client.SitePage
	err = s.view(ctx, func(tx *store.Tx) error {
		sees, err := sight(ctx, tx)
		if err != nil {
			return err
		}
		out.Items, out.Next, err = page(seen(inventory.ListSites(tx, after), func(s *inventory.Site) (bool, error) { return sees(siteObject(s)), nil }), r.Params.Limit,
			func(s *inventory.Site) string { return string(s.ID) }, showSite)
		return err
	})
	return ListSites200JSONResponse(out), err
}

// AddSite implements the contract.
func (s *Server) AddSite(ctx context.Context, r AddSiteRequestObject) (AddSiteResponseObject, error) {
	out, err := update(ctx, s, r.Params.IdempotencyKey, r.Body, func(tx *store.Tx, by audit.Actor) (client.Site, error) {
		site, err := inventory.AddSite(tx, by, inventory.NewSite{Name: r.Body.Name, Description: value(r.Body.Description)})
		if err != nil {
			return client.Site{}, err
		}
		return showSite(site)
	})
	return AddSite201JSONResponse(out), err
}

// GetSite implements the contract.
func (s *Server) GetSite(ctx context.Context, r GetSiteRequestObject) (GetSiteResponseObject, error) {
	var out client.Site
	err := s.view(ctx, func(tx *store.Tx) error {
		site, err := inventory.GetSite(tx, r.Site)
		if err != nil {
			return err
		}
		out, err = showSite(site)
		return err
	})
	return GetSite200JSONResponse(out), err
}

// RetireSite implements the contract.
func (s *Server) RetireSite(ctx context.Context, r RetireSiteRequestObject) (RetireSiteResponseObject, error) {
	_, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		site, err := inventory.GetSite(tx, r.Site)
		if err != nil {
			return none{}, err
		}
		agents, err := pki.ListAgents(tx, site.ID, "", 1000)
		if err != nil {
			return none{}, err
		}
		for _, agent := range agents {
			if agent.Status == pki.Active {
				return none{}, reeve.Errorf(reeve.Conflict, "site_has_agents", "agent %s still serves site %s", agent.Name, site.Name).
					WithFix("ban its agents first")
			}
		}
		return none{}, inventory.RetireSite(tx, by, site.ID)
	})
	return RetireSite204Response{}, err
}

// none is the answer of calls that give nothing back.
type none struct{}
