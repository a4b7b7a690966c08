package pluginhost

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/toy"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// states are accounts of a machine that refuse the right password.
func states(t *testing.T) (m *toy.Machine, password string) {
	t.Helper()
	m, password = toy.NewMachine(t), "Right.password1"
	m.Put("locked", toy.Account{Password: password, Locked: true})
	m.Put("expired", toy.Account{Password: password, Expires: time.Now().Add(-time.Hour)})
	m.Put("disabled", toy.Account{Password: password, Disabled: true})
	m.Put("change", toy.Account{Password: password, Change: true})
	return m, password
}

func TestHostAndConnectorOfVersion2(t *testing.T) {
	t.Parallel()
	m, password := states(t)
	p := acquire(t, newHost(t, install(t, "toy")), "toy")
	defer p.Release()
	verify := func(target sdk.Target, name string) (v sdk.Verdict) {
		err := p.Call(t.Context(), func(ctx context.Context, c *sdk.Client) (err error) {
			v, err = c.Verify(ctx, target, sdk.Credential{Username: name, Password: sdk.NewSecret([]byte(password))})
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return v
	}
	for name, want := range map[string]sdk.VerdictKind{"locked": sdk.VerdictLocked, "expired": sdk.VerdictExpired,
		"disabled": sdk.VerdictDisabled, "change": sdk.VerdictMustChange} {
		if v := verify(m.Target(), name); v.Kind != want || v.Message == "" || v.Fix == "" {
			t.Errorf("%s: %+v", name, v)
		}
	}
	alone := m.Target()
	alone.Management = sdk.Credential{}
	if v := verify(alone, "disabled"); v.Kind != sdk.VerdictBadCredential {
		t.Errorf("without the management account: %+v", v)
	}
	as := m.Target()
	as.Management = sdk.Credential{Username: "expired", Password: sdk.NewSecret([]byte(password))}
	if err := probe(t.Context(), p, as); sdk.ClassOf(err) != sdk.ClassExpired {
		t.Errorf("probe with an expired account: %v", err)
	}
}

// A connector of the version before gets no management account for Verify, and works.
func TestHostOfVersion2AndConnectorOfVersion1(t *testing.T) {
	t.Parallel()
	p := acquire(t, newHost(t, install(t, "one")), "one")
	defer p.Release()
	target := sdk.Target{Address: "host", Management: sdk.Credential{Username: "root", Password: sdk.NewSecret([]byte("secret"))}}
	var d sdk.Description
	var v sdk.Verdict
	err := p.Call(t.Context(), func(ctx context.Context, c *sdk.Client) (err error) {
		if d, err = c.Describe(ctx); err != nil {
			return err
		}
		v, err = c.Verify(ctx, target, sdk.Credential{Username: "alice", Password: sdk.NewSecret([]byte("secret"))})
		return err
	})
	if err != nil || d.Protocol != 1 || v.Kind != sdk.VerdictLocked {
		t.Errorf("%+v %+v %v", d, v, err)
	}
	if err := probe(t.Context(), p, target); sdk.ClassOf(err) != sdk.ClassLocked {
		t.Errorf("probe: %v", err)
	}
}

// first is a host of version 1, written without the SDK.
type first struct{ plugin.NetRPCUnsupportedPlugin }

func (first) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error { return errors.New("not a connector") }

func (first) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return connectorv1.NewConnectorClient(conn), nil
}

// A host of the version before gets words that it knows.
func TestHostOfVersion1AndConnectorOfVersion2(t *testing.T) {
	t.Parallel()
	m, password := states(t)
	cmd := exec.CommandContext(t.Context(), filepath.Join(install(t, "toy"), filePrefix+"toy")) //nolint:gosec // our own
	host := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "REEVE_CONNECTOR", MagicCookieValue: "1"},
		VersionedPlugins: map[int]plugin.PluginSet{1: {"connector": first{}}}, Cmd: cmd,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC}, AutoMTLS: true, SkipHostEnv: true, Logger: hclog.NewNullLogger(),
	})
	defer host.Kill()
	proto, err := host.Client()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := proto.Dispense("connector")
	if err != nil {
		t.Fatal(err)
	}
	c := raw.(connectorv1.ConnectorClient)
	// No host of version 1 names a management account here; one that does gets no other answer.
	for name, want := range map[string]string{"locked": "locked", "expired": "locked", "disabled": "bad_credential", "change": "must_change"} {
		v, err := c.Verify(t.Context(), &connectorv1.VerifyRequest{Target: sdk.TargetToProto(m.Target()),
			Credential: &connectorv1.Credential{Username: name, Password: []byte(password)}})
		if err != nil || v.GetVerdict() != want {
			t.Errorf("%s: %v %v", name, v, err)
		}
	}
	as := m.Target()
	as.Management = sdk.Credential{Username: "expired", Password: sdk.NewSecret([]byte(password))}
	_, err = c.Probe(t.Context(), &connectorv1.ProbeRequest{Target: sdk.TargetToProto(as)})
	details := status.Convert(err).Details()
	if len(details) != 1 {
		t.Fatalf("probe with an expired account: %v", err)
	}
	if f, ok := details[0].(*connectorv1.Failure); !ok || reeve.Class(f.GetClass()) != reeve.ClassLocked || f.GetFix() != "move its expiry date" {
		t.Errorf("probe with an expired account: %v", details[0])
	}
}
