package sdktest

import connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"

// Wrap puts a server of the test's own between the kit and the SDK.
func (c *Config) Wrap(f func(connectorv1.ConnectorServer) connectorv1.ConnectorServer) { c.wrap = f }
