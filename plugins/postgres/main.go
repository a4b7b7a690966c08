// Connector-postgres works on PostgreSQL servers. It imports the SDK and the driver,
// and nobody imports it; DESIGN.md beside this file argues its choices.
package main

import (
	"context"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/idle"
)

func main() { sdk.Serve(connector{kept: idle.New((*session).end)}) }

// connector implements every power of the SDK.
type connector struct {
	kept *idle.Pool[*session] // nil: none is kept
}

// manage logs in as the management account, or takes a kept connection.
func (c connector) manage(ctx context.Context, t sdk.Target, database string) (*session, error) {
	dial := func(ctx context.Context) (*session, error) { return connect(ctx, t, database) }
	if c.kept == nil {
		return dial(ctx)
	}
	s, back, err := c.kept.Borrow(ctx, t, database, dial, func(ctx context.Context, s *session) bool { return s.works(ctx) })
	if err != nil {
		return nil, err
	}
	s.back = func() { back(ctx.Err() == nil && s.clean()) } // what was given up is not waited for
	return s, nil
}

var (
	_ sdk.Prober      = connector{}
	_ sdk.Provisioner = connector{}
	_ sdk.Verifier    = connector{}
	_ sdk.Inspector   = connector{}
	_ sdk.Discoverer  = connector{}
	_ sdk.Runner      = connector{}

	_ sdk.RightsChecker = connector{}
)
