package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"github.com/sijms/go-ora/v2/network"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/cert"
)

// Error numbers with a meaning of their own here.
// https://docs.oracle.com/en/error-help/db/
const (
	errSessionGone   = 30
	errSessionMarked = 31
	errNoView        = 942
	errDenied        = 1017
	errNoSynonym     = 1434
	errNoGrantee     = 1917
	errNoUser        = 1918
	errUserExists    = 1920
	errNotGranted1   = 1927
	errConnected     = 1940
	errNotGranted2   = 1951
	errNotGranted3   = 1952
	errBlock         = 6550
	errLockHeld      = 20990 // ours, see lockBlock
	errLocked        = 28000
	errReuse         = 28007
)

type meaning struct {
	class        sdk.Class
	message, fix string
}

// Fixes that several errors share.
const (
	grantMissing = "grant it what the probe says is missing"
	grantAdmin   = "grant it the role or privilege WITH ADMIN OPTION"
	waitOpen     = "wait until the database is open"
	checkService = "check the options service_name and sid, and that the database is open: lsnrctl status lists the services"
	moreSessions = "raise the limit or end idle sessions"
	correctRole  = "correct the role's command"
	useTCPS      = "configure a TCPS endpoint with a certificate in listener.ora, and use its port, often 2484"
	// The server does not tell who logs in which of the two it is.
	lockedSomehow = "the account is locked, by an administrator or after too many wrong passwords"
	unlock        = "find out why (ACCOUNT_STATUS in DBA_USERS says LOCKED or LOCKED(TIMED)), then unlock it: ALTER USER … ACCOUNT UNLOCK"
	usePDB        = "set the option service_name to the service of the pluggable database, or use a name that begins with C##"
)

var meanings = map[int]meaning{
	12505: {sdk.ClassUnreachable, "the listener does not know the SID", checkService},
	12514: {sdk.ClassUnreachable, "the listener does not know the service", checkService},
	12528: {sdk.ClassUnreachable, "the database takes no new connections", waitOpen},
	12564: {sdk.ClassUnreachable, "the listener refused the connection", checkService},
	1033:  {sdk.ClassUnreachable, "the database is starting or stopping", waitOpen},
	1034:  {sdk.ClassUnreachable, "the database is not started", waitOpen},
	1089:  {sdk.ClassUnreachable, "the database is stopping", waitOpen},
	1109:  {sdk.ClassUnreachable, "the database is not open", waitOpen},
	12506: {sdk.ClassNotPermitted, "the listener does not accept the agent's address", "add it to the listener's or the service's access list"},

	12516: {sdk.ClassBusy, "the listener has no free handler", moreSessions},
	12518: {sdk.ClassBusy, "the listener could not hand the connection over", moreSessions},
	12519: {sdk.ClassBusy, "the listener has no free handler", moreSessions},
	12520: {sdk.ClassBusy, "the listener has no free handler", moreSessions},
	18:    {sdk.ClassBusy, "the server has too many sessions", moreSessions},
	20:    {sdk.ClassBusy, "the server has too many processes", moreSessions},
	54:    {sdk.ClassBusy, "another session holds a lock", "end that session"},
	60:    {sdk.ClassBusy, "the server ended a deadlock", "try again"},
	2391:  {sdk.ClassBusy, "the account has too many sessions", "raise SESSIONS_PER_USER in its profile"},
	4021:  {sdk.ClassBusy, "another session holds a lock for too long", "end that session"},

	errConnected: {sdk.ClassBusy, "the account still has sessions", "end them"},
	errLockHeld:  {sdk.ClassBusy, "another connection of Reeve is changing the account", "try again in a moment"},

	errDenied: {sdk.ClassAuthFailed, "the server refused the user name or the password", "check both"},
	errLocked: {sdk.ClassAuthFailed, lockedSomehow, unlock},
	28001:     {sdk.ClassMustChange, "the password has expired", "set a new one: ALTER USER … IDENTIFIED BY …"},
	28002:     {sdk.ClassMustChange, "the password will expire", "set a new one: ALTER USER … IDENTIFIED BY …"},
	1045:      {sdk.ClassNotPermitted, "the account may not log in", "grant it CREATE SESSION"},
	28009:     {sdk.ClassNotPermitted, "SYS logs in AS SYSDBA only", "use another management account"},

	1031:  {sdk.ClassNotPermitted, "the management account lacks a privilege", grantMissing},
	1720:  {sdk.ClassNotPermitted, "the management account may not pass that on", grantAdmin},
	1929:  {sdk.ClassNotPermitted, "the management account may not pass that on", grantAdmin},
	1932:  {sdk.ClassNotPermitted, "the management account may not pass that on", grantAdmin},
	16000: {sdk.ClassNotPermitted, "the database is read-only", "use the primary database as target"},
	28014: {sdk.ClassNotPermitted, "Oracle's own accounts cannot be removed", "leave it; disable it if nobody shall use it"},
	1435:  {sdk.ClassNotFound, "there is no such account", "provision it again"},

	errNoUser:     {sdk.ClassNotFound, "there is no such account", "provision it again"},
	errNoGrantee:  {sdk.ClassNotFound, "there is no such account", "provision it again"},
	errUserExists: {sdk.ClassExists, "an account or a role by that name exists", "choose another name"},
	errNoView:     {sdk.ClassNotPermitted, "a table or view is not there, or the management account may not read it", "grant it SELECT_CATALOG_ROLE"},

	988:      {sdk.ClassPolicyRejected, "the server cannot read the password", "use printable characters without double quotes"},
	1922:     {sdk.ClassPolicyRejected, "the account owns objects", "move or drop them first"},
	28003:    {sdk.ClassPolicyRejected, "the password does not meet the profile's verify function", "adapt the password policy"},
	errReuse: {sdk.ClassPolicyRejected, "the profile forbids to use a former password again", "use a new one"},
	28218:    {sdk.ClassPolicyRejected, "the password is too long for the server", "use 30 bytes at most"},
	28219:    {sdk.ClassPolicyRejected, "the password does not meet the mandatory profile", "adapt the password policy"},

	65066: {sdk.ClassInvalid, "in the root of a container database changes apply to all containers", usePDB},
	65096: {sdk.ClassInvalid, "in the root of a container database names begin with C##", usePDB},
	65094: {sdk.ClassInvalid, "names that begin with C## are for the root of a container database", "choose another name"},
	900:   {sdk.ClassInvalid, "the server does not understand the statement", correctRole},
	911:   {sdk.ClassInvalid, "the statement has a character that does not belong there", correctRole},
	922:   {sdk.ClassInvalid, "the server does not understand the statement", correctRole},
	933:   {sdk.ClassInvalid, "the statement does not end where it should", correctRole},
	959:   {sdk.ClassInvalid, "there is no such tablespace", "check the options tablespace and temporary_tablespace, and the role's parameters"},
	972:   {sdk.ClassInvalid, "a name is too long", "use 30 bytes at most before Oracle 12.2"},
	990:   {sdk.ClassInvalid, "there is no such privilege", correctRole},
	1919:  {sdk.ClassInvalid, "there is no such role on the server", "create it, or check the role's parameters"},
	2380:  {sdk.ClassInvalid, "there is no such profile", "check the option profile"},

	errBlock: {sdk.ClassNotPermitted, "the block names something that is not there, or that the management account may not use", grantMissing},
}

