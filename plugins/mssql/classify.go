package main

import (
	"context"
	"crypto/tls"
	"errors"

	mssql "github.com/microsoft/go-mssqldb"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/cert"
)

// Error numbers with a meaning of their own here.
// learn.microsoft.com/sql/relational-databases/errors-events/database-engine-events-and-errors
const (
	errNoSelect   = 229
	errNoObject   = 208
	errNoAccess   = 916
	errNotRunning = 6106 // KILL of a session that has ended
	errNoDatabase = 4060 // at login
	errExists     = 15025
	errUserExists = 15023
	errOtherUser  = 15063 // the login is another user of the database
	errAbsent     = 15151 // it is not there, or one may not
	errNoLogin    = 15007
	errSIDInUse   = 15433
	errLoggedIn   = 15434
	errLogin      = 18456
)

type meaning struct {
	class        sdk.Class
	message, fix string
}

// Fixes that several errors share.
const (
	grantMissing = "grant it what the probe says is missing"
	correctRole  = "correct the role's command"
	checkParams  = "check the role's parameters"
	newOwner     = "give them another owner, then try again"
	usePrimary   = "use the primary server as target"
	moreRoom     = "look at the server's error log"
)

var meanings = map[int32]meaning{
	18470: {sdk.ClassDisabled, "somebody disabled the login", "find out why, then enable it: ALTER LOGIN … ENABLE"},
	18486: {sdk.ClassLocked, "the login is locked after too many wrong passwords",
		"find out who tries them; setting the password WITH … UNLOCK unlocks it, which a rotation does"},
	18487: {sdk.ClassMustChange, "the password has expired", "set a new one: ALTER LOGIN … WITH PASSWORD = …"},
	18488: {sdk.ClassMustChange, "the password must be changed", "set a new one: ALTER LOGIN … WITH PASSWORD = …"},
	18452: {sdk.ClassUnsupported, "the server accepts accounts of Windows only", "switch it to mixed mode authentication"},
	18461: {sdk.ClassBusy, "the server is in single user mode", "wait until its maintenance is over"},
	18401: {sdk.ClassBusy, "the server is being upgraded", "wait until that is over"},
	18451: {sdk.ClassBusy, "the server is shutting down", "wait until it is up again"},
	17142: {sdk.ClassBusy, "the server is paused", "let it continue"},
	17809: {sdk.ClassBusy, "the server has too many connections", "end idle sessions"},
	17892: {sdk.ClassNotPermitted, "a logon trigger of the server refuses the login", "look at the trigger"},
	4060:  {sdk.ClassInvalid, "there is no such database, or the management account may not enter it", checkParams},
	4064:  {sdk.ClassInvalid, "the login's default database cannot be entered", "give the login the default database master"},

	229:  {sdk.ClassNotPermitted, "the management account lacks a right on an object", grantMissing},
	262:  {sdk.ClassNotPermitted, "the management account lacks a right in the database", grantMissing},
	297:  {sdk.ClassNotPermitted, "the management account lacks a right", grantMissing},
	300:  {sdk.ClassNotPermitted, "the management account lacks a right on the server", grantMissing},
	371:  {sdk.ClassNotPermitted, "the management account lacks a right on the server", grantMissing},
	916:  {sdk.ClassNotPermitted, "the management account may not enter the database", "grant it CONNECT ANY DATABASE"},
	4613: {sdk.ClassNotPermitted, "the management account may not pass that right on", "grant it the right WITH GRANT OPTION"},
	6102: {sdk.ClassNotPermitted, "the management account may not end sessions", "grant it ALTER ANY CONNECTION"},
	15151: {sdk.ClassNotPermitted, "it is not there, or the management account may not change it",
		"check the names, and grant the management account what docs/connectors/mssql.md lists for the role"},
	15247: {sdk.ClassNotPermitted, "the management account lacks a right", grantMissing},
	3906:  {sdk.ClassNotPermitted, "the database is read-only", usePrimary},
	976:   {sdk.ClassNotPermitted, "the database is a replica that cannot be used", usePrimary},
	978:   {sdk.ClassNotPermitted, "the database is a replica that can only be read", usePrimary},
	15138: {sdk.ClassNotPermitted, "the user owns schemas", newOwner},
	15141: {sdk.ClassNotPermitted, "the login owns an endpoint or a server role", newOwner},
	15170: {sdk.ClassNotPermitted, "the login owns jobs of SQL Server Agent", newOwner},
	15173: {sdk.ClassNotPermitted, "the login has granted rights to others", "revoke those rights, then try again"},
	15174: {sdk.ClassNotPermitted, "the login owns databases", newOwner},
	15183: {sdk.ClassNotPermitted, "the user owns objects", newOwner},
	15284: {sdk.ClassNotPermitted, "the user has granted rights to others", "revoke those rights, then try again"},
	15421: {sdk.ClassNotPermitted, "the user owns database roles", newOwner},

	15114: {sdk.ClassPolicyRejected, "the password was changed too recently", "wait, or change the server's policy"},
	15115: {sdk.ClassPolicyRejected, "the password was used before", "use a new one"},
	15116: {sdk.ClassPolicyRejected, "the password is too short for the server's policy", "adapt the password policy"},
	15117: {sdk.ClassPolicyRejected, "the password is too long", "adapt the password policy"},
	15118: {sdk.ClassPolicyRejected, "the password is not complex enough for the server's policy", "adapt the password policy"},
	15119: {sdk.ClassPolicyRejected, "the password does not meet the server's password filter", "adapt the password policy"},

	15023: {sdk.ClassExists, "the database has a user or role of that name, which is not the account's",
		"drop it, or choose another account name"},
	15025: {sdk.ClassExists, "there is a login or server role of that name", "choose another name"},
	15063: {sdk.ClassExists, "the login is a user of the database by another name", "drop that user, then try again"},
	15433: {sdk.ClassExists, "a login by another name bears our mark: somebody renamed the account", "give it its name back"},
	15007: {sdk.ClassNotFound, "there is no such login", "provision it again"},
	15434: {sdk.ClassBusy, "the login has sessions", "end them"},

	1205: {sdk.ClassBusy, "the server ended a deadlock", "try again"},
	1222: {sdk.ClassBusy, "another session holds a lock for too long", "end that session"},
	701:  {sdk.ClassBusy, "the server has too little memory", moreRoom},
	1105: {sdk.ClassBusy, "the server's disk is full", moreRoom},
	9002: {sdk.ClassBusy, "the log of the database is full", moreRoom},

	102:  {sdk.ClassInvalid, "the server does not understand the statement", correctRole},
	105:  {sdk.ClassInvalid, "the server does not understand the statement", correctRole},
	156:  {sdk.ClassInvalid, "the server does not understand the statement", correctRole},
	103:  {sdk.ClassInvalid, "a name is too long", checkParams},
	207:  {sdk.ClassInvalid, "there is no such column", correctRole},
	208:  {sdk.ClassInvalid, "there is no such table or view", checkParams},
	911:  {sdk.ClassInvalid, "there is no such database", checkParams},
	2812: {sdk.ClassInvalid, "there is no such procedure", correctRole},
	4621: {sdk.ClassInvalid, "rights on the server are granted in the database master alone", "take USE out of the role"},
}

