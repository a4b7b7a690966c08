package rest

import (
	"context"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/lifecycle"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func showAsset(tx *store.Tx, a *inventory.Asset) (client.Asset, error) {
	out := client.Asset{Id: string(a.ID), Name: a.Name, Site: names{tx}.site(a.SiteID), Connector: a.Connector, Category: a.Category,
		Address: a.Address, Port: int(a.Port), Description: optional(a.Description), Tags: mapped(a.Tags), Options: mapped(a.Options), Status: string(a.Status), Legacy: a.Legacy(),
		Alert: optional(a.Alert()), Product: optional(a.Fingerprint.M.GetProduct()), ProductVersion: optional(a.Fingerprint.M.GetVersion()), CreatedAt: a.CreatedAt}
	if f := a.Trust.Fingerprints(); len(f) > 0 {
		out.Trusted = &f
	}
	for _, shown := range []*inventory.ShownKey{a.Trust.Pending, a.Trust.Changed} {
		if shown != nil && shown.Fingerprint != "" {
			out.PendingFingerprint = &shown.Fingerprint
		}
	}
	if m := a.Management; m != nil {
		out.ManagementAccount = &client.ManagementAccount{Username: m.Username, Kind: client.ManagementAccountKind(m.Kind), Verified: m.Verified(),
			VerifiedAt: instant(m.VerifiedAt), VerifiedBy: optional(names{tx}.agent(m.VerifiedByAgent)), LastError: showFailure(m.LastError)}
		if len(m.MissingRights) > 0 {
			out.ManagementAccount.MissingRights = &m.MissingRights
		}
	}
	return out, nil
}

// ListAssets implements the contract.
func (s *Server) ListAssets(ctx context.Context, r ListAssetsRequestObject) (ListAssetsResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	var out client.AssetPage
	err = s.view(ctx, func(tx *store.Tx) error {
		sees, err := sight(ctx, tx)
		if err != nil {
			return err
		}
		var site reeve.SiteID
		if r.Params.Site != nil {
			if err := permit(ctx, tx, siteKind, *r.Params.Site); err != nil {
				return err
			}
			found, err := inventory.GetSite(tx, *r.Params.Site)
			if err != nil {
				return err
			}
			site = found.ID
		}
		out.Items, out.Next, err = page(seen(inventory.ListAssets(tx, after), func(a *inventory.Asset) (bool, error) {
			return (site == "" || a.SiteID == site) && sees(assetObject(a)), nil
		}), r.Params.Limit, func(a *inventory.Asset) string { return string(a.ID) },
			func(a *inventory.Asset) (client.Asset, error) { return showAsset(tx, a) })
		return err
	})
	return ListAssets200JSONResponse(out), err
}

// AddAsset implements the contract.
func (s *Server) AddAsset(ctx context.Context, r AddAssetRequestObject) (AddAssetResponseObject, error) {
	in := r.Body
	out, err := update(ctx, s, r.Params.IdempotencyKey, in, func(tx *store.Tx, by audit.Actor) (client.Asset, error) {
		if err := permit(ctx, tx, placeKind(in.Connector, value(in.Tags)), in.Site); err != nil {
			return client.Asset{}, err
		}
		a, err := inventory.AddAsset(tx, by, inventory.NewAsset{Name: in.Name, Site: in.Site, Connector: in.Connector, Address: in.Address,
			Description: value(in.Description), Tags: value(in.Tags), Port: uint32(value(in.Port)), Options: value(in.Options), HostKeys: value(in.HostKeys),
			CAPEM: value(in.CaPem), ServerName: value(in.ServerName)})
		if err != nil {
			return client.Asset{}, err
		}
		if in.ManagementAccount != nil {
			if err := permitFor(ctx, tx, identity.LifecycleConfigure, assetKind, string(a.ID)); err != nil {
				return client.Asset{}, err
			}
			if a, _, err = s.Lifecycle.SetManagement(tx, by, a.ID, management(in.ManagementAccount)); err != nil {
				return client.Asset{}, err
			}
		}
		return showAsset(tx, a)
	})
	return AddAsset201JSONResponse(out), err
}

// management takes a management account's secret out of the request, at the edge.
func management(in *client.ManagementAccountRequest) lifecycle.Management {
	return lifecycle.Management{Username: in.Username, Password: secret(in.Password), PrivateKey: secret(in.PrivateKey)}
}

// secret is the Secret in an optional field; empty if it is absent.
func secret(s *string) reeve.Secret { return reeve.SecretString(value(s)) }

