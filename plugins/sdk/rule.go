package sdk

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

var (
	// phases are in the order of an account's life. The first usualPhases of them are what a
	// connector runs unless it says otherwise.
	phases     = []Phase{PhaseCreate, PhaseGrant, PhaseRotate, PhaseEnable, PhaseDisable, PhaseRevoke, PhaseRemove, PhaseVerify, PhaseFacts}
	categories = []Category{OperatingSystem, Database, ActiveDirectory}
	nameOf     = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)
)

const usualPhases = 7

// UsernamePlaceholder is the name of the one placeholder every role command may use
// besides the role's own parameters: %Username%, the account's effective name.
const UsernamePlaceholder = "Username"

// Check returns an error of ClassInvalid unless name keeps the rule.
func (r NameRule) Check(name string) error {
	fix := "choose a name of " + r.Help
	if r.MaxBytes > 0 && len(name) > r.MaxBytes {
		return Errorf(ClassInvalid, "the name has %d bytes; at most %d are allowed", len(name), r.MaxBytes).WithFix("%s", fix)
	}
	pattern, err := compiled(r.Pattern)
	if err != nil {
		return Errorf(ClassInternal, "the connector's name rule is not a regular expression")
	}
	if !pattern.MatchString(name) {
		return Errorf(ClassInvalid, "the name %q is not allowed here", name).WithFix("%s", fix)
	}
	return nil
}

// Check returns an error of ClassPolicyRejected unless the password keeps the rule. It
// never quotes the password. Control characters, text that is not UTF-8, leading or
// trailing spaces, and a leading '-' or '*' are always refused.
func (r PasswordRule) Check(password Secret) error {
	s := password.Reveal()
	reject := func(format string, args ...any) error {
		return Errorf(ClassPolicyRejected, "the password "+format, args...).
			WithFix("generate another one within the connector's password rule")
	}
	if s == "" {
		return reject("is empty")
	}
	if !utf8.ValidString(s) {
		return reject("is not UTF-8 text")
	}
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		return reject("has a control character")
	}
	if strings.HasPrefix(s, " ") || strings.HasSuffix(s, " ") {
		return reject("begins or ends with a space")
	}
	if s[0] == '-' || s[0] == '*' {
		return reject("begins with %q", s[0])
	}
	n := utf8.RuneCountInString(s)
	if n < r.MinLength {
		return reject("has fewer than %d characters", r.MinLength)
	}
	if r.MaxLength > 0 && n > r.MaxLength {
		return reject("has more than %d characters", r.MaxLength)
	}
	if r.ASCIIOnly && strings.IndexFunc(s, func(c rune) bool { return c > unicode.MaxASCII }) >= 0 {
		return reject("has a character beyond ASCII")
	}
	if r.Excluded != "" && strings.ContainsAny(s, r.Excluded) {
		return reject("has a character of those excluded: %s", r.Excluded)
	}
	return nil
}

// CheckParams returns an error of ClassInvalid unless params holds every required
// parameter, no unknown one, and only values that match their pattern.
func (r Role) CheckParams(params map[string]string) error {
	for name := range params {
		if !slices.ContainsFunc(r.Params, func(p RoleParam) bool { return p.Name == name }) {
			return Errorf(ClassInvalid, "role %s has no parameter %q", r.Name, name)
		}
	}
	for _, p := range r.Params {
		value, ok := params[p.Name]
		if !ok || value == "" {
			if p.Required {
				return Errorf(ClassInvalid, "role %s needs the parameter %q: %s", r.Name, p.Name, p.Help)
			}
			continue
		}
		pattern, err := compiled(p.Pattern)
		if err != nil {
			return Errorf(ClassInvalid, "the pattern of parameter %q of role %s is not a regular expression", p.Name, r.Name)
		}
		if !pattern.MatchString(value) {
			return Errorf(ClassInvalid, "the value of parameter %q of role %s does not fit: %s", p.Name, r.Name, p.Help)
		}
	}
	return nil
}

// Validate reports what is wrong with the role, apart from whether a connector
// understands its commands: unknown phases, patterns that are not anchored regular
// expressions, placeholders that are neither %Username% nor a parameter.
func (r Role) Validate() error {
	if !nameOf.MatchString(r.Name) {
		return Errorf(ClassInvalid, "role name %q: want lower-case letters, digits and '-'", r.Name)
	}
	if r.Version < 1 {
		return Errorf(ClassInvalid, "role %s: the version must be 1 or more", r.Name)
	}
	known := []string{UsernamePlaceholder}
	for _, p := range r.Params {
		if slices.Contains(known, p.Name) {
			return Errorf(ClassInvalid, "role %s: parameter %q is declared twice", r.Name, p.Name)
		}
		if !template.ValidName(p.Name) {
			return Errorf(ClassInvalid, "role %s: %q cannot be the name of a placeholder", r.Name, p.Name)
		}
		if err := anchored(p.Pattern); err != nil {
			return Errorf(ClassInvalid, "role %s: parameter %q: %v", r.Name, p.Name, err)
		}
		known = append(known, p.Name)
	}
	for phase, commands := range r.Phases {
		if !slices.Contains(phases, phase) {
			return Errorf(ClassInvalid, "role %s: unknown phase %q", r.Name, phase)
		}
		for _, command := range commands {
			names, err := template.Placeholders(command)
			if err != nil {
				return Errorf(ClassInvalid, "role %s, phase %s: %v", r.Name, phase, err)
			}
			for _, name := range names {
				if !slices.Contains(known, name) {
					return Errorf(ClassInvalid, "role %s, phase %s: %%%s%% is neither a parameter nor %%%s%%",
						r.Name, phase, name, UsernamePlaceholder)
				}
			}
		}
	}
	return nil
}

