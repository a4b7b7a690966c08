package main

import (
	"context"
	"database/sql"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Verify implements sdk.Verifier: one fresh login, and the question who we are.
func (connector) Verify(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
	s, err := open(ctx, t, c, "")
	switch sdk.ClassOf(err) {
	case "":
	case sdk.ClassAuthFailed:
		return sdk.Verdict{Kind: sdk.VerdictBadCredential, Message: "the server refused the login or its password"}, nil
	case sdk.ClassLocked:
		return sdk.Verdict{Kind: sdk.VerdictLocked, Message: err.Error()}, nil
	case sdk.ClassMustChange:
		return sdk.Verdict{Kind: sdk.VerdictMustChange, Message: "the password has expired or must be changed"}, nil
	case sdk.ClassUnreachable:
		return sdk.Verdict{Kind: sdk.VerdictUnreachable, Message: "the server does not answer"}, nil
	case sdk.ClassBusy, sdk.ClassProtocol, sdk.ClassNotPermitted:
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: err.Error()}, nil
	default: // an untrusted certificate, no TLS, a name that cannot be one
		return sdk.Verdict{}, err
	}
	defer s.close()
	var who string
	err = s.query(ctx, "ask who we are", "SELECT ORIGINAL_LOGIN()", func(r *sql.Rows) error { return r.Scan(&who) })
	if err != nil {
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: err.Error()}, nil
	}
	return sdk.Verdict{Kind: sdk.VerdictOK, Identity: who}, nil
}
