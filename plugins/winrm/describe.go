package main

import (
	"unicode/utf16"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// The options of a target.
const (
	optionAuth   = "auth"
	optionLegacy = "legacy"
)

// maxPassword is the longest password Windows takes, in UTF-16 units (LM20_PWLEN is for older ones; PWLEN is 256).
const maxPassword = 127

// Describe implements sdk.Connector.
func (connector) Describe() sdk.Description {
	return sdk.Description{
		Name:        "winrm",
		Title:       "Windows Server (WinRM)",
		Version:     "1.0.0",
		Dialect:     "powershell",
		Category:    sdk.OperatingSystem,
		DefaultPort: 5986,
		Options: []sdk.Option{
			{
				Name:    optionAuth,
				Default: authNTLM,
				Allowed: []string{authNTLM, authBasic},
				Help:    "how to log in: ntlm, or basic, which hands the password to the server and needs it allowed there",
			},
			{
				Name:    optionLegacy,
				Default: "no",
				Allowed: []string{"yes", "no"},
				Help: "yes: WinRM without TLS (port 5985), where everybody in between reads new passwords; " +
					"only for servers that cannot do better",
			},
		},
		Roles: roles(),
		NameRule: sdk.NameRule{
			Pattern:  `^[A-Za-z0-9_]*[A-Za-z_]([A-Za-z0-9_.-]*[A-Za-z0-9_-])?$`,
			MaxBytes: 20, // of a SAM account name
			Help:     "1 to 20 of A-Z, a-z, 0-9, _, . and -, with a letter or _ before the first . or -, not ending with a .",
		},
		PasswordRule: sdk.PasswordRule{MinLength: 8, MaxLength: maxPassword},
	}
}

// checkPassword refuses what fits the rule and is still too long for Windows: characters beyond the basic plane count twice.
func checkPassword(p sdk.Secret) error {
	if len(utf16.Encode([]rune(p.Reveal()))) > maxPassword {
		return sdk.Errorf(sdk.ClassPolicyRejected, "the password has more than %d UTF-16 units", maxPassword).
			WithFix("generate a shorter one")
	}
	return nil
}
