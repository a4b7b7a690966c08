package main

import (
	"context"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// elsewhere logs in to other databases of a target.
func (c connector) elsewhere(ctx context.Context, t sdk.Target) func(string) (*session, error) {
	return func(database string) (*session, error) { return c.manage(ctx, t, database) }
}

// Inspect implements sdk.Inspector.
func (c connector) Inspect(ctx context.Context, t sdk.Target, name string) (sdk.Facts, error) {
	s, err := c.manage(ctx, t, t.Options[optionDatabase])
	if err != nil {
		return sdk.Facts{}, err
	}
	defer s.close()
	a, err := s.account(ctx, name)
	if err != nil {
		return sdk.Facts{}, err
	}
	if a == nil {
		return absent(name), nil
	}
	return s.facts(ctx, a, c.elsewhere(ctx, t))
}

func absent(name string) sdk.Facts { return sdk.Facts{Account: name, ReadAt: time.Now().UTC()} }

// Discover implements sdk.Discoverer. A role that may not log in is a group, unless Reeve
// made it. Rights within databases are left out: they would take a connection to each.
func (c connector) Discover(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
	s, err := c.manage(ctx, t, t.Options[optionDatabase])
	if err != nil {
		return err
	}
	defer s.close()
	all, err := s.accounts(ctx, "r.rolcanlogin OR shobj_description(r.oid, 'pg_authid') LIKE '"+markPrefix+"%'")
	if err != nil {
		return err
	}
	for _, a := range all {
		f, err := s.facts(ctx, a, nil)
		if err != nil {
			return err
		}
		if !yield(f) {
			return nil
		}
	}
	return nil
}
