package sdktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

func provisionNewPassword(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	next := s.password()
	if _, err := s.apply(ctx, sdk.Provision, a, next); err != nil {
		return fmt.Errorf("second provision: %w", err)
	}
	return errors.Join(s.login(ctx, a, next, true), s.login(ctx, a, a.password, false))
}

func provisionAfterRemoval(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	if _, err := s.apply(ctx, sdk.Deprovision, a, sdk.Secret{}); err != nil {
		return err
	}
	b := s.account()
	b.name = a.name // a new account, for which Reeve knows no identity
	r, err := s.apply(ctx, sdk.Provision, b, b.password)
	if err != nil {
		return fmt.Errorf("provision after removal: %w", err)
	}
	if !r.Changed {
		return errors.New("the second account of the name is said to have been there")
	}
	return errors.Join(s.login(ctx, b, b.password, true), s.login(ctx, b, a.password, false))
}

func repeatChangesNothing(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	for _, action := range []sdk.Action{sdk.Disable, sdk.Enable, sdk.Deprovision} {
		if _, err := s.apply(ctx, action, a, sdk.Secret{}); err != nil {
			return err
		}
		before, err := s.cfg.Snapshot(ctx)
		if err != nil {
			return err
		}
		if _, err := s.apply(ctx, action, a, sdk.Secret{}); err != nil {
			return fmt.Errorf("%s again: %w", action, err)
		}
		after, err := s.cfg.Snapshot(ctx)
		if err != nil {
			return err
		}
		if before != after {
			return fmt.Errorf("a second %s changed the target", action)
		}
	}
	return nil
}

func absentIsNotFound(ctx context.Context, s *suite) error {
	before, err := s.cfg.Snapshot(ctx)
	if err != nil {
		return err
	}
	a := s.account()
	for _, action := range []sdk.Action{sdk.Disable, sdk.Enable} {
		_, err := s.apply(ctx, action, a, sdk.Secret{})
		if err := wantClass(string(action)+" of an account that is not there", err, sdk.ClassNotFound); err != nil {
			return err
		}
	}
	after, err := s.cfg.Snapshot(ctx)
	if err == nil && before != after {
		err = errors.New("the target was changed for an account that is not there")
	}
	return err
}

func absentIsRemoved(ctx context.Context, s *suite) error {
	before, err := s.cfg.Snapshot(ctx)
	if err != nil {
		return err
	}
	a := s.account()
	r, err := s.apply(ctx, sdk.Deprovision, a, sdk.Secret{})
	if err != nil {
		return err
	}
	if r.Changed || r.Facts.Exists {
		return fmt.Errorf("removal of an account that never was says changed %t, exists %t", r.Changed, r.Facts.Exists)
	}
	after, err := s.cfg.Snapshot(ctx)
	if err == nil && before != after {
		err = errors.New("the target was changed for an account that never was")
	}
	return err
}

func namesakesAreLeftAlone(ctx context.Context, s *suite) error {
	short := s.account()
	long := s.account()
	long.name = s.longer(short.name, len(short.name)+1)
	if long.name == short.name {
		return notApplicable("the rule allows no longer name")
	}
	for _, a := range []*account{short, long} {
		r, err := s.apply(ctx, sdk.Provision, a, a.password)
		if err != nil {
			return err
		}
		a.identity = r.Facts.Identity
	}
	for _, action := range []sdk.Action{sdk.Rotate, sdk.Disable, sdk.Deprovision} {
		var password sdk.Secret
		if action == sdk.Rotate {
			password = s.password()
		}
		if _, err := s.apply(ctx, action, short, password); err != nil {
			return err
		}
		if err := errors.Join(s.exists(ctx, long, true), s.login(ctx, long, long.password, true)); err != nil {
			return fmt.Errorf("%s of %s: %w", action, short.name, err)
		}
	}
	return nil
}

// longer returns name made longer with characters of the rule, up to so many bytes.
func (s *suite) longer(name string, bytes int) string {
	rule := s.description.NameRule
	for len(name) < min(bytes, rule.MaxBytes) {
		i := slices.IndexFunc([]byte("xX0"), func(c byte) bool { return rule.Check(name+string(c)) == nil })
		if i < 0 {
			break
		}
		name += string("xX0"[i])
	}
	return name
}

func provisionOpens(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	if _, err := s.apply(ctx, sdk.Disable, a, sdk.Secret{}); err != nil {
		return err
	}
	r, err := s.apply(ctx, sdk.Provision, a, a.password)
	if err != nil {
		return fmt.Errorf("provision of a disabled account: %w", err)
	}
	if r.Facts.Locked {
		return errors.New("the account is still said to be locked")
	}
	return s.login(ctx, a, a.password, true)
}

// sameAccount rotates one account from four sides. Some may be told that it is busy;
// afterwards one of the passwords that were set works, and only that one.
func sameAccount(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	const sides = 4
	var errs [sides]error
	var passwords [sides]sdk.Secret
	var wg sync.WaitGroup
	for i := range sides {
		passwords[i] = s.password()
		wg.Go(func() { _, errs[i] = s.apply(ctx, sdk.Rotate, a, passwords[i]) })
	}
	wg.Wait()
	done, work := 0, 0
	for i, err := range errs {
		if err != nil {
			if err := wantClass("rotate of an account others are rotating", err,
				sdk.ClassBusy, sdk.ClassUnknownOutcome, sdk.ClassProtocol, sdk.ClassUnreachable); err != nil {
				return err
			}
		} else {
			done++
		}
		works, err := s.cfg.LoginWorks(ctx, a.name, passwords[i].Reveal())
		if err != nil {
			return err
		}
		if works {
			work++
		}
	}
	if done == 0 || work != 1 {
		return fmt.Errorf("%d of %d rotations at once succeeded, and %d of their passwords work, want 1", done, sides, work)
	}
	next := s.password()
	if _, err := s.apply(ctx, sdk.Rotate, a, next); err != nil {
		return fmt.Errorf("rotate afterwards: %w", err)
	}
	return s.login(ctx, a, next, true)
}

// progressEvents compares the events of a provisioning with its plan.
func progressEvents(ctx context.Context, s *suite) error {
	_, change, err := provisioning.planned(ctx, s)
	if err != nil {
		return err
	}
	order := map[string]int{}
	for i, step := range change.Plan.Steps {
		order[step.ID] = i
	}
	ended := make([]bool, len(order))
	furthest := 0
	var wrong error
	_, err = s.applyWith(ctx, s.program, s.cfg.Target, change, func(e sdk.Event) {
		i, known := order[e.Step]
		switch {
		case !known:
			wrong = fmt.Errorf("an event is about step %q, which is not in the plan", e.Step)
			return
		case i < furthest:
			wrong = fmt.Errorf("step %s went on after a later one", e.Step)
		case e.State == sdk.StepDone, e.State == sdk.StepSkipped:
			ended[i] = true
		case e.State == sdk.StepFailed:
			wrong = fmt.Errorf("step %s failed, and the whole succeeded", e.Step)
		}
		furthest = max(furthest, i)
	})
	if err = errors.Join(err, wrong); err != nil {
		return err
	}
	for i, step := range change.Plan.Steps {
		if !ended[i] {
			return fmt.Errorf("no event says that step %s was done or skipped", step.ID)
		}
	}
	return nil
}
