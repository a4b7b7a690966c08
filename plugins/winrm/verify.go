package main

import (
	"context"
	"errors"
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
	case sdk.ClassUnreachable, sdk.ClassBusy, sdk.ClassProtocol:
		kind := sdk.VerdictUnknown
		if sdk.ClassOf(err) == sdk.ClassUnreachable {
			kind = sdk.VerdictUnreachable
		}
		return verdictOf(kind, err), nil
	default: // an untrusted certificate, no TLS, no NTLM
		return sdk.Verdict{}, err
	}
	code, failed := e.fault()
	switch {
	case l.auth == authNTLM && !l.loggedIn:
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: "the server let us in without asking for the password", Fix: strangeFix}, nil
	case failed && code == faultAccessDenied:
		return sdk.Verdict{Kind: sdk.VerdictOK, Identity: c.Username, Message: "the password is right; the account may not use WinRM itself"}, nil
	case failed:
		return verdictOf(sdk.VerdictUnknown, explainFault("log in", code, false)), nil
	case e.Body.Identify == nil:
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: "the server's answer is for another request", Fix: strangeFix}, nil
	}
	return sdk.Verdict{Kind: sdk.VerdictOK, Identity: c.Username}, nil
}

// verdictOf says what an error says.
func verdictOf(kind sdk.VerdictKind, err error) sdk.Verdict {
	v := sdk.Verdict{Kind: kind, Message: sdk.ErrorText(err)}
	if e, ok := errors.AsType[*sdk.Error](err); ok {
		v.Fix = e.Fix
	}
	return v
}

// refusedVerdict says why a login was refused. WinRM itself does not tell: it needs a management account to look.
func refusedVerdict(ctx context.Context, t sdk.Target, c sdk.Credential) sdk.Verdict {
	bad := sdk.Verdict{
		Kind: sdk.VerdictBadCredential, Fix: loginFix,
		Message: "the server refused the login; WinRM does not tell a wrong password from an account that is disabled, locked out or expired " +
			"or must change its password",
	}
	own, _ := strings.CutPrefix(c.Username, `.\`)
	manager := t.Management.Username[strings.LastIndexByte(t.Management.Username, '\\')+1:] // with a host or a domain before it, perhaps
	switch {
	case manager == "", strings.EqualFold(own, manager): // which would be another failed login
		return bad
	case strings.ContainsAny(own, `\@`): // perhaps an account of a domain, of which the host knows nothing
		return bad
	}
	s, err := open(ctx, t, t.Management)
	if err != nil {
		return bad
	}
	defer s.close()
	h, err := s.read(ctx, own, nil)
	if err != nil {
		return bad
	}
	return h.explain(own)
}

// explain says why the host refused a login, as far as the account's state tells.
func (h *host) explain(name string) sdk.Verdict {
	a := h.named(name)
	if a == nil {
		return sdk.Verdict{Kind: sdk.VerdictBadCredential, Message: "there is no account " + name, Fix: "provision it again"}
	}
	v := func(kind sdk.VerdictKind, message, fix string) sdk.Verdict {
		return sdk.Verdict{Kind: kind, Identity: a.SID, Message: "account " + name + " " + message, Fix: fix}
	}
	switch {
	case !a.Enabled:
		return v(sdk.VerdictDisabled, "is disabled", "enable it; on the server: Enable-LocalUser -SID '"+a.SID+"'")
	case a.Expires != 0 && a.Expires <= h.Now:
		return v(sdk.VerdictExpired, "has expired", "enable it until a later time; on the server: Set-LocalUser -SID '"+a.SID+"' -AccountExpires and a date")
	case a.LockedOut:
		return v(sdk.VerdictLocked, "is locked out after wrong passwords",
			"find out who tries them; then wait until the lockout ends (net accounts shows when), or enable the account, which unlocks it")
	case a.MustChange:
		return v(sdk.VerdictMustChange, "has a password that has expired or must be changed first", "rotate the password")
	}
	return v(sdk.VerdictBadCredential, "has another password", "rotate the password, or tell Reeve the right one")
}
