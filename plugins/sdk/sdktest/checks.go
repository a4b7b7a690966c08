package sdktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/reeve-pam/reeve/plugins/sdk"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

func describe(ctx context.Context, s *suite) error {
	again, err := s.client.Describe(ctx)
	if err != nil {
		return err
	}
	if diff := cmp.Diff(s.description, again); diff != "" {
		return fmt.Errorf("two descriptions differ: %s", diff)
	}
	if err := s.description.Validate(); err != nil {
		return err
	}
	for _, p := range []sdk.Power{sdk.PowerProbe, sdk.PowerProvision, sdk.PowerVerify} {
		if !s.has(p) {
			return fmt.Errorf("the connector lacks the power %s", p)
		}
	}
	return nil
}

func probe(ctx context.Context, s *suite) error {
	f, err := s.client.Probe(ctx, s.cfg.Target)
	switch {
	case err != nil:
		return err
	case f.Product == "" || f.Version == "":
		return errors.New("the fingerprint names no product or version")
	case len(f.MissingRights) > 0:
		return fmt.Errorf("rights are missing: %s", strings.Join(f.MissingRights, "; "))
	default:
		return nil
	}
}

func probeUnknown(ctx context.Context, s *suite) error {
	if s.cfg.NoIdentity {
		return noIdentity
	}
	t := s.cfg.Target
	t.Trust = sdk.Trust{}
	_, err := s.client.Probe(ctx, t)
	if err := wantClass("probe", err, sdk.ClassHostKeyUnknown); err != nil {
		return err
	}
	e, _ := errors.AsType[*sdk.Error](err)
	if e.Details["fingerprint"] == "" || e.Details["host_key"] == "" {
		return errors.New(`the error's details lack "host_key" or "fingerprint"`)
	}
	return nil
}

func probeChanged(ctx context.Context, s *suite) error {
	if s.cfg.NoIdentity {
		return noIdentity
	}
	t := s.cfg.Target
	t.Trust = s.cfg.WrongTrust
	_, err := s.client.Probe(ctx, t)
	return wantClass("probe", err, sdk.ClassHostKeyChanged)
}

func probeWrongPassword(ctx context.Context, s *suite) error {
	t := s.cfg.Target
	t.Management = sdk.Credential{Username: t.Management.Username, Password: s.password()}
	_, err := s.client.Probe(ctx, t)
	s.tellError("an error of Probe", err)
	return wantClass("probe", err, sdk.ClassAuthFailed)
}

func planIsPure(ctx context.Context, s *suite) error {
	before, err := s.cfg.Snapshot(ctx)
	if err != nil {
		return err
	}
	a := s.account()
	for _, action := range []sdk.Action{sdk.Provision, sdk.Rotate, sdk.Disable, sdk.Enable, sdk.Deprovision} {
		plan, err := s.client.Plan(ctx, s.cfg.Target, s.intent(action, a))
		if err != nil {
			return fmt.Errorf("plan %s: %w", action, err)
		}
		s.tell("the plan to "+string(action), fmt.Sprint(plan))
		again, err := s.client.Plan(ctx, s.cfg.Target, s.intent(action, a))
		if err != nil {
			return fmt.Errorf("plan %s: %w", action, err)
		}
		if sdk.PlanHash(plan) != sdk.PlanHash(again) {
			return fmt.Errorf("two plans to %s differ: %s", action, cmp.Diff(plan, again))
		}
		if plan.Action != action || plan.Account != a.name || len(plan.Steps) == 0 {
			return fmt.Errorf("the plan to %s is for %s of %q and has %d steps", action, plan.Action, plan.Account, len(plan.Steps))
		}
		ids := map[string]bool{}
		for _, step := range plan.Steps {
			if step.ID == "" || step.Title == "" || step.Command == "" || ids[step.ID] {
				return fmt.Errorf("the plan to %s has a step without id, title or command, or an id twice: %+v", action, step)
			}
			ids[step.ID] = true
		}
	}
	after, err := s.cfg.Snapshot(ctx)
	if err != nil {
		return err
	}
	if before != after {
		return errors.New("planning changed the target")
	}
	return nil
}

