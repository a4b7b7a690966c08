package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"github.com/go-sql-driver/mysql"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/cert"
)

// Error numbers with a meaning of their own here.
// https://mariadb.com/kb/en/mariadb-error-code-reference/
// https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html
const (
	errDenied       = 1045 // at login: wrong password; later: no right to grant something
	errNoSuchThread = 1094
	errNoSuchGrant  = 1141
	errNoTableGrant = 1147
	errOption       = 1290 // an option forbids it: read_only, strict_password_validation
	errCannotUser   = 1396 // CREATE, ALTER or DROP USER failed: it exists, or it does not
)

type meaning struct {
	class        sdk.Class
	message, fix string
}

// Fixes that several errors share.
const (
	grantOption  = "grant it what the role grants, WITH GRANT OPTION"
	grantMissing = "grant it what the probe says is missing"
	unblock      = "run FLUSH PRIVILEGES on the server"
	tooManyWrong = "the account is blocked after too many wrong passwords"
	accountLock  = "somebody has disabled the account (ACCOUNT LOCK)"
	unlock       = "find out who did; then run ALTER USER … ACCOUNT UNLOCK on the server"
	useLogin     = "use an account with a password plugin of MariaDB or MySQL"
)

var meanings = map[uint16]meaning{
	1040: {sdk.ClassBusy, "the server has too many connections", "raise max_connections or end idle sessions"},
	1203: {sdk.ClassBusy, "the account has too many connections", "raise max_user_connections or end idle sessions"},
	1226: {sdk.ClassBusy, "the account has used up one of its limits", "raise the limit of the account"},
	1129: {sdk.ClassBusy, "the server has blocked the agent's address", "run FLUSH HOSTS on the server"},
	1205: {sdk.ClassBusy, "another session holds a lock for too long", "end that session"},
	1213: {sdk.ClassBusy, "the server ended a deadlock", ""},
	1969: {sdk.ClassBusy, "the server's max_statement_time is over", ""},
	1030: {sdk.ClassBusy, "the server's storage reported an error", "look at the server's disk and error log"},
	1021: {sdk.ClassBusy, "the server's disk is full", "free space on the server"},

	errDenied: {sdk.ClassNotPermitted, "the management account may not pass that on", grantOption},
	1698:      {sdk.ClassAuthFailed, "the account has no password login", "give the account a password"},
	4150:      {sdk.ClassLocked, tooManyWrong, unblock},
	3955:      {sdk.ClassLocked, tooManyWrong, "run ALTER USER … ACCOUNT UNLOCK on the server"},
	4151:      {sdk.ClassDisabled, accountLock, unlock}, // nobody but an administrator locks so
	3118:      {sdk.ClassDisabled, accountLock, unlock},
	1820:      {sdk.ClassMustChange, "the password has expired", "set a new one"},
	1862:      {sdk.ClassMustChange, "the password has expired", "set a new one"},
	1130:      {sdk.ClassNotPermitted, "the server does not accept the agent's address", "add an account for it"},

	1044: {sdk.ClassNotPermitted, "the management account lacks a right on a database", grantOption},
	1142: {sdk.ClassNotPermitted, "the management account lacks a right on a table", grantMissing},
	1143: {sdk.ClassNotPermitted, "the management account lacks a right on a column", grantMissing},
	1227: {sdk.ClassNotPermitted, "the management account lacks a right", grantMissing},
	1370: {sdk.ClassNotPermitted, "the management account lacks a right on a routine", grantOption},
	1410: {sdk.ClassNotPermitted, "the management account may not do that with GRANT", grantOption},
	1836: {sdk.ClassNotPermitted, "the server is read-only", "use the primary server as target"},
	1792: {sdk.ClassNotPermitted, "the server is read-only", "use the primary server as target"},
	1819: {sdk.ClassPolicyRejected, "the password does not meet the server's policy", "adapt the password policy"},
	1133: {sdk.ClassNotFound, "there is no such account", ""},
	4006: {sdk.ClassPolicyRejected, "the account is the DEFINER of objects", "give them another definer first"},

	1064: {sdk.ClassInvalid, "the server does not understand the statement", "correct the role's command"},
	1046: {sdk.ClassInvalid, "the statement names no database", "correct the role's command"},
	1049: {sdk.ClassInvalid, "there is no such database", "check the role's parameters"},
	1144: {sdk.ClassInvalid, "the rights do not fit what they are granted on", "correct the role's command"},
	1146: {sdk.ClassInvalid, "there is no such table", "check the role's parameters"},
	1221: {sdk.ClassInvalid, "the rights do not fit what they are granted on", "correct the role's command"},
	1305: {sdk.ClassInvalid, "there is no such routine", "check the role's parameters"},
	1959: {sdk.ClassInvalid, "there is no such role on the server", "create it, or check the role's parameters"},
	3523: {sdk.ClassInvalid, "there is no such role on the server", "create it, or check the role's parameters"},
}

