package main_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/reeve-pam/reeve/internal/emu/device"
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
		States: map[sdktest.State]sdktest.StateHook{
			sdktest.StateExpired: {Set: func(_ context.Context, name string) error {
				_, err := h.OutOfBand("chage -E 2020-01-02 -- " + name)
				return err
			}, Hidden: "telnetd may go before it has passed on what login(1) said last"},
			sdktest.StateMustChange: {Set: func(_ context.Context, name string) error { _, err := h.OutOfBand("chage -d 0 -- " + name); return err }},
			sdktest.StateDisabled: {
				Set:    func(_ context.Context, name string) error { _, err := h.OutOfBand("usermod -L -- " + name); return err },
				Hidden: "login(1) says that the login is incorrect",
			},
			sdktest.StateLocked: {Set: func(ctx context.Context, name string) error {
				for range 5 {
					if err := h.TelnetLogin(ctx, name, "wrong"); !errors.Is(err, testlab.ErrRefused) {
						return fmt.Errorf("a wrong password: %w", err)
					}
				}
				return nil
			}, Hidden: "login(1) may say that the login is incorrect"},
		},
		FailedLogins: func(_ context.Context, name string) (int, error) { return h.FailedLogins(name) },
		RefusedRole: sdk.Role{Name: "kit-refused", Version: 1, Phases: map[sdk.Phase][]string{
			sdk.PhaseGrant: {"unix usermod -aG no-such-group -- %Username%"},
		}},
		InTheClear: "Telnet encrypts nothing",
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
	access := []string{"SDK02", "SDK05", "SDK07", "SDK13", "SDK14", "SDK16", "SDK21", "SDK22", "SDK24"}
	type run struct {
		account testlab.HostAccount
		checks  []string
		states  bool
	}
	runs := map[string]run{
		"sudo that asks": {account: testlab.HostAccount{Name: "reeve", Password: password, Sudo: testlab.SudoPassword}, checks: access},
		"sudo that asks not": {
			account: testlab.HostAccount{Name: "reeve", Password: password, Sudo: testlab.SudoNoPassword}, checks: access[:len(access)-1],
		},
	}
	// All checks, on three hosts at the same time: logins are mostly waiting.
	for i, c := range sdktest.Checks() {
		name := fmt.Sprintf("root, host %d of 3", i%3+1)
		runs[name] = run{account: testlab.HostAccount{Name: "root", Password: password}, checks: append(runs[name].checks, c.ID), states: true}
	}
	for name, c := range runs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := testlab.SSHHost(t, testlab.HostOptions{Accounts: []testlab.HostAccount{c.account}, Telnet: true})
			// Passwords are hashed with little work.
			if _, err := h.OutOfBand(`sed -i 's/obscure yescrypt/obscure sha256 rounds=1000/' /etc/pam.d/common-password`); err != nil {
				t.Fatal(err)
			}
			if c.states {
				if err := h.CountFailures(); err != nil {
					t.Fatal(err)
				}
			}
			cfg := hooks(h, sdk.Credential{Username: c.account.Name, Password: sdk.NewSecret([]byte(password))})
			cfg.Binary = path
			sdktest.Run(t, cfg, c.checks...)
		})
	}
}

// A device's passwords are of ASCII: SDK10 demands more, and package ios has a test of its own for them.
func TestConformanceOfDevices(t *testing.T) {
	t.Parallel()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	const password = "Mgmt.'$(id) 7\"pw"
	var all []string
	for _, c := range sdktest.Checks() {
		if c.ID != "SDK10" {
			all = append(all, c.ID)
		}
	}
	for name, c := range map[string]struct {
		privilege int
		enable    string
		checks    []string
	}{
		"privileged":  {privilege: 15, checks: all},
		"with enable": {privilege: 1, enable: password, checks: []string{"SDK02", "SDK05", "SDK07", "SDK21"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := device.Start(device.Options{
				Users:        map[string]device.User{"reeve": {Privilege: c.privilege, Kind: "8", Secret: device.Secret(password, "12345678901234")}},
				EnableSecret: c.enable, MaxFail: 5,
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(d.Close)
			var names atomic.Int64
			sdktest.Run(t, sdktest.Config{
				Binary: path,
				Target: sdk.Target{
					Address: d.Addr, Port: d.Port, Options: map[string]string{"legacy": "yes", "profile": "ios"},
					Management: sdk.Credential{Username: "reeve", Password: sdk.NewSecret([]byte(password))},
				},
				NoIdentity:     true,
				NewAccountName: func() string { return fmt.Sprintf("pam-user%d", names.Add(1)) },
				Exists: func(_ context.Context, name string) (bool, error) {
					_, ok := d.User(name)
					return ok, nil
				},
				LoginWorks: func(_ context.Context, name, password string) (bool, error) { return d.LoginWorks(name, password), nil },
				CreateForeign: func(_ context.Context, name, password string) error {
					d.SetUser(name, device.User{Privilege: 1, Kind: "8", Secret: device.Secret(password, "foreignforeign")})
					return nil
				},
				States: map[sdktest.State]sdktest.StateHook{
					sdktest.StateExpired:    {None: "devices know no date on which an account ends"},
					sdktest.StateMustChange: {None: "devices know no age of passwords"},
					sdktest.StateDisabled: {Set: func(_ context.Context, name string) error {
						u, _ := d.User(name)
						u.Secret = strings.Replace(u.Secret, "$8$R", "$8$L", 1)
						d.SetUser(name, u)
						return nil
					}, Hidden: "no password fits, and the device knows no more"},
					sdktest.StateLocked: {Set: func(_ context.Context, name string) error {
						d.LockOut(name)
						return nil
					}, Hidden: "the device says that the login is invalid"},
				},
				FailedLogins: func(_ context.Context, name string) (int, error) { return d.Failed(name), nil },
				RefusedRole: sdk.Role{Name: "kit-refused", Version: 1, Phases: map[sdk.Phase][]string{
					sdk.PhaseGrant: {"ios username %Username% privilege 99"},
				}},
				InTheClear: "Telnet encrypts nothing",
				Snapshot:   func(context.Context) (string, error) { return d.Running() + d.Saved(), nil },
			}, c.checks...)
			for _, v := range d.Violations() {
				t.Errorf("breach of the protocol: %s", v)
			}
		})
	}
}
