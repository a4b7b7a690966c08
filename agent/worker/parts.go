package worker

import (
	"context"

	"github.com/reeve-pam/reeve/agent/link"
	"github.com/reeve-pam/reeve/agent/pluginhost"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// Link is the tie to the controllers: agent/link, or the network of a simulation.
type Link interface {
	Identity() link.Identity
	OpenSecret(b envelope.Binding, r envelope.Ref, enc, ciphertext []byte) (reeve.Secret, error)
	Call(ctx context.Context, fn func(context.Context, agentv1.AgentServiceClient) error) error
	SetAddresses(addresses []string)
}

// Host runs connectors: [Plugins], or the targets of a simulation.
type Host interface {
	List() ([]pluginhost.Installed, error)
	Acquire(ctx context.Context, name string, digests []string) (Process, error)
}

// Process is a job's share of a connector, as pluginhost.Process.
type Process interface {
	Call(ctx context.Context, fn func(context.Context, Connector) error) error
	Exited() bool
	AtFault() bool // it has ended because of this job
	Protect(g pluginhost.Guard)
	Release()
}

// Connector is what the worker asks of a connector. Errors are *sdk.Error.
type Connector interface {
	sdk.Prober
	sdk.Provisioner
	sdk.Verifier
	sdk.Inspector
	sdk.RightsChecker
}

// Plugins makes a Host of the connectors on the disk.
func Plugins(h *pluginhost.Host) Host { return plugins{h} }

type plugins struct{ *pluginhost.Host }

// Acquire implements Host.
func (p plugins) Acquire(ctx context.Context, name string, digests []string) (Process, error) {
	proc, err := p.Host.Acquire(ctx, name, digests)
	if err != nil {
		return nil, err
	}
	return process{proc}, nil
}

type process struct{ *pluginhost.Process }

// Call implements Process.
func (p process) Call(ctx context.Context, fn func(context.Context, Connector) error) error {
	return p.Process.Call(ctx, func(ctx context.Context, c *sdk.Client) error { return fn(ctx, c) })
}
