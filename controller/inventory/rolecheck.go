package inventory

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// phases of an account's life, in order; a connector that says nothing else runs the
// commands of the first usualPhases.
var phases = []string{"create", "grant", "rotate", "enable", "disable", "revoke", "remove", "verify", "facts"}

const usualPhases = 7

// usernamePlaceholder stands for the account's name in every role.
const usernamePlaceholder = "Username"

// What a custom role may be. Connectors keep themselves within what their SDK takes.
const (
	maxRoleParams   = 32
	maxRoleCommands = 64 // in one phase
	maxRoleCommand  = 4096
)

var roleName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)

func roleInvalid(field, format string, args ...any) *reeve.Error {
	return reeve.Errorf(reeve.Invalid, "role_invalid", format, args...).WithField(field)
}

// checkRole says whether a connector can work with a role: its parameters, its phases,
// and every command, in which each placeholder must stand where a value can be written
// safely. Errors never quote a command.
func checkRole(d *connectorv1.Description, r *connectorv1.Role) error {
	if r.GetName() == "" || r.GetVersion() == 0 {
		return roleInvalid("/name", "a role needs a name and a version")
	}
	known := []string{usernamePlaceholder}
	for i, p := range r.GetParams() {
		field := "/params/" + strconv.Itoa(i)
		if _, err := anchored(p.GetPattern()); err != nil || p.GetPattern() == "" {
			return roleInvalid(field+"/pattern", "parameter %q needs a pattern that is a regular expression (RE2)", p.GetName())
		}
		if !template.ValidName(p.GetName()) || slices.Contains(known, p.GetName()) {
			return roleInvalid(field+"/name", "%q cannot be a parameter's name, or is one already", p.GetName()).
				WithFix("use a letter and then letters, digits and '_'; %%%s%% is always there", usernamePlaceholder)
		}
		known = append(known, p.GetName())
	}
	runs := phasesOf(d)
	seen := map[string]bool{}
	for i, ph := range r.GetPhases() {
		field := "/phases/" + strconv.Itoa(i)
		if seen[ph.GetPhase()] {
			return roleInvalid(field+"/phase", "the phase %q is there twice", ph.GetPhase())
		}
		seen[ph.GetPhase()] = true
		if !slices.Contains(phases, ph.GetPhase()) || !slices.Contains(runs, ph.GetPhase()) {
			return reeve.Errorf(reeve.Invalid, "role_phase_unsupported", "connector %s runs no commands of a phase %q", d.GetName(), ph.GetPhase()).
				WithFix("it runs those of %s", strings.Join(runs, ", ")).WithField(field + "/phase")
		}
		for k, command := range ph.GetCommands() {
			field := field + "/commands/" + strconv.Itoa(k)
			err := template.Check(d.GetDialect(), command, known)
			if err == nil {
				if err := checkCommand(d, ph.GetPhase(), k, command); err != nil {
					return err.WithField(field)
				}
				continue
			}
			f, ok := errors.AsType[*template.Fault](err)
			if !ok {
				return roleInvalid(field, "%v", err)
			}
			where := fmt.Sprintf("phase %s, command %d, character %d", ph.GetPhase(), k+1, template.At(command, f.At))
			return reeve.Errorf(reeve.Invalid, string(f.Code), "%s: %s", where, f.Message).WithFix("%s", f.Fix).WithField(field)
		}
	}
	return nil
}

// checkCommand holds a command against the connector's own grammar for the phase, if it has one.
func checkCommand(d *connectorv1.Description, phase string, k int, command string) *reeve.Error {
	rule := d.GetCommandRule()
	for _, r := range d.GetPhaseRules() {
		if r.GetPhase() == phase {
			rule = r.GetRule()
		}
	}
	if rule.GetPattern() == "" {
		return nil
	}
	re, err := anchored(rule.GetPattern())
	if err != nil {
		return reeve.Errorf(reeve.Invalid, "role_invalid", "the command rule of connector %s is not RE2", d.GetName())
	}
	if re.MatchString(command) {
		return nil
	}
	return reeve.Errorf(reeve.Invalid, "command_malformed", "phase %s, command %d, character 1: connector %s has no such command there", phase, k+1, d.GetName()).
		WithFix("%s", rule.GetHelp())
}

func phasesOf(d *connectorv1.Description) []string {
	if p := d.GetPhases(); len(p) > 0 {
		return p
	}
	return phases[:usualPhases]
}

// checkCustom is checkRole for what people write.
func checkCustom(d *connectorv1.Description, r *connectorv1.Role) error {
	if !roleName.MatchString(r.GetName()) {
		return roleInvalid("/name", "%q cannot be the name of a role", r.GetName()).WithFix("use 1 to 64 of a-z, 0-9 and '-', starting with a letter")
	}
	for field, text := range map[string]string{"title": r.GetTitle(), "description": r.GetDescription()} {
		if err := checkText(field, text); err != nil {
			return err
		}
	}
	if len(r.GetParams()) > maxRoleParams {
		return roleInvalid("/params", "a role has at most %d parameters", maxRoleParams)
	}
	for i, p := range r.GetParams() {
		if s := p.GetPattern(); !strings.HasPrefix(s, "^") || !strings.HasSuffix(s, "$") || strings.HasSuffix(s, `\$`) {
			return roleInvalid("/params/"+strconv.Itoa(i)+"/pattern", "the pattern of parameter %q must match all of a value", p.GetName()).
				WithFix("begin it with ^ and end it with $")
		}
	}
	for i, ph := range r.GetPhases() {
		field := "/phases/" + strconv.Itoa(i) + "/commands"
		if n := len(ph.GetCommands()); n == 0 || n > maxRoleCommands {
			return roleInvalid(field, "a phase has 1 to %d commands", maxRoleCommands).WithFix("leave the phase out if nothing is to be done in it")
		}
		for k, c := range ph.GetCommands() {
			if len(c) > maxRoleCommand {
				return roleInvalid(field+"/"+strconv.Itoa(k), "a command has at most %d bytes", maxRoleCommand)
			}
		}
	}
	return checkRole(d, r)
}
