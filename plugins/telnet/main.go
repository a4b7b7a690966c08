// Command connector-telnet is the connector for hosts and network devices that offer
// nothing better than Telnet.
package main

import (
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/telnet/connector"
)

func main() { sdk.Serve(connector.Connector{}) }
