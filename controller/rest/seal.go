package rest

import (
	"context"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// sealNow is the cluster's seal as it is stored, with the terms this node knows.
func (s *Server) sealNow(ctx context.Context) (client.Seal, error) {
	var st *seal.State
	err := s.view(ctx, func(tx *store.Tx) (err error) {
		st, err = seal.LoadState(tx)
		return err
	})
	if err != nil {
		return client.Seal{}, err
	}
	terms, err := s.Seal.Terms()
	if err != nil {
		return client.Seal{}, err
	}
	out := client.Seal{Scheme: st.Scheme, Generation: int64(st.Generation), Rewrapped: !st.RewrapPending(),
		Terms: make([]client.KeyTerm, 0, len(terms))}
	if st.Threshold > 0 {
		out.Threshold, out.Shares = &st.Threshold, &st.Shares
	}
	for _, t := range terms {
		out.Terms = append(out.Terms, client.KeyTerm{Purpose: string(t.Purpose), Term: int64(t.Number), CreatedAt: t.Created, Active: t.Active})
	}
	if st.Next != nil {
		r := rekeying(st.Next)
		out.Rekey = &r
	}
	return out, nil
}

func rekeying(r *seal.Rekeying) client.Rekeying {
	out := client.Rekeying{Id: string(r.ID), Scheme: r.Scheme, Proven: append([]int{}, r.Proven...), StartedAt: r.Started}
	if r.Threshold > 0 {
		out.Threshold, out.Shares = &r.Threshold, &r.Shares
	}
	return out
}

// GetSeal implements the contract.
func (s *Server) GetSeal(ctx context.Context, _ GetSealRequestObject) (GetSealResponseObject, error) {
	out, err := s.sealNow(ctx)
	return GetSeal200JSONResponse(out), err
}

// RotateKeys implements the contract.
func (s *Server) RotateKeys(ctx context.Context, r RotateKeysRequestObject) (RotateKeysResponseObject, error) {
	_, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		return none{}, s.Seal.Rotate(tx, by)
	})
	if err != nil {
		return nil, err
	}
	out, err := s.sealNow(ctx)
	return RotateKeys200JSONResponse(out), err
}

// StartRekey implements the contract.
func (s *Server) StartRekey(ctx context.Context, r StartRekeyRequestObject) (StartRekeyResponseObject, error) {
	want := seal.NewSeal{Shares: value(r.Body.Shares), Threshold: value(r.Body.Threshold), Key: reeve.SecretString(value(r.Body.Key))}
	defer want.Key.Wipe()
	if !want.Key.Empty() && (want.Shares != 0 || want.Threshold != 0) {
		return nil, reeve.Errorf(reeve.Invalid, "seal_scheme_invalid", "a seal is kept with shares or with a key, not both").
			WithFix("give shares and threshold, or key")
	}
	var shares []reeve.Secret
	made, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (made *seal.Rekeying, err error) {
		made, shares, err = s.Seal.StartRekey(tx, by, want)
		return made, err
	})
	out := client.StartedRekey{Shares: []string{}}
	for _, share := range shares {
		if err == nil {
			out.Shares = append(out.Shares, share.Reveal())
		}
		share.Wipe()
	}
	if err != nil {
		return nil, err
	}
	out.Rekey = rekeying(made)
	return StartRekey201JSONResponse(out), nil
}

// ProveRekey implements the contract.
func (s *Server) ProveRekey(ctx context.Context, r ProveRekeyRequestObject) (ProveRekeyResponseObject, error) {
	given := seal.Proof{Share: reeve.SecretString(value(r.Body.Share)), Key: reeve.SecretString(value(r.Body.Key))}
	defer given.Share.Wipe()
	defer given.Key.Wipe()
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		_, err := s.Seal.ProveRekey(tx, by, reeve.RekeyID(r.Rekey), given)
		return none{}, err
	})
	if err != nil {
		return nil, err
	}
	out, err := s.sealNow(ctx)
	return ProveRekey200JSONResponse(out), err
}

// CancelRekey implements the contract.
func (s *Server) CancelRekey(ctx context.Context, r CancelRekeyRequestObject) (CancelRekeyResponseObject, error) {
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		return none{}, s.Seal.CancelRekey(tx, by, reeve.RekeyID(r.Rekey))
	})
	if err != nil {
		return nil, err
	}
	return CancelRekey204Response{}, nil
}
