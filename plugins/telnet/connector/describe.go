// Package connector manages accounts over Telnet: those of Unix hosts (profile "unix")
// and of network devices with a dialogue like that of Cisco IOS (profile "ios"). Package
// dialogue talks; this package knows what to say. The main package beside it is its only
// importer.
package connector

import (
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Connector implements every interface of the SDK. The zero value is ready.
type Connector struct{}

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

// The options and their values.
const (
	optionProfile = "profile"
	optionLegacy  = "legacy"
	optionShell   = "shell"

	profileUnix = "unix"
	profileIOS  = "ios"
)

// Describe implements sdk.Connector.
func (Connector) Describe() sdk.Description {
	return sdk.Description{
		Name:        "telnet",
		Title:       "Hosts and network devices over Telnet",
		Version:     "1.0.0",
		Category:    sdk.OperatingSystem,
		DefaultPort: 23,
		Options: []sdk.Option{
			{
				Name: optionProfile, Default: profileUnix, Allowed: []string{profileUnix, profileIOS},
				Help: "what the dialogue is with: a Unix host, or a device that is like Cisco IOS",
			},
			{
				Name: optionLegacy, Default: "no", Allowed: []string{"yes", "no"},
				Help: "yes: passwords may cross the network unprotected, as Telnet sends them",
			},
			{
				Name: optionShell, Default: "/bin/bash", Allowed: []string{"/bin/bash", "/bin/sh", "/usr/sbin/nologin"},
				Help: "login shell of new accounts (profile unix)",
			},
		},
		NameRule: sdk.NameRule{
			Pattern: `^[a-z_][a-z0-9_-]{0,31}$`, MaxBytes: 32,
			Help: "1 to 32 of a-z, 0-9, _ and -, not starting with a digit or -",
		},
		// chpasswd takes lines of at most 511 bytes, name included.
		PasswordRule: sdk.PasswordRule{MinLength: 8, MaxLength: 100},
		Roles:        roles(),
		Phases: []sdk.Phase{
			sdk.PhaseCreate, sdk.PhaseGrant, sdk.PhaseRotate, sdk.PhaseEnable, sdk.PhaseDisable, sdk.PhaseRevoke, sdk.PhaseRemove,
			sdk.PhaseVerify, sdk.PhaseFacts,
		},
		CommandRule: sdk.CommandRule{
			Pattern: `^(unix [^\x00-\x1f\x7f]+|ios [ ->@-~]+)$`,
			Help:    `begin it with "unix" or "ios", which say what it is for; a device takes printable ASCII without question marks`,
		},
	}
}

// roles is the catalogue. The first word of a command says for which profile it is.
func roles() []sdk.Role {
	return []sdk.Role{
		{
			Name: "telnet-standard", Title: "Standard user", Version: 1,
			Description: "An account without further rights; on a device, of privilege level 1",
		},
		{
			Name: "telnet-admin", Title: "Administrator", Version: 1, HighRisk: true,
			Description: "On a Unix host a member of the group sudo or wheel, on a device of privilege level 15",
			Phases: map[sdk.Phase][]string{
				sdk.PhaseGrant: {
					"unix g=sudo; getent group sudo >/dev/null || g=wheel; usermod -aG $g -- %Username%",
					"ios username %Username% privilege 15",
				},
				sdk.PhaseRevoke: {
					"unix for g in sudo wheel; do gpasswd -d %Username% $g; done >/dev/null 2>&1; true",
					"ios username %Username% privilege 1",
				},
			},
		},
		{
			Name: "telnet-log-reader", Title: "Log reader", Version: 1,
			Description: "May read the logs of a Unix host (group adm)",
			Phases: map[sdk.Phase][]string{
				sdk.PhaseGrant:  {"unix usermod -aG adm -- %Username%"},
				sdk.PhaseRevoke: {"unix gpasswd -d %Username% adm >/dev/null 2>&1; true"},
			},
		},
		{
			Name: "telnet-privilege", Title: "User of a privilege level", Version: 1,
			Description: "On a device, an account of the given privilege level",
			Params: []sdk.RoleParam{{
				Name: "Level", Help: "1 to 15", Required: true, Pattern: `^([1-9]|1[0-5])$`,
			}},
			Phases: map[sdk.Phase][]string{
				sdk.PhaseGrant:  {"ios username %Username% privilege %Level%"},
				sdk.PhaseRevoke: {"ios username %Username% privilege 1"},
			},
		},
	}
}