func provision(ctx context.Context, s *suite) error {
	a := s.account()
	r, err := s.apply(ctx, sdk.Provision, a, a.password)
	if err != nil {
		return err
	}
	if !r.Changed || !r.Facts.Exists || r.Facts.Locked || !r.Facts.HasPassword || r.Facts.Identity == "" {
		return fmt.Errorf("the result does not say that a new account is there: changed %t, %+v", r.Changed, r.Facts)
	}
	return errors.Join(s.exists(ctx, a, true), s.login(ctx, a, a.password, true), s.login(ctx, a, s.password(), false))
}

func provisionTwice(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	r, err := s.apply(ctx, sdk.Provision, a, a.password)
	if err != nil {
		return fmt.Errorf("second provision: %w", err)
	}
	if r.Changed || r.Facts.Identity != a.identity {
		return fmt.Errorf("the second provision says changed %t, identity %q after %q", r.Changed, r.Facts.Identity, a.identity)
	}
	return s.login(ctx, a, a.password, true)
}

func foreignPlan(ctx context.Context, s *suite) error {
	a, other := s.account(), s.account()
	in := s.intent(sdk.Provision, a)
	plan, err := s.client.Plan(ctx, s.cfg.Target, in)
	if err != nil {
		return err
	}
	// The hash of another plan.
	stream, err := s.rpc.Apply(ctx, &connectorv1.ApplyRequest{
		Target: sdk.TargetToProto(s.cfg.Target), Intent: sdk.IntentToProto(in), Plan: sdk.PlanToProto(plan),
		PlanHash: sdk.PlanHash(sdk.Plan{}), Password: a.password.Bytes(),
	})
	if err == nil {
		_, err = stream.Recv()
	}
	if err := wantClass("apply with a wrong hash", sdk.ErrorFromStatus(err), sdk.ClassPlanChanged); err != nil {
		return err
	}
	// A plan that is whole, but not what the connector would do.
	tampered := plan
	tampered.Steps = slices.Clone(plan.Steps)
	tampered.Steps[0].Command += " "
	_, err = s.applyPlan(ctx, s.cfg.Target, in, tampered, a.password)
	if err := wantClass("apply of a tampered plan", err, sdk.ClassPlanChanged); err != nil {
		return err
	}
	// The plan for another account, and for another action.
	_, err = s.applyPlan(ctx, s.cfg.Target, s.intent(sdk.Provision, other), plan, a.password)
	if err := wantClass("apply of another account's plan", err, sdk.ClassPlanChanged); err != nil {
		return err
	}
	_, err = s.applyPlan(ctx, s.cfg.Target, s.intent(sdk.Deprovision, a), plan, sdk.Secret{})
	if err := wantClass("apply of another action's plan", err, sdk.ClassPlanChanged); err != nil {
		return err
	}
	return errors.Join(s.exists(ctx, a, false), s.exists(ctx, other, false))
}

// corpus is what passwords have broken in programs of this kind: quotes, expansions,
// separators, formats, templates, comments, escapes, and letters beyond ASCII.
var corpus = []string{
	`'"'"'`, `\`, `\n\0\x41`, `$(id)` + "`id`" + `${HOME}`, `%s%n%d%%`, `{{.}}{%x%}`, `a;b&&c|d>e<f`, `#!*?[x]~`,
	`:colon:pass:`, `"double"`, `'; DROP USER x; --`, `inner  spaces x`, `@at/slash?q=1&b=2#f`, `!history!!`,
	`(paren)[brack]{brace}`, `ümläut-ßéñ`, `密码-пароль-🔑`, `=+,.<>/`, `^caret|pipe`,
}

