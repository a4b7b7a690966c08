package connector_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/ssh/connector"
	"github.com/reeve-pam/reeve/plugins/ssh/transport"
)

// keeping is a connector as it is served, with its connections closed by the test's end.
func keeping(t *testing.T) connector.Connector {
	p := transport.NewPool()
	t.Cleanup(p.Close)
	return connector.Connector{Kept: p}
}

// logins counts what the host's own log says was accepted.
func (b *bench) logins(user string) int {
	return strings.Count(b.host.Log(), "Accepted password for "+user+" ")
}

func (b *bench) inspect(c connector.Connector, t sdk.Target) error {
	f, err := c.Inspect(b.Context(), t, "root")
	if err == nil && !f.Exists {
		b.Error("root is not there")
	}
	return err
}

// Operations of one management account share a connection for the length of a burst.
// Who brings another secret, or trusts another key, does not get it; and what proves a
// password always logs in anew.
func TestConnectionsAreKeptForOneAccountAndItsSecret_K1(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c := keeping(t)
	b.provision("app", "linux-standard", nil)
	before := b.logins("root")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := b.inspect(c, b.target); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	if n := b.logins("root") - before; n != 1 {
		t.Errorf("8 operations made %d logins", n)
	}

	wrong := b.target
	wrong.Management.Password = sdk.NewSecret([]byte("not-" + rootPassword))
	b.wantClass("another password", b.inspect(c, wrong), sdk.ClassAuthFailed)
	other := testlab.SSHHost(t, testlab.HostOptions{Name: "other"})
	wrong = b.target
	wrong.Trust.HostKeys = []string{other.HostKey()}
	b.wantClass("another trusted key", b.inspect(c, wrong), sdk.ClassHostKeyChanged)

	for n := range 2 {
		v, err := c.Verify(t.Context(), b.target, sdk.Credential{Username: "app", Password: sdk.NewSecret([]byte(accountPassword))})
		if err != nil || v.Kind != sdk.VerdictOK {
			t.Fatalf("%+v, %v", v, err)
		}
		if got := b.logins("app"); got != n+1 {
			t.Errorf("%d proofs made %d logins", n+1, got)
		}
	}
}

// A kept connection whose host went away is given up before anything is sent over it.
func TestKeptConnectionThatDiedIsReplaced(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c := keeping(t)
	if err := b.inspect(c, b.target); err != nil {
		t.Fatal(err)
	}
	b.host.Crash()
	if err := b.host.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := b.host.WaitLogin("root", rootPassword); err != nil {
		t.Fatal(err)
	}
	if err := b.inspect(c, b.target); err != nil {
		t.Error(err)
	}
}

// A change that is broken off over a kept connection has an unknown outcome, is not sent
// again, and leaves a connection that nobody else gets.
func TestBrokenOffChangeIsUnknownAndItsConnectionUnused_C17(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c := keeping(t)
	b.provision("app", "linux-standard", nil)
	in := b.intent(sdk.Rotate, "app", "")
	plan, err := c.Plan(t.Context(), b.target, in)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.inspect(c, b.target); err != nil {
		t.Fatal(err)
	}
	before := b.logins("root")
	if err := b.host.LockAccounts(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = c.Apply(ctx, b.target, sdk.Change{Intent: in, Plan: plan, Password: sdk.NewSecret([]byte("Another-1-Pass"))}, func(sdk.Event) {})
	b.wantClass("broken off", err, sdk.ClassUnknownOutcome)
	b.host.UnlockAccounts()
	if err := b.inspect(c, b.target); err != nil {
		t.Fatal(err)
	}
	if n := b.logins("root") - before; n != 1 {
		t.Errorf("%d logins: the connection of the broken change was used again, or the change sent twice", n)
	}
}
