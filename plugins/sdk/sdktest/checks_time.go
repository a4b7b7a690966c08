package sdktest

import (
	"context"
	"fmt"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// allowed is the deadline given to operations that cannot keep it.
const allowed = 500 * time.Millisecond

// operation is one call of a connector; ready makes what it needs.
type operation struct {
	name  string
	ready func(ctx context.Context, s *suite) (call func(ctx context.Context, at sdk.Target) error, done func(context.Context, error) error, err error)
}

// reading is an operation that changes nothing, on an account that is there.
func reading(name string, call func(ctx context.Context, s *suite, at sdk.Target, a *account) error) operation {
	return operation{name, func(ctx context.Context, s *suite) (func(context.Context, sdk.Target) error, func(context.Context, error) error, error) {
		a, err := s.provisioned(ctx)
		return func(ctx context.Context, at sdk.Target) error { return call(ctx, s, at, a) },
			func(_ context.Context, err error) error {
				return wantClass(name+" of a target that hangs", err, sdk.ClassUnreachable, sdk.ClassCancelled, sdk.ClassUnknownOutcome)
			}, err
	}}
}

// changing is an operation that makes a change.
func changing(c change) operation {
	return operation{string(c.action), func(ctx context.Context, s *suite) (func(context.Context, sdk.Target) error, func(context.Context, error) error, error) {
		a, change, err := c.planned(ctx, s)
		call := func(ctx context.Context, at sdk.Target) error {
			_, err := s.applyWith(ctx, s.program, at, change, func(sdk.Event) {})
			return err
		}
		done := func(ctx context.Context, err error) error {
			if err := c.truthful(ctx, s, a, err); err != nil {
				return err
			}
			return c.again(ctx, s, a)
		}
		return call, done, err
	}}
}

var (
	probing = reading("probe", func(ctx context.Context, s *suite, at sdk.Target, _ *account) error {
		_, err := s.client.Probe(ctx, at)
		return err
	})
	planning = reading("plan", func(ctx context.Context, s *suite, at sdk.Target, a *account) error {
		at.Fingerprint = sdk.Fingerprint{}
		_, err := s.client.Plan(ctx, at, s.intent(sdk.Provision, a))
		return err
	})
	inspecting = reading("inspect", func(ctx context.Context, s *suite, at sdk.Target, a *account) error {
		_, err := s.client.Inspect(ctx, at, a.name)
		return err
	})
	discovering = reading("discover", func(ctx context.Context, s *suite, at sdk.Target, _ *account) error {
		return s.client.Discover(ctx, at, func(sdk.Facts) bool { return true })
	})
	verifying = reading("verify", func(ctx context.Context, s *suite, at sdk.Target, a *account) error {
		at.Management = sdk.Credential{}
		v, err := s.client.Verify(ctx, at, sdk.Credential{Username: a.name, Password: a.password})
		s.tell("a verdict", v.Message)
		switch {
		case err != nil || v.Kind == sdk.VerdictOK:
			return err
		case v.Kind == sdk.VerdictUnreachable, v.Kind == sdk.VerdictUnknown:
			return sdk.Errorf(sdk.ClassUnreachable, "the verdict is %s", v.Kind)
		default:
			return fmt.Errorf("the verdict is %s", v.Kind)
		}
	})
	running = reading("run", func(ctx context.Context, s *suite, at sdk.Target, _ *account) error {
		if err := s.needCommands(); err != nil {
			return err
		}
		_, err := s.client.Run(ctx, at, s.cfg.Commands.Speak, &printed{})
		return err
	})
)

// stallAt makes a check that lets the target fall silent at several points of an
// operation: at the beginning, in the middle of the login, in the middle of answers.
// At every other point the operation has a deadline, at the others it is cancelled.
func stallAt(op operation) func(context.Context, *suite) error {
	return func(ctx context.Context, s *suite) error {
		total, err := op.measured(ctx, s)
		if err != nil {
			return err
		}
		if total == 0 {
			return notApplicable(op.name + " asks the target nothing")
		}
		const points = 4
		return together(points, func(i int) error {
			call, done, err := op.ready(ctx, s)
			if err != nil {
				return err
			}
			p, silentAt, err := newProxy(ctx, s.cfg.Target, stalled, total*int64(i)/points)
			if err != nil {
				return err
			}
			defer p.close()
			if i%2 == 0 {
				err = withDeadline(ctx, op.name, silentAt, call)
			} else {
				err = withCancel(ctx, op.name, p, silentAt, call)
			}
			if e, late := err.(tooLate); late { //nolint:errorlint // it is not wrapped
				return e
			}
			s.tellError("an error of "+op.name, err)
			if err == nil && !p.failing() {
				return nil // the target needed fewer bytes this time
			}
			if err := done(ctx, err); err != nil {
				return fmt.Errorf("%s, silent after %d of %d bytes: %w", op.name, total*int64(i)/points, total, err)
			}
			return nil
		})
	}
}

// tooLate is how a connector failed that did not obey in time.
type tooLate string

func (t tooLate) Error() string { return string(t) }

func withDeadline(ctx context.Context, name string, at sdk.Target, call func(context.Context, sdk.Target) error) error {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, allowed)
	defer cancel()
	err := call(limited, at)
	if took := time.Since(began); took > allowed+obeyWithin {
		return tooLate(fmt.Sprintf("%s answered %s after a deadline of %s", name, took, allowed))
	}
	return err
}

func withCancel(ctx context.Context, name string, p *proxy, at sdk.Target, call func(context.Context, sdk.Target) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- call(ctx, at) }()
	select {
	case <-p.spent:
	case err := <-done:
		return err
	case <-time.After(10 * allowed): // the target needed fewer bytes this time, and is waited for
	}
	cancel()
	limit := time.NewTimer(obeyWithin)
	defer limit.Stop()
	select {
	case err := <-done:
		if !p.idleWithin(limit.C) {
			return tooLate(fmt.Sprintf("%s kept its connection for %s after its cancellation", name, obeyWithin))
		}
		return err
	case <-limit.C:
		return tooLate(fmt.Sprintf("%s did not end within %s of its cancellation", name, obeyWithin))
	}
}

// measured does the operation once and returns how many bytes came from the target.
func (op operation) measured(ctx context.Context, s *suite) (int64, error) {
	p, there, err := newProxy(ctx, s.cfg.Target, whole, 0)
	if err != nil {
		return 0, err
	}
	defer p.close()
	call, _, err := op.ready(ctx, s)
	if err != nil {
		return 0, err
	}
	err = call(ctx, there)
	if _, other := err.(notApplicable); other { //nolint:errorlint // it is not wrapped
		return 0, err
	}
	if err != nil {
		return 0, fmt.Errorf("%s through a proxy: %w", op.name, err)
	}
	return p.bytes.Load(), nil
}
