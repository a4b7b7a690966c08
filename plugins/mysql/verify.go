package main

import (
	"context"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Verify implements sdk.Verifier: one fresh login over TLS, and a look at which account the
// server matched it to.
func (connector) Verify(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
	host, err := accountHost(t)
	if err != nil {
		return sdk.Verdict{}, err
	}
	s, err := login(ctx, t, c, false)
	if err != nil {
		return verdict(err)
	}
	defer s.close()
	var matched string
	if err := s.conn.QueryRowContext(ctx, "SELECT CURRENT_USER()").Scan(&matched); err != nil {
		err = failure(ctx, "ask who we are", err, false)
		if sdk.ClassOf(err) == sdk.ClassMustChange { // the login was accepted for nothing else
			return verdict(err)
		}
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: sdk.ErrorText(err)}, nil
	}
	if want := c.Username + "@" + host; matched != want {
		return sdk.Verdict{
			Kind:     sdk.VerdictUnknown,
			Identity: matched,
			Message:  "the login was accepted, but as " + matched + " and not as " + want + ", which that account shadows",
			Fix:      "remove " + matched + ", or set the option " + optionHost + " to its host part",
		}, nil
	}
	return sdk.Verdict{Kind: sdk.VerdictOK, Identity: matched}, nil
}

// verdict is what a failed login means. The server tells why it refuses one.
func verdict(err error) (sdk.Verdict, error) {
	v, err := sdk.VerdictOf(err)
	if v.Kind == sdk.VerdictBadCredential {
		v.Message = "the server refused the password, or matched another account first: " +
			"an anonymous one or one with a more specific host part, which the account's facts show as shadowed_by"
	}
	return v, err
}
