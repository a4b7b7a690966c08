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
)

// made provisions an account that is prepared already, and inspects it.
func (s *suite) inspected(ctx context.Context, a *account) (sdk.Facts, error) {
	r, err := s.apply(ctx, sdk.Provision, a, a.password)
	if err != nil {
		return sdk.Facts{}, err
	}
	a.identity = r.Facts.Identity
	return s.client.Inspect(ctx, s.cfg.Target, a.name)
}

func factsExpiry(ctx context.Context, s *suite) error {
	a := s.account()
	f, err := s.inspected(ctx, a)
	if err != nil {
		return err
	}
	if f.ExpiresAt.IsZero() {
		return notApplicable("the target has no expiry of accounts")
	}
	a.expires = a.expires.Add(60 * 24 * time.Hour)
	if f, err = s.inspected(ctx, a); err != nil {
		return err
	}
	if f.ExpiresAt.Before(a.expires) || f.ExpiresAt.After(a.expires.Add(48*time.Hour)) {
		return fmt.Errorf("the account expires at %s instead of %s, to which it was moved", f.ExpiresAt, a.expires)
	}
	a.expires = time.Time{}
	if f, err = s.inspected(ctx, a); err != nil {
		return err
	}
	if !f.ExpiresAt.IsZero() {
		return fmt.Errorf("the account expires at %s, and was to expire never", f.ExpiresAt)
	}
	return s.login(ctx, a, a.password, true)
}

// granting returns a role with commands that grant something.
func (s *suite) granting() *sdk.Role {
	if len(s.role.Phases[sdk.PhaseGrant]) > 0 {
		return &s.role
	}
	for _, r := range s.description.Roles {
		if len(r.Phases[sdk.PhaseGrant]) > 0 && r.CheckParams(nil) == nil {
			return &r
		}
	}
	return nil
}

func factsGrants(ctx context.Context, s *suite) error {
	with, without := s.account(), s.account()
	if with.role = s.granting(); with.role == nil {
		return notApplicable("no role grants anything")
	}
	without.role = &sdk.Role{}
	own := func(f sdk.Facts) []string {
		var all []string
		for _, g := range slices.Concat(f.Groups, f.Grants) {
			all = append(all, strings.ReplaceAll(g, f.Account, "%Username%"))
		}
		return all
	}
	more, err := s.inspected(ctx, with)
	if err != nil {
		return err
	}
	less, err := s.inspected(ctx, without)
	if err != nil {
		return err
	}
	for _, g := range own(more) {
		if !slices.Contains(own(less), g) {
			return nil
		}
	}
	return fmt.Errorf("an account with role %s has the groups %q and grants %q, and so has one without",
		with.role.Name, more.Groups, more.Grants)
}

func factsSessions(ctx context.Context, s *suite) error {
	if s.cfg.Session == nil {
		return notApplicable("Config.Session is not set")
	}
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	end, err := s.cfg.Session(ctx, a.name, a.password.Reveal())
	if err != nil {
		return fmt.Errorf("begin a session: %w", err)
	}
	defer end()
	sessions := func(want func(int) bool) (f sdk.Facts, err error) {
		for until := time.Now().Add(obeyWithin); ; time.Sleep(50 * time.Millisecond) {
			f, err = s.client.Inspect(ctx, s.cfg.Target, a.name)
			if err != nil || want(f.Sessions) || time.Now().After(until) {
				return f, err
			}
		}
	}
	f, err := sessions(func(n int) bool { return n > 0 })
	if err != nil {
		return err
	}
	if f.Sessions == 0 {
		return errors.New("the facts show no session of an account that is logged in")
	}
	if _, err := s.apply(ctx, sdk.Disable, a, sdk.Secret{}); err != nil {
		return err
	}
	if f, err = sessions(func(n int) bool { return n == 0 }); err == nil && f.Sessions > 0 {
		err = fmt.Errorf("after disable the facts show %d sessions: they outlive it", f.Sessions)
	}
	return err
}

func factsLocked(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	for _, action := range []sdk.Action{sdk.Disable, sdk.Enable} {
		r, err := s.apply(ctx, action, a, sdk.Secret{})
		if err != nil {
			return err
		}
		f, err := s.client.Inspect(ctx, s.cfg.Target, a.name)
		if err != nil {
			return err
		}
		if f.Locked != (action == sdk.Disable) || !f.Exists || f.Identity != a.identity {
			return fmt.Errorf("after %s inspect says exists %t, locked %t, identity %s", action, f.Exists, f.Locked, f.Identity)
		}
		if diff := cmp.Diff(r.Facts, f, cmpopts.IgnoreFields(sdk.Facts{}, "ReadAt", "Sessions", "Attributes")); diff != "" {
			return fmt.Errorf("inspect and the result of %s differ: %s", action, diff)
		}
	}
	return nil
}

