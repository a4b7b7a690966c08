package sdktest

import (
	"context"
	"errors"
	"fmt"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// State is one in which an account refuses its right password.
type State string

// The states.
const (
	StateExpired    State = "expired"     // its expiry date has passed
	StateLocked     State = "locked"      // after wrong passwords, or by an administrator where the target has no other word
	StateDisabled   State = "disabled"    // somebody disabled it
	StateMustChange State = "must_change" // its password has expired, or must be changed first
)

// StateHook is how the target gets an account into a state. One of Set and None is set.
type StateHook struct {
	// Set brings a usable account there, at the target itself.
	Set func(ctx context.Context, name string) error
	// None says why this kind of target has no such state.
	None string
	// Hidden says, with Set, why the target does not tell the state to the one who logs in:
	// a management account in it may be refused with auth_failed.
	Hidden string
}

// answers are what a connector says of an account in a state.
var answers = map[State]struct {
	verdict sdk.VerdictKind
	class   sdk.Class
}{
	StateExpired:    {sdk.VerdictExpired, sdk.ClassExpired},
	StateLocked:     {sdk.VerdictLocked, sdk.ClassLocked},
	StateDisabled:   {sdk.VerdictDisabled, sdk.ClassDisabled},
	StateMustChange: {sdk.VerdictMustChange, sdk.ClassMustChange},
}

// inState makes an account and brings it into a state.
func (s *suite) inState(ctx context.Context, state State) (*account, StateHook, error) {
	hook, known := s.cfg.States[state]
	switch {
	case !known:
		return nil, hook, notApplicable("the target has no hook that makes an account " + string(state))
	case hook.Set == nil:
		return nil, hook, notApplicable("there is no such state: " + hook.None)
	}
	a, err := s.provisioned(ctx)
	if err != nil {
		return nil, hook, err
	}
	if err := hook.Set(ctx, a.name); err != nil {
		return nil, hook, fmt.Errorf("make the account %s: %w", state, err)
	}
	return a, hook, nil
}

// verifyAs is Verify with a management account, which may be none.
func (s *suite) verifyAs(ctx context.Context, management sdk.Credential, name string, password sdk.Secret) (sdk.Verdict, error) {
	t := s.cfg.Target
	t.Management = management
	v, err := s.client.Verify(ctx, t, sdk.Credential{Username: name, Password: password})
	s.tell("a verdict", v.Message+v.Fix+v.Identity)
	s.tellError("an error of Verify", err)
	return v, err
}

// verifyIn makes a check of the verdict for an account in a state.
func verifyIn(state State) func(context.Context, *suite) error {
	return func(ctx context.Context, s *suite) error {
		a, _, err := s.inState(ctx, state)
		if err != nil {
			return err
		}
		want := answers[state].verdict
		// Alone it may not know why, and then must not guess.
		v, err := s.verifyAs(ctx, sdk.Credential{}, a.name, a.password)
		if err != nil {
			return fmt.Errorf("verify without the management account: %w", err)
		}
		switch v.Kind {
		case want, sdk.VerdictBadCredential, sdk.VerdictUnknown:
		default:
			return fmt.Errorf("verify without the management account says %s (%s), want %s, %s or %s", v.Kind, v.Message,
				want, sdk.VerdictBadCredential, sdk.VerdictUnknown)
		}
		v, err = s.verifyAs(ctx, s.cfg.Target.Management, a.name, a.password)
		switch {
		case err != nil:
			return fmt.Errorf("verify: %w", err)
		case v.Kind != want:
			return fmt.Errorf("verify says %s (%s), want %s", v.Kind, v.Message, want)
		case v.Message == "" || v.Fix == "":
			return fmt.Errorf("the verdict %s says not what to do: message %q, fix %q", v.Kind, v.Message, v.Fix)
		}
		return nil
	}
}

// managementIn makes a check of what is said of a management account in a state.
func managementIn(state State) func(context.Context, *suite) error {
	return func(ctx context.Context, s *suite) error {
		a, hook, err := s.inState(ctx, state)
		if err != nil {
			return err
		}
		want := []sdk.Class{answers[state].class}
		if hook.Hidden != "" {
			want = append(want, sdk.ClassAuthFailed)
		}
		t := s.cfg.Target
		t.Management = sdk.Credential{Username: a.name, Password: a.password}
		_, err = s.client.Probe(ctx, t)
		s.tellError("an error of Probe", err)
		return withFix("probe with a management account that is "+string(state), err, want...)
	}
}

// onlyExplains makes sure that the management account decides nothing in Verify.
func onlyExplains(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	right := s.cfg.Target.Management
	nobody := sdk.Credential{Username: s.account().name, Password: s.password()}
	for _, c := range []struct {
		what       string
		management sdk.Credential
		password   sdk.Secret
		want       sdk.VerdictKind
	}{
		{"the right password", right, a.password, sdk.VerdictOK},
		{"the right password, with a management account that cannot log in", nobody, a.password, sdk.VerdictOK},
		{"a wrong password", right, s.password(), sdk.VerdictBadCredential},
		{"a wrong password, with a management account that cannot log in", nobody, s.password(), sdk.VerdictBadCredential},
	} {
		v, err := s.verifyAs(ctx, c.management, a.name, c.password)
		if err != nil {
			return fmt.Errorf("verify of %s: %w", c.what, err)
		}
		if v.Kind != c.want {
			return fmt.Errorf("verify of %s says %s (%s), want %s", c.what, v.Kind, v.Message, c.want)
		}
	}
	v, err := s.verifyAs(ctx, right, s.account().name, s.password())
	if err == nil && v.Kind != sdk.VerdictBadCredential && v.Kind != sdk.VerdictUnknown {
		err = fmt.Errorf("verify of an account that is not there says %s", v.Kind)
	}
	return err
}

// costsOneLogin counts, at the target, what Verify costs an account.
func costsOneLogin(ctx context.Context, s *suite) error {
	if s.cfg.FailedLogins == nil {
		return notApplicable("the target has no hook that counts failed logins")
	}
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	management := s.cfg.Target.Management
	count := func() (own, theirs int) {
		own, e1 := s.cfg.FailedLogins(ctx, a.name)
		theirs, e2 := s.cfg.FailedLogins(ctx, management.Username)
		err = errors.Join(err, e1, e2)
		return own, theirs
	}
	for i, m := range []sdk.Credential{{}, management} {
		own, theirs := count()
		if _, err := s.verifyAs(ctx, m, a.name, s.password()); err != nil {
			return fmt.Errorf("verify of a wrong password: %w", err)
		}
		ownAfter, theirsAfter := count()
		switch {
		case err != nil:
			return fmt.Errorf("count failed logins: %w", err)
		case ownAfter != own+1:
			return fmt.Errorf("verify of a wrong password, management account given: %t, cost %d failed logins, want 1", i > 0, ownAfter-own)
		case theirsAfter > theirs:
			return errors.New("verify of a wrong password cost the management account a failed login")
		}
	}
	return nil
}

// failedGrant provisions with a role of which the target refuses a grant.
func failedGrant(ctx context.Context, s *suite) error {
	role := s.cfg.RefusedRole
	if role.Name == "" {
		return notApplicable("the target's configuration names no role with a grant that the target refuses")
	}
	before, err := s.cfg.Snapshot(ctx)
	if err != nil {
		return err
	}
	a := s.account()
	in := s.intent(sdk.Provision, a)
	in.Role, in.Params = role, s.cfg.RefusedParams
	plan, err := s.client.Plan(ctx, s.cfg.Target, in)
	if err != nil {
		return fmt.Errorf("plan with the role %s, which only the target shall refuse: %w", role.Name, err)
	}
	_, failed := s.applyPlan(ctx, s.cfg.Target, in, plan, a.password)
	if err := withFix("provision with a grant that the target refuses", failed, sdk.ClassNotPermitted, sdk.ClassNotFound, sdk.ClassUnsupported,
		sdk.ClassInvalid, sdk.ClassPolicyRejected); err != nil {
		return err
	}
	if err := s.exists(ctx, a, false); err != nil {
		return fmt.Errorf("after a grant that failed: %w", err)
	}
	after, err := s.cfg.Snapshot(ctx)
	if err != nil {
		return err
	}
	if e, _ := errors.AsType[*sdk.Error](failed); before != after && e.Details["residue"] == "" {
		return errors.New("a grant that failed left something that the error does not name as residue")
	}
	if _, err := s.apply(ctx, sdk.Provision, a, a.password); err != nil {
		return fmt.Errorf("provision without that grant, afterwards: %w", err)
	}
	return s.login(ctx, a, a.password, true)
}
