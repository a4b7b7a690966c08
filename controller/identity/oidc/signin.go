package oidc

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// From is who signs in, as far as that is known before.
type From struct {
	Address netip.Addr
	Client  string
	Node    string
}

func (f From) actor() audit.Actor {
	return audit.Actor{Kind: "anonymous", From: f.Address.String(), Node: f.Node}
}

// Begun is a sign-in for a browser to go on with.
type Begun struct {
	URL     string // where the person signs in
	State   string // what the browser must come back with
	Expires time.Time
}

// Begin begins a sign-in. The client listens on a port of its own machine and keeps the
// verifier of the challenge; nobody else can finish. Codes oidc_provider_not_found,
// oidc_provider_silent, oidc_provider_unfit, oidc_logins_too_many, sign_ins_too_many.
func Begin(ctx context.Context, st *store.Store, from From, provider, challenge string, port int) (Begun, error) {
	var p *Provider
	err := st.View(ctx, func(tx *store.Tx) (err error) {
		if err := admit(tx, from.Address); err != nil {
			return err
		}
		p, err = Get(tx, provider)
		return err
	})
	if err != nil {
		return Begun{}, err
	}
	patient, done, err := p.within(ctx)
	if err != nil {
		return Begun{}, err
	}
	defer done()
	src, err := p.discover(patient)
	if err != nil {
		return Begun{}, err
	}
	state, nonce := random(), random()
	l := &login{State: hashOf("state", state), Nonce: hashOf("nonce", nonce), Challenge: challenge, Provider: p.Name, Added: p.CreatedAt,
		Port: port, Network: identity.Network(from.Address)}
	err = st.Update(ctx, func(tx *store.Tx) error {
		if err := admit(tx, from.Address); err != nil {
			return err
		}
		if err := forgetOld(tx); err != nil {
			return err
		}
		l.Began = tx.Now()
		return logins.Insert(tx, l)
	})
	if err != nil {
		return Begun{}, err
	}
	return Begun{State: state, Expires: l.Began.Add(LoginLife), URL: p.config(src, l).AuthCodeURL(state, oidc.Nonce(nonce),
		oauth2.SetAuthURLParam("code_challenge", challenge), oauth2.SetAuthURLParam("code_challenge_method", "S256"))}, nil
}

// Answer is what the browser came back with, and what shows that it is the client that
// began.
type Answer struct {
	Provider, State, Code string
	Issuer                string // RFC 9207; "" if the provider named none
	Verifier              string
}

// Finish ends a sign-in with a session. It can be tried once. Codes oidc_login_unknown,
// oidc_provider_silent, oidc_provider_unfit, oidc_code_refused, oidc_token_invalid,
// oidc_claims_unfit, oidc_user_unknown, sign_in_failed, sign_ins_too_many.
func Finish(ctx context.Context, st *store.Store, from From, in Answer) (*identity.Session, reeve.Secret, error) {
	p, l, err := take(ctx, st, from, in)
	if err != nil {
		return nil, reeve.Secret{}, refused(ctx, st, from, in.Provider, "", err)
	}
	who, err := p.identify(ctx, l, in, st.Now)
	if err != nil {
		return nil, reeve.Secret{}, refused(ctx, st, from, p.Name, "", err)
	}
	var session *identity.Session
	var secret reeve.Secret
	var known reeve.PrincipalID
	err = st.Update(ctx, func(tx *store.Tx) error {
		now, err := Get(tx, p.Name)
		if reeve.KindOf(err) == reeve.NotFound || err == nil && !now.CreatedAt.Equal(p.CreatedAt) {
			return loginUnknown()
		}
		if err != nil {
			return err
		}
		user, err := p.userOf(tx, from, who)
		if err != nil {
			return err
		}
		known = user.ID
		session, secret, err = identity.BeginFederatedSession(tx, identity.NewSession{Principal: user.ID, From: from.Address, Client: from.Client, Methods: []string{"oidc"}}, from.Node)
		if err != nil {
			return err
		}
		return p.mapGroups(tx, from, user, who.Groups)
	})
	if err != nil {
		return nil, reeve.Secret{}, refused(ctx, st, from, p.Name, known, err)
	}
	return session, secret, nil
}

// refused counts and records a sign-in that failed because of what was shown.
func refused(ctx context.Context, st *store.Store, from From, provider string, who reeve.PrincipalID, why error) error {
	if reeve.KindOf(why) != reeve.Unauthenticated {
		return why
	}
	return errors.Join(why, st.Update(ctx, func(tx *store.Tx) error {
		details := map[string]string{"method": "oidc", "reason": reeve.CodeOf(why)}
		if _, err := Get(tx, provider); err == nil { // else it is what anybody may have sent
			details["provider"] = provider
		}
		if who != "" {
			details["principal"], details["name"] = string(who), identity.SubjectName(tx, string(who))
		}
		return identity.RefuseSignIn(tx, from.actor(), who, from.Address, details)
	}))
}

