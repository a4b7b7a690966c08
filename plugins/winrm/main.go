// Connector-winrm works on Windows servers over WinRM. It imports the SDK and its libraries, and nobody
// imports it; DESIGN.md beside this file argues its choices.
package main

import "github.com/reeve-pam/reeve/plugins/sdk"

func main() { sdk.Serve(connector{}) }

// connector implements every power of the SDK.
type connector struct{}

var (
	_ sdk.Prober        = connector{}
	_ sdk.Provisioner   = connector{}
	_ sdk.Verifier      = connector{}
	_ sdk.Inspector     = connector{}
	_ sdk.Discoverer    = connector{}
	_ sdk.Runner        = connector{}
	_ sdk.RightsChecker = connector{}
)
