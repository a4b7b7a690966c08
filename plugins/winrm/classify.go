package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/cert"
)

// Fixes that several errors share.
const (
	loginFix = "check user name and password, and on the server whether the account is disabled, locked out or expired or must change " +
		"its password: WinRM answers all of these alike"
	shellFix     = "close some, or raise WSMan:\\localhost\\Shell\\MaxShellsPerUser"
	operationFix = "raise WSMan:\\localhost\\Service\\MaxConcurrentOperationsPerUser"
	strangeFix   = "look what answers at that address: WinRM, or something in between; if it is WinRM, try again and look at its event log"
	waitFix      = "try again later; if it stays so, look what keeps WinRM busy on the server"
	useFix       = "make it a member of Administrators; for a local account other than the built-in Administrator also set " +
		"LocalAccountTokenFilterPolicy to 1 (HKLM\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Policies\\System)"
)

var (
	errTooLarge = errors.New("the answer is too large")
	errNotHTTP  = errors.New("the answer is no HTTP")
)

type meaning struct {
	class        sdk.Class
	message, fix string
}

// Numbers of WS-Management faults (winerror.h, wsmerror.h).
const (
	faultAccessDenied = 5
	faultTimedOut     = 0x80338029 // nothing was printed in the time we asked for
	faultNoShells     = 0x803381AC // ERROR_WSMAN_REMOTESHELLS_NOT_ALLOWED
)

var faults = map[uint32]meaning{
	faultAccessDenied: {sdk.ClassNotPermitted, "the account may not use WinRM", useFix},
	faultNoShells:     {sdk.ClassNotPermitted, "the host lets nobody have a shell", "allow it: " + shellGrant},
	0x803381A5:        {sdk.ClassBusy, "the account has too many shells open", shellFix},
	0x803381A6:        {sdk.ClassBusy, "the account has too many operations under way", operationFix},
	0x803381A7:        {sdk.ClassBusy, "the account has used up its quota", waitFix},
	0x803381A8:        {sdk.ClassBusy, "the server's load is over its quota", waitFix},
	0x803381AB:        {sdk.ClassBusy, "too many accounts have shells open", "raise WSMan:\\localhost\\Shell\\MaxConcurrentUsers"},
	0x803381E4:        {sdk.ClassBusy, "the account has too many shells open", shellFix},
	0x803381E8:        {sdk.ClassBusy, "the account has too many operations under way", operationFix},
	0x803381E9:        {sdk.ClassBusy, "the shell has too many processes", "raise WSMan:\\localhost\\Shell\\MaxProcessesPerShell"},
	0x80338012:        {sdk.ClassBusy, "WinRM does not answer", "look at the service WinRM on the server"},
	14:                {sdk.ClassBusy, "the server has no memory left for it", "raise WSMan:\\localhost\\Shell\\MaxMemoryPerShellMB"},
}

// languageMode is what scripts say where PowerShell may not use its full language.
const languageMode = "ReeveLanguageMode"

// identifiers of errors of Microsoft.PowerShell.LocalAccounts and PowerShell itself.
var identifiers = map[string]meaning{
	"AccessDenied":      {sdk.ClassNotPermitted, "the management account may not do that", useFix},
	"InvalidPassword":   {sdk.ClassPolicyRejected, "the password does not meet the host's policy", "adapt the password policy"},
	"UserExists":        {sdk.ClassExists, "an account of that name exists", "choose another name, or adopt the account"},
	"NameInUse":         {sdk.ClassExists, "the name is in use", "choose another name"},
	"UserNotFound":      {sdk.ClassNotFound, "the account is not there", "provision it again"},
	"PrincipalNotFound": {sdk.ClassNotFound, "the account is not there", "provision it again"},
	"GroupNotFound":     {sdk.ClassUnsupported, "the host has no such group", "choose another role, or add what makes the group (a role or feature of Windows)"},
	"InvalidName":       {sdk.ClassInvalid, "the host does not take the name", "choose another name"},
	"InUse":             {sdk.ClassBusy, "the account is in use", "try again later"},
	"ReeveBusy": {
		sdk.ClassBusy, "another script of Reeve has been at work on the account for ten seconds and more",
		"try again later; if it stays so, end the powershell.exe that hangs on the host",
	},
	languageMode: {
		sdk.ClassNotPermitted, "a policy of the host constrains PowerShell",
		"let the management account use PowerShell's full language: look at AppLocker's and WDAC's policies",
	},
	"ReeveExitStatus": {sdk.ClassInvalid, "a program of the command ended with a status other than 0", "correct the role's command"},
	"IncludeUserNameRequiresElevation": {
		sdk.ClassNotPermitted, "the management account's login has no administrator's rights", useFix,
	},
	"CommandNotFoundException": {sdk.ClassInvalid, "a command is not known on the host", "correct the role's command, or add what it needs to the host"},
}

