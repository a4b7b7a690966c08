// Package direct is for the tests of a connector itself: it calls the connector in the
// test's own process, as an agent would call it in its own, and looks at every error for
// what all errors owe. What all connectors share is tested by the conformance kit, see
// package sdktest.
//
//	var rig = direct.Rig{Connector: connector{}, Canary: canary}
//
//	made := rig.Must(t, target, sdk.Intent{Action: sdk.Provision, …}, password)
package direct

import (
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Connector is a connector with the powers that all of ours have.
type Connector interface {
	sdk.Connector
	sdk.Prober
	sdk.Provisioner
	sdk.Verifier
}

// Rig calls a connector.
type Rig struct {
	Connector
	Canary string // stands in every password of the tests, and may be in no error
}

// Apply plans and applies.
func (r Rig) Apply(ctx context.Context, t sdk.Target, in sdk.Intent, password string) (sdk.Result, error) {
	return r.ApplyWith(ctx, t, in, password, func(sdk.Event) {})
}

// ApplyWith is Apply with a look at every progress event.
func (r Rig) ApplyWith(ctx context.Context, t sdk.Target, in sdk.Intent, password string, progress sdk.Progress) (sdk.Result, error) {
	plan, err := r.Plan(ctx, t, in)
	if err != nil {
		return sdk.Result{}, err
	}
	return r.Connector.Apply(ctx, t, sdk.Change{Intent: in, Plan: plan, Password: Secret(password)}, progress)
}

// Must is Apply, which must work.
func (r Rig) Must(tb testing.TB, t sdk.Target, in sdk.Intent, password string) sdk.Result {
	tb.Helper()
	res, err := r.Apply(tb.Context(), t, in, password)
	if err != nil {
		tb.Fatalf("%s: %v (%v)", in.Action, err, errors.Unwrap(err))
	}
	return res
}

// WantClass wants an error of a class, one that says what to do and holds no password.
func (r Rig) WantClass(tb testing.TB, what string, err error, want sdk.Class) {
	tb.Helper()
	if got := sdk.ClassOf(err); got != want {
		tb.Errorf("%s: class %q (%v), want %q", what, got, err, want)
	}
	e, ok := errors.AsType[*sdk.Error](err)
	if ok && e.Fix == "" && e.Class != sdk.ClassCancelled {
		tb.Errorf("%s: %v says not what to do", what, err)
	}
	if err != nil && r.Canary != "" && (strings.Contains(err.Error(), r.Canary) || ok && strings.Contains(e.Message+e.Fix, r.Canary)) {
		tb.Errorf("%s: the error holds the password", what)
	}
}

// Role is a role of the connector's catalogue.
func (r Rig) Role(tb testing.TB, name string) sdk.Role {
	tb.Helper()
	for _, role := range r.Describe().Roles {
		if role.Name == name {
			return role
		}
	}
	tb.Fatalf("there is no role %s", name)
	return sdk.Role{}
}

// Trusts wants the connector to talk to a target over TLS only if it has the certificate
// that is pinned: t is the target, and other the authority of another of its kind. It
// returns t as a person trusts it who approved what the first contact showed.
func (r Rig) Trusts(tb testing.TB, t sdk.Target, other string) sdk.Target {
	tb.Helper()
	probe := func(trust sdk.Trust) error {
		t.Trust = trust
		_, err := r.Probe(tb.Context(), t)
		return err
	}
	own := t.Trust.CAPEM
	err := probe(sdk.Trust{})
	r.WantClass(tb, "first contact", err, sdk.ClassHostKeyUnknown)
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok || !strings.HasPrefix(e.Details["fingerprint"], "SHA256:") {
		tb.Fatalf("first contact: %v shows no fingerprint", err)
	}
	r.WantClass(tb, "another authority", probe(sdk.Trust{CAPEM: other}), sdk.ClassHostKeyChanged)
	_, err = r.Verify(tb.Context(), t, t.Management)
	r.WantClass(tb, "verify with another authority", err, sdk.ClassHostKeyChanged)
	r.WantClass(tb, "another name", probe(sdk.Trust{CAPEM: own, ServerName: "elsewhere.example"}), sdk.ClassHostKeyChanged)
	r.WantClass(tb, "no certificate", probe(sdk.Trust{CAPEM: "no PEM"}), sdk.ClassInvalid)
	t.Trust = sdk.Trust{CAPEM: e.Details["host_key"]}
	return t
}

// Secret is a secret of a test.
func Secret(s string) sdk.Secret { return sdk.NewSecret([]byte(s)) }

// Output keeps what a command prints.
type Output struct{ Out, Err strings.Builder }

// Stdout keeps p in Out.
func (o *Output) Stdout(p []byte) { o.Out.Write(p) }

// Stderr keeps p in Err.
func (o *Output) Stderr(p []byte) { o.Err.Write(p) }

// Build builds the connector in the test's directory and returns the program.
func Build(tb testing.TB) string {
	tb.Helper()
	program := filepath.Join(tb.TempDir(), "connector")
	if out, err := exec.CommandContext(tb.Context(), "go", "build", "-tags", "nomsgpack", "-o", program, ".").CombinedOutput(); err != nil { //nolint:gosec // of the test
		tb.Fatalf("%v: %s", err, out)
	}
	return program
}

// Listen gives every connection to serve until the test ends, and returns the port: for
// what a connector may find in a target's place.
func Listen(tb testing.TB, serve func(net.Conn)) (port int) {
	tb.Helper()
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = conn.Close() }()
				serve(conn)
			})
		}
	})
	tb.Cleanup(func() { _ = listener.Close(); all.Wait() })
	return listener.Addr().(*net.TCPAddr).Port
}

// Answer is for Listen: it waits for the first word of a client and says text.
func Answer(text string) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 4096))
		_, _ = io.WriteString(conn, text)
	}
}
