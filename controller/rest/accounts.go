package rest

import (
	"context"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/lifecycle"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

func (s *Server) showAccount(tx *store.Tx, a *lifecycle.Account) (client.Account, error) {
	out := client.Account{Id: string(a.ID), Name: a.Name, Prefix: optional(a.Prefix), Asset: a.AssetName, AssetId: string(a.AssetID), Legacy: names{tx}.legacy(a.AssetID),
		Site: names{tx}.site(a.SiteID), Batch: optional(string(a.Batch)), Role: a.Role.Name, RoleVersion: int(a.Role.Version), Params: mapped(a.Params),
		Description: optional(a.Description), Owner: optional(a.Owner), Custodian: optional(a.Custodian), UserIdentity: optional(a.UserIdentity),
		Tags: mapped(a.Tags), State: string(a.State), Sync: string(a.Sync), PasswordMode: client.AccountPasswordMode(a.PasswordMode),
		RotationEnabled: a.RotationEnabled, Identity: optional(a.Identity), StartAt: instant(a.StartAt), ExpiresAt: instant(a.ExpiresAt),
		CreatedAt: a.RequestedAt, ProvisionedAt: instant(a.ExecutedAt), VerifiedAt: instant(a.VerifiedAt), RotatedAt: instant(a.RotatedAt),
		Job: optional(string(a.Job)), LastError: showFailure(a.LastError)}
	if a.Sync == lifecycle.Unproven {
		out.Sync = "unproven"
	}
	if a.SecretID != "" {
		info, err := s.Vault.Get(tx, a.SecretID)
		if err != nil && reeve.KindOf(err) != reeve.NotFound {
			return out, err
		}
		if err == nil {
			out.PasswordVersion = optional(int(info.Current))
		}
	}
	if len(a.Residue) > 0 {
		out.Residue = &a.Residue
	}
	if a.Facts != nil {
		out.Facts = showFacts(a.Facts.Facts.M)
	}
	frozen, err := a.Plans.Get()
	if err != nil {
		return out, err
	}
	if len(frozen) > 0 {
		plans := []client.Plan{}
		for _, p := range frozen {
			shown := client.Plan{Action: p.Action, Hash: p.Hash, Steps: []client.PlanStep{}}
			for _, st := range p.Plan.M.GetSteps() {
				shown.Steps = append(shown.Steps, client.PlanStep{Id: st.GetId(), Title: st.GetTitle(), Command: st.GetCommand(), Changes: st.GetChanges()})
			}
			plans = append(plans, shown)
		}
		out.Plans = &plans
	}
	return out, nil
}

func showFailure(f *inventory.Failure) *client.Failure {
	if f == nil {
		return nil
	}
	return &client.Failure{Class: string(f.Class), Message: f.Message, Fix: optional(f.Fix)}
}

func showFacts(f *connectorv1.Facts) *client.Facts {
	if f == nil {
		return nil
	}
	out := &client.Facts{Exists: f.GetExists(), Identity: optional(f.GetIdentity()), Locked: &f.Locked, HasPassword: &f.HasPassword,
		Sessions: optional(int(f.GetSessions())), Attributes: mapped(f.GetAttributes()), ReadAt: f.GetReadAt().AsTime()}
	if f.GetExpiresAt() != nil {
		out.ExpiresAt = instant(f.GetExpiresAt().AsTime())
	}
	if f.GetPasswordChangedAt() != nil {
		out.PasswordChangedAt = instant(f.GetPasswordChangedAt().AsTime())
	}
	if g := f.GetGroups(); len(g) > 0 {
		out.Groups = &g
	}
	if g := f.GetGrants(); len(g) > 0 {
		out.Grants = &g
	}
	return out
}

// ListAccounts implements the contract.
func (s *Server) ListAccounts(ctx context.Context, r ListAccountsRequestObject) (ListAccountsResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	var out client.AccountPage
	err = s.view(ctx, func(tx *store.Tx) error {
		sees, err := sight(ctx, tx)
		if err != nil {
			return err
		}
		f := lifecycle.Filter{Batch: reeve.BatchID(value(r.Params.Batch))}
		if r.Params.Asset != nil {
			if err := permit(ctx, tx, assetKind, *r.Params.Asset); err != nil {
				return err
			}
			a, err := inventory.GetAsset(tx, *r.Params.Asset)
			if err != nil {
				return err
			}
			f.Asset = a.ID
		}
		out.Items, out.Next, err = page(seen(lifecycle.List(tx, after, f), func(a *lifecycle.Account) (bool, error) {
			o, err := accountObject(tx, a)
			return err == nil && sees(o), err
		}), r.Params.Limit,
			func(a *lifecycle.Account) string { return string(a.ID) },
			func(a *lifecycle.Account) (client.Account, error) { return s.showAccount(tx, a) })
		return err
	})
	return ListAccounts200JSONResponse(out), err
}

// GetAccount implements the contract.
func (s *Server) GetAccount(ctx context.Context, r GetAccountRequestObject) (GetAccountResponseObject, error) {
	var out client.Account
	err := s.view(ctx, func(tx *store.Tx) error {
		a, err := lifecycle.Get(tx, r.Account)
		if err != nil {
			return err
		}
		out, err = s.showAccount(tx, a)
		return err
	})
	return GetAccount200JSONResponse(out), err
}

// RevealSecret implements the contract. What is refused is recorded too: somebody wanted
// to see it.
func (s *Server) RevealSecret(ctx context.Context, r RevealSecretRequestObject) (RevealSecretResponseObject, error) {
	object := r.Account
	var a *lifecycle.Account
	var revealed vault.Revealed
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (_ none, err error) {
		if a, err = withPassword(tx, r.Account, &object); err != nil {
			return none{}, err
		}
		revealed, err = s.Vault.RevealIn(tx, by, a.SecretID, 0, r.Body.Reason)
		return none{}, err
	})
	defer revealed.Value.Wipe()
	if err != nil {
		return nil, s.refusedReveal(ctx, "secret.reveal", object, r.Body.Reason, err)
	}
	return RevealSecret200JSONResponse{Username: &a.Name, Password: revealed.Value.Reveal(), Version: int(revealed.Version)}, nil
}

