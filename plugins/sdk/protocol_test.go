package sdk_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// shutOut answers with a class and a verdict, and tells whether it was given a management account.
type shutOut struct {
	bare
	class   sdk.Class
	verdict sdk.VerdictKind
}

func (s shutOut) Probe(context.Context, sdk.Target) (sdk.Fingerprint, error) {
	return sdk.Fingerprint{}, fmt.Errorf("around it: %w", sdk.Errorf(s.class, "no login").WithFix("mend it").Wrap(context.Canceled))
}

func (s shutOut) Verify(_ context.Context, t sdk.Target, _ sdk.Credential) (sdk.Verdict, error) {
	return sdk.Verdict{Kind: s.verdict, Message: t.Management.Username, Fix: "mend it"}, nil
}

// serveAs serves c as in the plugin set of a version, to a client of another.
func serveAs(t *testing.T, c sdk.Connector, server, client int) *sdk.Client {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	s := grpc.NewServer()
	if err := (&sdk.Plugin{Connector: c, Protocol: server}).GRPCServer(nil, s); err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(listener) })
	conn, err := grpc.NewClient("passthrough:test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); s.Stop(); serving.Wait() })
	return sdk.NewClient(conn, client)
}

// What version 1 has no word for is locked there, and Verify has no management account.
// Nothing else is another.
func TestEachVersionHearsItsOwnWords(t *testing.T) {
	t.Parallel()
	managed := target
	managed.Management = sdk.Credential{Username: "root", Password: sdk.NewSecret([]byte("secret"))}
	for _, c := range []struct {
		class, first      sdk.Class
		verdict, verdict1 sdk.VerdictKind
	}{
		{sdk.ClassExpired, sdk.ClassLocked, sdk.VerdictExpired, sdk.VerdictLocked},
		{sdk.ClassDisabled, sdk.ClassLocked, sdk.VerdictDisabled, sdk.VerdictLocked},
		{sdk.ClassLocked, sdk.ClassLocked, sdk.VerdictLocked, sdk.VerdictLocked},
		{sdk.ClassMustChange, sdk.ClassMustChange, sdk.VerdictMustChange, sdk.VerdictMustChange},
		{sdk.ClassAuthFailed, sdk.ClassAuthFailed, sdk.VerdictBadCredential, sdk.VerdictBadCredential},
	} {
		for _, version := range []int{1, 2} {
			class, verdict, given := c.class, c.verdict, "root"
			if version == 1 {
				class, verdict, given = c.first, c.verdict1, ""
			}
			// A host that has agreed on the version, and one that does not keep to it.
			for _, host := range []int{version, sdk.ProtocolVersion} {
				client := serveAs(t, shutOut{class: c.class, verdict: c.verdict}, version, host)
				_, err := client.Probe(t.Context(), managed)
				if e, ok := err.(*sdk.Error); !ok || e.Class != class || e.Message != "no login" || e.Fix != "mend it" { //nolint:errorlint // as it is returned
					t.Errorf("version %d: class %s became %v", version, c.class, err)
				}
				v, err := client.Verify(t.Context(), managed, sdk.Credential{Username: "alice"})
				if err != nil || v.Kind != verdict || v.Message != given || v.Fix != "mend it" {
					t.Errorf("version %d: verdict %s became %+v, %v", version, c.verdict, v, err)
				}
			}
		}
	}
}
