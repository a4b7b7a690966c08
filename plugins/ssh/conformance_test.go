package main_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest"
)

// program builds the connector once for all tests.
var program = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs(buildDir)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "connector-ssh")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// newKey returns a private key in PEM and its authorized_keys line.
func newKey(t *testing.T) (sdk.Secret, string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return sdk.NewSecret(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// hooks lets the kit look at a host.
func hooks(t *testing.T, h *testlab.Host, management sdk.Credential) sdktest.Config {
	t.Helper()
	_, otherKey := newKey(t)
	var names atomic.Int64
	return sdktest.Config{
		Target: sdk.Target{
			Address: h.Addr, Port: h.Port,
			Trust:      sdk.Trust{HostKeys: []string{h.HostKey()}},
			Management: management,
		},
		WrongTrust:     sdk.Trust{HostKeys: []string{otherKey}},
		NewAccountName: func() string { return fmt.Sprintf("pam-user%d", names.Add(1)) },
		Exists: func(_ context.Context, name string) (bool, error) {
			_, ok, err := h.Passwd(name)
			return ok, err
		},
		LoginWorks: func(ctx context.Context, name, password string) (bool, error) {
			err := testlab.SSHLogin(ctx, net.JoinHostPort(h.Addr, strconv.Itoa(h.Port)), name, password, h.HostKey())
			if errors.Is(err, testlab.ErrRefused) {
				return false, nil
			}
			return err == nil, err
		},
		CreateForeign: func(_ context.Context, name, password string) error {
			if _, err := h.OutOfBand("useradd -m -s /bin/bash " + name); err != nil {
				return err
			}
			return h.SetPassword(name, password)
		},
		Session: func(_ context.Context, name, password string) (func(), error) {
			key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(h.HostKey()))
			if err != nil {
				return nil, err
			}
			client, err := ssh.Dial("tcp", net.JoinHostPort(h.Addr, strconv.Itoa(h.Port)), &ssh.ClientConfig{
				User: name, Auth: []ssh.AuthMethod{ssh.Password(password)}, HostKeyCallback: ssh.FixedHostKey(key),
				HostKeyAlgorithms: []string{key.Type()},
			})
			if err != nil {
				return nil, err
			}
			session, err := client.NewSession()
			if err == nil {
				err = session.Start("sleep 30")
			}
			return func() { _ = client.Close() }, err
		},
		Commands: &sdktest.Commands{
			Speak: "echo hello; echo careful >&2; exit 3", Stdout: "hello", Stderr: "careful", Status: 3,
			Pause: "echo first; sleep 30", Large: "seq 1 40000", LargeEnd: "40000",
		},
		States: map[sdktest.State]sdktest.StateHook{
			sdktest.StateExpired: {Set: func(_ context.Context, name string) error {
				_, err := h.OutOfBand("chage -E 2020-01-02 -- " + name)
				return err
			}},
			sdktest.StateMustChange: {Set: func(_ context.Context, name string) error { _, err := h.OutOfBand("chage -d 0 -- " + name); return err }},
			sdktest.StateDisabled: {
				Set:    func(_ context.Context, name string) error { _, err := h.OutOfBand("usermod -L -- " + name); return err },
				Hidden: "sshd says that permission is denied",
			},
			sdktest.StateLocked: {Set: func(ctx context.Context, name string) error {
				for range 5 {
					if err := testlab.SSHLogin(ctx, net.JoinHostPort(h.Addr, strconv.Itoa(h.Port)), name, "wrong", h.HostKey()); !errors.Is(err, testlab.ErrRefused) {
						return fmt.Errorf("a wrong password: %w", err)
					}
				}
				return nil
			}, Hidden: "sshd says that permission is denied"},
		},
		FailedLogins: func(_ context.Context, name string) (int, error) { return h.FailedLogins(name) },
		RefusedRole: sdk.Role{Name: "kit-refused", Version: 1, Phases: map[sdk.Phase][]string{
			sdk.PhaseGrant: {"run usermod -aG no-such-group -- %Username%"},
		}},
		Snapshot: func(context.Context) (string, error) {
			return h.OutOfBand("cat /etc/passwd /etc/shadow /etc/group /etc/gshadow; ls -la /etc/sudoers.d /home; cat /etc/sudoers.d/* 2>/dev/null; true")
		},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	private, public := newKey(t)
	const password = "Mgmt.'$(id) 7\"pw"
	// The checks that depend on how the connector logs in and becomes root.
	access := []string{
		"SDK02", "SDK05", "SDK07", "SDK13", "SDK14", "SDK16", "SDK21", "SDK22", "SDK24", "SDK34", "SDK48", "SDK51", "SDK63", "SDK64",
	}
	type run struct {
		account testlab.HostAccount
		key     bool
		noPAM   bool
		states  bool
		checks  []string
	}
	runs := map[string]run{
		"sudo that asks": {account: testlab.HostAccount{Name: "reeve", Password: password, Sudo: testlab.SudoPassword}, checks: access},
		"root with key, no PAM": {
			account: testlab.HostAccount{Name: "root", AuthorizedKeys: []string{public}}, key: true, noPAM: true, checks: access,
		},
		"sudo that does not ask, key": {
			account: testlab.HostAccount{Name: "reeve", AuthorizedKeys: []string{public}, Sudo: testlab.SudoNoPassword},
			key:     true, checks: access,
		},
		"sudo that does not ask, password": {
			account: testlab.HostAccount{Name: "reeve", Password: password, Sudo: testlab.SudoNoPassword}, checks: access,
		},
	}
	// All checks, on three hosts at the same time.
	for i, c := range sdktest.Checks() {
		name := fmt.Sprintf("root with password, host %d of 3", i%3+1)
		runs[name] = run{account: testlab.HostAccount{Name: "root", Password: password}, states: true, checks: append(runs[name].checks, c.ID)}
	}
	for name, c := range runs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := testlab.SSHHost(t, testlab.HostOptions{Accounts: []testlab.HostAccount{c.account}, NoPAM: c.noPAM})
			quickHashes(t, h)
			if c.states {
				if err := h.CountFailures(); err != nil {
					t.Fatal(err)
				}
			}
			management := sdk.Credential{Username: c.account.Name, Password: sdk.NewSecret([]byte(password))}
			if c.key {
				management = sdk.Credential{Username: c.account.Name, PrivateKey: private}
			}
			cfg := hooks(t, h, management)
			cfg.Binary = path
			sdktest.Run(t, cfg, c.checks...)
		})
	}
}

// quickHashes makes the host hash passwords with little work.
func quickHashes(t *testing.T, h *testlab.Host) {
	t.Helper()
	if _, err := h.OutOfBand(`sed -i 's/obscure yescrypt/obscure sha256 rounds=1000/' /etc/pam.d/common-password`); err != nil {
		t.Fatal(err)
	}
}
