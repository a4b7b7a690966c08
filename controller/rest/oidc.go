package rest

import (
	"context"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/identity/oidc"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func showOIDCProvider(p *oidc.Provider) (client.OIDCProvider, error) {
	out := client.OIDCProvider{Name: p.Name, Issuer: p.Issuer, ClientId: p.ClientID, Public: len(p.Secret) == 0, Authority: optional(p.Authority),
		UserClaim: p.UserClaim, GroupClaim: optional(p.GroupClaim), AllowCreate: p.AllowCreate, CreatedAt: p.CreatedAt, SecondFactor: p.SecondFactor()}
	if len(p.Scopes) > 0 {
		out.Scopes = &p.Scopes
	}
	if len(p.Origins) > 0 {
		out.Origins = &p.Origins
	}
	return out, nil
}

// ListOIDCProviders implements the contract.
func (s *Server) ListOIDCProviders(ctx context.Context, r ListOIDCProvidersRequestObject) (ListOIDCProvidersResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	var out client.OIDCProviderPage
	err = s.view(ctx, func(tx *store.Tx) (err error) {
		out.Items, out.Next, err = page(oidc.List(tx, after), r.Params.Limit, func(p *oidc.Provider) string { return p.Name }, showOIDCProvider)
		return err
	})
	return ListOIDCProviders200JSONResponse(out), err
}

// AddOIDCProvider implements the contract.
func (s *Server) AddOIDCProvider(ctx context.Context, r AddOIDCProviderRequestObject) (AddOIDCProviderResponseObject, error) {
	in := r.Body
	add := oidc.NewProvider{Name: in.Name, Issuer: in.Issuer, ClientID: in.ClientId, Secret: secret(in.ClientSecret), Authority: value(in.Authority),
		UserClaim: string(in.UserClaim), GroupClaim: value(in.GroupClaim), Scopes: value(in.Scopes), AllowCreate: value(in.AllowCreate),
		Origins: value(in.Origins), SecondFactor: string(value(in.SecondFactor))}
	defer add.Secret.Wipe()
	out, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (client.OIDCProvider, error) {
		p, err := oidc.Add(tx, by, caller(ctx), add)
		if err != nil {
			return client.OIDCProvider{}, err
		}
		return showOIDCProvider(p)
	})
	return AddOIDCProvider201JSONResponse(out), err
}

// RemoveOIDCProvider implements the contract.
func (s *Server) RemoveOIDCProvider(ctx context.Context, r RemoveOIDCProviderRequestObject) (RemoveOIDCProviderResponseObject, error) {
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		return none{}, oidc.Remove(tx, by, r.Provider)
	})
	return RemoveOIDCProvider204Response{}, err
}

func (s *Server) signsIn(ctx context.Context) oidc.From {
	r := ginContext(ctx).Request
	return oidc.From{Address: callerAddress(r), Client: r.UserAgent(), Node: string(s.Node)}
}

// BeginOIDC implements the contract.
func (s *Server) BeginOIDC(ctx context.Context, r BeginOIDCRequestObject) (BeginOIDCResponseObject, error) {
	begun, err := oidc.Begin(ginContext(ctx).Request.Context(), s.Store, s.signsIn(ctx), oidc.Start{Provider: r.Provider, Challenge: r.Body.Challenge, Port: r.Body.Port})
	if err != nil {
		return nil, err
	}
	return BeginOIDC201JSONResponse{Url: begun.URL, State: begun.State, ExpiresAt: begun.Expires}, nil
}

// answer is what a program's browser came back with.
func (s *Server) answer(provider string, in *client.OIDCFinishRequest) oidc.Answer {
	return oidc.Answer{Provider: provider, State: in.State, Code: value(in.Code), Issuer: value(in.Issuer), Verifier: value(in.Verifier), SecondFactor: secret(in.SecondFactor), Keys: s.Seal}
}

// FinishOIDC implements the contract.
func (s *Server) FinishOIDC(ctx context.Context, r FinishOIDCRequestObject) (FinishOIDCResponseObject, error) {
	session, secret, err := oidc.Finish(ginContext(ctx).Request.Context(), s.Store, s.signsIn(ctx), s.answer(r.Provider, r.Body))
	if err != nil {
		return nil, err
	}
	shown, err := s.shownSession(ctx, session)
	if err != nil {
		return nil, err
	}
	return FinishOIDC201JSONResponse{Session: shown, Secret: secret.Reveal()}, nil
}

// ofProvider is the caller's session, if it was begun at an OpenID provider.
func ofProvider(ctx context.Context) (*identity.Session, error) {
	session := caller(ctx).Session
	if session.Provider == "" {
		return nil, reeve.Errorf(reeve.Conflict, "session_not_oidc", "this session was not begun at an OpenID provider").WithFix("send your password again: reeve session step-up")
	}
	return session, nil
}

// BeginStepUpOIDC implements the contract.
func (s *Server) BeginStepUpOIDC(ctx context.Context, r BeginStepUpOIDCRequestObject) (BeginStepUpOIDCResponseObject, error) {
	session, err := ofProvider(ctx)
	if err != nil {
		return nil, err
	}
	begun, err := oidc.Begin(ginContext(ctx).Request.Context(), s.Store, s.signsIn(ctx),
		oidc.Start{Provider: session.Provider, Challenge: r.Body.Challenge, Port: r.Body.Port, Session: session.ID})
	if err != nil {
		return nil, err
	}
	return BeginStepUpOIDC201JSONResponse{Url: begun.URL, State: begun.State, ExpiresAt: begun.Expires}, nil
}

// FinishStepUpOIDC implements the contract.
func (s *Server) FinishStepUpOIDC(ctx context.Context, r FinishStepUpOIDCRequestObject) (FinishStepUpOIDCResponseObject, error) {
	session, err := ofProvider(ctx)
	if err != nil {
		return nil, err
	}
	session, err = oidc.FinishStepUp(ginContext(ctx).Request.Context(), s.Store, s.signsIn(ctx), session.ID, s.answer(session.Provider, r.Body))
	if err != nil {
		return nil, err
	}
	shown, err := s.shownSession(ctx, session)
	return FinishStepUpOIDC200JSONResponse(shown), err
}
