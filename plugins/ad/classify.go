package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"regexp"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/cert"
)

type meaning struct {
	class        sdk.Class
	message, fix string
}

// Reasons that a domain controller gives for a refused login, in the text of result 49: the hexadecimal number behind
// "data". All but 525 and 52e are told only if the password was right, but for 775.
// https://learn.microsoft.com/en-us/windows/win32/debug/system-error-codes--1300-1699-
var logins = map[string]meaning{
	"525": {sdk.ClassAuthFailed, "there is no such account", "check the user name"},
	"52e": {sdk.ClassAuthFailed, "the user name or the password is wrong", "check both"},
	"52f": {sdk.ClassNotPermitted, "the account may not log in this way, as members of Protected Users may not", "use another way to check it"},
	"530": {sdk.ClassNotPermitted, "the account may not log in at this time", "change its logon hours"},
	"531": {sdk.ClassNotPermitted, "the account may not log in from here", "change its list of workstations"},
	"532": {sdk.ClassMustChange, "the password has expired", "set a new one"},
	"533": {sdk.ClassDisabled, "the account is disabled", "find out who disabled it and why, then enable it"},
	"568": {sdk.ClassNotPermitted, "the account is in too many groups", "take it out of some"},
	"569": {sdk.ClassNotPermitted, "the account is denied this type of logon", "change the policy that denies it"},
	"701": {sdk.ClassExpired, "the account has expired", "set its accountExpires anew"},
	"773": {sdk.ClassMustChange, "the password must be changed first", "set a new one"},
	"775": {sdk.ClassLocked, "the account is locked after too many wrong passwords", "wait for the domain's lockout duration, or set its lockoutTime to 0"},
}

// Windows errors that a domain controller names at the beginning of its text.
// https://learn.microsoft.com/en-us/windows/win32/debug/system-error-codes--8200-8999-
var windows = map[string]meaning{
	"00000524": {sdk.ClassExists, "an account with that name exists", "choose another name"},
	"0000052D": {sdk.ClassPolicyRejected, "the password does not meet the domain's policy", "adapt the password policy"},
	"0000001F": {sdk.ClassNotPermitted, "the server does not take passwords over this connection", "see that TLS of 128 bits or more is used"},
	"000021C7": {sdk.ClassExists, "another object has that service principal name", "take it from that one first"},
	"000021C8": {sdk.ClassExists, "another account has that user principal name", "choose another name"},
	"0000202F": {sdk.ClassExists, "another object has one of these names", "choose other names"},
	"000020EF": {sdk.ClassBusy, "the server has used up its numbers for accounts", "see that the domain's RID master answers"},
}

// later is the fix for what passes.
const later = "try again later"

// grantMissing is the fix for a right that lacks.
const grantMissing = "delegate it: the check of rights for the role prints what does; members of protected groups need rights on AdminSDHolder"

var results = map[uint16]meaning{
	ldap.LDAPResultTimeLimitExceeded:           {sdk.ClassBusy, "the server's time limit is over", later},
	ldap.LDAPResultSizeLimitExceeded:           {sdk.ClassBusy, "the server's limit of entries is exceeded", "see its MaxPageSize"},
	ldap.LDAPResultAdminLimitExceeded:          {sdk.ClassBusy, "a limit of the server is exceeded", "see its LDAP policies"},
	ldap.LDAPResultBusy:                        {sdk.ClassBusy, "the server is busy", later},
	ldap.LDAPResultUnavailable:                 {sdk.ClassBusy, "the server is not available at the moment", later},
	ldap.LDAPResultStrongAuthRequired:          {sdk.ClassUnsupported, "the server asks for signing or channel binding", "allow simple binds over TLS"},
	ldap.LDAPResultConfidentialityRequired:     {sdk.ClassUnsupported, "the server asks for more protection than TLS gives here", "allow simple binds over TLS"},
	ldap.LDAPResultInappropriateAuthentication: {sdk.ClassUnsupported, "the server does not take simple binds", "allow them over TLS"},
	ldap.LDAPResultReferral:                    {sdk.ClassUnsupported, "the server refers to another one", "use a writable domain controller of the domain as target"},
	ldap.LDAPResultInsufficientAccessRights:    {sdk.ClassNotPermitted, "the management account lacks a right", grantMissing},
	ldap.LDAPResultNoSuchObject:                {sdk.ClassNotFound, "there is no such object", ""},
	ldap.LDAPResultInvalidDNSyntax:             {sdk.ClassInvalid, "the server does not understand a distinguished name", "correct it"},
	ldap.LDAPResultInvalidAttributeSyntax:      {sdk.ClassInvalid, "the server does not understand a value", "correct it"},
	ldap.LDAPResultEntryAlreadyExists:          {sdk.ClassExists, "an object with that name exists", "choose another name"},
	ldap.LDAPResultNotAllowedOnNonLeaf:         {sdk.ClassPolicyRejected, "the account has objects below it", "move or delete them first"},
	ldap.ErrorFilterCompile:                    {sdk.ClassInvalid, "the filter cannot be read", "correct the role's command"},
}

