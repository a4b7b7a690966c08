package main

import (
	"regexp"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// The options of a target.
const (
	optionService   = "service_name"
	optionSID       = "sid"
	optionSpace     = "tablespace"
	optionTemporary = "temporary_tablespace"
	optionProfile   = "profile"
	optionKill      = "kill_with"
	optionLegacy    = "legacy"
)

const (
	yes = "yes"
	rds = "rds"
)

// Lengths in bytes. From 12.2 on names may be longer, from 23 on passwords.
const (
	shortName     = 30
	longName      = 128
	shortPassword = 30
	longPassword  = 1024
)

// servicePattern is what a service name or SID may be. It is written into the connect descriptor.
var servicePattern = regexp.MustCompile(`^[A-Za-z0-9_.$#-]{1,250}$`)

// allPhases are all there are, in the order of an account's life.
var allPhases = []sdk.Phase{
	sdk.PhaseCreate, sdk.PhaseGrant, sdk.PhaseRotate, sdk.PhaseEnable, sdk.PhaseDisable, sdk.PhaseRevoke, sdk.PhaseRemove,
	sdk.PhaseVerify, sdk.PhaseFacts,
}

// reading is what commands of the phases verify and facts look like. That they do no more than to read is seen when they are planned.
var reading = sdk.CommandRule{
	Pattern: `^(?is)(\s|\(|/\*.*?\*/|--[^\n]*\n)*select\b.*$`,
	Help:    "use one SELECT: the phase only reads",
}

// Describe implements sdk.Connector.
func (connector) Describe() sdk.Description {
	return sdk.Description{
		Name:        "oracle",
		Title:       "Oracle Database",
		Version:     "1.0.0",
		Dialect:     "plsql",
		Category:    sdk.Database,
		DefaultPort: 1521, // TCPS endpoints are often at 2484, but no port is set aside for them
		Options: []sdk.Option{
			{Name: optionService, Help: "the service to connect to, that of the pluggable database in which accounts live; this or " + optionSID + " is needed"},
			{Name: optionSID, Help: "the instance's SID, for servers without services"},
			{Name: optionSpace, Default: "USERS", Help: "the default tablespace of new accounts, in upper case"},
			{Name: optionTemporary, Default: "TEMP", Help: "the temporary tablespace of new accounts, in upper case"},
			{Name: optionProfile, Default: "DEFAULT", Help: "the profile of new accounts, in upper case"},
			{
				Name: optionKill, Default: "alter_system", Allowed: []string{"alter_system", rds},
				Help: "how sessions are ended: by ALTER SYSTEM, or on Amazon RDS by rdsadmin.rdsadmin_util.kill",
			},
			{
				Name: optionLegacy, Default: "no", Allowed: []string{yes, "no"},
				Help: "yes: connect without TLS. Whoever is on the way to the server, or in its place, then reads new passwords",
			},
		},
		Roles:      roles(),
		Phases:     allPhases,
		PhaseRules: map[sdk.Phase]sdk.CommandRule{sdk.PhaseVerify: reading, sdk.PhaseFacts: reading},
		NameRule: sdk.NameRule{
			Pattern:  `^[A-Z][A-Z0-9_$#]{0,127}$`,
			MaxBytes: longName,
			Help:     "1 to 128 of A-Z, 0-9, _, $ and #, starting with a letter; 30 at most before Oracle 12.2; C##… in the root of a container database",
		},
		PasswordRule: sdk.PasswordRule{MinLength: 8, MaxLength: shortPassword, Excluded: `"`},
	}
}
