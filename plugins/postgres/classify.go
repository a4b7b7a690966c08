package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/cert"
)

// SQLSTATEs with a meaning of their own here.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	stateBadPassword   = "28P01"
	stateBadLogin      = "28000" // NOLOGIN, pg_hba.conf and others
	stateNoRight       = "42501"
	stateNoDatabase    = "3D000"
	stateTooMany       = "53300"
	stateExists        = "42710"
	stateDuplicate     = "23505"
	stateNothingPassed = "01007" // a warning of GRANT: nothing was granted
)

// gone are answers to a removal that say there was nothing: a role, table, schema, function
// or database that is not there.
var gone = []string{"42704", "42P01", "3F000", "42883", stateNoDatabase}

// afterProof is the server's own function that decides, once a password was proven, whether
// its role may log in. Its name travels with errors, and is not translated as they are.
const afterProof = "InitializeSessionUserId"

type meaning struct {
	class        sdk.Class
	message, fix string
}

// Fixes that several errors share.
const (
	checkRole    = "check the role's commands and parameters"
	tryLater     = "try again; look for somebody else who changes the same things"
	grantMissing = "grant the management account what the probe says is missing, and what the role grants with the right to pass it on"
)

// meanings are found by the whole SQLSTATE, or by its first two characters, its class.
var meanings = map[string]meaning{
	stateNoRight:       {sdk.ClassNotPermitted, "the management account lacks a right", grantMissing},
	stateNothingPassed: {sdk.ClassNotPermitted, "the server granted nothing: the management account may not pass that on", grantMissing},
	"25006":            {sdk.ClassNotPermitted, "the server is read-only", "use the primary server as target"},

	stateExists:    {sdk.ClassBusy, "somebody else made the same thing at the same moment", tryLater},
	stateDuplicate: {sdk.ClassBusy, "somebody else made the same thing at the same moment", tryLater},
	"2BP01":        {sdk.ClassBusy, "something still depends on the account", tryLater},
	"55P03":        {sdk.ClassBusy, "another session holds a lock for too long", "end that session"},
	"40":           {sdk.ClassBusy, "another session changed the same things", tryLater},
	"XX":           {sdk.ClassBusy, "the server could not, perhaps because another session changed the same thing", tryLater},
	"53":           {sdk.ClassBusy, "the server is out of memory, disk or sessions", "look at the server"},
	"58":           {sdk.ClassBusy, "the server's storage reported an error", "look at the server's disk and log"},
	stateTooMany:   {sdk.ClassBusy, "the server or the account has too many sessions", "raise max_connections or the account's limit, or end idle sessions"},
	"57014":        {sdk.ClassBusy, "the statement was stopped on the server", tryLater},
	"57P03":        {sdk.ClassBusy, "the server is starting or shutting down", "wait until it has"},

	"42704":         {sdk.ClassInvalid, "there is no such role or other thing", checkRole},
	"42P01":         {sdk.ClassInvalid, "there is no such table", checkRole},
	"3F000":         {sdk.ClassInvalid, "there is no such schema", checkRole},
	"42883":         {sdk.ClassInvalid, "there is no such function", checkRole},
	stateNoDatabase: {sdk.ClassInvalid, "there is no such database", "check the option " + optionDatabase + " and the role's parameters"},
	"55000":         {sdk.ClassInvalid, "the database takes no connections, or the server is not set up for that", checkRole},
	"42939":         {sdk.ClassInvalid, "the server keeps that name to itself", "choose another name"},
	"25001":         {sdk.ClassInvalid, "the command cannot be part of a transaction", "take it out of the role"},
	"0L":            {sdk.ClassInvalid, "that cannot be granted so", checkRole},
	"0P":            {sdk.ClassInvalid, "that cannot be granted so", checkRole},
	"22":            {sdk.ClassInvalid, "a value is not what the server wants", checkRole},
	"42":            {sdk.ClassInvalid, "the server does not understand the statement", checkRole},
	"0A":            {sdk.ClassUnsupported, "this server cannot do that", "look at the server's version"},
}

// code is the SQLSTATE of an answer; "" if the server did not answer.
func code(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// ended reports whether an error is a server's last word: it ends the session, and leaves
// open what became of a commit under way.
func ended(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (e.SeverityUnlocalized == "FATAL" || e.SeverityUnlocalized == "PANIC" || strings.HasPrefix(e.Code, "08") || e.Code == "40003")
}

// failure turns an error of the driver into one of the SDK. The server's own words are left
// out: they quote the statement. Before a COMMIT was sent nothing can have changed.
func (s *session) failure(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	if _, done := errors.AsType[*sdk.Error](err); done {
		return err
	}
	if c := code(err); c != "" && !ended(err) {
		return answered(what, c, err)
	}
	switch {
	case s.sent:
		return sdk.Errorf(sdk.ClassUnknownOutcome, "%s: the connection was lost before the server answered", what).
			WithFix(sdk.LookFirst).Wrap(err)
	case errors.Is(context.Cause(ctx), context.Canceled):
		return sdk.Errorf(sdk.ClassCancelled, "%s: cancelled", what).Wrap(err)
	case ended(err):
		return sdk.Errorf(sdk.ClassUnreachable, "%s: the server ended the session", what).
			WithFix("try again when the server runs normally").Wrap(err)
	case noNetwork(ctx, err):
		return sdk.Errorf(sdk.ClassProtocol, "%s: the server's answer is not understood", what).
			WithFix("check that a PostgreSQL server is there, and its version").Wrap(err)
	default:
		return silent(what, err)
	}
}

// noNetwork reports whether the connection did what it should, and yet there is no answer.
func noNetwork(ctx context.Context, err error) bool {
	_, network := errors.AsType[net.Error](err)
	return !network && ctx.Err() == nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) &&
		!errors.Is(err, net.ErrClosed) && !errors.Is(err, pgconn.ErrConnClosed)
}

