package main_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest"
)

// buildDir is where the connector is built; it goes with the tests.
var buildDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "reeve-connector-telnet-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// program builds the connector once for all tests.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "connector-telnet")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput() //nolint:noctx // ends with the tests
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// hooks lets the kit look at a host.
func hooks(h *testlab.Host, management sdk.Credential) sdktest.Config {
	var names atomic.Int64
	return sdktest.Config{
		Target: sdk.Target{
			Address: h.Addr, Port: testlab.TelnetPort, Management: management,
			Options: map[string]string{"legacy": "yes", "profile": "unix"},
		},
		NoIdentity:     true,
		NewAccountName: func() string { return fmt.Sprintf("pam-user%d", names.Add(1)) },
		Exists: func(_ context.Context, name string) (bool, error) {
			_, ok, err := h.Passwd(name)
			return ok, err
		},
		LoginWorks: func(ctx context.Context, name, password string) (bool, error) {
			err := h.TelnetLogin(ctx, name, password)
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
		Snapshot: func(context.Context) (string, error) {
			return h.OutOfBand("cat /etc/passwd /etc/shadow /etc/group /etc/gshadow; ls -la /home; true")
		},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	const password = "Mgmt.'$(id) 7\"pw"
	// The checks that depend on how the connector logs in and becomes root.
	access := []string{"SDK02", "SDK05", "SDK07", "SDK13", "SDK14", "SDK16", "SDK21", "SDK22"}
	for name, c := range map[string]struct {
		account testlab.HostAccount
		checks  []string // nil: all
	}{
		"root":               {account: testlab.HostAccount{Name: "root", Password: password}},
		"sudo that asks":     {account: testlab.HostAccount{Name: "reeve", Password: password, Sudo: testlab.SudoPassword}},
		"sudo that asks not": {account: testlab.HostAccount{Name: "reeve", Password: password, Sudo: testlab.SudoNoPassword}, checks: access},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := testlab.SSHHost(t, testlab.HostOptions{Accounts: []testlab.HostAccount{c.account}, Telnet: true})
			// Passwords are hashed with little work.
			if _, err := h.OutOfBand(`sed -i 's/obscure yescrypt/obscure sha256 rounds=1000/' /etc/pam.d/common-password`); err != nil {
				t.Fatal(err)
			}
			cfg := hooks(h, sdk.Credential{Username: c.account.Name, Password: sdk.NewSecret([]byte(password))})
			cfg.Binary = path
			sdktest.Run(t, cfg, c.checks...)
		})
	}
}
