package main

import (
	"context"
	"errors"
	"slices"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Verify implements sdk.Verifier: one fresh bind, and a look at who the server says we are. A domain controller tells the
// reason of a refusal to who has the right password, so the management account has nothing to add.
func (connector) Verify(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
	p, err := placeOf(t)
	if err != nil {
		return sdk.Verdict{}, err
	}
	s, err := dial(ctx, t, p, "")
	if err == nil {
		defer s.close()
		if err = s.look(ctx); err == nil {
			err = s.login(ctx, c)
		}
	}
	if err != nil {
		return verdictOf(err)
	}
	unknown := func(err error) (sdk.Verdict, error) {
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: "the login was accepted; then " + sdk.ErrorText(err), Fix: fixOf(err)}, nil
	}
	if s.place.bindName(c.Username) == c.Username {
		return sdk.Verdict{Kind: sdk.VerdictOK}, nil
	}
	// An explicit userPrincipalName of another account would have matched before ours.
	a, err := s.account(ctx, c.Username)
	if err != nil {
		return unknown(err)
	}
	sids, err := s.token(ctx)
	if err != nil {
		return unknown(err)
	}
	switch {
	case len(sids) == 0: // not every server tells
		return sdk.Verdict{Kind: sdk.VerdictOK}, nil
	case a == nil || !slices.Contains(sids, a.sid):
		return sdk.Verdict{
			Kind: sdk.VerdictUnknown,
			Message: "the login was accepted, but as another account, whose userPrincipalName is " +
				s.place.bindName(c.Username) + "; or the account may not read itself",
			Fix: "give that other account another userPrincipalName, or let accounts read themselves",
		}, nil
	default:
		return sdk.Verdict{Kind: sdk.VerdictOK, Identity: a.guid}, nil
	}
}

func verdictOf(err error) (sdk.Verdict, error) {
	v, other := sdk.VerdictOf(err) // an untrusted certificate, no TLS, wrong options
	if other == nil {
		v.Fix = fixOf(err)
	}
	return v, other
}

func fixOf(err error) string {
	if e, ok := errors.AsType[*sdk.Error](err); ok && e.Fix != "" {
		return e.Fix
	}
	return "look at the domain controller's directory service log"
}