func factsPasswordTime(ctx context.Context, s *suite) error {
	a := s.account()
	began := time.Now()
	f, err := s.inspected(ctx, a)
	if err != nil {
		return err
	}
	if f.PasswordChangedAt.IsZero() {
		return notApplicable("the target does not tell when a password was changed")
	}
	if _, err := s.apply(ctx, sdk.Rotate, a, s.password()); err != nil {
		return err
	}
	after, err := s.client.Inspect(ctx, s.cfg.Target, a.name)
	if err != nil {
		return err
	}
	const slack = 25 * time.Hour // targets that tell the day
	for _, at := range []time.Time{f.PasswordChangedAt, after.PasswordChangedAt} {
		if at.Before(began.Add(-slack)) || at.After(time.Now().Add(slack)) {
			return fmt.Errorf("the password was changed at %s, says the target about a new one", at)
		}
	}
	if after.PasswordChangedAt.Before(f.PasswordChangedAt) {
		return errors.New("a rotation moved the time of the password back")
	}
	return nil
}

// discovered lists the target, by name.
func (s *suite) discovered(ctx context.Context) (map[string]sdk.Facts, error) {
	all := map[string]sdk.Facts{}
	err := s.client.Discover(ctx, s.cfg.Target, func(f sdk.Facts) bool {
		s.tell("facts", fmt.Sprint(f))
		all[f.Account] = f
		return true
	})
	s.tellError("an error of Discover", err)
	return all, err
}

func discoverFinds(ctx context.Context, s *suite) error {
	open, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	shut, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	if _, err := s.apply(ctx, sdk.Disable, shut, sdk.Secret{}); err != nil {
		return err
	}
	all, err := s.discovered(ctx)
	if err != nil {
		return err
	}
	for _, a := range []*account{open, shut} {
		f, there := all[a.name]
		switch {
		case !there || !f.Exists:
			return fmt.Errorf("discover does not list %s", a.name)
		case f.Identity != a.identity || f.Locked != (a == shut):
			return fmt.Errorf("discover says of %s: identity %s, locked %t; want %s, %t", a.name, f.Identity, f.Locked, a.identity, a == shut)
		}
	}
	return nil
}

func discoverForgets(ctx context.Context, s *suite) error {
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	if _, err := s.discovered(ctx); err != nil {
		return err
	}
	if _, err := s.apply(ctx, sdk.Deprovision, a, sdk.Secret{}); err != nil {
		return err
	}
	all, err := s.discovered(ctx)
	if err != nil {
		return err
	}
	if _, there := all[a.name]; there {
		return fmt.Errorf("discover lists %s, which was removed", a.name)
	}
	first := 0
	if err := s.client.Discover(ctx, s.cfg.Target, func(sdk.Facts) bool { first++; return false }); err != nil || first > 1 {
		return errors.Join(fmt.Errorf("discover gave %d accounts after it was told to stop", first), err)
	}
	return nil
}

// inspectHostile looks names up that no target has. They must be told apart from all
// accounts there are, and change nothing.
func inspectHostile(ctx context.Context, s *suite) error {
	before, err := s.cfg.Snapshot(ctx)
	if err != nil {
		return err
	}
	for _, name := range strangeNames {
		f, err := s.client.Inspect(ctx, s.cfg.Target, name)
		s.tellError("an error of Inspect", err)
		if err != nil {
			if err := wantClass(fmt.Sprintf("inspect of %q", name), err, sdk.ClassInvalid, sdk.ClassNotFound); err != nil {
				return err
			}
			continue
		}
		if f.Exists {
			return fmt.Errorf("inspect finds an account %q: %s", name, f.Account)
		}
	}
	after, err := s.cfg.Snapshot(ctx)
	if err == nil && before != after {
		err = errors.New("looking up a hostile name changed the target")
	}
	return err
}

// strangeNames are names without control characters, which the SDK does not refuse to
// look up.
var strangeNames = []string{
	"' OR '1'='1", `" OR "1"="1`, "x'; DROP USER x; --", "*", "%", "_", "x*", "*)(uid=*", "$(id)", "`id`", "-h", "--", "a b", `a\b`,
	"a\u202eb", "{{.}}", "%s%n", strings.Repeat("é", 100),
}