// loginStates are what state says about error 18456, where a server tells; most give 1 always.
// learn.microsoft.com/sql/relational-databases/errors-events/mssqlserver-18456-database-engine-error
var loginStates = map[uint8]meaning{
	7:  {sdk.ClassDisabled, "somebody disabled the login, and the password is wrong", "find out why, then enable it: ALTER LOGIN … ENABLE"},
	11: {sdk.ClassNotPermitted, "the login is valid and may not connect", "grant it CONNECT SQL"},
	12: {sdk.ClassNotPermitted, "the login is valid and may not connect", "grant it CONNECT SQL"},
	13: {sdk.ClassBusy, "the server is paused", "let it continue"},
	18: {sdk.ClassMustChange, "the password must be changed", "set a new one: ALTER LOGIN … WITH PASSWORD = …"},
	38: {sdk.ClassInvalid, "there is no such database, or the account may not enter it", checkParams},
	40: {sdk.ClassInvalid, "the login's default database cannot be entered", "give the login the default database master"},
	46: {sdk.ClassInvalid, "there is no such database, or the account may not enter it", checkParams},
	58: {sdk.ClassUnsupported, "the server accepts accounts of Windows only", "switch it to mixed mode authentication"},
}

// interrupted reports answers after which a statement may or may not have had its effect: errors that end the session
// (severity 20 and more), a session that was killed, an attention.
func interrupted(e mssql.Error) bool {
	return e.Class >= 20 || e.Number == 596 || e.Number == 3617 || e.Number == 6005
}

