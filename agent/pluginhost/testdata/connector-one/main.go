// Command connector-one is a connector that speaks version 1 of the protocol and nothing
// else. It is written without the SDK, which is of another version.
package main

import (
	"context"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

type connector struct {
	connectorv1.UnimplementedConnectorServer
	plugin.NetRPCUnsupportedPlugin
}

// GRPCServer implements plugin.GRPCPlugin.
func (c *connector) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	connectorv1.RegisterConnectorServer(s, c)
	return nil
}

// GRPCClient implements plugin.GRPCPlugin; a connector calls nobody.
func (c *connector) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, status.Error(codes.Unimplemented, "not a host")
}

// Describe implements connectorv1.ConnectorServer.
func (c *connector) Describe(context.Context, *connectorv1.DescribeRequest) (*connectorv1.DescribeResponse, error) {
	return &connectorv1.DescribeResponse{Description: &connectorv1.Description{Name: "one", Title: "One", Version: "1.0.0",
		Category: "operating_system", DefaultPort: 7, Protocol: 1, Powers: []string{"probe", "verify"}}}, nil
}

// Probe fails as connectors of version 1 do.
func (c *connector) Probe(context.Context, *connectorv1.ProbeRequest) (*connectorv1.ProbeResponse, error) {
	s, err := status.New(codes.FailedPrecondition, "the account has expired").WithDetails(&connectorv1.Failure{
		Class: "locked", Message: "the account has expired", Fix: "move its expiry date"})
	if err != nil {
		return nil, err
	}
	return nil, s.Err()
}

// Verify takes a management account for the login that is asked about: it never saw one.
func (c *connector) Verify(_ context.Context, req *connectorv1.VerifyRequest) (*connectorv1.VerifyResponse, error) {
	if m := req.GetTarget().GetManagement(); m != nil {
		return &connectorv1.VerifyResponse{Verdict: "ok", Identity: m.GetUsername()}, nil
	}
	return &connectorv1.VerifyResponse{Verdict: "locked", Message: "the account is locked"}, nil
}

func main() {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "REEVE_CONNECTOR", MagicCookieValue: "1"},
		VersionedPlugins: map[int]plugin.PluginSet{1: {"connector": &connector{}}},
		GRPCServer:       plugin.DefaultGRPCServer,
	})
}
