package main

import (
	"cmp"
	"context"
	"database/sql"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Verify implements sdk.Verifier: one fresh login, and the question who we are. The server tells whoever knows the password why it
// does not let a login in, so nothing has to be explained by the management account.
func (connector) Verify(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
	s, err := open(ctx, t, c, "")
	if err != nil {
		return verdictOf(err)
	}
	defer s.close()
	var who string
	err = s.query(ctx, "ask who we are", "SELECT ORIGINAL_LOGIN()", func(r *sql.Rows) error { return r.Scan(&who) })
	if err != nil {
		return sdk.Verdict{
			Kind: sdk.VerdictUnknown, Message: "the login was accepted, but the server does not say as whom", Fix: "try again later",
		}, nil
	}
	return sdk.Verdict{Kind: sdk.VerdictOK, Identity: who}, nil
}

// verdictOf is what the error of a login says about the account. An untrusted certificate, no TLS, or a name that cannot be one say
// nothing, and stay errors.
func verdictOf(err error) (sdk.Verdict, error) {
	v, err := sdk.VerdictOf(err)
	switch {
	case err != nil:
	case v.Kind == sdk.VerdictBadCredential:
		v.Fix = "set a new password for the login, or correct the one that is recorded"
	default:
		v.Fix = cmp.Or(v.Fix, "try again later")
	}
	return v, err
}