func number(err error) int32 {
	if e, ok := errors.AsType[mssql.Error](err); ok && !interrupted(e) {
		return e.Number
	}
	return 0
}

// failure turns an error of the driver into one of the SDK. The server's own words are left out: they quote the statement.
func (s *session) failure(ctx context.Context, what string, err error) error {
	return s.link.failure(ctx, what, err, *s.sent)
}

func (l *link) failure(ctx context.Context, what string, err error, sent bool) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[mssql.Error](err); ok && !interrupted(e) {
		m, known := meanings[e.Number]
		if e.Number == errLogin {
			if m, known = loginStates[e.State]; !known {
				m, known = meaning{sdk.ClassAuthFailed, "the server refused the login or its password", "check both"}, true
			}
		}
		if known {
			return (&sdk.Error{Class: m.class, Message: what + ": " + m.message, Fix: m.fix}).Wrap(err)
		}
		return sdk.Errorf(sdk.ClassProtocol, "%s: the server answered with error %d", what, e.Number).
			WithFix("look the number up in the server's manual").Wrap(err)
	}
	switch {
	case sent:
		return sdk.Errorf(sdk.ClassUnknownOutcome, "%s: the connection was lost before the server answered", what).
			WithFix(sdk.LookFirst).Wrap(err)
	case errors.Is(context.Cause(ctx), context.Canceled):
		return sdk.Errorf(sdk.ClassCancelled, "%s: cancelled", what).Wrap(err)
	case ctx.Err() != nil || l.broken() != nil:
		return sdk.Errorf(sdk.ClassUnreachable, "%s: the server does not answer", what).
			WithFix("check that the server runs and that the agent can reach it").Wrap(err)
	default:
		return sdk.Errorf(sdk.ClassProtocol, "%s: the server's answer is not understood", what).
			WithFix("check that a SQL Server listens at that port").Wrap(err)
	}
}

// notAnswered reports errors that leave open whether a server did anything.
func notAnswered(err error) bool {
	switch sdk.ClassOf(err) {
	case sdk.ClassUnreachable, sdk.ClassProtocol, sdk.ClassCancelled:
		return true
	}
	return false
}

// noTLS is what the driver says, without a type, if the server offers none.
const noTLS = "server does not support encryption"

// refused turns the error of a failed connection attempt into one of the SDK.
func (l *link) refused(ctx context.Context, err error) error {
	what := "connect to " + l.address
	l.mu.Lock()
	shown := l.cert
	l.mu.Unlock()
	if e, ok := errors.AsType[*tls.CertificateVerificationError](shown); ok {
		return cert.Untrusted(l.address, l.trust, e)
	}
	if err.Error() == noTLS {
		return sdk.Errorf(sdk.ClassUnsupported, "%s: the server does not offer TLS", what).
			WithFix("install a certificate on the server; as a last resort set the option %s=yes", optionLegacy).Wrap(err)
	}
	if l.strict && l.stop != nil && ctx.Err() == nil && l.broken() != nil {
		return sdk.Errorf(sdk.ClassUnreachable, "%s: the server ended the connection", what).
			WithFix("check that the server runs; one that is older than SQL Server 2022 needs the option %s=true", optionEncrypt).Wrap(err)
	}
	return l.failure(ctx, what, err, false)
}
