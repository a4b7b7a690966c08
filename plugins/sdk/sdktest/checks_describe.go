package sdktest

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/go-plugin"

	"github.com/reeve-pam/reeve/plugins/sdk"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// samples are values of parameters, for roles the kit is given no values for.
var samples = []string{
	"app", "APP", "App", "/var/log", "cron.service", "Domain Users", "S-1-5-32-545", "CN=Users,DC=example,DC=com", "C:\\Temp", "1", "10", "yes",
}

// sample returns a value of a parameter, "" if none is known.
func (s *suite) sample(p sdk.RoleParam) string {
	pattern, err := regexp.Compile(p.Pattern)
	if err != nil {
		return ""
	}
	for _, v := range append([]string{s.cfg.Params[p.Name]}, samples...) {
		if v != "" && pattern.MatchString(v) {
			return v
		}
	}
	return ""
}

// describeWords checks what people read, and that no pattern is passed by a second line.
func describeWords(_ context.Context, s *suite) error {
	lines := func(what, pattern, good string) error {
		re, err := regexp.Compile(pattern)
		if err != nil {
			return fmt.Errorf("the pattern of %s: %w", what, err)
		}
		for _, bad := range []string{good + "\n", good + "\nx", "x\n" + good, good + "\x00"} {
			if re.MatchString(bad) {
				return fmt.Errorf("the pattern of %s takes %q", what, bad)
			}
		}
		return nil
	}
	d := s.description
	if err := lines("account names", d.NameRule.Pattern, s.cfg.NewAccountName()); err != nil {
		return err
	}
	for _, o := range d.Options {
		if o.Help == "" {
			return fmt.Errorf("option %s has no words for people", o.Name)
		}
	}
	for _, r := range d.Roles {
		if r.Title == "" || r.Description == "" {
			return fmt.Errorf("role %s has no title or description", r.Name)
		}
		for _, p := range r.Params {
			if p.Help == "" {
				return fmt.Errorf("parameter %s of role %s has no words for people", p.Name, r.Name)
			}
			if err := lines("parameter "+p.Name+" of role "+r.Name, p.Pattern, s.sample(p)); err != nil {
				return err
			}
		}
	}
	return nil
}

// everyRolePlans plans each role with sample values, for every action.
func everyRolePlans(ctx context.Context, s *suite) error {
	planned := 0
	for _, r := range s.description.Roles {
		params := map[string]string{}
		known := true
		for _, p := range r.Params {
			if v := s.sample(p); v != "" {
				params[p.Name] = v
			} else if p.Required {
				known = false
			}
		}
		if !known {
			continue
		}
		a := s.account()
		for _, action := range []sdk.Action{sdk.Provision, sdk.Rotate, sdk.Disable, sdk.Enable, sdk.Deprovision} {
			in := s.intent(action, a)
			in.Role, in.Params = r, params
			plan, err := s.client.Plan(ctx, s.cfg.Target, in)
			switch sdk.ClassOf(err) {
			case "":
				planned++
				for _, step := range plan.Steps {
					if strings.Contains(step.Command, "%"+sdk.UsernamePlaceholder+"%") {
						return fmt.Errorf("role %s: step %s still has a placeholder", r.Name, step.ID)
					}
				}
			case sdk.ClassUnsupported, sdk.ClassNotFound: // this target has not what the role is about
			default:
				return fmt.Errorf("role %s, %s with %v: %w", r.Name, action, params, err)
			}
		}
	}
	if planned == 0 && len(s.description.Roles) > 0 {
		return errors.New("no role of the catalogue could be planned")
	}
	return nil
}

