package sdktest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/toy"
)

// config is how the kit sees a machine.
func config(m *toy.Machine) sdktest.Config {
	var names atomic.Int64
	return sdktest.Config{
		Target:         m.Target(),
		WrongTrust:     sdk.Trust{HostKeys: []string{"toy of another machine"}},
		NewAccountName: func() string { return fmt.Sprintf("user%d", names.Add(1)) },
		Exists: func(_ context.Context, name string) (bool, error) {
			_, ok := m.Account(name)
			return ok, nil
		},
		LoginWorks: func(_ context.Context, name, password string) (bool, error) {
			return m.LoginWorks(name, password), nil
		},
		CreateForeign: func(_ context.Context, name, password string) error {
			m.Put(name, toy.Account{Password: password})
			return nil
		},
		Snapshot: func(context.Context) (string, error) {
			data, err := json.Marshal(m.Accounts())
			return string(data), err
		},
		Session: func(_ context.Context, name, password string) (func(), error) { return m.Session(name, password) },
		Commands: &sdktest.Commands{
			Speak: "say hello; warn careful; exit 3", Stdout: "hello", Stderr: "careful", Status: 3,
			Pause: "say first; wait; say second", Large: "many 20000", LargeEnd: "line 20000",
		},
		States: map[sdktest.State]sdktest.StateHook{
			sdktest.StateExpired:    {Set: put(m, func(a *toy.Account) { a.Expires = time.Now().Add(-time.Hour) })},
			sdktest.StateLocked:     {Set: put(m, func(a *toy.Account) { a.Locked = true })},
			sdktest.StateDisabled:   {Set: put(m, func(a *toy.Account) { a.Disabled = true }), Hidden: "the machine calls the password wrong"},
			sdktest.StateMustChange: {Set: put(m, func(a *toy.Account) { a.Change = true })},
		},
		FailedLogins:  func(_ context.Context, name string) (int, error) { return m.Refused(name), nil },
		RefusedRole:   role("toy-group"),
		RefusedParams: map[string]string{"Group": toy.NoGroup},
		InTheClear:    "the machine's protocol encrypts nothing",
	}
}

// put changes an account behind everybody's back.
func put(m *toy.Machine, change func(*toy.Account)) func(context.Context, string) error {
	return func(_ context.Context, name string) error {
		a, ok := m.Account(name)
		if !ok {
			return errors.New("no such account")
		}
		change(&a)
		m.Put(name, a)
		return nil
	}
}

// role is one of the toy connector's.
func role(name string) sdk.Role {
	roles := toy.Connector{}.Describe().Roles
	return roles[slices.IndexFunc(roles, func(r sdk.Role) bool { return r.Name == name })]
}

func TestToyConnectorConforms(t *testing.T) {
	t.Parallel()
	cfg := config(toy.NewMachine(t))
	cfg.Connector = toy.Connector{}
	cfg.Report = filepath.Join(t.TempDir(), "report.json")
	report := sdktest.Run(t, cfg)
	if !report.Passed() || len(report.Outcomes) < 20 {
		t.Errorf("the toy connector does not conform:\n%s", report)
	}
	data, err := os.ReadFile(cfg.Report)
	if err != nil {
		t.Fatal(err)
	}
	var written sdktest.Report
	if err := json.Unmarshal(data, &written); err != nil || len(written.Outcomes) != len(report.Outcomes) {
		t.Errorf("the report on disk has %d outcomes (%v), want %d", len(written.Outcomes), err, len(report.Outcomes))
	}
}

func TestToyProgramConforms(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "connector-toy")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./toy/connector-toy")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cfg := config(toy.NewMachine(t))
	cfg.Binary = program
	sdktest.Run(t, cfg)
}
