package main

import (
	"regexp"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// The options of a target.
const (
	optionHost = "account_host"
	optionTLS  = "require_tls"
)

// hostPattern is what the host part of an account may be. MariaDB before 10.6 and MySQL
// before 8.0.17 take 60 characters.
var hostPattern = regexp.MustCompile(`^[A-Za-z0-9%_.:/-]{1,60}$`)

// accountHost is the host part of the target's accounts, in lower case as servers
// store it.
func accountHost(t sdk.Target) (string, error) {
	host := t.Options[optionHost]
	if !hostPattern.MatchString(host) {
		return "", sdk.Errorf(sdk.ClassInvalid, "the option %s is not the host part of an account", optionHost).
			WithFix("use %%, an address, a pattern such as 10.1.%%, or a network such as 10.1.0.0/255.255.0.0")
	}
	return strings.ToLower(host), nil
}

// reading is what commands of the phases verify and facts look like. That they do no more than to read is seen when they are planned.
var reading = sdk.CommandRule{
	Pattern: `^(?is)[\s(]*(select|show)\b.*$`,
	Help:    "use SELECT or SHOW: the phase only reads",
}

// Describe implements sdk.Connector.
func (connector) Describe() sdk.Description {
	return sdk.Description{
		Name:        "mysql",
		Title:       "MariaDB and MySQL",
		Version:     "1.0.0",
		Category:    sdk.Database,
		DefaultPort: 3306,
		Options: []sdk.Option{
			{
				Name:    optionHost,
				Default: "%",
				Help: "the host part of accounts: from where they may log in, as an address, a pattern such as 10.1.% " +
					"or a network such as 10.1.0.0/255.255.0.0",
			},
			{
				Name:    optionTLS,
				Default: "yes",
				Allowed: []string{"yes", "no"},
				Help:    "whether accounts are made so that they can log in over TLS only",
			},
		},
		Dialect: "mysql",
		Phases: []sdk.Phase{
			sdk.PhaseCreate, sdk.PhaseGrant, sdk.PhaseRotate, sdk.PhaseEnable, sdk.PhaseDisable, sdk.PhaseRevoke, sdk.PhaseRemove,
			sdk.PhaseVerify, sdk.PhaseFacts,
		},
		PhaseRules: map[sdk.Phase]sdk.CommandRule{sdk.PhaseVerify: reading, sdk.PhaseFacts: reading},
		Roles:      roles(),
		NameRule: sdk.NameRule{
			Pattern:  `^[A-Za-z_][A-Za-z0-9_$#@.-]{0,31}$`,
			MaxBytes: 32, // what MySQL allows; MariaDB's 80 would make names that cannot move
			Help:     "1 to 32 of A-Z, a-z, 0-9, _, $, #, @, . and -, starting with a letter or _",
		},
		PasswordRule: sdk.PasswordRule{MinLength: 8, MaxLength: 128},
	}
}