// take uses a sign-in up, also if what was shown does not fit it.
func take(ctx context.Context, st *store.Store, from From, in Answer) (p *Provider, l *login, err error) {
	fits := false
	err = st.Update(ctx, func(tx *store.Tx) error {
		if err := identity.AdmitSignIn(tx, from.Address); err != nil {
			return err
		}
		l, err = logins.Get(tx, hashOf("state", in.State))
		if reeve.KindOf(err) == reeve.NotFound {
			return loginUnknown()
		}
		if err != nil {
			return err
		}
		if err := logins.Delete(tx, l.State); err != nil {
			return err
		}
		p, err = Get(tx, l.Provider)
		if err != nil && reeve.KindOf(err) != reeve.NotFound {
			return err
		}
		fits = err == nil && l.Provider == in.Provider && p.CreatedAt.Equal(l.Added) && tx.Now().Before(l.Began.Add(LoginLife)) && equal(challengeOf(in.Verifier), l.Challenge)
		return nil
	})
	if err == nil && !fits {
		err = loginUnknown()
	}
	return p, l, err
}

func tokenInvalid(what string) error {
	return reeve.Errorf(reeve.Unauthenticated, "oidc_token_invalid", "what the OpenID provider vouches for does not belong to this sign-in: %s", what).
		WithFix("begin again; if that does not help, ask an administrator")
}

// identify finds out from the provider who has signed in.
func (p *Provider) identify(ctx context.Context, l *login, in Answer, now func() time.Time) (person, error) {
	ctx, done, err := p.within(ctx)
	if err != nil {
		return person{}, err
	}
	defer done()
	src, err := p.discover(ctx)
	if err != nil {
		return person{}, err
	}
	if src.namesItself && in.Issuer == "" || in.Issuer != "" && in.Issuer != p.Issuer {
		return person{}, tokenInvalid("the browser came back from another provider")
	}
	got, err := p.config(src, l).Exchange(ctx, in.Code, oauth2.VerifierOption(in.Verifier))
	if answer, ok := errors.AsType[*oauth2.RetrieveError](err); ok && answer.Response != nil && answer.Response.StatusCode < 500 {
		return person{}, reeve.Errorf(reeve.Unauthenticated, "oidc_code_refused", "the OpenID provider does not accept the code, or the client id and secret that Reeve has").
			WithFix("begin again; if that does not help, have an administrator compare both")
	}
	if err != nil {
		return person{}, p.trouble(err)
	}
	raw, ok := got.Extra("id_token").(string)
	if !ok {
		return person{}, tokenInvalid("there is no ID token")
	}
	token, err := src.VerifierContext(ctx, &oidc.Config{ClientID: p.ClientID, SupportedSigningAlgs: src.algorithms, Now: now}).Verify(ctx, raw)
	if err != nil {
		if ctx.Err() != nil {
			return person{}, p.trouble(ctx.Err())
		}
		return person{}, tokenInvalid("its issuer, audience, time or signature is wrong")
	}
	if !equal(hashOf("nonce", token.Nonce), l.Nonce) {
		return person{}, tokenInvalid("its nonce is another")
	}
	said := claims{}
	if err := token.Claims(&said); err != nil {
		return person{}, tokenInvalid("it cannot be read")
	}
	// OpenID Connect Core 1.0 §3.1.3.7: a token for several must say who it was issued to.
	if azp := said.text("azp"); (len(token.Audience) > 1 || len(said["azp"]) > 0) && azp != p.ClientID {
		return person{}, tokenInvalid("it was issued to another client")
	}
	if err := p.complete(ctx, src, got, token.Subject, said); err != nil {
		return person{}, err
	}
	return p.read(token.Subject, said)
}

// complete adds claims that the provider keeps out of the token (§5.3).
func (p *Provider) complete(ctx context.Context, src *source, got *oauth2.Token, subject string, said claims) error {
	wanted := []string{p.UserClaim}
	if p.GroupClaim != "" {
		wanted = append(wanted, p.GroupClaim)
	}
	if src.UserInfoEndpoint() == "" || !slices.ContainsFunc(wanted, func(name string) bool { return len(said[name]) == 0 }) {
		return nil
	}
	info, err := src.UserInfo(ctx, oauth2.StaticTokenSource(got))
	if err != nil {
		return p.trouble(err)
	}
	more := claims{}
	if err := info.Claims(&more); err != nil || info.Subject != subject {
		return tokenInvalid("the provider speaks of somebody else")
	}
	for name, value := range more {
		if len(said[name]) == 0 {
			said[name] = value
		}
	}
	return nil
}
