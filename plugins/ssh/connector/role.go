package connector

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/shadow"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// Role commands are one of
//
//	group NAME         the account is a member of the group
//	group A|B          … of the first of these groups the host has
//	group? NAME        … if the host has the group
//	no group A|B       the account is a member of none of these
//	sudoers RULE       a line of /etc/sudoers.d, for the account alone; those of one moment replace all earlier ones
//	no sudoers         the account has no such line
//	shell PATH         the account's login shell, instead of the asset's option
//	key TYPE DATA      a public key that may log in as the account
//	no key TYPE DATA   … that may not
//	run COMMAND        a shell command that root runs
//
// with %Username% and parameters. Outside of "run", a parameter whose value is several words repeats the
// command, once for each word. In the phases verify and facts the same words are questions. After the account's
// removal there is nothing for them to be about: the phase remove has "run" alone.
const (
	groupCommand    = "group "
	optionalCommand = "group? "
	sudoersCommand  = "sudoers "
	shellCommand    = "shell "
	keyCommand      = "key "
	runCommand      = "run "
	no              = "no "
)

var (
	groupName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	// wordOf is what a word of a parameter may be: nothing with a meaning of its own in
	// sudoers (sudoers(5), "Other special characters and reserved words").
	wordOf = regexp.MustCompile(`^[A-Za-z0-9_/][A-Za-z0-9@_./-]*$`)
	// keyWord is what a word of a public key may be.
	keyWord = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9@.+/=-]*$`)
	// shells are those a role may give an account.
	shells = []string{"/bin/bash", "/bin/sh", "/usr/sbin/nologin"}
)

// commandPattern is what parseCommand can read, before placeholders are filled in: the rest
// is in the values.
const commandPattern = `^(group\?? (%[A-Za-z][A-Za-z0-9_]*%|[a-z_][a-z0-9_-]{0,31}(\|[a-z_][a-z0-9_-]{0,31})*)` +
	`|no group (%[A-Za-z][A-Za-z0-9_]*%|[a-z_][a-z0-9_-]{0,31}(\|[a-z_][a-z0-9_-]{0,31})*)` +
	`|sudoers %Username% [ -"$-)+-\[\]-~]+|no sudoers` +
	`|shell /(bin/bash|bin/sh|usr/sbin/nologin)` +
	`|(no )?key [^ ]+ [^ ]+` +
	`|` + runPattern + `)$`

const runPattern = `run [^\x00-\x1f\x7f]+`

const commandHelp = "write one of: group NAME, group NAME|OTHER, group? NAME, no group NAME, sudoers %Username% RULE (no *, # or \\), no sudoers, " +
	"shell PATH, key TYPE DATA, no key TYPE DATA, run COMMAND"

// command is one role command with its placeholders filled in.
type command struct {
	text     string // as it stands, for people
	not      bool
	groups   []string // alternatives
	optional bool
	sudoers  bool   // with not: no rules at all
	rule     string // of sudoers
	shell    string
	key      string // TYPE DATA
	run      string
}

// commands returns what the role asks for in a phase, placeholders filled in.
func commands(in sdk.Intent, phase sdk.Phase) ([]command, error) {
	var all []command
	for _, text := range in.Role.Phases[phase] {
		wrong := func(err error) error {
			return sdk.Errorf(sdk.ClassInvalid, "role %s, phase %s, %q: %v", in.Role.Name, phase, text, err).WithFix("correct the role; %s", commandHelp)
		}
		if of, ok := strings.CutPrefix(text, runCommand); ok {
			c, err := shadow.RoleCommand(of, in)
			if err != nil {
				return nil, wrong(err)
			}
			all = append(all, command{run: c})
			continue
		}
		lines, err := repeat(text, in)
		if err != nil {
			return nil, wrong(err)
		}
		for _, line := range lines {
			c, err := parseCommand(text, line, in.Account)
			if err != nil {
				return nil, wrong(err)
			}
			c.text = line
			all = append(all, c)
		}
	}
	return all, nil
}

// repeat fills in the placeholders of text, once for each combination of words.
func repeat(text string, in sdk.Intent) ([]string, error) {
	names, err := template.Placeholders(text)
	if err != nil {
		return nil, err
	}
	choices := []map[string]string{{sdk.UsernamePlaceholder: in.Account}}
	for _, name := range names {
		if name == sdk.UsernamePlaceholder {
			continue
		}
		words := strings.Fields(in.Params[name])
		var next []map[string]string
		for _, choice := range choices {
			for _, word := range words {
				allowed := wordOf
				if strings.HasPrefix(strings.TrimPrefix(text, no), keyCommand) {
					allowed = keyWord
				}
				if !allowed.MatchString(word) || strings.Contains(word, "..") {
					return nil, fmt.Errorf("the value of %%%s%% has a word with characters that are not allowed", name)
				}
				c := map[string]string{name: word}
				for k, v := range choice {
					c[k] = v
				}
				next = append(next, c)
			}
		}
		choices = next
	}
	var lines []string
	for _, choice := range choices {
		line, err := template.Expand(text, func(name string) (string, error) { return choice[name], nil })
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// parseCommand parses line, which is text with its placeholders filled in.
func parseCommand(text, line, account string) (command, error) {
	if of, ok := strings.CutPrefix(text, no); ok {
		rest, _ := strings.CutPrefix(line, no)
		if of == strings.TrimSpace(sudoersCommand) {
			return command{not: true, sudoers: true}, nil
		}
		if strings.HasPrefix(of, groupCommand) || strings.HasPrefix(of, keyCommand) {
			c, err := parseCommand(of, rest, account)
			c.not = true
			return c, err
		}
	}
	switch {
	case strings.HasPrefix(text, groupCommand), strings.HasPrefix(text, optionalCommand):
		_, names, _ := strings.Cut(line, " ")
		c := command{groups: strings.Split(names, "|"), optional: strings.HasPrefix(text, optionalCommand)}
		for _, g := range c.groups {
			if !groupName.MatchString(g) {
				return command{}, fmt.Errorf("%q is no name of a group", g)
			}
		}
		return c, nil
	case strings.HasPrefix(text, sudoersCommand):
		rule := strings.TrimPrefix(line, sudoersCommand)
		if !strings.HasPrefix(text, sudoersCommand+"%"+sdk.UsernamePlaceholder+"% ") || !strings.HasPrefix(rule, account+" ") {
			return command{}, fmt.Errorf("a rule must begin with %%%s%% and a space", sdk.UsernamePlaceholder)
		}
		if strings.ContainsFunc(rule, func(r rune) bool { return r < ' ' || r > '~' || r == '\\' || r == '*' || r == '#' }) {
			return command{}, fmt.Errorf("a rule has only printable ASCII, and no wildcard, comment or continuation")
		}
		return command{rule: rule}, nil
	case strings.HasPrefix(text, shellCommand):
		shell := strings.TrimPrefix(line, shellCommand)
		if !slices.Contains(shells, shell) {
			return command{}, fmt.Errorf("a role's shell is one of %s", strings.Join(shells, ", "))
		}
		return command{shell: shell}, nil
	case strings.HasPrefix(text, keyCommand):
		key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(strings.TrimPrefix(line, keyCommand)))
		if err != nil || len(options) > 0 || len(rest) > 0 {
			return command{}, fmt.Errorf("that is no public key: a key is a type, such as ssh-ed25519, a space and its data")
		}
		return command{key: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))}, nil
	default:
		return command{}, errors.New("it begins with none of the words that are known")
	}
}
