package main

import (
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// The options of a target.
const (
	optionDatabase  = "database"
	optionCustodian = "custodian"
	optionLimit     = "connection_limit"
	optionLogin     = "login_method"
)

// The values of optionLogin.
const (
	loginSCRAM    = "scram-sha-256"
	loginPassword = "password"
)

// Parameters of roles that mean something to the connector.
const (
	paramDatabase  = "Database"  // where the account's work is done
	paramCustodian = "Custodian" // who gets its objects
)

// Describe implements sdk.Connector.
func (connector) Describe() sdk.Description {
	return sdk.Description{
		Name:        "postgres",
		Title:       "PostgreSQL",
		Version:     "1.0.0",
		Dialect:     "postgresql",
		Category:    sdk.Database,
		DefaultPort: 5432,
		Options: []sdk.Option{
			{
				Name:    optionDatabase,
				Default: "postgres",
				Help:    "the database to log in to; a role with the parameter Database works in that one instead",
			},
			{
				Name: optionCustodian,
				Help: "the role that gets what a removed account owned; empty: the management account. " +
					"A role's parameter Custodian comes first",
			},
			{
				Name:    optionLimit,
				Default: "10",
				Help:    "how many sessions a new account may have at once: a number, or -1 for no limit",
			},
			{
				Name:    optionLogin,
				Default: loginSCRAM,
				Allowed: []string{loginSCRAM, loginPassword},
				Help: "how the server may ask for passwords: by scram-sha-256 alone, which does not show them to the server, " +
					"or by any password method, such as ldap, within TLS",
			},
		},
		Roles: roles(),
		NameRule: sdk.NameRule{
			Pattern:  `^[A-Za-z_][A-Za-z0-9_$#@.-]{0,62}$`,
			MaxBytes: longestName,
			Help:     "1 to 63 of A-Z, a-z, 0-9, _, $, #, @, . and -, starting with a letter or _, and not with pg_",
		},
		PasswordRule: sdk.PasswordRule{MinLength: 8, MaxLength: 128},
	}
}

// allowedName refuses names that the server keeps to itself: https://www.postgresql.org/docs/current/sql-createrole.html
func allowedName(account string) error {
	if strings.HasPrefix(account, "pg_") || account == "public" || account == "none" {
		return sdk.Errorf(sdk.ClassInvalid, "PostgreSQL keeps the name %q to itself", account).
			WithFix("choose another name, one that does not begin with pg_")
	}
	return nil
}

// database is where an intent is worked on.
func database(t sdk.Target, in sdk.Intent) string {
	if db := in.Params[paramDatabase]; db != "" {
		return db
	}
	return t.Options[optionDatabase]
}

// custodian is the role that gets what the account owned; "" is the management account.
func custodian(t sdk.Target, in sdk.Intent) string {
	if c := in.Params[paramCustodian]; c != "" {
		return c
	}
	return t.Options[optionCustodian]
}

// connectionLimit is what CREATE ROLE is given.
func connectionLimit(t sdk.Target) (string, error) {
	n, err := strconv.ParseInt(t.Options[optionLimit], 10, 32)
	if err != nil || n < -1 || n == 0 {
		return "", sdk.Errorf(sdk.ClassInvalid, "the option %s is not a number of sessions", optionLimit).
			WithFix("use a number from 1, or -1 for no limit")
	}
	return strconv.FormatInt(n, 10), nil
}
