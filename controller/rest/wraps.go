package rest

import (
	"context"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/lifecycle"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func showWrap(tx *store.Tx, w *identity.Wrap) (client.Wrap, error) {
	out := client.Wrap{Id: string(w.ID), Account: string(w.Account), AccountId: string(w.Account), MadeBy: identity.SubjectName(tx, string(w.Principal)), Reason: w.Reason,
		State: client.WrapState(w.State(tx.Now())), CreatedAt: w.Created, ExpiresAt: w.Expires, OpenedAt: instant(w.OpenedAt), OpenedFrom: optional(w.OpenedFrom),
		Networks: showNetworks(w.Networks)}
	if w.For != "" {
		out.For = optional(identity.SubjectName(tx, string(w.For)))
	}
	a, err := lifecycle.Get(tx, string(w.Account))
	if err == nil {
		out.Account = a.Name + "@" + a.AssetName
	}
	if reeve.KindOf(err) == reeve.NotFound {
		err = nil
	}
	return out, err
}

// WrapSecret implements the contract. What is refused is recorded, as when the password is
// asked for itself.
func (s *Server) WrapSecret(ctx context.Context, r WrapSecretRequestObject) (WrapSecretResponseObject, error) {
	in, object := r.Body, r.Account
	networks, err := asNetworks(value(in.Networks))
	if err != nil {
		return nil, err
	}
	var token reeve.Secret
	made, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (client.Wrap, error) {
		a, err := withPassword(tx, r.Account, &object)
		if err != nil {
			return client.Wrap{}, err
		}
		wrap := identity.NewWrap{Account: a.ID, Reason: in.Reason, Networks: networks, Life: seconds(in.TtlSeconds, identity.WrapLife)}
		if in.For != nil {
			p, err := identity.FindPrincipal(tx, *in.For)
			if err != nil {
				return client.Wrap{}, err
			}
			wrap.For = p.ID
		}
		w, secret, err := identity.MakeWrap(tx, by, caller(ctx), wrap)
		if err != nil {
			return client.Wrap{}, err
		}
		token = secret
		return showWrap(tx, w)
	})
	if err != nil {
		return nil, s.refusedReveal(ctx, "wrap.create", object, in.Reason, err)
	}
	return WrapSecret201JSONResponse{Wrap: made, Secret: token.Reveal()}, nil
}

// withPassword is an account that has one; object becomes its id.
func withPassword(tx *store.Tx, ref string, object *string) (*lifecycle.Account, error) {
	a, err := lifecycle.Get(tx, ref)
	if err != nil {
		return nil, err
	}
	if *object = string(a.ID); a.SecretID == "" {
		return nil, reeve.Errorf(reeve.NotFound, "secret_not_found", "account %s has no password yet", a.Name).
			WithFix("wait until it is provisioned")
	}
	return a, nil
}

// refusedReveal records that somebody wanted to see a password and may not, or that there
// is none to see. It returns err, or why that failed.
func (s *Server) refusedReveal(ctx context.Context, action, object, reason string, err error) error {
	switch reeve.KindOf(err) {
	case reeve.NotFound, reeve.Conflict, reeve.Precondition, reeve.Denied:
		_, failed := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
			return none{}, audit.Record(tx, audit.Event{By: by, Action: action, Object: object, Outcome: audit.Denied,
				Details: map[string]string{"code": reeve.CodeOf(err), "reason": reason}})
		})
		if failed != nil {
			return failed
		}
	}
	return err
}

// ListWraps implements the contract.
func (s *Server) ListWraps(ctx context.Context, r ListWrapsRequestObject) (ListWrapsResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	var out client.WrapPage
	err = s.view(ctx, func(tx *store.Tx) error {
		whose, err := ofWhom(ctx, tx)
		if err != nil {
			return err
		}
		out.Items, out.Next, err = page(identity.ListWraps(tx, whose, after), r.Params.Limit, func(w *identity.Wrap) string { return string(w.ID) },
			func(w *identity.Wrap) (client.Wrap, error) { return showWrap(tx, w) })
		return err
	})
	return ListWraps200JSONResponse(out), err
}

// RevokeWrap implements the contract.
func (s *Server) RevokeWrap(ctx context.Context, r RevokeWrapRequestObject) (RevokeWrapResponseObject, error) {
	_, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		whose, err := ofWhom(ctx, tx)
		if err != nil {
			return none{}, err
		}
		if w, err := identity.GetWrap(tx, reeve.WrapID(r.Wrap)); err == nil && whose != "" && w.Principal != whose {
			return none{}, reeve.Errorf(reeve.NotFound, "wrap_not_found", "there is no wrap %q", r.Wrap)
		}
		return none{}, identity.RevokeWrap(tx, by, reeve.WrapID(r.Wrap))
	})
	return RevokeWrap204Response{}, err
}

// opener is who shows a wrapping token. What else they show counts only if the wrap is for
// a user.
func (s *Server) opener(ctx context.Context) identity.Opener {
	r := ginContext(ctx).Request
	session, _ := credential(r)
	return identity.Opener{From: callerAddress(r), Session: session, Node: string(s.Node)}
}

// LookUpWrap implements the contract.
func (s *Server) LookUpWrap(ctx context.Context, r LookUpWrapRequestObject) (LookUpWrapResponseObject, error) {
	token, o := secret(r.Body.Token), s.opener(ctx)
	defer token.Wipe()
	var w *identity.Wrap
	var out client.Wrap
	err := s.view(ctx, func(tx *store.Tx) (err error) {
		if w, err = identity.FindWrap(tx, token, o); err != nil {
			return err
		}
		out, err = showWrap(tx, w)
		return err
	})
	if err != nil {
		return nil, identity.RefuseWrap(ginContext(ctx).Request.Context(), s.Store, w, o, err)
	}
	return LookUpWrap200JSONResponse(out), nil
}

// Unwrap implements the contract.
func (s *Server) Unwrap(ctx context.Context, r UnwrapRequestObject) (UnwrapResponseObject, error) {
	token := secret(r.Body.Token)
	defer token.Wipe()
	var a *lifecycle.Account
	var revealed vault.Revealed
	defer func() { revealed.Value.Wipe() }()
	err := identity.Unwrap(ginContext(ctx).Request.Context(), s.Store, token, s.opener(ctx), func(tx *store.Tx, by audit.Actor, w *identity.Wrap, asked identity.Caller) (err error) {
		if a, err = mayStillReveal(tx, asked, w.Account); err != nil {
			return err
		}
		revealed, err = s.Vault.RevealIn(tx, by, a.SecretID, 0, w.Reason)
		return err
	})
	if err != nil {
		return nil, err
	}
	return Unwrap200JSONResponse{Username: &a.Name, Password: revealed.Value.Reveal(), Version: int(revealed.Version)}, nil
}

// mayStillReveal is the account, if who asked for a wrap could reveal its password now:
// else Denied "wrap_void".
func mayStillReveal(tx *store.Tx, asked identity.Caller, id reeve.AccountID) (*lifecycle.Account, error) {
	sight, err := identity.Look(tx, asked)
	if err != nil {
		return nil, err
	}
	o, err := accountKind.find(tx, string(id))
	if err == nil {
		err = sight.Authorize(rules["RevealSecret"].needs, o)
	}
	if kind := reeve.KindOf(err); kind == reeve.NotFound || kind == reeve.Denied {
		return nil, identity.VoidWrap(err)
	}
	if err != nil {
		return nil, err
	}
	object := ""
	return withPassword(tx, string(id), &object)
}
