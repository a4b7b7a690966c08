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
	switch sdk.ClassOf(err) {
	case "":
	case sdk.ClassAuthFailed:
		return rejected(ctx, t, c)
	case sdk.ClassLocked:
		return sdk.Verdict{Kind: sdk.VerdictLocked, Message: "the password is right, but the role may not log in (NOLOGIN)"}, nil
	case sdk.ClassUnreachable:
		return sdk.Verdict{Kind: sdk.VerdictUnreachable, Message: "the server does not answer"}, nil
	case sdk.ClassNotPermitted:
		if code(err) == stateNoRight { // it is said after the password was accepted
			return sdk.Verdict{
				Kind:    sdk.VerdictOK,
				Message: "the password is right; the account may not connect to the database " + t.Options[optionDatabase],
			}, nil
		}
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: sdk.ErrorText(err)}, nil
	case sdk.ClassBusy, sdk.ClassProtocol:
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: sdk.ErrorText(err)}, nil
	default: // an untrusted certificate, no TLS, another way to log in, no such database
		return sdk.Verdict{}, err
	}
	defer s.close()
	var a account
	err = s.query(ctx, "ask who we are",
		"SELECT r.rolname::text, r.oid::text FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) session_user",
		func(r pgx.Rows) error { return r.Scan(&a.name, &a.oid) })
	if err != nil {
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: sdk.ErrorText(err)}, nil
	}
	if a.name != c.Username {
		return sdk.Verdict{
			Kind: sdk.VerdictUnknown, Identity: a.identity(),
			Message: "the login was accepted, but as " + a.name + " and not as " + c.Username,
		}, nil
	}
	return sdk.Verdict{Kind: sdk.VerdictOK, Identity: a.identity()}, nil
}

// rejected is the verdict on a password the server refused. It says the same of one that
// is wrong and one that has expired; whoever may look at the role can tell.
func rejected(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
	v := sdk.Verdict{
		Kind:    sdk.VerdictBadCredential,
		Message: "the server refused the password: it is wrong, or has expired (VALID UNTIL), or there is no such role",
	}
	if t.Management.Username == "" {
		return v, nil
	}
	s, err := connect(ctx, t, t.Options[optionDatabase])
	if err != nil {
		return v, nil //nolint:nilerr // the verdict stands without it
	}
	defer s.close()
	a, err := s.account(ctx, c.Username)
	if err == nil && a != nil && a.until != nil && a.until.Before(time.Now()) {
		return sdk.Verdict{
			Kind:    sdk.VerdictMustChange,
			Message: "the password has expired (VALID UNTIL " + a.until.UTC().Format(time.RFC3339) + "); set a new one, or a later date",
		}, nil
	}
	return v, nil
}
