package sdk

import "errors"

// Versions of the contract in proto/reeve/connector/v1. ProtocolVersion is the current
// one; hosts and connectors also speak those before it, down to OldestProtocol, which
// is the one before the current at the latest. They agree on the newest both know.
//
// Version 2 gives Verify the management account, and tells accounts that are expired or
// disabled from those that are locked.
const (
	ProtocolVersion = 2
	OldestProtocol  = 1
)

// protocol is the version a host and a connector have agreed on. Its methods are all
// there is about what the version before lacks.
type protocol int

// agreed is the protocol for a version; 0 is the current one.
func agreed(version int) protocol {
	if version == 0 {
		return ProtocolVersion
	}
	return protocol(version)
}

// verifyTarget is t as Verify gets it.
func (p protocol) verifyTarget(t Target) Target {
	if p < 2 {
		t.Management = Credential{}
	}
	return t
}

// verdict is k in words a host knows.
func (p protocol) verdict(k VerdictKind) VerdictKind {
	if p < 2 && (k == VerdictExpired || k == VerdictDisabled) {
		return VerdictLocked
	}
	return k
}

// failure is err with a class a host knows.
func (p protocol) failure(err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok || p >= 2 || e.Class != ClassExpired && e.Class != ClassDisabled {
		return err
	}
	c := *e
	c.Class = ClassLocked
	return &c
}
