package main

import (
	"context"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Verify implements sdk.Verifier: one fresh login, which then asks what the server is and for nothing that a right is needed for.
// Windows checks the password before WinRM looks at rights, so a login that is refused only for lack of them has shown
// what it should.
func (connector) Verify(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
	l, err := dial(ctx, t, c)
	var e *envelope
	if err == nil {
		defer l.close()
		e, err = l.post(ctx, "log in", identifyMessage, false)
	}
	switch sdk.ClassOf(err) {
	case "":
	case sdk.ClassAuthFailed:
		return refusedVerdict(ctx, t, c), nil
	case sdk.ClassUnreachable:
		return sdk.Verdict{Kind: sdk.VerdictUnreachable, Message: "the server does not answer"}, nil
	case sdk.ClassBusy, sdk.ClassProtocol:
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: err.Error()}, nil
	default: // an untrusted certificate, no TLS, no NTLM
		return sdk.Verdict{}, err
	}
	code, failed := e.fault()
	switch {
	case l.auth == authNTLM && !l.loggedIn:
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: "the server let us in without asking for the password"}, nil
	case failed && code == faultAccessDenied:
		return sdk.Verdict{Kind: sdk.VerdictOK, Identity: c.Username, Message: "the password is right; the account may not use WinRM itself"}, nil
	case failed:
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: explainFault("log in", code, false).Error()}, nil
	case e.Body.Identify == nil:
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: "the server's answer is for another request"}, nil
	}
	return sdk.Verdict{Kind: sdk.VerdictOK, Identity: c.Username}, nil
}

// refusedVerdict says why a login was refused. WinRM itself does not tell: it needs a management account to look.
func refusedVerdict(ctx context.Context, t sdk.Target, c sdk.Credential) sdk.Verdict {
	bad := sdk.Verdict{Kind: sdk.VerdictBadCredential, Message: "the server refused the login; " +
		"WinRM does not tell a wrong password from an account that is disabled, locked out or expired or must change its password"}
	if t.Management.Password.Empty() {
		return bad
	}
	unknown := func(why string) sdk.Verdict {
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: "the server refused the login, and " + why}
	}
	if strings.ContainsAny(c.Username, `\@`) { // perhaps an account of a domain, of which the host knows nothing
		return bad
	}
	f, err := connector{}.Inspect(ctx, t, c.Username)
	switch {
	case err != nil:
		return unknown("why cannot be read: " + sdk.ErrorText(err))
	case !f.Exists:
		return sdk.Verdict{Kind: sdk.VerdictBadCredential, Message: "there is no such account"}
	case f.Locked:
		return sdk.Verdict{Kind: sdk.VerdictLocked, Identity: f.Identity, Message: "the account is disabled"}
	case f.Attributes["locked_out"] == "true":
		return sdk.Verdict{Kind: sdk.VerdictLocked, Identity: f.Identity, Message: "the account is locked out after wrong passwords"}
	case !f.ExpiresAt.IsZero() && !f.ExpiresAt.After(f.ReadAt):
		return sdk.Verdict{Kind: sdk.VerdictLocked, Identity: f.Identity, Message: "the account has expired"}
	case f.Attributes["must_change"] == "true":
		return sdk.Verdict{Kind: sdk.VerdictMustChange, Identity: f.Identity, Message: "the password has expired or must be changed"}
	}
	return sdk.Verdict{Kind: sdk.VerdictBadCredential, Identity: f.Identity, Message: "the password is wrong"}
}
