package sdktest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// change is a kind of change, and what is true of the target before and after it.
type change struct {
	action        sdk.Action
	prepare       func(ctx context.Context, s *suite) (*account, error) // brings an account to where it begins
	before, after func(ctx context.Context, s *suite, a *account) error
}

var (
	provisioning = change{
		action: sdk.Provision,
		prepare: func(_ context.Context, s *suite) (*account, error) {
			a := s.account()
			a.next = a.password
			return a, nil
		},
		before: func(ctx context.Context, s *suite, a *account) error { return s.exists(ctx, a, false) },
		after: func(ctx context.Context, s *suite, a *account) error {
			return errors.Join(s.exists(ctx, a, true), s.login(ctx, a, a.next, true))
		},
	}
	rotation = change{
		action: sdk.Rotate,
		prepare: func(ctx context.Context, s *suite) (*account, error) {
			a, err := s.provisioned(ctx)
			if err == nil {
				a.next = s.password()
			}
			return a, err
		},
		before: func(ctx context.Context, s *suite, a *account) error {
			return errors.Join(s.login(ctx, a, a.password, true), s.login(ctx, a, a.next, false))
		},
		after: func(ctx context.Context, s *suite, a *account) error {
			return errors.Join(s.login(ctx, a, a.next, true), s.login(ctx, a, a.password, false))
		},
	}
	disabling = change{
		action:  sdk.Disable,
		prepare: func(ctx context.Context, s *suite) (*account, error) { return s.provisioned(ctx) },
		before:  func(ctx context.Context, s *suite, a *account) error { return s.login(ctx, a, a.password, true) },
		after:   func(ctx context.Context, s *suite, a *account) error { return s.login(ctx, a, a.password, false) },
	}
	enabling = change{
		action: sdk.Enable,
		prepare: func(ctx context.Context, s *suite) (*account, error) {
			a, err := s.provisioned(ctx)
			if err == nil {
				_, err = s.apply(ctx, sdk.Disable, a, sdk.Secret{})
			}
			return a, err
		},
		before: func(ctx context.Context, s *suite, a *account) error { return s.login(ctx, a, a.password, false) },
		after:  func(ctx context.Context, s *suite, a *account) error { return s.login(ctx, a, a.password, true) },
	}
	removal = change{
		action:  sdk.Deprovision,
		prepare: func(ctx context.Context, s *suite) (*account, error) { return s.provisioned(ctx) },
		before:  func(ctx context.Context, s *suite, a *account) error { return s.login(ctx, a, a.password, true) },
		after: func(ctx context.Context, s *suite, a *account) error {
			return errors.Join(s.exists(ctx, a, false), s.login(ctx, a, a.password, false))
		},
	}
)

// planned prepares an account and plans the change of it.
func (c change) planned(ctx context.Context, s *suite) (*account, sdk.Change, error) {
	a, err := c.prepare(ctx, s)
	if err != nil {
		return nil, sdk.Change{}, err
	}
	in := s.intent(c.action, a)
	plan, err := s.client.Plan(ctx, s.cfg.Target, in)
	return a, sdk.Change{Intent: in, Plan: plan, Password: a.next}, err
}

// again repeats the change after it was interrupted, and proves it.
func (c change) again(ctx context.Context, s *suite, a *account) error {
	if _, err := s.apply(ctx, c.action, a, a.next); err != nil {
		return fmt.Errorf("%s again: %w", c.action, err)
	}
	if err := c.after(ctx, s, a); err != nil {
		return fmt.Errorf("%s again: %w", c.action, err)
	}
	return nil
}

// truthful checks the error of a change that was interrupted: one that says that
// nothing was done must be right.
func (c change) truthful(ctx context.Context, s *suite, a *account, err error) error {
	what := string(c.action) + " that was interrupted"
	if err := wantClass(what, err, sdk.ClassUnreachable, sdk.ClassUnknownOutcome, sdk.ClassBusy, sdk.ClassProtocol,
		sdk.ClassCancelled); err != nil {
		return err
	}
	if sdk.ClassOf(err) == sdk.ClassUnknownOutcome {
		return nil
	}
	if wrong := c.before(ctx, s, a); wrong != nil {
		return fmt.Errorf("%s has the class %s, which says that nothing was done, and something was: %w", what, sdk.ClassOf(err), wrong)
	}
	return nil
}

