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
			Allowed: []string{"/bin/bash", "/bin/sh", "/usr/sbin/nologin"},
		}},
		// Stricter than the hosts are: useradd of Debian 12 takes "a;id".
		NameRule: sdk.NameRule{
			Pattern: `^[a-z_][a-z0-9_-]{0,31}$`, MaxBytes: 32,
			Help: "1 to 32 of a-z, 0-9, _ and -, not starting with a digit or -",
		},
		// chpasswd takes lines of at most 511 bytes, name included.
		PasswordRule: sdk.PasswordRule{MinLength: 8, MaxLength: 100},
		Roles:        roles(),
	}
}

// roles is the catalogue. The commands are those of parseCommand; they are done in the
// phase "grant", and everything an account got is taken away by removing it.
func roles() []sdk.Role {
	grant := func(commands ...string) map[sdk.Phase][]string {
		return map[sdk.Phase][]string{sdk.PhaseGrant: commands}
	}
	return []sdk.Role{
		{
			Name: "linux-standard", Title: "Standard user", Version: 1,
			Description: "An account with a home directory and no further rights",
		},
		{
			Name: "linux-admin-sudo", Title: "Administrator", Version: 1,
			Description: "May become root with sudo and the account's own password",
			Phases:      grant("group sudo|wheel"),
		},
		{
			Name: "linux-sudo-nopasswd", Title: "Administrator without password", Version: 1, HighRisk: true,
			Description: "May become root with sudo, and is not asked for a password",
			Phases:      grant("sudoers %Username% ALL=(ALL:ALL) NOPASSWD: ALL"),
		},
		{
			Name: "linux-log-reader", Title: "Log reader", Version: 1,
			Description: "May read system logs",
			Phases:      grant("group adm", "group? systemd-journal"),
		},
		{
			Name: "linux-docker", Title: "Docker user", Version: 1, HighRisk: true,
			Description: "May use Docker, which is as good as being root",
			Phases:      grant("group docker"),
		},
		{
			Name: "linux-backup-operator", Title: "Backup operator", Version: 1,
			Description: "May read everything under the given directories, as a tar stream: " +
				"sudo tar --one-file-system -cf - DIRECTORY",
			Params: []sdk.RoleParam{{
				Name: "Paths", Help: "absolute directories, separated by spaces", Required: true,
				Pattern: `^/[A-Za-z0-9@_./-]*( /[A-Za-z0-9@_./-]*)*$`,
			}},
			Phases: grant("group? backup",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/tar --one-file-system -cf - %Paths%"),
		},
		{
			Name: "linux-service-operator", Title: "Service operator", Version: 1,
			Description: "May start, stop, restart and look at the given systemd units: " +
				"sudo systemctl --no-pager status UNIT",
			Params: []sdk.RoleParam{{
				Name: "Units", Help: "names of units, separated by spaces", Required: true,
				Pattern: `^[A-Za-z0-9_][A-Za-z0-9@_.-]*( [A-Za-z0-9_][A-Za-z0-9@_.-]*)*$`,
			}},
			Phases: grant(
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/systemctl start %Units%",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/systemctl stop %Units%",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/systemctl restart %Units%",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/systemctl --no-pager status %Units%",
			),
		},
	}
}
