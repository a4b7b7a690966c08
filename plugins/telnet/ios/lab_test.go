package ios_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/emu/device"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/telnet/connector"
	"github.com/reeve-pam/reeve/plugins/telnet/ios"
)

const (
	managementPassword = "C4nary-Mgmt 'x?"
	accountPassword    = "C4nary-Acct \"y?"
)

// bench is one device and the profile at work on it. What the connector says is kept, to
// look for secrets in it.
type bench struct {
	*testing.T
	*device.Device
	target sdk.Target

	mu   sync.Mutex
	said strings.Builder
}

func newBench(t *testing.T, change func(*device.Options)) *bench {
	t.Helper()
	o := device.Options{
		Users:      map[string]device.User{"reeve": {Privilege: 15, Kind: "8", Secret: device.Secret(managementPassword, "12345678901234")}},
		Interfaces: map[string]bool{"GigabitEthernet0/0": true, "GigabitEthernet0/1": false},
		ARP:        map[string]string{"192.0.2.7": "0050.56aa.bbcc"},
	}
	if change != nil {
		change(&o)
	}
	d, err := device.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, Device: d, target: sdk.Target{
		Address: d.Addr, Port: d.Port, Options: map[string]string{"legacy": "yes", "profile": "ios"},
		Management: sdk.Credential{Username: "reeve", Password: sdk.NewSecret([]byte(managementPassword))},
	}}
	t.Cleanup(func() {
		d.Close()
		for _, v := range d.Violations() {
			t.Errorf("breach of the protocol: %s", v)
		}
		said := b.said.String() + strings.Join(d.Commands(), "\n")
		for _, canary := range []string{managementPassword, accountPassword, "s3cr3t-community"} {
			if strings.Contains(said, canary) {
				t.Errorf("the secret %q was told, or typed at a prompt", canary)
			}
		}
	})
	return b
}

func (b *bench) tell(v ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, x := range v {
		if e, ok := x.(*sdk.Error); ok {
			x = fmt.Sprint(e.Message, e.Fix, e.Details)
		}
		fmt.Fprintln(&b.said, x)
	}
}

func role(name string) sdk.Role {
	for _, r := range (connector.Connector{}).Describe().Roles {
		if r.Name == name {
			return r
		}
	}
	return sdk.Role{Name: name}
}

func intent(action sdk.Action, account string) sdk.Intent {
	return sdk.Intent{Action: action, Account: account, AccountID: "acct_" + account, Comment: "ticket 17", Role: role("telnet-standard")}
}

// apply plans and does.
func (b *bench) apply(ctx context.Context, in sdk.Intent) (sdk.Result, error) {
	plan, err := ios.Profile{}.Plan(ctx, b.target, in)
	b.tell(plan, err)
	if err != nil {
		return sdk.Result{}, err
	}
	c := sdk.Change{Intent: in, Plan: plan}
	if in.Action == sdk.Provision || in.Action == sdk.Rotate {
		c.Password = sdk.NewSecret([]byte(accountPassword))
	}
	r, err := ios.Profile{}.Apply(ctx, b.target, c, func(e sdk.Event) { b.tell(e) })
	b.tell(r, err)
	return r, err
}

func (b *bench) must(action sdk.Action, account string) sdk.Result {
	b.Helper()
	r, err := b.apply(b.Context(), intent(action, account))
	if err != nil {
		b.Fatalf("%s: %v", action, err)
	}
	return r
}

func (b *bench) wantClass(err error, want sdk.Class) {
	b.Helper()
	b.tell(err)
	e, ok := err.(*sdk.Error) //nolint:errorlint // as the SDK gets it
	switch {
	case !ok || e.Class != want:
		b.Errorf("error %v, want class %s", err, want)
	case e.Fix == "" && want != sdk.ClassNotFound && want != sdk.ClassCancelled:
		b.Errorf("%v says nothing of what to do", err)
	}
}

// output keeps what a task prints.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Stdout(p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
}

func (o *output) Stderr(p []byte) { o.Stdout(p) }

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (b *bench) run(task string) (string, int) {
	b.Helper()
	var out output
	status, err := ios.Profile{}.Run(b.Context(), b.target, task, &out)
	b.tell(out.String(), err)
	if err != nil {
		b.Fatalf("%s: %v", task, err)
	}
	return out.String(), status
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