// interrupted are answers after which a statement may or may not have had its effect, and after which the connection is of
// no use: killed, or the server is going.
var interrupted = map[int]bool{28: true, 1012: true, 1013: true, 1092: true, 3113: true, 3114: true, 3135: true, 12537: true, 12570: true}

func number(err error) int {
	if e, ok := errors.AsType[*network.OracleError](err); ok {
		return e.ErrCode
	}
	return 0
}

// broken reports whether an error of the driver means that the connection is of no use.
func broken(err error) bool {
	n := number(err)
	return err != nil && (n == 0 || interrupted[n])
}

// failure turns an error of the driver into one of the SDK. The server's own words are left out: they quote names and
// pieces of statements. One of the SDK stays as it is. sent says whether a change may have been sent.
func failure(ctx context.Context, what string, err error, sent bool) error {
	if err == nil {
		return nil
	}
	if _, ours := err.(*sdk.Error); ours { //nolint:errorlint // one that is wrapped is the cause of something else
		return err
	}
	if n := number(err); n != 0 && !interrupted[n] {
		if m, ok := meanings[n]; ok {
			return (&sdk.Error{Class: m.class, Message: what + ": " + m.message, Fix: m.fix}).Wrap(err)
		}
		return sdk.Errorf(sdk.ClassProtocol, "%s: the server answered with ORA-%05d", what, n).
			WithFix("look the number up in Oracle's error help").Wrap(err)
	}
	_, crashed := errors.AsType[errPanic](err)
	switch {
	case sent:
		return sdk.Errorf(sdk.ClassUnknownOutcome, "%s: the connection was lost before the server answered", what).
			WithFix(sdk.LookFirst).Wrap(err)
	case errors.Is(context.Cause(ctx), context.Canceled):
		return sdk.Errorf(sdk.ClassCancelled, "%s: cancelled", what).Wrap(err)
	case errors.Is(err, errPacket), crashed && ctx.Err() == nil:
		return sdk.Errorf(sdk.ClassProtocol, "%s: the server's answer is not understood", what).
			WithFix("check that the port is that of an Oracle listener").Wrap(err)
	default:
		return sdk.Errorf(sdk.ClassUnreachable, "%s: the server does not answer", what).
			WithFix("check that the listener runs and that the agent can reach it").Wrap(err)
	}
}

// refused turns the error of a failed login into one of the SDK.
func refused(ctx context.Context, t sdk.Target, err error) error {
	what := "connect to " + t.Address
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cert.Untrusted(t.Address, t.Trust, e)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return sdk.Errorf(sdk.ClassUnsupported, "%s: the listener does not speak TLS on this port", what).
			WithFix(useTCPS).Wrap(err)
	}
	if errors.Is(err, errRedirect) {
		return sdk.Errorf(sdk.ClassUnsupported, "%s: the listener sends clients to another address", what).
			WithFix("use the address of a node's own listener as target, not that of a SCAN listener").Wrap(err)
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" { // a TLS alert
		return sdk.Errorf(sdk.ClassProtocol, "%s: the server ended the TLS handshake", what).
			WithFix("check that the listener takes TLS 1.2 or later, and asks for no client certificate").Wrap(err)
	}
	if errors.Is(err, errHandshake) && !errors.Is(context.Cause(ctx), context.Canceled) {
		return sdk.Errorf(sdk.ClassUnreachable, "%s: the server does not finish the TLS handshake", what).WithFix(useTCPS).Wrap(err)
	}
	return failure(ctx, what, err, false)
}
