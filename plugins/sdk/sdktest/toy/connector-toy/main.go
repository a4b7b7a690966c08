// Command connector-toy is the connector of package toy as a plugin program, for tests
// that start real plugins.
package main

import (
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/toy"
)

func main() { sdk.Serve(toy.Connector{}) }
