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
	switch sdk.ClassOf(err) {
	case "":
	case sdk.ClassAuthFailed:
		return sdk.Verdict{
			Kind: sdk.VerdictBadCredential,
			Message: "the server refused the password, or matched another account first: " +
				"an anonymous one or one with a more specific host part, which the account's facts show as shadowed_by",
		}, nil
	case sdk.ClassLocked:
		return sdk.Verdict{Kind: sdk.VerdictLocked, Message: "the account is locked or blocked"}, nil
	case sdk.ClassMustChange:
		return sdk.Verdict{Kind: sdk.VerdictMustChange, Message: "the password has expired"}, nil
	case sdk.ClassUnreachable:
		return sdk.Verdict{Kind: sdk.VerdictUnreachable, Message: "the server does not answer"}, nil
	case sdk.ClassBusy, sdk.ClassProtocol, sdk.ClassNotPermitted:
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: err.Error()}, nil
	default: // an untrusted certificate, no TLS, a server that is not understood
		return sdk.Verdict{}, err
	}
	defer s.close()
	var matched string
	if err := s.conn.QueryRowContext(ctx, "SELECT CURRENT_USER()").Scan(&matched); err != nil {
		err := failure(ctx, "ask who we are", err, false)
		if sdk.ClassOf(err) == sdk.ClassMustChange { // the login was accepted for nothing else
			return sdk.Verdict{Kind: sdk.VerdictMustChange, Message: "the password has expired"}, nil
		}
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: err.Error()}, nil
	}
	if want := c.Username + "@" + host; matched != want {
		return sdk.Verdict{
			Kind:     sdk.VerdictUnknown,
			Identity: matched,
			Message:  "the login was accepted, but as " + matched + " and not as " + want + ", which that account shadows",
		}, nil
	}
	return sdk.Verdict{Kind: sdk.VerdictOK, Identity: matched}, nil
}