var (
	dataCode    = regexp.MustCompile(`\bdata ([0-9a-fA-F]{1,8})\b`)
	windowsCode = regexp.MustCompile(`^([0-9A-Fa-f]{8}):`)
)

// words is what the server said about a result. It may quote what was sent: it is looked through and not passed on.
func words(err error) string {
	e, ok := errors.AsType[*ldap.Error](err)
	if !ok || e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

// reasonOf is the reason for a refused login, as "52e"; empty if there is none.
func reasonOf(text string) string {
	m := dataCode.FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return strings.TrimLeft(strings.ToLower(m[1]), "0")
}

// windowsOf is the Windows error at the beginning of a text, as "0000052D"; empty if there is none.
func windowsOf(text string) string {
	m := windowsCode.FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return strings.ToUpper(m[1])
}

// result is the server's result code; ok is false if the server gave none.
func result(err error) (code uint16, ok bool) {
	e, is := errors.AsType[*ldap.Error](err)
	if !is || e.ResultCode >= ldap.ErrorNetwork && e.ResultCode != ldap.ErrorFilterCompile {
		return 0, false
	}
	return e.ResultCode, true
}

func is(err error, codes ...uint16) bool {
	got, ok := result(err)
	for _, c := range codes {
		if ok && got == c {
			return true
		}
	}
	return false
}

// failure turns an error of the driver into one of the SDK. sent says whether a change may have been sent.
func failure(ctx context.Context, what string, err error, sent bool) error {
	if err == nil {
		return nil
	}
	if code, ok := result(err); ok {
		m, known := windows[windowsOf(words(err))]
		if !known {
			m, known = results[code]
		}
		if known {
			return (&sdk.Error{Class: m.class, Message: what + ": " + m.message, Fix: m.fix}).Wrap(err)
		}
		e := sdk.Errorf(sdk.ClassProtocol, "%s: the server answered with result %d", what, code)
		if w := windowsOf(words(err)); w != "" {
			e.Message += ", Windows error 0x" + w
		}
		return e.WithFix("look the number up among LDAP results (RFC 4511) and Windows system error codes").Wrap(err)
	}
	switch {
	case sent:
		return sdk.Errorf(sdk.ClassUnknownOutcome, "%s: the connection was lost before the server answered", what).
			WithFix(sdk.LookFirst).Wrap(err)
	case errors.Is(context.Cause(ctx), context.Canceled):
		return sdk.Errorf(sdk.ClassCancelled, "%s: cancelled", what).Wrap(err)
	case isMalformed(err):
		return sdk.Errorf(sdk.ClassProtocol, "%s: the server's answer is malformed", what).
			WithFix("see that the target is a domain controller").Wrap(err)
	default:
		return sdk.Errorf(sdk.ClassUnreachable, "%s: the server does not answer", what).
			WithFix("check that the server runs and that the agent can reach it").Wrap(err)
	}
}

func isMalformed(err error) bool {
	e, ok := errors.AsType[*ldap.Error](err)
	return ok && (e.ResultCode == ldap.ErrorUnexpectedMessage || e.ResultCode == ldap.ErrorUnexpectedResponse)
}

// loginFailure is failure for a bind.
func loginFailure(ctx context.Context, address string, err error) error {
	what := "log in to " + address
	if is(err, ldap.LDAPResultInvalidCredentials) {
		m, known := logins[reasonOf(words(err))]
		if !known {
			m = meaning{sdk.ClassAuthFailed, "the server refused the user name or the password", "check both"}
		}
		return (&sdk.Error{Class: m.class, Message: what + ": " + m.message, Fix: m.fix}).Wrap(err)
	}
	return failure(ctx, what, err, false)
}

// refused turns the error of a failed connection attempt into one of the SDK.
func refused(ctx context.Context, address string, trust sdk.Trust, err error) error {
	what := "connect to " + address
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cert.Untrusted(address, trust, e)
	}
	if errors.Is(err, errNoStartTLS) {
		return sdk.Errorf(sdk.ClassUnsupported, "%s: %v", what, err).
			WithFix("give the domain controller a certificate, or use port 636 with the option %s set to no", optionStartTLS).Wrap(err)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return sdk.Errorf(sdk.ClassProtocol, "%s: the server does not speak TLS on this port", what).
			WithFix("use port 636, or port 389 with the option %s set to yes", optionStartTLS).Wrap(err)
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" { // a TLS alert
		return sdk.Errorf(sdk.ClassProtocol, "%s: the server ended the TLS handshake", what).
			WithFix("see that it has a certificate and TLS 1.2").Wrap(err)
	}
	return failure(ctx, what, err, false)
}
