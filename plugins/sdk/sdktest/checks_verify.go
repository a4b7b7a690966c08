package sdktest

import (
	"context"
	"errors"
	"fmt"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// verdict verifies without the management account.
func (s *suite) verdict(ctx context.Context, name string, password sdk.Secret) (sdk.Verdict, error) {
	return s.verifyAs(ctx, sdk.Credential{}, name, password)
}

// verifyEmpty tries a login without a password: with LDAP that is a login as nobody,
// which servers accept.
func verifyEmpty(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	v, err := s.verdict(ctx, a.name, sdk.Secret{})
	if err != nil {
		return wantClass("verify with an empty password", err, sdk.ClassInvalid, sdk.ClassAuthFailed, sdk.ClassPolicyRejected)
	}
	if v.Kind == sdk.VerdictOK {
		return errors.New("an empty password is said to be right")
	}
	return nil
}

func verifyAbsent(ctx context.Context, s *suite) error {
	v, err := s.verdict(ctx, s.account().name, s.password())
	if err != nil {
		return fmt.Errorf("verify of an account that is not there: %w", err)
	}
	if v.Kind != sdk.VerdictBadCredential && v.Kind != sdk.VerdictUnknown {
		return fmt.Errorf("verify of an account that is not there says %s", v.Kind)
	}
	return nil
}

func verifyHostile(ctx context.Context, s *suite) error {
	before, err := s.cfg.Snapshot(ctx)
	if err != nil {
		return err
	}
	for _, name := range strangeNames {
		v, err := s.verdict(ctx, name, s.password())
		if err != nil {
			if err := wantClass(fmt.Sprintf("verify as %q", name), err, sdk.ClassInvalid, sdk.ClassNotFound); err != nil {
				return err
			}
			continue
		}
		if v.Kind == sdk.VerdictOK {
			return fmt.Errorf("verify says that a login as %q works", name)
		}
	}
	after, err := s.cfg.Snapshot(ctx)
	if err == nil && before != after {
		err = errors.New("verifying a hostile name changed the target")
	}
	return err
}

// verifyFresh makes sure that each verdict is a login of its own.
func verifyFresh(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	want := func(what string, password sdk.Secret, kind sdk.VerdictKind) error {
		v, err := s.verdict(ctx, a.name, password)
		if err == nil && v.Kind != kind {
			err = fmt.Errorf("verify of %s says %s, want %s", what, v.Kind, kind)
		}
		return err
	}
	if err := want("the password", a.password, sdk.VerdictOK); err != nil {
		return err
	}
	next := s.password()
	if _, err := s.apply(ctx, sdk.Rotate, a, next); err != nil {
		return err
	}
	if err := errors.Join(want("the password before the rotation", a.password, sdk.VerdictBadCredential),
		want("the new password", next, sdk.VerdictOK)); err != nil {
		return err
	}
	if _, err := s.apply(ctx, sdk.Deprovision, a, sdk.Secret{}); err != nil {
		return err
	}
	v, err := s.verdict(ctx, a.name, next)
	if err == nil && v.Kind == sdk.VerdictOK {
		err = errors.New("verify accepts the password of an account that was removed")
	}
	return err
}

// keptConnection makes sure that a connection that is kept serves its own password only.
func keptConnection(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	t := s.cfg.Target
	t.Management = sdk.Credential{Username: t.Management.Username, Password: s.password()}
	in := s.intent(sdk.Disable, a)
	plan, err := s.client.Plan(ctx, s.cfg.Target, in)
	if err != nil {
		return err
	}
	_, err = s.applyPlan(ctx, t, in, plan, sdk.Secret{})
	if err := wantClass("disable with a wrong management password, after a right one", err, sdk.ClassAuthFailed, sdk.ClassLocked); err != nil {
		return err
	}
	if s.has(sdk.PowerInspect) {
		_, err = s.client.Inspect(ctx, t, a.name)
		if err := wantClass("inspect with a wrong management password, after a right one", err, sdk.ClassAuthFailed, sdk.ClassLocked); err != nil {
			return err
		}
	}
	return s.login(ctx, a, a.password, true)
}

// withoutRights works with an ordinary account as management account.
func withoutRights(ctx context.Context, s *suite) error {
	ordinary := s.account()
	ordinary.role = &sdk.Role{}
	if _, err := s.apply(ctx, sdk.Provision, ordinary, ordinary.password); err != nil {
		return err
	}
	t := s.cfg.Target
	t.Management = sdk.Credential{Username: ordinary.name, Password: ordinary.password}
	refusals := []sdk.Class{sdk.ClassNotPermitted, sdk.ClassAuthFailed, sdk.ClassUnsupported}
	f, err := s.client.Probe(ctx, t)
	s.tellError("an error of Probe", err)
	if err != nil {
		if err := wantClass("probe with an account without rights", err, refusals...); err != nil {
			return err
		}
	} else if len(f.MissingRights) == 0 {
		return errors.New("probe says that an account without rights lacks none")
	}
	a := s.account()
	in := s.intent(sdk.Provision, a)
	plan, err := s.client.Plan(ctx, s.cfg.Target, in)
	if err != nil {
		return err
	}
	_, err = s.applyPlan(ctx, t, in, plan, a.password)
	return errors.Join(wantClass("provision with an account without rights", err, refusals...), s.exists(ctx, a, false))
}

func lockedManagement(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	if _, err := s.apply(ctx, sdk.Disable, a, sdk.Secret{}); err != nil {
		return err
	}
	t := s.cfg.Target
	t.Management = sdk.Credential{Username: a.name, Password: a.password}
	_, err = s.client.Probe(ctx, t)
	s.tellError("an error of Probe", err)
	return withFix("probe with a management account that is disabled", err, sdk.ClassLocked, sdk.ClassDisabled, sdk.ClassExpired,
		sdk.ClassAuthFailed, sdk.ClassNotPermitted)
}

// withFix is wantClass for errors that also say what to do.
func withFix(what string, err error, want ...sdk.Class) error {
	if err := wantClass(what, err, want...); err != nil {
		return err
	}
	if e, _ := errors.AsType[*sdk.Error](err); e.Message == "" || e.Fix == "" {
		return fmt.Errorf("%s: the error does not say what to do: %w", what, err)
	}
	return nil
}

// everyFix meets refusals of every kind; each says what to do.
func everyFix(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	theirs := s.account()
	if err := s.cfg.CreateForeign(ctx, theirs.name, theirs.password.Reveal()); err != nil {
		return fmt.Errorf("make a foreign account: %w", err)
	}
	wrong := s.cfg.Target
	wrong.Management = sdk.Credential{Username: wrong.Management.Username, Password: s.password()}
	_, denied := s.client.Probe(ctx, wrong)
	_, exists := s.apply(ctx, sdk.Provision, theirs, theirs.password)
	_, notFound := s.apply(ctx, sdk.Rotate, s.account(), s.password())
	in := s.intent(sdk.Disable, a)
	plan, err := s.client.Plan(ctx, s.cfg.Target, in)
	if err != nil {
		return err
	}
	plan.Steps[0].Command += " "
	_, changed := s.applyPlan(ctx, s.cfg.Target, in, plan, sdk.Secret{})
	_, rejected := s.apply(ctx, sdk.Rotate, a, sdk.NewSecret([]byte("Aa1.\x07xxxxxxxxx")))
	bad := s.account()
	bad.name = "a;id"
	_, invalid := s.client.Plan(ctx, s.cfg.Target, s.intent(sdk.Provision, bad))
	return errors.Join(
		withFix("probe with a wrong password", denied, sdk.ClassAuthFailed),
		withFix("provision of somebody else's account", exists, sdk.ClassExists),
		withFix("rotate of an account that is not there", notFound, sdk.ClassNotFound),
		withFix("apply of a tampered plan", changed, sdk.ClassPlanChanged),
		withFix("a password with a control character", rejected, sdk.ClassPolicyRejected),
		withFix("a hostile account name", invalid, sdk.ClassInvalid))
}
