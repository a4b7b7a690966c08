// Connector-mysql works on MariaDB and MySQL servers. It imports the SDK and the
// driver, and nobody imports it; DESIGN.md beside this file argues its choices.
package main

import (
	"context"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

func main() { sdk.Serve(connector{kept: newPool()}) }

// connector implements every power of the SDK.
type connector struct {
	kept *pool // of connections; nil: none is kept
}

// manage logs in as the management account, over a kept connection if there is one.
func (c connector) manage(ctx context.Context, t sdk.Target) (*session, error) {
	if c.kept == nil {
		return connect(ctx, t, t.Management)
	}
	return c.kept.connect(ctx, t, t.Management)
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
