// Package connector manages the accounts of Linux hosts over SSH. It knows the account
// tools of such hosts; package transport knows how to reach them. The main package
// beside it is its only importer.
package connector

import (
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/ssh/transport"
)

// Connector implements every interface of the SDK. The zero value is ready.
type Connector struct {
	Kept *transport.Pool // of connections; nil: none is kept
}

var (
	_ sdk.Connector   = Connector{}
	_ sdk.Prober      = Connector{}
	_ sdk.Provisioner = Connector{}
	_ sdk.Verifier    = Connector{}
	_ sdk.Inspector   = Connector{}
	_ sdk.Discoverer  = Connector{}
	_ sdk.Runner      = Connector{}

	_ sdk.RightsChecker = Connector{}
)

// Describe implements sdk.Connector.
func (Connector) Describe() sdk.Description {
	return sdk.Description{
		Name:        "ssh",
		Title:       "Linux hosts over SSH",
		Version:     "1.0.0",
		Category:    sdk.OperatingSystem,
		DefaultPort: 22,
		Options: []sdk.Option{{
			Name: "shell", Help: "login shell of new accounts", Default: "/bin/bash",
			Allowed: shells,
		}},
		// Stricter than the hosts are: useradd of Debian 12 takes "a;id".
		NameRule: sdk.NameRule{
			Pattern: `^[a-z_][a-z0-9_-]{0,31}$`, MaxBytes: 32,
			Help: "1 to 32 of a-z, 0-9, _ and -, not starting with a digit or -",
		},
		// chpasswd takes lines of at most 511 bytes, name included.
		PasswordRule: sdk.PasswordRule{MinLength: 8, MaxLength: 100},
		Roles:        roles(),
		// The commands are those of parseCommand: a language of its own.
		Phases: []sdk.Phase{
			sdk.PhaseCreate, sdk.PhaseGrant, sdk.PhaseRotate, sdk.PhaseEnable, sdk.PhaseDisable, sdk.PhaseRevoke, sdk.PhaseRemove,
			sdk.PhaseVerify, sdk.PhaseFacts,
		},
		CommandRule: sdk.CommandRule{Pattern: commandPattern, Help: commandHelp},
		PhaseRules: map[sdk.Phase]sdk.CommandRule{
			sdk.PhaseRemove: {Pattern: "^" + runPattern + "$", Help: "write run COMMAND: the account is gone then, and nothing can be made sure of for it"},
		},
	}
}
