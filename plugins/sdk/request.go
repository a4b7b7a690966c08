package sdk

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// maxAccountBytes bounds the names of accounts that exist already and need not keep a
// connector's own NameRule.
const maxAccountBytes = 256

var (
	actions   = []Action{Provision, Rotate, Disable, Enable, Deprovision}
	accountID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
)

// target refuses targets that break what the connector declared, and fills in its
// defaults.
func (s *server) target(m *connectorv1.Target) (Target, error) {
	t := TargetFromProto(m)
	if t.Address == "" || strings.ContainsFunc(t.Address, unicode.IsControl) {
		return Target{}, Errorf(ClassInvalid, "the target has no usable address")
	}
	if t.Port == 0 {
		t.Port = s.description.DefaultPort
	}
	if t.Port < 1 || t.Port > 65535 {
		return Target{}, Errorf(ClassInvalid, "%d is no port", t.Port)
	}
	options := make(map[string]string, len(s.description.Options))
	for _, o := range s.description.Options {
		value, ok := t.Options[o.Name]
		if !ok || value == "" {
			value = o.Default
		}
		if value == "" && o.Required {
			return Target{}, Errorf(ClassInvalid, "the option %q is required: %s", o.Name, o.Help)
		}
		if value != "" && len(o.Allowed) > 0 && !slices.Contains(o.Allowed, value) {
			return Target{}, Errorf(ClassInvalid, "the option %q must be one of %s", o.Name, strings.Join(o.Allowed, ", "))
		}
		options[o.Name] = value
	}
	for name := range t.Options {
		if _, ok := options[name]; !ok {
			return Target{}, Errorf(ClassInvalid, "connector %s has no option %q", s.description.Name, name)
		}
	}
	t.Options = options
	return t, nil
}

func (s *server) checkIntent(in Intent) error {
	if !slices.Contains(actions, in.Action) {
		return Errorf(ClassInvalid, "unknown action %q", in.Action)
	}
	if err := s.description.NameRule.Check(in.Account); err != nil {
		return err
	}
	if in.AccountID != "" && !accountID.MatchString(in.AccountID) {
		return Errorf(ClassInvalid, "the account id has characters that do not belong there")
	}
	if strings.ContainsRune(in.Comment, ':') || strings.ContainsFunc(in.Comment, unicode.IsControl) {
		return Errorf(ClassInvalid, "the comment has a colon or a control character").
			WithFix("leave out ':' and line breaks")
	}
	if in.Role.Name == "" {
		return nil
	}
	if err := s.description.CheckRole(in.Role); err != nil {
		return err
	}
	return in.Role.CheckParams(in.Params)
}

func (s *server) checkChange(c Change, hash string) error {
	if err := s.checkIntent(c.Intent); err != nil {
		return err
	}
	refuse := func(why string) error {
		return Errorf(ClassPlanChanged, "%s; nothing was done", why).WithFix("plan again and have that plan approved")
	}
	switch {
	case PlanHash(c.Plan) != hash:
		return refuse("the plan is not the one with the hash that was asked for")
	case c.Plan.Action != c.Intent.Action || c.Plan.Account != c.Intent.Account:
		return refuse("the plan is for another action or account than the intent")
	}
	switch c.Intent.Action {
	case Provision, Rotate:
		return s.description.PasswordRule.Check(c.Password)
	default:
		if !c.Password.Empty() {
			return Errorf(ClassInvalid, "%s takes no password", c.Intent.Action)
		}
		return nil
	}
}

// checkAccount guards names of accounts that are only looked at.
func checkAccount(name string) error {
	if name == "" || len(name) > maxAccountBytes || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return Errorf(ClassInvalid, "the account name is empty, longer than %d bytes or has control characters", maxAccountBytes)
	}
	return nil
}
