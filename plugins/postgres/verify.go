package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Verify implements sdk.Verifier: one fresh login over TLS, in which the server must ask
// for the password, and a look at who the server takes us for.
func (connector) Verify(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
	s, err := login(ctx, t, c, t.Options[optionDatabase], plain)
	switch {
	case err == nil:
	case sdk.ClassOf(err) == sdk.ClassAuthFailed:
		return rejected(ctx, t, c), nil
	case sdk.ClassOf(err) == sdk.ClassNotPermitted && code(err) == stateNoRight: // it is said after the password was accepted
		return sdk.Verdict{
			Kind:    sdk.VerdictOK,
			Message: "the password is right; the account may not connect to the database " + t.Options[optionDatabase],
		}, nil
	default:
		return sdk.VerdictOf(err)
	}
	defer s.close()
	var a account
	err = s.query(ctx, "ask who we are",
		"SELECT r.rolname::text, r.oid::text FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) session_user",
		func(r pgx.Rows) error { return r.Scan(&a.name, &a.oid) })
	if err != nil {
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: sdk.ErrorText(err), Fix: "try again later"}, nil
	}
	if a.name != c.Username {
		return sdk.Verdict{
			Kind: sdk.VerdictUnknown, Identity: a.identity(),
			Message: "the login was accepted, but as " + a.name + " and not as " + c.Username,
			Fix:     "look into pg_ident.conf, and for a pooler between the agent and the server",
		}, nil
	}
	return sdk.Verdict{Kind: sdk.VerdictOK, Identity: a.identity()}, nil
}

// rejected is the verdict on a password the server refused. It says the same of one that is wrong and one that has expired; whoever
// may look at the role can tell. That a role may not log in is said after the password was proven, and so is no reason for this.
func rejected(ctx context.Context, t sdk.Target, c sdk.Credential) sdk.Verdict {
	v := sdk.Verdict{
		Kind:    sdk.VerdictBadCredential,
		Message: "the server refused the password: it is wrong, or has expired (VALID UNTIL), or there is no such role",
		Fix:     "look whether the role is there and its VALID UNTIL has passed; else set a new password",
	}
	if t.Management.Username == "" {
		return v
	}
	s, err := connect(ctx, t, t.Options[optionDatabase])
	if err != nil {
		return v // the verdict stands without it
	}
	defer s.close()
	a, err := s.account(ctx, c.Username)
	switch {
	case err != nil:
	case a == nil:
		v.Message, v.Fix = "there is no role "+c.Username, "provision the account again"
	case a.until != nil && a.until.Before(time.Now()):
		return sdk.Verdict{
			Kind:    sdk.VerdictExpired,
			Message: "the role " + a.name + " has expired: VALID UNTIL " + a.until.UTC().Format(time.RFC3339),
			Fix:     "prolong the access, or ALTER ROLE … VALID UNTIL with a later date",
		}
	default:
		v.Message, v.Fix = "the server refused the password: it is wrong", "set a new one"
	}
	return v
}
