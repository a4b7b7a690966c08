// Package role reads the commands of roles. The first word of a command names the profile it
// is for; the rest is in that profile's own language, with %Username% and the role's
// parameters. Packages unix and ios import it.
package role

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/shadow"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// The profiles.
const (
	Unix = "unix"
	IOS  = "ios"
)

// Commands returns what the intent's role asks for in a phase, on targets of a profile,
// placeholders filled in. Errors: ClassInvalid, and ClassUnsupported for a role that has
// commands, but none for this profile.
func Commands(in sdk.Intent, phase sdk.Phase, profile string) ([]string, error) {
	var all []string
	total, mine := 0, 0
	for p, commands := range in.Role.Phases {
		for _, text := range commands {
			of, command, _ := strings.Cut(text, " ")
			if of != Unix && of != IOS || strings.TrimSpace(command) == "" {
				return nil, sdk.Errorf(sdk.ClassInvalid, "role %s, %q: a command begins with %q or %q, which say what it is for",
					in.Role.Name, text, Unix+" ", IOS+" ")
			}
			total++
			if of != profile {
				continue
			}
			mine++
			line, err := fill(command, profile, in)
			if err != nil {
				return nil, sdk.Errorf(sdk.ClassInvalid, "role %s, %q: %v", in.Role.Name, text, err).WithFix("correct the role")
			}
			if p == phase {
				all = append(all, line)
			}
		}
	}
	if total > 0 && mine == 0 {
		return nil, sdk.Errorf(sdk.ClassUnsupported, "role %s has no commands for targets of the profile %s", in.Role.Name, profile).
			WithFix("choose another role")
	}
	return all, nil
}

func fill(command, profile string, in sdk.Intent) (string, error) {
	if profile == IOS {
		return words(command, func(name string) string {
			if name == sdk.UsernamePlaceholder {
				return in.Account
			}
			return in.Params[name]
		})
	}
	return shadow.RoleCommand(command, in)
}

// word is a value that means nothing by itself to a device: no space, no "?", which asks
// for help, no "|" and no "!".
var word = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./:-]{0,99}$`)

// words fills in a command of a device, in which placeholders are whole words.
func words(command string, value func(string) string) (string, error) {
	if strings.ContainsFunc(command, func(r rune) bool { return r < ' ' || r > '~' || r == '?' }) {
		return "", fmt.Errorf("it has characters other than printable ASCII, or a question mark")
	}
	fields := strings.Fields(command)
	for i, f := range fields {
		names, err := template.Placeholders(f)
		if err != nil {
			return "", err
		}
		if len(names) == 0 {
			if fields[i], err = template.Expand(f, nil); err != nil {
				return "", err
			}
			continue
		}
		if f != "%"+names[0]+"%" {
			return "", fmt.Errorf("%%%s%% touches other text", names[0])
		}
		if fields[i] = value(names[0]); !word.MatchString(fields[i]) {
			return "", fmt.Errorf("the value of %%%s%% is empty, or has characters that are not allowed", names[0])
		}
	}
	return strings.Join(fields, " "), nil
}
