package oidc

import (
	"context"
	"errors"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
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

// Start says what to begin. Either a program listens on Port of the person's machine and
// keeps the verifier of Challenge, or a page of Origin has the browser come back to it.
type Start struct {
	Provider  string
	Challenge string
	Port      int
	Origin    string
	ReturnTo  string          // the page of Origin to go on to
	Session   reeve.SessionID // whose owner is to prove again who they are; "": a session is to begin
}

// Begun is a sign-in for a browser to go on with.
type Begun struct {
	URL      string       // where the person signs in
	State    string       // what the browser must come back with
	Verifier reeve.Secret // for a browser: what only it may have
	Expires  time.Time
}

// console is below which path the pages are that a browser can go on to, besides "/".
const console = "/console/"

// checkReturn lets a browser go on to pages of ours alone: code return_to_invalid.
func checkReturn(to string) error {
	odd := func(s string) bool {
		return strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' })
	}
	u, err := url.Parse(to)
	if err == nil && !odd(to) && !odd(u.Path) && (to == "/" || strings.HasPrefix(to, console) && strings.HasPrefix(u.Path, console) && path.Clean(u.Path) == strings.TrimSuffix(u.Path, "/")) {
		return nil
	}
	return reeve.Errorf(reeve.Invalid, "return_to_invalid", "a browser can only go on to / or a page below %s", console).WithFix("send the path of such a page").WithField("/return_to")
}

// Begin begins a sign-in, or a proof of who owns a session. Whoever keeps the verifier, a
// program or a browser, can finish it, and nobody else. Codes oidc_provider_not_found,
// oidc_provider_silent, oidc_provider_unfit, oidc_logins_too_many, sign_ins_too_many,
// oidc_origin_unknown, return_to_invalid.
func Begin(ctx context.Context, st *store.Store, from From, in Start) (Begun, error) {
	out := Begun{State: random()}
	if in.Origin != "" {
		if err := checkReturn(in.ReturnTo); err != nil {
			return Begun{}, err
		}
		verifier := random()
		out.Verifier, in.Challenge, in.Port = reeve.SecretString(verifier), challengeOf(verifier), 0
	}
	var p *Provider
	err := st.View(ctx, func(tx *store.Tx) (err error) {
		if err := admit(tx, from.Address); err != nil {
			return err
		}
		p, err = Get(tx, in.Provider)
		return err
	})
	if err != nil {
		return Begun{}, err
	}
	if in.Origin != "" && !slices.Contains(p.Origins, in.Origin) {
		return Begun{}, reeve.Errorf(reeve.Denied, "oidc_origin_unknown", "browsers do not sign in at the OpenID provider %s from here", p.Name).
			WithFix("open the address of Reeve that an administrator has named: reeve oidc list")
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
	nonce := random()
	l := &login{State: hashOf("state", out.State), Nonce: hashOf("nonce", nonce), Challenge: in.Challenge, Provider: p.Name, Added: p.CreatedAt,
		Port: in.Port, Network: identity.Network(from.Address), Origin: in.Origin, ReturnTo: in.ReturnTo, Session: in.Session}
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
	out.Expires = l.Began.Add(LoginLife)
	ask := []oauth2.AuthCodeOption{oidc.Nonce(nonce), oauth2.SetAuthURLParam("code_challenge", in.Challenge), oauth2.SetAuthURLParam("code_challenge_method", "S256")}
	if in.Session != "" {
		ask = append(ask, oauth2.SetAuthURLParam("prompt", "login"), oauth2.SetAuthURLParam("max_age", "0"))
	} else { // so that it says when they signed in there, and has them do so again if that is long ago
		ask = append(ask, oauth2.SetAuthURLParam("max_age", strconv.Itoa(int(identity.SessionLife.Seconds()))))
	}
	out.URL = p.config(src, l).AuthCodeURL(out.State, ask...)
	return out, nil
}

// Answer is what the browser came back with, and what shows that it is the client that
// began.
type Answer struct {
	Provider, State, Code string
	Issuer                string // RFC 9207; "" if the provider named none
	Verifier              string
	Denied                string // why there is no code, as the provider says; "": there is one

	SecondFactor reeve.Secret // a code of it; empty: none is shown yet
	Keys         store.Cipher // opens second factors
}

// Finish ends a sign-in of a program with a session. It can be tried once, and once more
// with a code after second_factor_needed, security_key_needed (a recovery code) or
// second_factor_wrong. Codes
// oidc_login_unknown, oidc_provider_silent, oidc_provider_unfit, oidc_code_refused,
// oidc_token_invalid, oidc_claims_unfit, oidc_user_unknown, oidc_second_factor_missing,
// second_factor_needed, security_key_needed, second_factor_wrong, sign_in_failed, sign_ins_too_many.
func Finish(ctx context.Context, st *store.Store, from From, in Answer) (s *identity.Session, secret reeve.Secret, err error) {
	_, err = finish(ctx, st, from, in, func(l *login) bool { return l.Origin == "" && l.Session == "" },
		func(tx *store.Tx, _ *login, who identity.Federated) error {
			s, secret, err = identity.BeginFederatedSession(tx, who)
			return err
		})
	if err != nil {
		return nil, reeve.Secret{}, err
	}
	return s, secret, nil
}

// FinishStepUp ends what a program began to prove who owns a session. Codes as [Finish], and
// step_up_other_user, oidc_not_fresh, session_ended.
func FinishStepUp(ctx context.Context, st *store.Store, from From, session reeve.SessionID, in Answer) (s *identity.Session, err error) {
	_, err = finish(ctx, st, from, in, func(l *login) bool { return l.Origin == "" && l.Session != "" && l.Session == session },
		func(tx *store.Tx, l *login, who identity.Federated) error {
			s, err = identity.ProveFederated(tx, l.Session, who)
			return err
		})
	return s, err
}

// Back is what becomes of a browser that came back.
type Back struct {
	Session *identity.Session
	Secret  reeve.Secret // of a session that has begun; empty: the one there was is proved
	To      string       // the page to go on to, also if it failed; "/" if it is not known
}

// FinishInBrowser ends a sign-in, or a proof, of a browser. Codes as [FinishStepUp], and
// oidc_denied.
func FinishInBrowser(ctx context.Context, st *store.Store, from From, in Answer) (out Back, err error) {
	out.To = "/"
	l, err := finish(ctx, st, from, in, func(l *login) bool { return l.Origin != "" },
		func(tx *store.Tx, l *login, who identity.Federated) (err error) {
			if l.Session != "" {
				out.Session, err = identity.ProveFederated(tx, l.Session, who)
				return err
			}
			out.Session, out.Secret, err = identity.BeginFederatedSession(tx, who)
			return err
		})
	if l != nil {
		out.To = l.ReturnTo
	}
	if err != nil {
		out.Session, out.Secret = nil, reeve.Secret{}
	}
	return out, err
}

// finish takes a sign-in that is fit, has its provider say who it is, and does for them what
// it was begun for. l is nil if there was none, or it was somebody else's.
func finish(ctx context.Context, st *store.Store, from From, in Answer, fit func(*login) bool, do func(*store.Tx, *login, identity.Federated) error) (l *login, err error) {
	p, l, err := take(ctx, st, from, in, fit)
	if err != nil {
		return nil, refused(ctx, st, from, in.Provider, "", err)
	}
	who := l.Known
	if who == nil {
		said, err := p.identify(ctx, l, in, st.Now)
		if err != nil {
			return l, refused(ctx, st, from, p.Name, "", err)
		}
		who = &said
	}
	var known reeve.PrincipalID
	err = st.Update(ctx, func(tx *store.Tx) error {
		now, err := Get(tx, p.Name)
		if reeve.KindOf(err) == reeve.NotFound || err == nil && !now.CreatedAt.Equal(p.CreatedAt) {
			return LoginUnknown()
		}
		if err != nil {
			return err
		}
		user, err := p.userOf(tx, from, *who)
		if err != nil {
			return err
		}
		known = user.ID
		shown, err := p.federated(tx, from, user, *who, in)
		if err != nil {
			return err
		}
		if err := do(tx, l, shown); err != nil {
			return err
		}
		return p.mapGroups(tx, from, user, who.Groups)
	})
	if code := reeve.CodeOf(err); slices.Contains([]string{"second_factor_needed", "security_key_needed", "second_factor_wrong"}, code) {
		l.Known = who
		if err := st.Update(ctx, func(tx *store.Tx) error { return logins.Insert(tx, l) }); err != nil {
			return l, err
		}
		if code != "second_factor_wrong" {
			return l, err
		}
	}
	if err != nil {
		return l, refused(ctx, st, from, p.Name, known, err)
	}
	return l, nil
}

// federated is what a user has shown by signing in at the provider, and what they have yet
// to show here. Code oidc_second_factor_missing.
func (p *Provider) federated(tx *store.Tx, from From, user *identity.Principal, who person, in Answer) (identity.Federated, error) {
	out := identity.Federated{Principal: user.ID, Provider: p.Name, MFA: who.MFA, ProvedAt: who.ProvedAt, From: from.Address, Client: from.Client, Node: from.Node}
	switch now := tx.Now(); {
	case who.ProvedAt.IsZero() || who.ProvedAt.After(now.Add(clockSlack)):
		out.ProvedAt = now.Add(-identity.StepUpFor) // too long ago to count
	case who.ProvedAt.After(now):
		out.ProvedAt = now
	}
	switch {
	case p.SecondFactor() == SecondProvider && !who.MFA:
		return out, reeve.Errorf(reeve.Unauthenticated, "oidc_second_factor_missing", "the OpenID provider %s does not say that it has asked for a second factor", p.Name).
			WithFix("sign in there with one; if that does not help, have an administrator look at what it says (amr)")
	case p.SecondFactor() == SecondReeve && !who.MFA:
		out.Second = &identity.Attempt{Code: in.SecondFactor, Keys: in.Keys, From: from.Address, Client: from.Client, Node: from.Node}
	}
	return out, nil
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
func take(ctx context.Context, st *store.Store, from From, in Answer, fit func(*login) bool) (p *Provider, l *login, err error) {
	fits := false
	err = st.Update(ctx, func(tx *store.Tx) error {
		if err := identity.AdmitSignIn(tx, from.Address); err != nil {
			return err
		}
		l, err = logins.Get(tx, hashOf("state", in.State))
		if reeve.KindOf(err) == reeve.NotFound {
			return LoginUnknown()
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
		fits = err == nil && l.Provider == in.Provider && p.CreatedAt.Equal(l.Added) && tx.Now().Before(l.Began.Add(LoginLife)) && equal(challengeOf(in.Verifier), l.Challenge) && fit(l)
		return nil
	})
	if err == nil && !fits {
		err = LoginUnknown()
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
	if in.Denied != "" {
		return person{}, denied(in.Denied)
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
	if l.Session != "" {
		if err := fresh(l, said.instant("auth_time"), now()); err != nil {
			return person{}, err
		}
	}
	if err := p.complete(ctx, src, got, token.Subject, said); err != nil {
		return person{}, err
	}
	return p.read(token.Subject, said)
}

// clockSlack is how much the clock of a provider may differ from ours.
const clockSlack = 30 * time.Second

// fresh fails with Unauthenticated "oidc_not_fresh" unless somebody has signed in at the
// provider since the login began: one that ignores max_age, or does not say when that was,
// proves nothing (OpenID Connect Core 1.0 §3.1.2.1).
func fresh(l *login, at, now time.Time) error {
	if at.IsZero() || at.Before(l.Began.Add(-clockSlack)) || at.After(now.Add(clockSlack)) {
		return reeve.Errorf(reeve.Unauthenticated, "oidc_not_fresh", "the OpenID provider does not say that you have signed in there just now").
			WithFix("sign in there with your password; if that does not help, have an administrator look at what it says (auth_time)")
	}
	return nil
}

// denials are the words of RFC 6749 §4.1.2.1 and OpenID Connect Core 1.0 §3.1.2.6. Others are
// not repeated: anybody can make a browser come here with anything.
var denials = []string{"access_denied", "invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope", "server_error",
	"temporarily_unavailable", "interaction_required", "login_required", "account_selection_required", "consent_required"}

func denied(why string) error {
	if !slices.Contains(denials, why) {
		why = "another reason"
	}
	return reeve.Errorf(reeve.Unauthenticated, "oidc_denied", "the OpenID provider did not let you in: %s", why).WithFix("begin again, or ask an administrator")
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
