package main

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// What an administrator of a host runs, in PowerShell, to give rights.
const (
	shellGrant  = `Set-Item -Path 'WSMan:\localhost\Shell\AllowRemoteShellAccess' -Value 'true'`
	policyGrant = `Set-ItemProperty -Path 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System' ` +
		`-Name 'LocalAccountTokenFilterPolicy' -Value 1 -Type 'DWord'`
	administrators = builtin + "544"
)

// wanted is what the commands of a role need on a host.
type wanted struct {
	Groups   []string `json:"groups"` // by SID or name
	Commands []string `json:"commands"`
}

// A command that changes who is in a group, and the first word of any.
var (
	groupCommand = regexp.MustCompile(`^(?:Add|Remove)-LocalGroupMember .*?-(?:SID|Group|Name) (?:'([^'‘’‚‛]+)'|([A-Za-z0-9-]+))(?: |$)`)
	firstWord    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]*(?: |$)`)
)

// wants reads the commands of a role.
func wants(r sdk.Role, params map[string]string) (wanted, error) {
	w := wanted{Groups: []string{}, Commands: []string{}}
	for _, phase := range []sdk.Phase{
		sdk.PhaseCreate, sdk.PhaseGrant, sdk.PhaseRotate, sdk.PhaseEnable, sdk.PhaseDisable, sdk.PhaseRevoke, sdk.PhaseRemove,
	} {
		for i, text := range r.Phases[phase] {
			// The name of the account makes no difference to what is needed.
			command, err := render(text, "reeve", params)
			if err != nil {
				return w, sdk.Errorf(sdk.ClassInvalid, "role %s, phase %s, command %d: %v", r.Name, phase, i+1, err).WithFix("correct the command")
			}
			if rightCommand.MatchString(command) {
				continue
			}
			if m := groupCommand.FindStringSubmatch(command); m != nil && !slices.Contains(w.Groups, m[1]+m[2]) {
				w.Groups = append(w.Groups, m[1]+m[2])
			}
			if name := strings.TrimSpace(firstWord.FindString(command)); name != "" && !slices.Contains(w.Commands, name) {
				w.Commands = append(w.Commands, name)
			}
		}
	}
	return w, nil
}

// CheckRights implements sdk.RightsChecker, by a fresh login. Windows gives none of what Reeve does to anybody but administrators, so
// there is one right, to be one and to stay one over the network; beside it a role needs groups and commands, which the answer lists too.
func (connector) CheckRights(ctx context.Context, t sdk.Target, r sdk.Role, params map[string]string) ([]sdk.Right, error) {
	w, err := wants(r, params)
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, t, t.Management)
	if err != nil {
		return refusedRights(t.Management.Username, err)
	}
	defer s.close()
	sys, failed, err := s.system(ctx, w)
	switch {
	case err != nil:
		return nil, err
	case failed != nil && failed.identifier() == languageMode: // nothing else can be seen
		return []sdk.Right{fullLanguage(false)}, nil
	case failed != nil:
		return nil, failed.explain(askWhat)
	}
	if err := sys.served(); err != nil {
		return nil, err
	}
	rights := append(sys.rights(), fullLanguage(true))
	if sys.Admin { // others may not be shown groups
		rights = append(rights, w.rights(sys)...)
	}
	return rights, nil
}

// refusedRights is what lacks if WinRM does not let a login have a shell. It does not tell why.
func refusedRights(user string, err error) ([]sdk.Right, error) {
	code, _ := errors.AsType[faultCode](err)
	switch code {
	case faultNoShells:
		return []sdk.Right{right("AllowRemoteShellAccess", "have a shell, in which everything runs", false, shellGrant)}, nil
	case faultAccessDenied:
		name, own := strings.CutPrefix(user, `.\`)
		full := fullToken(false)
		if !own && strings.ContainsAny(user, `\@`) {
			full.Reason += "; an account of a domain does not need it"
		}
		return []sdk.Right{memberOf(false, name), full}, nil
	}
	return nil, err
}

// rights are those that every role needs.
func (sys *system) rights() []sdk.Right {
	rights := []sdk.Right{memberOf(sys.Member || sys.Admin, sys.SID)}
	if sys.Local {
		rights = append(rights, fullToken(sys.Admin || !sys.Filtered))
	}
	return rights
}

func memberOf(held bool, who string) sdk.Right {
	return right("member of Administrators ("+administrators+")", "make, change and remove accounts, and change who is in groups", held,
		filled(addTo+administrators+member, who))
}

func fullToken(held bool) sdk.Right {
	return right("LocalAccountTokenFilterPolicy = 1", "keep an administrator's rights in logins over the network, as a local account", held, policyGrant)
}

// fullLanguage has no command that gives it: which policy constrains PowerShell, and whether it should, a person has to find out.
func fullLanguage(held bool) sdk.Right {
	return right("PowerShell's full language (no AppLocker or WDAC policy that constrains it)", "run Reeve's scripts", held, "")
}

// rights are those that the role needs beside.
func (w wanted) rights(sys *system) []sdk.Right {
	var rights []sdk.Right
	for _, g := range w.Groups {
		grant := filled("New-LocalGroup -Name %Username%", g)
		if strings.HasPrefix(g, "S-1-") { // Windows makes it, if it has what the group is for
			grant = ""
		}
		rights = append(rights, right("the group "+g, "make accounts members of it", !slices.Contains(sys.NoGroups, g), grant))
	}
	for _, c := range w.Commands {
		rights = append(rights, right("the command "+c, "do what the role says", !slices.Contains(sys.NoCommands, c), ""))
	}
	return rights
}

func right(name, reason string, held bool, grant string) sdk.Right {
	if held {
		grant = ""
	}
	return sdk.Right{Name: name, Reason: reason, Held: held, Grant: grant}
}

// filled is a command with a name in it; "" if PowerShell has no way to write the name.
func filled(text, name string) string {
	command, err := render(text, name, nil)
	if err != nil {
		return ""
	}
	return command
}