// interrupted are answers after which a statement may or may not have had its effect.
var interrupted = map[uint16]bool{1053: true, 1077: true, 1078: true, 1079: true, 1184: true, 1317: true, 1927: true}

func number(err error) uint16 {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return e.Number
	}
	return 0
}

// failure turns an error of the driver into one of the SDK. The server's own words are
// left out: they quote the statement. sent says whether a change may have been sent.
func failure(ctx context.Context, what string, err error, sent bool) error {
	if err == nil {
		return nil
	}
	e, answered := errors.AsType[*mysql.MySQLError](err)
	if answered && !interrupted[e.Number] {
		if m, ok := meanings[e.Number]; ok {
			return (&sdk.Error{Class: m.class, Message: what + ": " + m.message, Fix: m.fix}).Wrap(err)
		}
		return sdk.Errorf(sdk.ClassProtocol, "%s: the server answered with error %d (SQLSTATE %s)", what, e.Number, e.SQLState).
			WithFix("look the number up in the server's manual").Wrap(err)
	}
	switch {
	case sent:
		return sdk.Errorf(sdk.ClassUnknownOutcome, "%s: the connection was lost before the server answered", what).
			WithFix(sdk.LookFirst).Wrap(err)
	case errors.Is(context.Cause(ctx), context.Canceled):
		return sdk.Errorf(sdk.ClassCancelled, "%s: cancelled", what).Wrap(err)
	default:
		return sdk.Errorf(sdk.ClassUnreachable, "%s: the server does not answer", what).
			WithFix("check that the server runs and that the agent can reach it").Wrap(err)
	}
}

// refused turns the error of a failed connection attempt into one of the SDK.
func refused(ctx context.Context, address string, trust sdk.Trust, err error) error {
	what := "connect to " + address
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cert.Untrusted(address, trust, e)
	}
	switch {
	case errors.Is(err, mysql.ErrNoTLS):
		return sdk.Errorf(sdk.ClassUnsupported, "%s: the server does not offer TLS", what).
			WithFix("configure a certificate (ssl_cert, ssl_key) on the server").Wrap(err)
	case errors.Is(err, mysql.ErrUnknownPlugin), errors.Is(err, mysql.ErrCleartextPassword),
		errors.Is(err, mysql.ErrOldPassword), errors.Is(err, mysql.ErrOldProtocol):
		return sdk.Errorf(sdk.ClassUnsupported, "%s: the server asks for a way to log in that is not supported", what).
			WithFix(useLogin).Wrap(err)
	}
	if number(err) == errDenied {
		return sdk.Errorf(sdk.ClassAuthFailed, "%s: the server refused the user name or the password", what).
			WithFix("check both, and whether an anonymous account or a more specific host entry of the name matches first").
			Wrap(err)
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" { // a TLS alert
		return sdk.Errorf(sdk.ClassProtocol, "%s: the server ended the TLS handshake", what).Wrap(err)
	}
	return failure(ctx, what, err, false)
}
