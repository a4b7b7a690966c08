package connector_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/ssh/connector"
)

const rootPassword = "Root-Pass-1!"

// bench is one host and the connector at work on it.
type bench struct {
	*testing.T
	host   *testlab.Host
	target sdk.Target

	mu     sync.Mutex
	events []sdk.Event
}

func newBench(t *testing.T) *bench {
	t.Helper()
	h := testlab.SSHHost(t, testlab.HostOptions{Accounts: []testlab.HostAccount{{Name: "root", Password: rootPassword}}})
	b := &bench{T: t, host: h}
	b.inside(`sed -i 's/obscure yescrypt/obscure sha256 rounds=1000/' /etc/pam.d/common-password`)
	b.target = sdk.Target{
		Address: h.Addr, Port: h.Port, Trust: sdk.Trust{HostKeys: []string{h.HostKey()}},
		Options:    map[string]string{"shell": "/bin/bash"},
		Management: sdk.Credential{Username: "root", Password: sdk.NewSecret([]byte(rootPassword))},
	}
	return b
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

func role(name string) sdk.Role {
	for _, r := range (connector.Connector{}).Describe().Roles {
		if r.Name == name {
			return r
		}
	}
	return sdk.Role{Name: name}
}

func (b *bench) intent(action sdk.Action, account, roleName string) sdk.Intent {
	return sdk.Intent{
		Action: action, Account: account, AccountID: "acct_" + account, Comment: "ticket 17",
		Role: role(roleName), ExpiresAt: time.Now().Add(72 * time.Hour),
	}
}

const accountPassword = "Acc-Pass:1 x"

// apply plans and does.
func (b *bench) apply(ctx context.Context, in sdk.Intent) (sdk.Result, error) {
	var c connector.Connector
	plan, err := c.Plan(ctx, b.target, in)
	if err != nil {
		return sdk.Result{}, err
	}
	change := sdk.Change{Intent: in, Plan: plan}
	if in.Action == sdk.Provision || in.Action == sdk.Rotate {
		change.Password = sdk.NewSecret([]byte(accountPassword))
	}
	return c.Apply(ctx, b.target, change, func(e sdk.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.events = append(b.events, e)
	})
}

func (b *bench) must(in sdk.Intent) sdk.Result {
	b.Helper()
	r, err := b.apply(b.Context(), in)
	if err != nil {
		b.Fatalf("%s %s: %v %v", in.Action, in.Account, err, errors.Unwrap(err))
	}
	return r
}

func (b *bench) provision(account, roleName string, params map[string]string) sdk.Result {
	b.Helper()
	in := b.intent(sdk.Provision, account, roleName)
	in.Params = params
	return b.must(in)
}

// wantClass fails unless err has the class.
func (b *bench) wantClass(what string, err error, class sdk.Class) {
	b.Helper()
	_ = b.failure(what, err, class)
}

// failure is wantClass, and returns the error.
func (b *bench) failure(what string, err error, class sdk.Class) *sdk.Error {
	b.Helper()
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok || e.Class != class {
		b.Fatalf("%s: %v, want class %s", what, err, class)
	}
	if strings.Contains(e.Message+e.Fix, accountPassword) || strings.Contains(e.Message+e.Fix, rootPassword) {
		b.Errorf("%s: the error holds a password: %v", what, e)
	}
	return e
}

// untouched fails unless the host knows nothing of the account.
func (b *bench) untouched(account string) {
	b.Helper()
	if _, ok, err := b.host.Passwd(account); ok || err != nil {
		b.Errorf("account %s is there: %t, %v", account, ok, err)
	}
	if out := b.inside("ls /etc/sudoers.d /home; getent group " + account + "; true"); strings.Contains(out, account) {
		b.Errorf("something of %s is left: %s", account, out)
	}
}

// login returns a plain SSH client logged in as the account.
func (b *bench) login(account string, auth ssh.AuthMethod) (*ssh.Client, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(b.host.HostKey()))
	if err != nil {
		return nil, err
	}
	return ssh.Dial("tcp", net.JoinHostPort(b.host.Addr, strconv.Itoa(b.host.Port)), &ssh.ClientConfig{
		User: account, Auth: []ssh.AuthMethod{auth}, HostKeyCallback: ssh.FixedHostKey(key), Timeout: 10 * time.Second,
	})
}

func newKey(t *testing.T) (ssh.Signer, string, sdk.Secret) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), reeve.NewSecret(pem.EncodeToMemory(block))
}

// eventually polls until ok, for things that the kernel does in its own time.
func (b *bench) eventually(what string, ok func() bool) {
	b.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			b.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