// codes are numbers of Windows that are told as HRESULT or as they are.
var codes = map[uint32]meaning{
	5:    identifiers["AccessDenied"],
	1314: identifiers["AccessDenied"],
	1313: {sdk.ClassInvalid, "there is no such account right", "correct the role's command"},
	2245: identifiers["InvalidPassword"],
	1325: identifiers["InvalidPassword"],
	2221: identifiers["UserNotFound"],

	0x80041003: identifiers["AccessDenied"], // WBEM_E_ACCESS_DENIED
}

// identifier is the part of a FullyQualifiedErrorId that says what happened.
func (e *scriptError) identifier() string {
	id, _, _ := strings.Cut(e.ID, ",")
	return id
}

// number is the Windows number in an error's code.
func (e *scriptError) number() uint32 {
	n := uint32(e.Code)
	if n>>16 == 0x8007 { // HRESULT_FROM_WIN32
		return n & 0xFFFF
	}
	return n
}

// explain is what a script's failure means. Nothing of its text is told but what is known here.
func (e *scriptError) explain(what string) *sdk.Error {
	m, ok := identifiers[e.identifier()]
	if !ok {
		m, ok = codes[e.number()]
	}
	if ok {
		return &sdk.Error{Class: m.class, Message: what + ": " + m.message, Fix: m.fix}
	}
	return sdk.Errorf(sdk.ClassProtocol, "%s: PowerShell failed with error 0x%08X", what, uint32(e.Code)).
		WithFix("look the number up in Windows' documentation (System Error Codes, HRESULT)")
}

// faultCode is the number of a fault of WinRM, as the cause of an error.
type faultCode uint32

func (f faultCode) Error() string {
	return "WinRM answered with fault " + strconv.FormatUint(uint64(f), 10)
}

// explainFault is what a fault of WinRM means.
func explainFault(what string, code uint32, sent bool) error {
	if m, ok := faults[code]; ok {
		class, fix := m.class, m.fix
		if sent {
			class, fix = sdk.ClassUnknownOutcome, sdk.LookFirst
		}
		return &sdk.Error{Class: class, Message: what + ": " + m.message, Fix: fix, Err: faultCode(code)}
	}
	return strange(what, sent, "WinRM answered with fault %d", code)
}

// strange is an answer nobody foresaw. After a change was sent it says nothing about that.
func strange(what string, sent bool, format string, args ...any) error {
	class, fix := sdk.ClassProtocol, strangeFix
	if sent {
		class, fix = sdk.ClassUnknownOutcome, sdk.LookFirst
	}
	return sdk.Errorf(class, "%s: %s", what, fmt.Sprintf(format, args...)).WithFix("%s", fix)
}

// failure is a request without an answer. sent says whether a change may have been sent.
func failure(ctx context.Context, what string, err error, sent bool) error {
	switch {
	case sent:
		return sdk.Errorf(sdk.ClassUnknownOutcome, "%s: the connection was lost before the server answered", what).WithFix(sdk.LookFirst).Wrap(err)
	case errors.Is(err, errTooLarge):
		return sdk.Errorf(sdk.ClassProtocol, "%s: the answer has more than %d bytes", what, maxAnswer).WithFix("%s", strangeFix).Wrap(err)
	case errors.Is(err, errNotHTTP):
		return sdk.Errorf(sdk.ClassProtocol, "%s: the answer is no HTTP", what).WithFix("check the port: WinRM has 5986 with TLS").Wrap(err)
	case errors.Is(context.Cause(ctx), context.Canceled):
		return sdk.Errorf(sdk.ClassCancelled, "%s: cancelled", what).Wrap(err)
	default:
		return sdk.Errorf(sdk.ClassUnreachable, "%s: the server does not answer", what).
			WithFix("check that WinRM runs, listens there, and that the agent can reach it").Wrap(err)
	}
}

// refused turns the error of a TLS handshake into one of the SDK.
func refused(ctx context.Context, address string, trust sdk.Trust, err error) error {
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cert.Untrusted(address, trust, e)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return sdk.Errorf(sdk.ClassUnsupported, "%s does not speak TLS", address).
			WithFix("make an HTTPS listener for WinRM (port 5986) and use its port").Wrap(err)
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" { // a TLS alert
		return sdk.Errorf(sdk.ClassProtocol, "%s ended the TLS handshake", address).
			WithFix("check that the server speaks TLS 1.2 or later and has a valid certificate").Wrap(err)
	}
	return failure(ctx, "connect to "+address, err, false)
}
