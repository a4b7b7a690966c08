package rest

import (
	"context"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func showFactor(f *identity.Factor) client.Factor {
	return client.Factor{Id: string(f.ID), Kind: f.Kind, Name: f.Name, CreatedAt: f.Created, Confirmed: !f.Confirmed.IsZero(), LastUsedAt: instant(f.LastUsed)}
}

func revealed(in []reeve.Secret) []string {
	out := []string{}
	for _, s := range in {
		out = append(out, s.Reveal())
	}
	return out
}

// ListFactors implements the contract.
func (s *Server) ListFactors(ctx context.Context, _ ListFactorsRequestObject) (ListFactorsResponseObject, error) {
	out := client.FactorList{Items: []client.Factor{}}
	err := s.view(ctx, func(tx *store.Tx) (err error) {
		for f, err := range identity.ListFactors(tx, caller(ctx).ID) {
			if err != nil {
				return err
			}
			out.Items = append(out.Items, showFactor(f))
		}
		out.RecoveryCodes, err = identity.RecoveryCodesLeft(tx, caller(ctx).ID)
		return err
	})
	return ListFactors200JSONResponse(out), err
}

// AddTOTP implements the contract.
func (s *Server) AddTOTP(ctx context.Context, r AddTOTPRequestObject) (AddTOTPResponseObject, error) {
	var uri reeve.Secret
	f, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (f *identity.Factor, err error) {
		f, uri, err = identity.AddTOTP(tx, by, caller(ctx), s.Seal, value(r.Body.Name))
		return f, err
	})
	if err != nil {
		return nil, err
	}
	return AddTOTP201JSONResponse{Factor: showFactor(f), Uri: uri.Reveal()}, nil
}

// ConfirmFactor implements the contract.
func (s *Server) ConfirmFactor(ctx context.Context, r ConfirmFactorRequestObject) (ConfirmFactorResponseObject, error) {
	var recovery []reeve.Secret
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (_ none, err error) {
		_, recovery, err = identity.ConfirmTOTP(tx, by, caller(ctx), s.Seal, reeve.FactorID(r.Factor), secret(r.Body.Code))
		return none{}, err
	})
	if err != nil {
		return nil, err
	}
	return ConfirmFactor200JSONResponse{Codes: revealed(recovery)}, nil
}

// RemoveFactor implements the contract.
func (s *Server) RemoveFactor(ctx context.Context, r RemoveFactorRequestObject) (RemoveFactorResponseObject, error) {
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		return none{}, identity.RemoveFactor(tx, by, caller(ctx), reeve.FactorID(r.Factor))
	})
	return RemoveFactor204Response{}, err
}

// MakeRecoveryCodes implements the contract.
func (s *Server) MakeRecoveryCodes(ctx context.Context, _ MakeRecoveryCodesRequestObject) (MakeRecoveryCodesResponseObject, error) {
	var recovery []reeve.Secret
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (_ none, err error) {
		recovery, err = identity.MakeRecoveryCodes(tx, by, caller(ctx))
		return none{}, err
	})
	if err != nil {
		return nil, err
	}
	return MakeRecoveryCodes200JSONResponse{Codes: revealed(recovery)}, nil
}

// ResetFactors implements the contract.
func (s *Server) ResetFactors(ctx context.Context, r ResetFactorsRequestObject) (ResetFactorsResponseObject, error) {
	out, err := s.changeUser(ctx, r.Params.IdempotencyKey, r.User, nil, identity.ResetFactors)
	return ResetFactors200JSONResponse(out), err
}
