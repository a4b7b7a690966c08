// Connector-mssql works on Microsoft SQL Server. It imports the SDK and the driver, and
// nobody imports it; DESIGN.md beside this file argues its choices.
package main

import (
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/idle"
)

func main() { sdk.Serve(connector{kept: idle.New((*session).end)}) }

// connector implements every power of the SDK.
type connector struct {
	kept *idle.Pool[*session] // nil: no connection is kept
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
