package rest

import (
	"context"
	"net/http"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// attempt is a try to prove with a password who calls.
func (s *Server) attempt(ctx context.Context, name string, password, code *string) identity.Attempt {
	r := ginContext(ctx).Request
	return identity.Attempt{Name: name, Password: secret(password), Code: secret(code), Keys: s.Seal, From: callerAddress(r), Client: r.UserAgent(), Node: string(s.Node)}
}

func showSession(ctx context.Context, tx *store.Tx, in *identity.Session) client.Session {
	mine := caller(ctx).Session
	return client.Session{Id: string(in.ID), User: identity.SubjectName(tx, string(in.Principal)), CreatedAt: in.Created, LastSeenAt: in.LastSeen, EndsAt: in.Ends(),
		ProvedAt: in.ProvedAt, From: in.From, Client: optional(in.Client), Methods: in.Methods, Provider: optional(in.Provider), Current: mine != nil && mine.ID == in.ID}
}

// shownSession shows a session in a transaction of its own.
func (s *Server) shownSession(ctx context.Context, in *identity.Session) (out client.Session, err error) {
	err = s.Store.View(ginContext(ctx).Request.Context(), func(tx *store.Tx) error {
		out = showSession(ctx, tx, in)
		return nil
	})
	return out, err
}

// signIn begins a session for who shows a password, and a second factor where one is needed.
func (s *Server) signIn(ctx context.Context, body *client.SignInRequest) (shown client.Session, secret reeve.Secret, err error) {
	in := s.attempt(ctx, body.Name, body.Password, body.Code)
	in.Answer = value(body.Answer)
	defer in.Password.Wipe()
	session, secret, err := identity.SignIn(ginContext(ctx).Request.Context(), s.Store, in)
	if err != nil {
		return client.Session{}, reeve.Secret{}, err
	}
	shown, err = s.shownSession(ctx, session)
	return shown, secret, err
}

// SignIn implements the contract.
func (s *Server) SignIn(ctx context.Context, r SignInRequestObject) (SignInResponseObject, error) {
	shown, secret, err := s.signIn(ctx, r.Body)
	if err != nil {
		return nil, err
	}
	return SignIn201JSONResponse{Session: shown, Secret: secret.Reveal()}, nil
}

// StepUp implements the contract.
func (s *Server) StepUp(ctx context.Context, r StepUpRequestObject) (StepUpResponseObject, error) {
	who := caller(ctx)
	in := s.attempt(ctx, who.Name, r.Body.Password, r.Body.Code)
	in.Answer = value(r.Body.Answer)
	defer in.Password.Wipe()
	session, err := identity.StepUp(ginContext(ctx).Request.Context(), s.Store, who, in)
	if err != nil {
		return nil, err
	}
	shown, err := s.shownSession(ctx, session)
	return StepUp200JSONResponse(shown), err
}

// BeginSignIn implements the contract.
func (s *Server) BeginSignIn(ctx context.Context, r BeginSignInRequestObject) (BeginSignInResponseObject, error) {
	in := s.attempt(ctx, r.Body.Name, r.Body.Password, nil)
	defer in.Password.Wipe()
	c, err := identity.BeginSignIn(ginContext(ctx).Request.Context(), s.Store, in)
	if err != nil {
		return nil, err
	}
	return BeginSignIn201JSONResponse(showChallenge(c)), nil
}

// BeginStepUp implements the contract.
func (s *Server) BeginStepUp(ctx context.Context, r BeginStepUpRequestObject) (BeginStepUpResponseObject, error) {
	who := caller(ctx)
	in := s.attempt(ctx, who.Name, r.Body.Password, nil)
	defer in.Password.Wipe()
	c, err := identity.BeginStepUp(ginContext(ctx).Request.Context(), s.Store, who, in)
	if err != nil {
		return nil, err
	}
	return BeginStepUp201JSONResponse(showChallenge(c)), nil
}

// ListSessions implements the contract.
func (s *Server) ListSessions(ctx context.Context, r ListSessionsRequestObject) (ListSessionsResponseObject, error) {
	out := client.SessionList{Items: []client.Session{}}
	err := s.view(ctx, func(tx *store.Tx) error {
		who := caller(ctx).Principal
		if ref := r.Params.User; ref != nil && *ref != who.Name && *ref != string(who.ID) {
			sight, err := identity.Look(tx, caller(ctx))
			if err == nil {
				err = sight.Authorize(identity.IdentityRead, identity.Installation)
			}
			if err != nil {
				return err
			}
			other, err := identity.FindPrincipal(tx, *ref)
			if err != nil {
				return err
			}
			who = *other
		}
		for session, err := range identity.ListSessions(tx, who.ID) {
			if err != nil {
				return err
			}
			out.Items = append(out.Items, showSession(ctx, tx, session))
		}
		return nil
	})
	return ListSessions200JSONResponse(out), err
}

// EndSession implements the contract. Of tokens, root's alone ends sessions: it has nothing
// else to come with.
func (s *Server) EndSession(ctx context.Context, r EndSessionRequestObject) (EndSessionResponseObject, error) {
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		who, id := caller(ctx), reeve.SessionID(r.Session)
		switch {
		case who.Session == nil && (who.Kind != identity.Root || id == "current"):
			return none{}, sessionNeeded()
		case id == "current":
			id = who.Session.ID
		}
		session, err := identity.GetSession(tx, id)
		if err != nil {
			return none{}, err
		}
		if session.Principal != who.ID {
			sight, err := identity.Look(tx, who)
			if err != nil {
				return none{}, err
			}
			if !sight.Can(identity.IdentityManage, identity.Installation) {
				return none{}, reeve.Errorf(reeve.NotFound, "session_not_found", "there is no session %q", r.Session)
			}
			if err := identity.MayActFor(tx, who, session.Principal); err != nil {
				return none{}, err
			}
		}
		return none{}, identity.EndSession(tx, by, id)
	})
	if c := ginContext(ctx); err == nil && byCookie(c.Request) && (r.Session == "current" || r.Session == string(caller(ctx).Session.ID)) {
		setCookie(c, sessionCookie, "", http.SameSiteStrictMode, -1)
	}
	return EndSession204Response{}, err
}