// GetAsset implements the contract.
func (s *Server) GetAsset(ctx context.Context, r GetAssetRequestObject) (GetAssetResponseObject, error) {
	var out client.Asset
	err := s.view(ctx, func(tx *store.Tx) error {
		a, err := inventory.GetAsset(tx, r.Asset)
		if err != nil {
			return err
		}
		out, err = showAsset(tx, a)
		return err
	})
	return GetAsset200JSONResponse(out), err
}

// LabelAsset implements the contract. Tags decide who may do what with the asset: who
// labels it must hold asset.manage both before and after, and all that others come to hold
// by it.
func (s *Server) LabelAsset(ctx context.Context, r LabelAssetRequestObject) (LabelAssetResponseObject, error) {
	out, err := s.changeAsset(ctx, r.Params.IdempotencyKey, r.Asset, r.Body, func(tx *store.Tx, by audit.Actor, id reeve.AssetID) (*inventory.Asset, error) {
		was, err := inventory.GetAsset(tx, string(id))
		if err != nil {
			return nil, err
		}
		from := assetObject(was)
		a, err := inventory.LabelAsset(tx, by, id, r.Body.Tags)
		if err == nil {
			err = permit(ctx, tx, assetKind, string(id))
		}
		if err == nil {
			err = identity.MayMove(tx, caller(ctx), from, assetObject(a))
		}
		return a, err
	})
	return LabelAsset200JSONResponse(out), err
}

// RetireAsset implements the contract.
func (s *Server) RetireAsset(ctx context.Context, r RetireAssetRequestObject) (RetireAssetResponseObject, error) {
	_, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		a, err := inventory.GetAsset(tx, r.Asset)
		if err != nil {
			return none{}, err
		}
		return none{}, inventory.RetireAsset(tx, by, a.ID)
	})
	return RetireAsset204Response{}, err
}

// SetManagementAccount implements the contract.
func (s *Server) SetManagementAccount(ctx context.Context, r SetManagementAccountRequestObject) (SetManagementAccountResponseObject, error) {
	out, err := s.changeAsset(ctx, r.Params.IdempotencyKey, r.Asset, r.Body, func(tx *store.Tx, by audit.Actor, id reeve.AssetID) (*inventory.Asset, error) {
		a, _, err := s.Lifecycle.SetManagement(tx, by, id, management(r.Body))
		return a, err
	})
	return SetManagementAccount200JSONResponse(out), err
}

// TrustAsset implements the contract.
func (s *Server) TrustAsset(ctx context.Context, r TrustAssetRequestObject) (TrustAssetResponseObject, error) {
	in := r.Body
	imports := in.HostKeys != nil || in.CaPem != nil || in.ServerName != nil
	if (in.Fingerprint != nil) == imports {
		return nil, reeve.Errorf(reeve.Invalid, "trust_unclear", "either a fingerprint is approved or something is imported").
			WithFix("give fingerprint, or host_keys, ca_pem and server_name")
	}
	out, err := s.changeAsset(ctx, r.Params.IdempotencyKey, r.Asset, in, func(tx *store.Tx, by audit.Actor, id reeve.AssetID) (a *inventory.Asset, err error) {
		if in.Fingerprint != nil {
			a, _, err = s.Lifecycle.ApproveHostKey(tx, by, id, *in.Fingerprint)
			return a, err
		}
		a, _, err = s.Lifecycle.ImportTrust(tx, by, id, inventory.TrustChange{HostKeys: value(in.HostKeys), CAPEM: value(in.CaPem), ServerName: value(in.ServerName)})
		return a, err
	})
	return TrustAsset200JSONResponse(out), err
}

// changeAsset finds an asset, changes it and shows it.
func (s *Server) changeAsset(ctx context.Context, key *string, ref string, request any, change func(*store.Tx, audit.Actor, reeve.AssetID) (*inventory.Asset, error)) (client.Asset, error) {
	return update(ctx, s, key, request, func(tx *store.Tx, by audit.Actor) (client.Asset, error) {
		a, err := inventory.GetAsset(tx, ref)
		if err == nil {
			a, err = change(tx, by, a.ID)
		}
		if err != nil {
			return client.Asset{}, err
		}
		return showAsset(tx, a)
	})
}

// VerifyAsset implements the contract.
func (s *Server) VerifyAsset(ctx context.Context, r VerifyAssetRequestObject) (VerifyAssetResponseObject, error) {
	out, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (client.JobRef, error) {
		a, err := inventory.GetAsset(tx, r.Asset)
		if err != nil {
			return client.JobRef{}, err
		}
		j, err := s.Lifecycle.VerifyManagement(tx, by, a.ID)
		if err != nil {
			return client.JobRef{}, err
		}
		return jobRef(j), nil
	})
	return VerifyAsset202JSONResponse(out), err
}