// badParams plans with parameters and roles that are wrong.
func badParams(ctx context.Context, s *suite) error {
	refused := func(what string, r sdk.Role, params map[string]string) error {
		in := s.intent(sdk.Provision, s.account())
		in.Role, in.Params = r, params
		_, err := s.client.Plan(ctx, s.cfg.Target, in)
		return wantClass("a plan with "+what, err, sdk.ClassInvalid)
	}
	bad := sdk.Role{Name: "bad", Title: "bad", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {"x %Nobody%"}}}
	if err := errors.Join(
		refused("a placeholder that is no parameter", bad, nil),
		refused("a parameter the role lacks", s.role, map[string]string{"Nobody": "x"})); err != nil {
		return err
	}
	for _, r := range s.description.Roles {
		for _, p := range r.Params {
			params := map[string]string{}
			for _, q := range r.Params {
				params[q.Name] = s.sample(q)
			}
			for _, value := range []string{"x\ny", "x\x00", "x\r\ny"} {
				params[p.Name] = value
				if err := refused(fmt.Sprintf("%s=%q of role %s", p.Name, value, r.Name), r, params); err != nil {
					return err
				}
			}
			if delete(params, p.Name); p.Required {
				if err := refused("no "+p.Name+" for role "+r.Name, r, params); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// withOption does every operation with an option set, which all must refuse.
func (s *suite) withOption(ctx context.Context, name, value string) error {
	t := s.cfg.Target
	t.Options = map[string]string{name: value}
	for k, v := range s.cfg.Target.Options {
		if k != name {
			t.Options[k] = v
		}
	}
	return s.everyAt(ctx, t, func(what string, err error) error {
		return wantClass(fmt.Sprintf("%s with option %s=%q", what, name, value), err, sdk.ClassInvalid)
	})
}

func unknownOption(ctx context.Context, s *suite) error {
	return s.withOption(ctx, "no_such_option", "yes")
}

func optionNotAllowed(ctx context.Context, s *suite) error {
	tried := false
	for _, o := range s.description.Options {
		if len(o.Allowed) == 0 {
			continue
		}
		tried = true
		if err := s.withOption(ctx, o.Name, o.Allowed[0]+"; reboot"); err != nil {
			return err
		}
	}
	if !tried {
		return notApplicable("no option has a list of what is allowed")
	}
	return nil
}

func longestName(ctx context.Context, s *suite) error {
	a := s.account()
	a.name = s.longer(a.name, s.description.NameRule.MaxBytes)
	return s.lives(ctx, a)
}

// lives provisions an account, logs in, inspects and removes it.
func (s *suite) lives(ctx context.Context, a *account) error {
	r, err := s.apply(ctx, sdk.Provision, a, a.password)
	if err != nil {
		return fmt.Errorf("provision of %q: %w", a.name, err)
	}
	a.identity = r.Facts.Identity
	if err := errors.Join(s.exists(ctx, a, true), s.login(ctx, a, a.password, true)); err != nil {
		return err
	}
	if r.Facts.Account != a.name || !r.Facts.Exists {
		return fmt.Errorf("the facts of %q are about %q, which exists: %t", a.name, r.Facts.Account, r.Facts.Exists)
	}
	if _, err := s.apply(ctx, sdk.Deprovision, a, sdk.Secret{}); err != nil {
		return fmt.Errorf("removal of %q: %w", a.name, err)
	}
	return s.exists(ctx, a, false)
}

// nameCharacters makes accounts whose names have every sign the rule allows.
func nameCharacters(ctx context.Context, s *suite) error {
	rule := s.description.NameRule
	a := s.account()
	base := a.name
	last := base[len(base)-1:]
	for c := byte('!'); c <= '~'; c++ {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.Contains(base, string(c)) {
			continue
		}
		if rule.Check(a.name+string(c)+last) == nil {
			a.name += string(c) + last
			continue
		}
		if rule.Check(base+string(c)+last) != nil {
			continue
		}
		if err := s.lives(ctx, a); err != nil { // it is full
			return err
		}
		a = s.account()
		a.name += string(c) + last
	}
	return s.lives(ctx, a)
}

// outsideRule tries passwords the connector's own rule forbids.
func outsideRule(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	rule := s.description.PasswordRule
	good := a.password.Reveal()
	bad := map[string]string{
		"too long":  good + strings.Repeat("x", rule.MaxLength),
		"a dash":    "-" + good[1:],
		"a space":   good[:len(good)-1] + " ",
		"not UTF-8": good[:len(good)-1] + "\xff",
	}
	if rule.MinLength > 1 {
		bad["too short"] = good[:rule.MinLength-1]
	}
	for _, c := range rule.Excluded {
		bad["excluded "+string(c)] = good[:len(good)-1] + string(c)
	}
	for what, text := range bad {
		password := sdk.NewSecret([]byte(text))
		s.secret(password)
		_, err := s.apply(ctx, sdk.Rotate, a, password)
		if err := wantClass("a password that is outside the rule ("+what+")", err, sdk.ClassPolicyRejected); err != nil {
			return err
		}
	}
	return s.login(ctx, a, a.password, true)
}

// printableCharacters puts every printable character of ASCII into passwords.
func printableCharacters(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	rule := s.description.PasswordRule
	var all []byte
	for c := byte(' '); c <= '~'; c++ {
		if !strings.Contains(rule.Excluded, string(c)) {
			all = append(all, c)
		}
	}
	const head, tail = "Aa1", "zZ9"
	if rule.MaxLength <= len(head+tail) {
		return fmt.Errorf("passwords may have %d characters only", rule.MaxLength)
	}
	for part := range slices.Chunk(all, rule.MaxLength-len(head+tail)) {
		text := head + string(part) + tail
		if len(text) < rule.MinLength {
			text += strings.Repeat("x", rule.MinLength-len(text))
		}
		password := sdk.NewSecret([]byte(text))
		s.secret(password)
		if _, err := s.apply(ctx, sdk.Rotate, a, password); err != nil {
			return fmt.Errorf("a password with %q: %w", part, err)
		}
		if err := s.login(ctx, a, password, true); err != nil {
			return fmt.Errorf("a password with %q: %w", part, err)
		}
	}
	return nil
}

func comments(ctx context.Context, s *suite) error {
	for _, comment := range []string{
		"", `O'Brien "x" \ $(id) ` + "`id`", "%s %n %Username% {{.}}", "-- #1; x /* y", "für Zoë, 票 7", strings.Repeat("long ", 20),
	} {
		a := s.account()
		a.comment = comment
		if err := s.lives(ctx, a); err != nil {
			return fmt.Errorf("comment %q: %w", comment, err)
		}
	}
	for _, comment := range []string{"a:b", "a\nb", "a\x00b"} {
		a := s.account()
		a.comment = comment
		_, err := s.client.Plan(ctx, s.cfg.Target, s.intent(sdk.Provision, a))
		if err := wantClass(fmt.Sprintf("comment %q", comment), err, sdk.ClassInvalid); err != nil {
			return err
		}
	}
	return nil
}

// planIsTimeless plans the same at every point of an account's life.
func planIsTimeless(ctx context.Context, s *suite) error {
	a := s.account()
	actions := []sdk.Action{sdk.Provision, sdk.Rotate, sdk.Disable, sdk.Enable, sdk.Deprovision}
	hashes := func() (all []string, err error) {
		for _, action := range actions {
			plan, err := s.client.Plan(ctx, s.cfg.Target, s.intent(action, a))
			if err != nil {
				return nil, fmt.Errorf("plan %s: %w", action, err)
			}
			all = append(all, sdk.PlanHash(plan))
		}
		return all, nil
	}
	first, err := hashes()
	if err != nil {
		return err
	}
	for _, action := range []sdk.Action{sdk.Provision, sdk.Disable, sdk.Deprovision} {
		var password sdk.Secret
		if action == sdk.Provision {
			password = a.password
		}
		if _, err := s.apply(ctx, action, a, password); err != nil {
			return err
		}
		now, err := hashes()
		if err != nil {
			return err
		}
		for i := range now {
			if now[i] != first[i] {
				return fmt.Errorf("after %s the plan to %s is another than before", action, actions[i])
			}
		}
	}
	return nil
}

// versions starts the program as hosts that know other versions of the protocol do.
func versions(ctx context.Context, s *suite) error {
	if err := s.needBinary(); err != nil {
		return err
	}
	set := func(versions ...int) map[int]plugin.PluginSet {
		all := map[int]plugin.PluginSet{}
		for _, v := range versions {
			all[v] = plugin.PluginSet{sdk.PluginName: &sdk.Plugin{Protocol: v}}
		}
		return all
	}
	const current = sdk.ProtocolVersion
	for _, c := range []struct {
		host []int
		want int
	}{
		{[]int{current}, current},
		{[]int{current, current + 1}, current},
		{[]int{sdk.OldestProtocol}, sdk.OldestProtocol},
		{[]int{current + 1}, 0},
	} {
		p, err := s.launchWith(set(c.host...))
		if err != nil {
			if c.want != 0 {
				return fmt.Errorf("a host that speaks %v of the protocol: %w", c.host, err)
			}
			continue
		}
		_, err = p.client.Describe(ctx)
		p.stop()
		if err != nil || p.version != c.want {
			return errors.Join(fmt.Errorf("a host that speaks %v of the protocol gets %d, want %d", c.host, p.version, c.want), err)
		}
	}
	return nil
}

// missingPowers calls what the connector cannot do.
func missingPowers(ctx context.Context, s *suite) error {
	t := s.cfg.Target
	calls := map[sdk.Power]func() error{
		sdk.PowerProbe:    func() error { _, err := s.client.Probe(ctx, t); return err },
		sdk.PowerVerify:   func() error { _, err := s.client.Verify(ctx, t, t.Management); return err },
		sdk.PowerInspect:  func() error { _, err := s.client.Inspect(ctx, t, "x"); return err },
		sdk.PowerDiscover: func() error { return s.client.Discover(ctx, t, func(sdk.Facts) bool { return true }) },
		sdk.PowerRun:      func() error { _, err := s.client.Run(ctx, t, "x", &printed{}); return err },
		sdk.PowerProvision: func() error {
			stream, err := s.rpc.Apply(ctx, &connectorv1.ApplyRequest{Target: sdk.TargetToProto(t)})
			if err == nil {
				_, err = stream.Recv()
			}
			return sdk.ErrorFromStatus(err)
		},
	}
	tried := false
	for power, call := range calls {
		if s.has(power) {
			continue
		}
		tried = true
		if err := wantClass("an operation without the power to "+string(power), call(), sdk.ClassUnsupported); err != nil {
			return err
		}
	}
	if !tried {
		return notApplicable("the connector has every power")
	}
	return nil
}