// CheckRole reports whether the connector can have the role: what Role.Validate does,
// that it runs the commands of all the role's phases, and that every command can be read
// in its dialect, with placeholders where a value can be written safely.
func (d Description) CheckRole(r Role) error {
	if err := r.Validate(); err != nil {
		return err
	}
	known := []string{UsernamePlaceholder}
	for _, p := range r.Params {
		known = append(known, p.Name)
	}
	for _, phase := range phases { // in order, so that it is always the same fault that is named
		for _, command := range r.Phases[phase] {
			if !slices.Contains(d.runs(), phase) {
				return Errorf(ClassInvalid, "role %s: connector %s runs no commands of the phase %s", r.Name, d.Name, phase)
			}
			if err := d.rule(phase).check(command); err != nil {
				return Errorf(ClassInvalid, "role %s, phase %s: %v", r.Name, phase, err)
			}
			if err := template.Check(d.Dialect, command, known); err != nil {
				e := Errorf(ClassInvalid, "role %s, phase %s: %v", r.Name, phase, err)
				if f, ok := errors.AsType[*template.Fault](err); ok {
					e = Errorf(ClassInvalid, "role %s, phase %s, at character %d of %q: %s", r.Name, phase, template.At(command, f.At), command, f.Message).
						WithFix("%s", f.Fix)
				}
				return e
			}
		}
	}
	return nil
}

func (r CommandRule) validate() error {
	if r.Help == "" {
		return errors.New("a command rule needs words for people")
	}
	return anchored(r.Pattern)
}

func (r CommandRule) check(command string) error {
	if r.Pattern == "" {
		return nil
	}
	pattern, err := compiled(r.Pattern)
	if err == nil && !pattern.MatchString(command) {
		err = fmt.Errorf("%q is no command of this connector: %s", command, r.Help)
	}
	return err
}

// rule is the one for the commands of a phase.
func (d Description) rule(p Phase) CommandRule {
	if r, ok := d.PhaseRules[p]; ok {
		return r
	}
	return d.CommandRule
}

// runs are the phases whose commands the connector runs.
func (d Description) runs() []Phase {
	if len(d.Phases) == 0 {
		return phases[:usualPhases]
	}
	return d.Phases
}

// Validate reports what is wrong with the description. Serve refuses to serve a
// connector whose description is not valid.
func (d Description) Validate() error {
	if !nameOf.MatchString(d.Name) {
		return Errorf(ClassInvalid, "connector name %q: want lower-case letters, digits and '-'", d.Name)
	}
	if d.Title == "" || d.Version == "" {
		return Errorf(ClassInvalid, "connector %s: title and version are required", d.Name)
	}
	if !slices.Contains(categories, d.Category) {
		return Errorf(ClassInvalid, "connector %s: unknown category %q", d.Name, d.Category)
	}
	if d.DefaultPort < 1 || d.DefaultPort > 65535 {
		return Errorf(ClassInvalid, "connector %s: %d is no port", d.Name, d.DefaultPort)
	}
	if err := anchored(d.NameRule.Pattern); err != nil {
		return Errorf(ClassInvalid, "connector %s: name rule: %v", d.Name, err)
	}
	if d.NameRule.MaxBytes < 1 || d.NameRule.Help == "" {
		return Errorf(ClassInvalid, "connector %s: the name rule needs a limit in bytes and words for people", d.Name)
	}
	if p := d.PasswordRule; p.MinLength < 1 || p.MaxLength < p.MinLength {
		return Errorf(ClassInvalid, "connector %s: the password rule needs a minimum length and a maximum not below it", d.Name)
	}
	seen := map[string]bool{}
	for _, o := range d.Options {
		if o.Name == "" || seen[o.Name] {
			return Errorf(ClassInvalid, "connector %s: option %q has no name or is declared twice", d.Name, o.Name)
		}
		seen[o.Name] = true
		if o.Default != "" && len(o.Allowed) > 0 && !slices.Contains(o.Allowed, o.Default) {
			return Errorf(ClassInvalid, "connector %s: the default of option %q is not allowed", d.Name, o.Name)
		}
	}
	if _, ok := template.DialectOf(d.Dialect); !ok && d.Dialect != "" {
		return Errorf(ClassInvalid, "connector %s: there is no dialect %q", d.Name, d.Dialect)
	}
	if d.CommandRule != (CommandRule{}) {
		if err := d.CommandRule.validate(); err != nil {
			return Errorf(ClassInvalid, "connector %s: the command rule: %v", d.Name, err)
		}
	}
	for p, r := range d.PhaseRules {
		if !slices.Contains(d.runs(), p) {
			return Errorf(ClassInvalid, "connector %s: there is a rule for commands of the phase %q, which it does not run", d.Name, p)
		}
		if err := r.validate(); err != nil {
			return Errorf(ClassInvalid, "connector %s, phase %s: %v", d.Name, p, err)
		}
	}
	for _, p := range d.Phases {
		if !slices.Contains(phases, p) {
			return Errorf(ClassInvalid, "connector %s: unknown phase %q", d.Name, p)
		}
	}
	seen = map[string]bool{}
	for _, r := range d.Roles {
		if seen[r.Name] {
			return Errorf(ClassInvalid, "connector %s: role %q is declared twice", d.Name, r.Name)
		}
		seen[r.Name] = true
		if err := d.CheckRole(r); err != nil {
			return err
		}
	}
	return nil
}

func anchored(pattern string) error {
	if !strings.HasPrefix(pattern, "^") || !strings.HasSuffix(pattern, "$") || strings.HasSuffix(pattern, `\$`) {
		return fmt.Errorf("the pattern %q must begin with ^ and end with $", pattern)
	}
	_, err := compiled(pattern)
	return err
}
