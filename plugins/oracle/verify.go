package main

import (
	"context"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Verify implements sdk.Verifier: one fresh login, and a look at who the server says we are.
func (connector) Verify(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
	user, err := exactName(c.Username)
	if err != nil {
		return sdk.Verdict{}, err
	}
	s, err := login(ctx, t, user, c.Password, "")
	switch sdk.ClassOf(err) {
	case "":
	case sdk.ClassAuthFailed:
		return sdk.Verdict{Kind: sdk.VerdictBadCredential, Message: "the server refused the user name or the password"}, nil
	case sdk.ClassLocked:
		return sdk.Verdict{Kind: sdk.VerdictLocked, Message: "the account is locked, by somebody or by too many wrong passwords"}, nil
	case sdk.ClassMustChange:
		return sdk.Verdict{Kind: sdk.VerdictMustChange, Message: "the password has expired"}, nil
	case sdk.ClassUnreachable:
		return sdk.Verdict{Kind: sdk.VerdictUnreachable, Message: sdk.ErrorText(err)}, nil
	case sdk.ClassBusy, sdk.ClassProtocol, sdk.ClassNotPermitted:
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: sdk.ErrorText(err)}, nil
	default: // an untrusted certificate, no TLS, a server that is not understood
		return sdk.Verdict{}, err
	}
	defer s.close()
	rows, err := s.query(ctx, "ask who we are", "SELECT SYS_CONTEXT('USERENV', 'SESSION_USER'), SYS_CONTEXT('USERENV', 'CON_NAME') FROM dual")
	if err != nil || len(rows) != 1 {
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: "the login was accepted, but the server does not say as whom"}, nil
	}
	who, container := rows[0][0], rows[0][1]
	if who != c.Username {
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Identity: who, Message: "the login was accepted, but as " + who}, nil
	}
	return sdk.Verdict{Kind: sdk.VerdictOK, Identity: who, Message: "in " + container}, nil
}
