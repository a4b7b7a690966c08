package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/go-ntlmssp"

	emu "github.com/reeve-pam/reeve/internal/emu/winrm"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

// TestConformance runs the kit against the emulator, with the program an agent would start.
func TestConformance(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	other := emu.Start(t, emu.Options{})
	program := direct.Build(t)
	tasks(s)
	var names atomic.Int64
	sdktest.Run(t, sdktest.Config{
		Binary:         program,
		Target:         target(s),
		WrongTrust:     sdk.Trust{CAPEM: other.CAPEM},
		Role:           role(t, "win-administrator"),
		NewAccountName: func() string { return fmt.Sprintf("kit_%d", names.Add(1)) },
		Exists: func(_ context.Context, name string) (bool, error) {
			_, ok := s.Host.Account(name)
			return ok, nil
		},
		LoginWorks: func(ctx context.Context, name, password string) (bool, error) {
			return plainLogin(ctx, s, name, password)
		},
		CreateForeign: func(_ context.Context, name, password string) error {
			s.Host.Add(emu.Account{Name: name, Password: password, Enabled: true, Description: "theirs"})
			return nil
		},
		Session: func(ctx context.Context, name, password string) (func(), error) {
			if ok, err := plainLogin(ctx, s, name, password); !ok || err != nil {
				return nil, fmt.Errorf("log in: %t, %w", ok, err)
			}
			s.Host.Change(name, func(a *emu.Account) { a.Sessions++ })
			return func() {}, nil
		},
		States:       hooks(s),
		FailedLogins: func(_ context.Context, name string) (int, error) { return s.Host.BadLogins(name), nil },
		RefusedRole: sdk.Role{Name: "refused", Version: 1, Phases: map[sdk.Phase][]string{
			sdk.PhaseGrant:  {giveRight + "SeServiceLogonRight" + who, addTo + builtin + "555" + member, addTo + builtin + "999" + member},
			sdk.PhaseRevoke: {takeRight + "SeServiceLogonRight" + who},
		}},
		Commands: &sdktest.Commands{
			Speak: "speak", Stdout: "spoken", Stderr: "a warning", Status: 3, Pause: "pause", Large: "large", LargeEnd: "the end",
		},
		Snapshot: func(context.Context) (string, error) { return s.Host.Snapshot(), nil },
		Settle:   func(context.Context) error { s.EndShells(); return nil },
	})
	for _, line := range append(s.Host.CommandLines(), s.Host.ScriptBlocks()...) {
		if strings.Contains(line, "Aa1.") { // how the kit's passwords begin
			t.Error("a password is in a command line or a script")
		}
	}
}

// hooks are the kit's for accounts that refuse their right password.
func hooks(s *emu.Server) map[sdktest.State]sdktest.StateHook {
	all := map[sdktest.State]sdktest.StateHook{}
	for kind, set := range states {
		all[sdktest.State(kind)] = sdktest.StateHook{
			Set:    func(_ context.Context, name string) error { return set(s, name) },
			Hidden: "WinRM answers every login that it refuses with HTTP status 401 and nothing else",
		}
	}
	return all
}

// tasks are what the kit runs.
func tasks(s *emu.Server) {
	s.Host.Tasks["speak"] = func(stdout, stderr func(string), _ <-chan struct{}) int {
		stdout("spoken\r\n")
		stderr("a warning\r\n")
		return 3
	}
	s.Host.Tasks["pause"] = func(stdout, _ func(string), stop <-chan struct{}) int {
		stdout("paused\r\n")
		select {
		case <-stop:
		case <-time.After(30 * time.Second):
		}
		return 0
	}
	s.Host.Tasks["large"] = func(stdout, _ func(string), _ <-chan struct{}) int {
		for range 3000 {
			stdout(strings.Repeat("x", 80) + "\r\n")
		}
		stdout("the end\r\n")
		return 0
	}
}

// plainLogin logs in with a client that is not the connector's.
func plainLogin(ctx context.Context, s *emu.Server, name, password string) (bool, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.CAPEM))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("https://%s:%d/wsman", s.Address, s.Port), strings.NewReader(identifyMessage))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/soap+xml;charset=UTF-8")
	req.SetBasicAuth(name, password)
	res, err := (&ntlmssp.Negotiator{RoundTripper: transport}).RoundTrip(req)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode != http.StatusUnauthorized, nil
}