// ActOnAccount implements the contract.
func (s *Server) ActOnAccount(ctx context.Context, r ActOnAccountRequestObject) (ActOnAccountResponseObject, error) {
	act := map[string]func(*store.Tx, audit.Actor, reeve.AccountID) (*jobs.Job, error){
		"verify": s.Lifecycle.Verify, "inspect": s.Lifecycle.Inspect, "rotate": s.Lifecycle.Rotate, "reconcile": s.Lifecycle.Reconcile,
		"disable": s.Lifecycle.Disable, "enable": s.Lifecycle.Enable, "deprovision": s.Lifecycle.Deprovision,
	}[r.Action] // the contract allows no others
	if v := r.Params.PasswordVersion; v != nil {
		if r.Action != "verify" {
			return nil, reeve.Errorf(reeve.Invalid, "password_version_misplaced", "%s takes no version of the password", r.Action).
				WithFix("leave password_version out").WithField("/password_version")
		}
		act = func(tx *store.Tx, by audit.Actor, id reeve.AccountID) (*jobs.Job, error) {
			return s.Lifecycle.VerifySuperseded(tx, by, id, uint32(*v)) //nolint:gosec // bounded by the contract
		}
	}
	out, err := update(ctx, s, r.Params.IdempotencyKey, r.Params.PasswordVersion, func(tx *store.Tx, by audit.Actor) (client.JobRef, error) {
		a, err := lifecycle.Get(tx, r.Account)
		if err != nil {
			return client.JobRef{}, err
		}
		j, err := act(tx, by, a.ID)
		if err != nil {
			return client.JobRef{}, err
		}
		return jobRef(j), nil
	})
	return ActOnAccount202JSONResponse(out), err
}

// jobRef is empty when nothing had to be done on the target.
func jobRef(j *jobs.Job) client.JobRef {
	if j == nil {
		return client.JobRef{}
	}
	return client.JobRef{Job: string(j.ID), Log: "/v1/jobs/" + string(j.ID) + "/log"}
}

// ProvisionAccounts implements the contract.
func (s *Server) ProvisionAccounts(ctx context.Context, r ProvisionAccountsRequestObject) (ProvisionAccountsResponseObject, error) {
	in := r.Body
	out, err := update(ctx, s, r.Params.IdempotencyKey, in, func(tx *store.Tx, by audit.Actor) (client.Batch, error) {
		for _, asset := range in.Assets {
			if err := permit(ctx, tx, assetKind, asset); err != nil {
				return client.Batch{}, err
			}
		}
		b, err := s.Lifecycle.Provision(tx, by, lifecycle.Request{
			Assets: in.Assets, Prefix: value(in.Prefix), Name: in.Name, Role: in.Role, Params: value(in.Params), Description: value(in.Description),
			Owner: value(in.Owner), Custodian: value(in.Custodian), UserIdentity: value(in.UserIdentity), Tags: value(in.Tags),
			Password: secret(in.Password), RotationEnabled: in.RotationEnabled == nil || *in.RotationEnabled,
			StartAt: value(in.StartAt), ExpiresAt: value(in.ExpiresAt), DryRun: value(in.DryRun),
		})
		if err != nil {
			return client.Batch{}, err
		}
		shown := client.Batch{Id: string(b.ID), Accounts: []client.Account{}}
		for _, a := range b.Accounts {
			one, err := s.showAccount(tx, a)
			if err != nil {
				return client.Batch{}, err
			}
			shown.Accounts = append(shown.Accounts, one)
		}
		return shown, nil
	})
	return ProvisionAccounts202JSONResponse(out), err
}