// measured does the change once and returns how many bytes came from the target, and
// how many went there.
func (c change) measured(ctx context.Context, s *suite) (from, to int64, err error) {
	p, there, err := newProxy(ctx, s.cfg.Target, whole, 0)
	if err != nil {
		return 0, 0, err
	}
	defer p.close()
	_, change, err := c.planned(ctx, s)
	if err != nil {
		return 0, 0, err
	}
	if _, err := s.applyWith(ctx, s.program, there, change, func(sdk.Event) {}); err != nil {
		return 0, 0, fmt.Errorf("%s through a proxy: %w", c.action, err)
	}
	return p.bytes.Load(), p.asked.Load(), nil
}

// noticeWithin is how soon a connector must notice that its connection is gone.
const noticeWithin = 30 * time.Second

// cutAt makes a check that cuts the connection of a change at so many points, in one
// direction. At least half of the cuts must be noticed.
func cutAt(c change, m mode, points int64) func(context.Context, *suite) error {
	return func(ctx context.Context, s *suite) error {
		total, asked, err := c.measured(ctx, s)
		if err != nil {
			return err
		}
		if m == cutAsked {
			total = asked
		}
		noticed := make([]bool, points)
		err = together(int(points), func(i int) error {
			a, change, err := c.planned(ctx, s)
			if err != nil {
				return err
			}
			p, there, err := newProxy(ctx, s.cfg.Target, m, total*int64(i)/points)
			if err != nil {
				return err
			}
			limited, cancel := context.WithTimeout(ctx, noticeWithin)
			_, err = s.applyWith(limited, s.program, there, change, func(sdk.Event) {})
			late := limited.Err() != nil
			cancel()
			p.close()
			if late {
				return fmt.Errorf("%s did not notice within %s that its connection was cut after %d of %d bytes",
					c.action, noticeWithin, total*int64(i)/points, total)
			}
			if err != nil {
				noticed[i] = true
				if err := c.truthful(ctx, s, a, err); err != nil {
					return err
				}
			}
			return c.again(ctx, s, a)
		})
		if err != nil {
			return err
		}
		failures := int64(0)
		for _, n := range noticed {
			if n {
				failures++
			}
		}
		if failures < points/2 {
			return fmt.Errorf("only %d of %d cuts were noticed: the connector claims success without reading back", failures, points)
		}
		return nil
	}
}

// crashAt makes a check that kills the program at every step of a change, and does the
// change again with another.
func crashAt(c change) func(context.Context, *suite) error {
	return func(ctx context.Context, s *suite) error {
		if err := s.needBinary(); err != nil {
			return err
		}
		_, change, err := c.planned(ctx, s)
		if err != nil {
			return err
		}
		steps := len(change.Plan.Steps)
		return together(steps, func(i int) error {
			a, change, err := c.planned(ctx, s)
			if err != nil {
				return err
			}
			p, err := s.launch()
			if err != nil {
				return err
			}
			defer p.stop()
			at := change.Plan.Steps[min(i, len(change.Plan.Steps)-1)].ID
			_, err = s.applyWith(ctx, p, s.cfg.Target, change, func(e sdk.Event) {
				if e.Step == at {
					_ = p.process.Kill()
				}
			})
			if err != nil && sdk.ClassOf(err) != sdk.ClassUnknownOutcome {
				return fmt.Errorf("%s, killed at step %s: class %s, want %s", c.action, at, sdk.ClassOf(err), sdk.ClassUnknownOutcome)
			}
			if err := c.again(ctx, s, a); err != nil {
				return fmt.Errorf("killed at step %s: %w", at, err)
			}
			return nil
		})
	}
}

// width is how many points of a check are tried side by side.
const width = 4

// together calls f for 0 to n-1, a few at a time.
func together(n int, f func(int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, width)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = f(i)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
