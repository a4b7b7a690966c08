package main

import (
	"cmp"
	"context"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Verify implements sdk.Verifier: one fresh login, and a look at who the server says we are. Only that an account is locked needs an
// explanation by the management account.
func (connector) Verify(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
	user, err := exactName(c.Username)
	if err != nil {
		return sdk.Verdict{}, err
	}
	s, err := login(ctx, t, user, c.Password, "")
	if err != nil {
		return verdictOf(ctx, t, c.Username, err)
	}
	defer s.close()
	rows, err := s.query(ctx, "ask who we are", "SELECT SYS_CONTEXT('USERENV', 'SESSION_USER'), SYS_CONTEXT('USERENV', 'CON_NAME') FROM dual")
	if err != nil || len(rows) != 1 {
		return sdk.Verdict{
			Kind: sdk.VerdictUnknown, Message: "the login was accepted, but the server does not say as whom", Fix: "try again later",
		}, nil
	}
	who, container := rows[0][0], rows[0][1]
	if who != c.Username {
		return sdk.Verdict{
			Kind: sdk.VerdictUnknown, Identity: who, Message: "the login was accepted, but as " + who, Fix: "look at the logon triggers of the database",
		}, nil
	}
	return sdk.Verdict{Kind: sdk.VerdictOK, Identity: who, Message: "in " + container}, nil
}

// verdictOf is what the error of a login says about the account. An untrusted certificate, no TLS or a server that is not understood
// say nothing, and stay errors.
func verdictOf(ctx context.Context, t sdk.Target, account string, err error) (sdk.Verdict, error) {
	if number(err) == errLocked {
		return explained(ctx, t, account), nil
	}
	v, err := sdk.VerdictOf(err)
	switch {
	case err != nil:
	case v.Kind == sdk.VerdictBadCredential:
		v.Fix = "set a new password for the account, or correct the one that is recorded"
	default:
		v.Fix = cmp.Or(v.Fix, "try again later")
	}
	return v, err
}

// explained finds out, with the management account, who locked an account; without it nobody can tell.
func explained(ctx context.Context, t sdk.Target, account string) sdk.Verdict {
	v := sdk.Verdict{Kind: sdk.VerdictUnknown, Message: lockedSomehow, Fix: unlock}
	manager, err := managementName(t.Management.Username)
	if err != nil || strings.Trim(manager, `"`) == account {
		return v
	}
	s, err := connect(ctx, t)
	if err != nil {
		return v
	}
	defer s.close()
	a, err := s.account(ctx, account)
	if err != nil || a == nil || !a.locked() {
		return v
	}
	statement := "ALTER USER " + account + " ACCOUNT UNLOCK"
	if a.timed() {
		v.Kind, v.Message = sdk.VerdictLocked, "the account is locked after too many wrong passwords"
		v.Fix = "find out who tries them; it unlocks itself after the profile's PASSWORD_LOCK_TIME, or at once by " + statement
		return v
	}
	// A lock that never ends by itself looks as if somebody had set it.
	limit, err := s.query(ctx, "read the profile", "SELECT limit FROM dba_profiles WHERE resource_name = 'PASSWORD_LOCK_TIME' AND profile = :1", a.profile)
	if err == nil && len(limit) == 1 && limit[0][0] == "DEFAULT" {
		limit, err = s.query(ctx, "read the profile", "SELECT limit FROM dba_profiles WHERE resource_name = 'PASSWORD_LOCK_TIME' AND profile = 'DEFAULT'")
	}
	if err != nil || len(limit) != 1 || limit[0][0] == "UNLIMITED" {
		v.Kind, v.Message = sdk.VerdictLocked, lockedSomehow+" (the profile "+a.profile+" never ends such a lock)"
		v.Fix = "find out why, then " + statement
		return v
	}
	v.Kind, v.Message = sdk.VerdictDisabled, "somebody locked the account"
	v.Fix = "find out why, then enable it with Reeve, or " + statement
	return v
}
