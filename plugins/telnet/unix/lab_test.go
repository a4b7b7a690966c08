package unix_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/telnet/connector"
)

const (
	rootPassword    = "C4nary-Root '\"$(id)"
	accountPassword = "C4nary-Acct:1 x"
)

// bench is one host and the connector at work on it. What the connector says is kept, to look
// for secrets in it.
type bench struct {
	*testing.T
	host   *testlab.Host
	target sdk.Target

	mu   sync.Mutex
	said strings.Builder
}

func newBench(t *testing.T, more ...testlab.HostAccount) *bench {
	t.Helper()
	h := testlab.SSHHost(t, testlab.HostOptions{
		Telnet: true, Accounts: append([]testlab.HostAccount{{Name: "root", Password: rootPassword}}, more...),
	})
	b := &bench{T: t, host: h}
	b.inside(`sed -i 's/obscure yescrypt/obscure sha256 rounds=1000/' /etc/pam.d/common-password`)
	b.target = sdk.Target{
		Address: h.Addr, Port: testlab.TelnetPort, Management: credential("root", rootPassword),
		Options: map[string]string{"legacy": "yes", "profile": "unix", "shell": "/bin/bash"},
	}
	t.Cleanup(func() {
		said := b.said.String() + h.Log()
		for _, canary := range []string{rootPassword, accountPassword} {
			if strings.Contains(said, canary) {
				t.Errorf("the secret %q was told", canary)
			}
		}
	})
	return b
}

func credential(user, password string) sdk.Credential {
	return sdk.Credential{Username: user, Password: sdk.NewSecret([]byte(password))}
}

// inside runs a command on the host, not over the network.
func (b *bench) inside(command string) string {
	b.Helper()
	out, err := b.host.OutOfBand(command)
	if err != nil {
		b.Fatalf("%s: %v", command, err)
	}
	return out
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
	return sdk.Intent{
		Action: action, Account: account, AccountID: "acct_" + account, Comment: "ticket 17", Role: role("telnet-standard"),
		ExpiresAt: time.Now().Add(72 * time.Hour),
	}
}

// apply plans and does.
func (b *bench) apply(ctx context.Context, in sdk.Intent) (sdk.Result, error) {
	var c connector.Connector
	plan, err := c.Plan(ctx, b.target, in)
	b.tell(plan, err)
	if err != nil {
		return sdk.Result{}, err
	}
	change := sdk.Change{Intent: in, Plan: plan}
	if in.Action == sdk.Provision || in.Action == sdk.Rotate {
		change.Password = sdk.NewSecret([]byte(accountPassword))
	}
	r, err := c.Apply(ctx, b.target, change, func(e sdk.Event) { b.tell(e) })
	b.tell(r, err)
	return r, err
}

func (b *bench) must(in sdk.Intent) sdk.Result {
	b.Helper()
	r, err := b.apply(b.Context(), in)
	if err != nil {
		b.Fatalf("%s: %v", in.Action, err)
	}
	return r
}

// output keeps what a task prints, and tells of it.
type output struct {
	mu   sync.Mutex
	text strings.Builder
	news chan struct{}
}

func newOutput() *output { return &output{news: make(chan struct{}, 1)} }

func (o *output) Stdout(p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	select {
	case o.news <- struct{}{}:
	default:
	}
}

func (o *output) Stderr(p []byte) { o.Stdout(p) }

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
