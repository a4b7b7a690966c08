package main

import (
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// The options of a target.
const (
	optionEncrypt = "encrypt"
	optionLegacy  = "legacy"
)

// allPhases are all there are, in the order of an account's life.
var allPhases = []sdk.Phase{
	sdk.PhaseCreate, sdk.PhaseGrant, sdk.PhaseRotate, sdk.PhaseEnable, sdk.PhaseDisable, sdk.PhaseRevoke, sdk.PhaseRemove,
	sdk.PhaseVerify, sdk.PhaseFacts,
}

// reading is what commands of the phases verify and facts look like. That they do no more than to read is seen when they are planned.
var reading = sdk.CommandRule{
	Pattern: `^(?is)(\s|/\*.*?\*/|--[^\n]*\n)*(use|select)\b.*$`,
	Help:    "use one SELECT, or USE for the database it is in: the phase only reads",
}

// Describe implements sdk.Connector.
func (connector) Describe() sdk.Description {
	return sdk.Description{
		Name:        "mssql",
		Title:       "Microsoft SQL Server",
		Version:     "1.0.0",
		Category:    sdk.Database,
		Dialect:     template.TSQL.String(),
		DefaultPort: 1433,
		Options: []sdk.Option{
			{
				Name: optionEncrypt, Default: "true", Allowed: []string{"true", "strict"},
				Help: "how TLS begins: true works with every server, strict is TDS 8.0 of SQL Server 2022 and later; the certificate is verified in both",
			},
			{
				Name: optionLegacy, Default: "no", Allowed: []string{"no", "yes"},
				Help: "yes for a server that has no TLS: passwords then cross the network readable to everybody on the way",
			},
		},
		Roles:      roles(),
		Phases:     allPhases,
		PhaseRules: map[sdk.Phase]sdk.CommandRule{sdk.PhaseVerify: reading, sdk.PhaseFacts: reading},
		NameRule: sdk.NameRule{
			Pattern:  `^[A-Za-z_][A-Za-z0-9_$#@.-]{0,127}$`,
			MaxBytes: 128,
			Help:     "1 to 128 of A-Z, a-z, 0-9, _, $, #, @, . and -, starting with a letter or _",
		},
		// The driver cannot log in with characters beyond U+FFFF, and servers keep others as their code page likes.
		PasswordRule: sdk.PasswordRule{MinLength: 8, MaxLength: 128, ASCIIOnly: true},
	}
}
