// Command connector-ssh is the connector for Linux hosts over SSH.
package main

import (
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/ssh/connector"
	"github.com/reeve-pam/reeve/plugins/ssh/transport"
)

func main() { sdk.Serve(connector.Connector{Kept: transport.NewPool()}) }