func nastyPasswords(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	rule := s.description.PasswordRule
	long := "Aa1." + strings.Repeat("x", max(0, rule.MaxLength-5)) + "'"
	tried := 0
	for _, nasty := range append(slices.Clone(corpus), long) {
		text := nasty
		if nasty != long {
			text = "Aa1." + nasty + ".zZ9"
		}
		password := sdk.NewSecret([]byte(text))
		if rule.Check(password) != nil {
			continue // a target may exclude characters; its connector says which
		}
		s.secret(password)
		tried++
		if _, err := s.apply(ctx, sdk.Rotate, a, password); err != nil {
			return fmt.Errorf("password %q: %w", nasty, err)
		}
		if err := s.login(ctx, a, password, true); err != nil {
			return fmt.Errorf("password %q: %w", nasty, err)
		}
	}
	if tried < len(corpus)/2 {
		return fmt.Errorf("the connector's rule excludes most passwords: only %d of %d could be tried", tried, len(corpus)+1)
	}
	return nil
}

func controlCharacters(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	for _, c := range []string{"\n", "\r", "\x00", "\t", "\x1b", "\x7f", "\u0085"} {
		password := sdk.NewSecret([]byte("Aa1.first" + c + "root:second"))
		_, err := s.apply(ctx, sdk.Rotate, a, password)
		if err := wantClass(fmt.Sprintf("a password with %q", c), err, sdk.ClassPolicyRejected); err != nil {
			return err
		}
	}
	return s.login(ctx, a, a.password, true)
}

func hostileNames(ctx context.Context, s *suite) error {
	before, err := s.cfg.Snapshot(ctx)
	if err != nil {
		return err
	}
	names := []string{
		"", "a;id", "-rf", "--help", "a b", "a'b", `a"b`, "a`id`", "$(id)", "a/../b", "..", "a\nroot", "a:b", "a\x00b", "%s",
		"a\u202eb", "a\\b", strings.Repeat("a", s.description.NameRule.MaxBytes+1),
	}
	for _, name := range names {
		a := s.account()
		a.name = name
		for _, action := range []sdk.Action{sdk.Provision, sdk.Deprovision} {
			in := s.intent(action, a)
			_, err := s.client.Plan(ctx, s.cfg.Target, in)
			if err := wantClass(fmt.Sprintf("plan to %s %q", action, name), err, sdk.ClassInvalid); err != nil {
				return err
			}
			password := a.password
			if action == sdk.Deprovision {
				password = sdk.Secret{}
			}
			_, err = s.applyPlan(ctx, s.cfg.Target, in, sdk.Plan{Action: action, Account: name}, password)
			if err := wantClass(fmt.Sprintf("%s %q", action, name), err, sdk.ClassInvalid); err != nil {
				return err
			}
		}
	}
	after, err := s.cfg.Snapshot(ctx)
	if err == nil && before != after {
		err = errors.New("a hostile name changed the target")
	}
	return err
}

func rotate(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	next := s.password()
	for range 2 {
		if _, err := s.apply(ctx, sdk.Rotate, a, next); err != nil {
			return err
		}
		if err := errors.Join(s.login(ctx, a, next, true), s.login(ctx, a, a.password, false)); err != nil {
			return err
		}
	}
	absent := s.account()
	_, err = s.apply(ctx, sdk.Rotate, absent, absent.password)
	return errors.Join(
		wantClass("rotate of an account that is not there", err, sdk.ClassNotFound),
		s.exists(ctx, absent, false))
}

func disable(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	for i := range 2 {
		r, err := s.apply(ctx, sdk.Disable, a, sdk.Secret{})
		if err != nil {
			return err
		}
		if !r.Facts.Locked || r.Changed != (i == 0) {
			return fmt.Errorf("disable number %d says locked %t, changed %t", i+1, r.Facts.Locked, r.Changed)
		}
		if err := s.login(ctx, a, a.password, false); err != nil {
			return err
		}
	}
	// A new password must not open a disabled account.
	next := s.password()
	if _, err := s.apply(ctx, sdk.Rotate, a, next); err != nil {
		return fmt.Errorf("rotate a disabled account: %w", err)
	}
	return s.login(ctx, a, next, false)
}

func enable(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	if _, err := s.apply(ctx, sdk.Disable, a, sdk.Secret{}); err != nil {
		return err
	}
	for i := range 2 {
		r, err := s.apply(ctx, sdk.Enable, a, sdk.Secret{})
		if err != nil {
			return err
		}
		if r.Facts.Locked || r.Changed != (i == 0) {
			return fmt.Errorf("enable number %d says locked %t, changed %t", i+1, r.Facts.Locked, r.Changed)
		}
		if err := s.login(ctx, a, a.password, true); err != nil {
			return err
		}
	}
	return nil
}

