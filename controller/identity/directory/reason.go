package directory

import (
	"crypto/tls"
	"errors"
	"regexp"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// Reasons that Active Directory gives for a refused login, in the text of result 49: the
// hexadecimal number behind "data".
// https://learn.microsoft.com/en-us/windows/win32/debug/system-error-codes--1300-1699-
var reasons = map[string]string{
	"525": "not_found", "52e": "wrong_password", "52f": "restricted", "530": "not_at_this_time", "531": "not_from_here", "532": "password_expired",
	"533": "disabled", "568": "too_many_groups", "569": "restricted", "701": "expired", "773": "must_change", "775": "locked",
}

var dataCode = regexp.MustCompile(`\bdata ([0-9a-fA-F]{1,8})\b`)

// bindRefused says why somebody's bind failed. What the server wrote is looked through
// and not passed on.
func bindRefused(err error) *Refused {
	e, ok := errors.AsType[*ldap.Error](err)
	if !ok || e.ResultCode >= ldap.ErrorNetwork {
		return &Refused{Reason: "unreachable", cause: err}
	}
	if e.ResultCode != ldap.LDAPResultInvalidCredentials {
		return &Refused{Reason: "refused", Judged: true, cause: err}
	}
	out := &Refused{Reason: "wrong_password", Judged: true, cause: err}
	if e.Err != nil {
		if m := dataCode.FindStringSubmatch(e.Err.Error()); m != nil {
			if known := reasons[strings.TrimLeft(strings.ToLower(m[1]), "0")]; known != "" {
				out.Reason = known
			}
		}
	}
	return out
}

func dialReason(err error) string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "untrusted"
	}
	if strings.Contains(err.Error(), "x509: ") { // the driver's StartTLS hands the text on, not the error
		return "untrusted"
	}
	return "unreachable"
}
