package rest

import (
	"cmp"
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

// AddFactor implements the contract.
func (s *Server) AddFactor(ctx context.Context, r AddFactorRequestObject) (AddFactorResponseObject, error) {
	var uri reeve.Secret
	var challenge *identity.Challenge
	f, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (f *identity.Factor, err error) {
		if value(r.Body.Kind) == client.Webauthn {
			f, challenge, err = identity.AddKey(tx, by, caller(ctx), s.Seal, value(r.Body.Name))
		} else {
			f, uri, err = identity.AddTOTP(tx, by, caller(ctx), s.Seal, value(r.Body.Name))
		}
		return f, err
	})
	if err != nil {
		return nil, err
	}
	out := client.CreatedFactor{Factor: showFactor(f), Uri: optional(uri.Reveal())}
	if challenge != nil {
		shown := showChallenge(challenge)
		out.Challenge = &shown
	}
	return AddFactor201JSONResponse(out), nil
}

// ConfirmFactor implements the contract.
func (s *Server) ConfirmFactor(ctx context.Context, r ConfirmFactorRequestObject) (ConfirmFactorResponseObject, error) {
	if (r.Body.Code == nil) == (r.Body.Answer == nil) {
		return nil, reeve.Errorf(reeve.Invalid, "factor_proof", "one proof of the second factor is needed").WithFix("send a code of the app, or an answer of the key")
	}
	var recovery []reeve.Secret
	var wrong error
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (_ none, err error) {
		wrong = nil
		if r.Body.Answer == nil {
			recovery, err = identity.ConfirmTOTP(tx, by, caller(ctx), s.Seal, reeve.FactorID(r.Factor), secret(r.Body.Code))
			return none{}, err
		}
		recovery, err = identity.ConfirmKey(tx, by, caller(ctx), s.Seal, reeve.FactorID(r.Factor), *r.Body.Answer)
		if reeve.CodeOf(err) == "answer_wrong" {
			wrong, err = err, nil
		}
		return none{}, err
	})
	if err = cmp.Or(err, wrong); err != nil {
		return nil, err
	}
	return ConfirmFactor200JSONResponse{Codes: revealed(recovery)}, nil
}

func showChallenge(c *identity.Challenge) client.KeyChallenge {
	return client.KeyChallenge{Options: string(c.Options), Url: c.Address + keyPage, ExpiresAt: c.Expires}
}

func showSecurityKeys(r *identity.RelyingParty) client.SecurityKeys {
	return client.SecurityKeys{Domain: r.Domain, Urls: r.Addresses, UserVerification: r.VerifyUser}
}

// GetSecurityKeys implements the contract.
func (s *Server) GetSecurityKeys(ctx context.Context, _ GetSecurityKeysRequestObject) (GetSecurityKeysResponseObject, error) {
	var out client.SecurityKeys
	err := s.view(ctx, func(tx *store.Tx) error {
		r, err := identity.GetRelyingParty(tx)
		if err == nil {
			out = showSecurityKeys(r)
		}
		return err
	})
	return GetSecurityKeys200JSONResponse(out), err
}

// ConfigureSecurityKeys implements the contract.
func (s *Server) ConfigureSecurityKeys(ctx context.Context, r ConfigureSecurityKeysRequestObject) (ConfigureSecurityKeysResponseObject, error) {
	in := identity.RelyingParty{Domain: value(r.Body.Domain), Addresses: r.Body.Urls, VerifyUser: r.Body.UserVerification == nil || *r.Body.UserVerification}
	out, err := update(ctx, s, r.Params.IdempotencyKey, r.Body, func(tx *store.Tx, by audit.Actor) (client.SecurityKeys, error) {
		made, err := identity.ConfigureSecurityKeys(tx, by, caller(ctx), in)
		if err != nil {
			return client.SecurityKeys{}, err
		}
		return showSecurityKeys(made), nil
	})
	return ConfigureSecurityKeys200JSONResponse(out), err
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
