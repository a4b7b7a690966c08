package sdktest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// obeyWithin is how soon a connector must answer after its deadline or cancellation.
const obeyWithin = 2 * time.Second

func hang(ctx context.Context, s *suite) error {
	p, silent, err := newProxy(ctx, s.cfg.Target, silent, 0)
	if err != nil {
		return err
	}
	defer p.close()
	a := s.account()
	in := s.intent(sdk.Rotate, a)
	plan, err := s.client.Plan(ctx, s.cfg.Target, in)
	if err != nil {
		return err
	}
	operations := map[string]func(context.Context) error{
		"probe":   func(ctx context.Context) error { _, err := s.client.Probe(ctx, silent); return err },
		"inspect": func(ctx context.Context) error { _, err := s.client.Inspect(ctx, silent, a.name); return err },
		"apply": func(ctx context.Context) error {
			_, err := s.client.Apply(ctx, silent, sdk.Change{Intent: in, Plan: plan, Password: a.password}, nil)
			return err
		},
		"verify": func(ctx context.Context) error {
			v, err := s.client.Verify(ctx, silent, sdk.Credential{Username: a.name, Password: a.password})
			if err == nil && v.Kind != sdk.VerdictUnreachable && v.Kind != sdk.VerdictUnknown {
				return fmt.Errorf("the verdict is %s", v.Kind)
			}
			if err == nil {
				err = sdk.Errorf(sdk.ClassUnreachable, "%s", v.Message)
			}
			return err
		},
	}
	for name, operation := range operations {
		if power := sdk.Power(name); name != "apply" && !s.has(power) {
			continue
		}
		const allowed = 400 * time.Millisecond
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, allowed)
		err := operation(limited)
		cancel()
		if took := time.Since(began); took > allowed+obeyWithin {
			return fmt.Errorf("%s answered %s after a deadline of %s", name, took, allowed)
		}
		if err := wantClass(name+" of a target that hangs", err, sdk.ClassUnreachable); err != nil {
			return err
		}
		if err := cancelled(ctx, p, name, operation); err != nil {
			return err
		}
	}
	return nil
}

// cancelled cancels an operation once it is connected. The connector must then hang up.
func cancelled(ctx context.Context, p *proxy, name string, operation func(context.Context) error) error {
	for len(p.accepted) > 0 {
		<-p.accepted
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- operation(ctx) }()
	select {
	case <-p.accepted:
	case err := <-done:
		return fmt.Errorf("%s ended before it was cancelled: %w", name, err)
	}
	cancel()
	limit := time.NewTimer(obeyWithin)
	defer limit.Stop()
	select {
	case err := <-done:
		if err == nil {
			return fmt.Errorf("%s succeeded although it was cancelled", name)
		}
	case <-limit.C:
		return fmt.Errorf("%s did not end within %s of its cancellation", name, obeyWithin)
	}
	if !p.idleWithin(limit.C) {
		return fmt.Errorf("%s kept its connection for %s after its cancellation", name, obeyWithin)
	}
	return nil
}

func concurrency(ctx context.Context, s *suite) error {
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			a, err := s.provisioned(ctx)
			if err != nil {
				errs[i] = err
				return
			}
			next := s.password()
			if _, err := s.apply(ctx, sdk.Rotate, a, next); err != nil {
				errs[i] = fmt.Errorf("rotate: %w", err)
				return
			}
			if errs[i] = s.login(ctx, a, next, true); errs[i] != nil {
				return
			}
			if _, err := s.apply(ctx, sdk.Deprovision, a, sdk.Secret{}); err != nil {
				errs[i] = fmt.Errorf("deprovision: %w", err)
				return
			}
			errs[i] = s.exists(ctx, a, false)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func noSecrets(ctx context.Context, s *suite) (err error) {
	a := s.account()
	next := s.password()
	secrets := []string{a.password.Reveal(), next.Reveal()}
	if m := s.cfg.Target.Management; m.Password.Len() >= 8 {
		secrets = append(secrets, m.Password.Reveal())
	}
	scan := startScanner(ctx, secrets)
	defer func() { err = errors.Join(err, scan.stop()) }()
	if _, err := s.apply(ctx, sdk.Provision, a, a.password); err != nil {
		return err
	}
	if _, err := s.apply(ctx, sdk.Rotate, a, next); err != nil {
		return err
	}
	if s.has(sdk.PowerInspect) {
		f, err := s.client.Inspect(ctx, s.cfg.Target, a.name)
		if err != nil {
			return err
		}
		s.tell("facts", fmt.Sprint(f))
	}
	if !s.has(sdk.PowerVerify) {
		return nil
	}
	v, err := s.client.Verify(ctx, s.cfg.Target, sdk.Credential{Username: a.name, Password: next})
	if err != nil || v.Kind != sdk.VerdictOK {
		return errors.Join(fmt.Errorf("verify says %q", v.Kind), err)
	}
	s.tell("a verdict", v.Message)
	_, err = s.client.Verify(ctx, s.cfg.Target, sdk.Credential{Username: a.name, Password: a.password})
	s.tellError("an error of Verify", err)
	return err
}

func notOurs(ctx context.Context, s *suite) error {
	a := s.account()
	theirs := s.password()
	if err := s.cfg.CreateForeign(ctx, a.name, theirs.Reveal()); err != nil {
		return fmt.Errorf("make a foreign account: %w", err)
	}
	before, err := s.cfg.Snapshot(ctx)
	if err != nil {
		return err
	}
	for _, action := range []sdk.Action{sdk.Provision, sdk.Rotate, sdk.Disable, sdk.Enable, sdk.Deprovision} {
		var password sdk.Secret
		if action == sdk.Provision || action == sdk.Rotate {
			password = a.password
		}
		_, err := s.apply(ctx, action, a, password)
		if err := wantClass(string(action)+" of somebody else's account", err, sdk.ClassExists); err != nil {
			return err
		}
	}
	after, err := s.cfg.Snapshot(ctx)
	if err == nil && before != after {
		err = errors.New("somebody else's account was changed")
	}
	return errors.Join(err, s.login(ctx, a, theirs, true))
}

func otherIdentity(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	right := a.identity
	a.identity = right + "9"
	defer func() { a.identity = right }()
	for _, action := range []sdk.Action{sdk.Rotate, sdk.Disable, sdk.Deprovision} {
		var password sdk.Secret
		if action == sdk.Rotate {
			password = s.password()
		}
		_, err := s.apply(ctx, action, a, password)
		if err := wantClass(string(action)+" of an account with another identity", err, sdk.ClassExists); err != nil {
			return err
		}
	}
	return s.login(ctx, a, a.password, true)
}