// ChangePassword implements the contract.
func (s *Server) ChangePassword(ctx context.Context, r ChangePasswordRequestObject) (ChangePasswordResponseObject, error) {
	who := caller(ctx)
	in, fresh := s.attempt(ctx, who.Name, r.Body.Current, nil), secret(r.Body.Password)
	defer in.Password.Wipe()
	defer fresh.Wipe()
	return ChangePassword204Response{}, identity.ChangePassword(ginContext(ctx).Request.Context(), s.Store, who, in, fresh)
}

// AcceptInvitation implements the contract.
func (s *Server) AcceptInvitation(ctx context.Context, r AcceptInvitationRequestObject) (AcceptInvitationResponseObject, error) {
	req := ginContext(ctx).Request
	invitation, fresh := secret(r.Body.Invitation), secret(r.Body.Password)
	defer fresh.Wipe()
	return AcceptInvitation204Response{}, identity.AcceptInvitation(req.Context(), s.Store, invitation, fresh, callerAddress(req), string(s.Node))
}

// InviteUser implements the contract.
func (s *Server) InviteUser(ctx context.Context, r InviteUserRequestObject) (InviteUserResponseObject, error) {
	var secret reeve.Secret
	inv, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (*identity.Invitation, error) {
		p, err := identity.FindPrincipal(tx, r.User)
		if err != nil {
			return nil, err
		}
		var inv *identity.Invitation
		inv, secret, err = identity.Invite(tx, by, caller(ctx), p.ID)
		return inv, err
	})
	if err != nil {
		return nil, err
	}
	return InviteUser201JSONResponse{Secret: secret.Reveal(), ExpiresAt: inv.Expires}, nil
}

// UnlockUser implements the contract.
func (s *Server) UnlockUser(ctx context.Context, r UnlockUserRequestObject) (UnlockUserResponseObject, error) {
	out, err := s.changeUser(ctx, r.Params.IdempotencyKey, r.User, nil, identity.Unlock)
	return UnlockUser200JSONResponse(out), err
}