// doubt is what a further connection's failure means to the whole: if something was changed
// before, it is not known how it stands now.
func (s *session) doubt(what string, err error) error {
	if !s.sent {
		return err
	}
	return sdk.Errorf(sdk.ClassUnknownOutcome, "%s: %s", what, sdk.ErrorText(err)).WithFix(sdk.LookFirst).Wrap(err)
}

func silent(what string, err error) error {
	return sdk.Errorf(sdk.ClassUnreachable, "%s: the server does not answer", what).
		WithFix("check that the server runs and that the agent can reach it").Wrap(err)
}

// answered is what a SQLSTATE means.
func answered(what, state string, err error) error {
	m, ok := meanings[state]
	if !ok && len(state) == 5 {
		m, ok = meanings[state[:2]]
	}
	if !ok {
		return sdk.Errorf(sdk.ClassProtocol, "%s: the server answered with SQLSTATE %s", what, printable(state)).
			WithFix("look it up in the server's manual").Wrap(err)
	}
	return (&sdk.Error{Class: m.class, Message: what + ": " + m.message + " (SQLSTATE " + printable(state) + ")", Fix: m.fix}).Wrap(err)
}

// printable keeps a code that is none out of messages.
func printable(state string) string {
	if len(state) != 5 || strings.ContainsFunc(state, func(r rune) bool { return (r < '0' || r > '9') && (r < 'A' || r > 'Z') }) {
		return "?"
	}
	return state
}

// refused turns the error of a failed login into one of the SDK.
func refused(ctx context.Context, t sdk.Target, w *wire, err error) error {
	what := "connect to " + net.JoinHostPort(t.Address, strconv.Itoa(t.Port))
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cert.Untrusted(net.JoinHostPort(t.Address, strconv.Itoa(t.Port)), t.Trust, e)
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return denied(what, e)
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" { // a TLS alert
		return sdk.Errorf(sdk.ClassProtocol, "%s: the server ended the TLS handshake", what).Wrap(err)
	}
	switch {
	case errors.Is(context.Cause(ctx), context.Canceled):
		return sdk.Errorf(sdk.ClassCancelled, "%s: cancelled", what).Wrap(err)
	case !noNetwork(ctx, err):
		return silent(what, err)
	case !w.encrypted:
		return sdk.Errorf(sdk.ClassUnsupported, "%s: the server does not offer TLS", what).
			WithFix("set ssl, ssl_cert_file and ssl_key_file on the server").Wrap(err)
	}
	if kind, other := w.greeting.asks(); other {
		return sdk.Errorf(sdk.ClassUnsupported, "%s: the server asks for %s where %s is wanted", what, kind, t.Options[optionLogin]).
			WithFix("let pg_hba.conf ask for scram-sha-256, or set the option %s", optionLogin).Wrap(err)
	}
	return sdk.Errorf(sdk.ClassProtocol, "%s: the server's answer is not understood", what).
		WithFix("check that a PostgreSQL server is there, and that it knows the account's password").Wrap(err)
}

// denied is what a server's refusal of a login means.
func denied(what string, e *pgconn.PgError) error {
	fail := func(class sdk.Class, message, fix string) error {
		return (&sdk.Error{Class: class, Message: what + ": " + message, Fix: fix}).Wrap(e)
	}
	switch {
	case e.Code == stateBadPassword, e.Code == stateBadLogin && e.Routine == "auth_failed":
		return fail(sdk.ClassAuthFailed, "the server refused the user name or the password",
			"check both, and whether the role has expired (VALID UNTIL has passed): the server does not tell them apart")
	case e.Code == stateBadLogin && e.Routine == afterProof:
		return fail(sdk.ClassDisabled, "the role may not log in (NOLOGIN)", "find out who disabled it; then ALTER ROLE … LOGIN")
	case e.Code == stateBadLogin:
		return fail(sdk.ClassNotPermitted, "pg_hba.conf does not let that account in from the agent's address",
			"add a line hostssl … scram-sha-256 for it")
	case e.Code == stateNoRight:
		return fail(sdk.ClassNotPermitted, "the account may not connect to the database", "GRANT CONNECT ON DATABASE … TO …")
	case slices.Contains([]string{"57P01", "57P02"}, e.Code):
		return fail(sdk.ClassBusy, "the server is shutting down", "wait until it runs again")
	default:
		return answered(what, e.Code, e)
	}
}