func deprovision(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	for i := range 2 {
		r, err := s.apply(ctx, sdk.Deprovision, a, sdk.Secret{})
		if err != nil {
			return fmt.Errorf("deprovision number %d: %w", i+1, err)
		}
		if r.Facts.Exists || r.Changed != (i == 0) {
			return fmt.Errorf("deprovision number %d says exists %t, changed %t", i+1, r.Facts.Exists, r.Changed)
		}
		if err := errors.Join(s.exists(ctx, a, false), s.login(ctx, a, a.password, false)); err != nil {
			return err
		}
	}
	return nil
}

func verify(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	at := s.cfg.Target
	at.Management = sdk.Credential{}
	nobody, err := closedPort(ctx, at)
	if err != nil {
		return err
	}
	for _, c := range []struct {
		what     string
		target   sdk.Target
		password sdk.Secret
		want     sdk.VerdictKind
	}{
		{"the right password", at, a.password, sdk.VerdictOK},
		{"a wrong password", at, s.password(), sdk.VerdictBadCredential},
		{"a target that is not there", nobody, a.password, sdk.VerdictUnreachable},
	} {
		v, err := s.client.Verify(ctx, c.target, sdk.Credential{Username: a.name, Password: c.password})
		if err != nil {
			return fmt.Errorf("verify of %s: %w", c.what, err)
		}
		s.tell("a verdict", v.Message)
		if v.Kind != c.want {
			return fmt.Errorf("verify of %s says %s (%s), want %s", c.what, v.Kind, v.Message, c.want)
		}
	}
	if _, err := s.apply(ctx, sdk.Disable, a, sdk.Secret{}); err != nil {
		return err
	}
	v, err := s.client.Verify(ctx, at, sdk.Credential{Username: a.name, Password: a.password})
	if err != nil || v.Kind == sdk.VerdictOK {
		return errors.Join(fmt.Errorf("verify of a disabled account says %q", v.Kind), err)
	}
	if s.cfg.NoIdentity {
		return nil
	}
	untrusted := at
	untrusted.Trust = s.cfg.WrongTrust
	_, err = s.client.Verify(ctx, untrusted, sdk.Credential{Username: a.name, Password: a.password})
	return wantClass("verify at a target that is not the trusted one", err, sdk.ClassHostKeyChanged)
}

func inspect(ctx context.Context, s *suite) error {
	a := s.account()
	f, err := s.client.Inspect(ctx, s.cfg.Target, a.name)
	if err != nil {
		return err
	}
	if f.Exists || f.Account != a.name {
		return fmt.Errorf("inspect of an absent account says %+v", f)
	}
	r, err := s.apply(ctx, sdk.Provision, a, a.password)
	if err != nil {
		return err
	}
	if f, err = s.client.Inspect(ctx, s.cfg.Target, a.name); err != nil {
		return err
	}
	if diff := cmp.Diff(r.Facts, f, cmpopts.IgnoreFields(sdk.Facts{}, "ReadAt", "Sessions", "Attributes")); diff != "" {
		return fmt.Errorf("inspect and the result of provision differ: %s", diff)
	}
	switch {
	case !f.Exists || f.Account != a.name || f.Identity == "" || !f.HasPassword || f.Locked:
		return fmt.Errorf("inspect says %+v", f)
	case !f.ExpiresAt.IsZero() && (f.ExpiresAt.Before(a.expires) || f.ExpiresAt.After(a.expires.Add(48*time.Hour))):
		return fmt.Errorf("the account expires at %s instead of %s", f.ExpiresAt, a.expires)
	case time.Since(f.ReadAt).Abs() > time.Minute:
		return fmt.Errorf("the facts were read at %s", f.ReadAt)
	case !slices.IsSorted(f.Groups) || !slices.IsSorted(f.Grants):
		return errors.New("groups or grants are not sorted")
	default:
		return nil
	}
}
