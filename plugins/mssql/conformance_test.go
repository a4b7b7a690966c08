package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/reeve-pam/reeve/internal/emu/tds"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

// into brings a login into a state.
func into(s *tds.Server, change func(*tds.Login)) sdktest.StateHook {
	return sdktest.StateHook{Set: func(_ context.Context, name string) error { s.Change(name, change); return nil }}
}

// TestConformance runs the kit against the emulator, with the program an agent would start and a
// management account that has the least rights.
func TestConformance(t *testing.T) {
	t.Parallel()
	s, other := emulator(t, tds.Options{}), tds.Start(t, tds.Options{})
	program := direct.Build(t)
	var names atomic.Int64
	sdktest.Run(t, sdktest.Config{
		Binary:         program,
		Target:         target(s),
		WrongTrust:     sdk.Trust{CAPEM: other.CAPEM},
		Role:           role(t, "mssql-db-datareader"),
		Params:         map[string]string{"Database": "app"},
		NewAccountName: func() string { return fmt.Sprintf("kit_%d", names.Add(1)) },
		Exists: func(_ context.Context, name string) (bool, error) {
			_, ok := s.Login(name)
			return ok, nil
		},
		LoginWorks: func(ctx context.Context, name, password string) (bool, error) {
			return loginWorks(ctx, s, name, password)
		},
		CreateForeign: func(ctx context.Context, name, password string) error {
			db := login(s, "sa", tds.Administrator, "")
			defer func() { _ = db.Close() }()
			_, err := db.ExecContext(ctx, "CREATE LOGIN ["+name+"] WITH PASSWORD = N'"+password+"'")
			return err
		},
		Session: func(ctx context.Context, name, password string) (func(), error) {
			db := login(s, name, password, "")
			return func() { _ = db.Close() }, db.PingContext(ctx)
		},
		Commands: &sdktest.Commands{
			Speak:  "PRINT N'spoken'; DROP LOGIN [nobody]",
			Stdout: "spoken", Stderr: "error 15151, severity 16, state 1, line 1", Status: 1,
			Pause: "RAISERROR(N'paused', 0, 1) WITH NOWAIT; WAITFOR DELAY '00:00:30'",
			Large: strings.Repeat("PRINT N'"+strings.Repeat("x", 3000)+"'\n", 70) + "PRINT N'the end'", LargeEnd: "the end",
		},
		Snapshot: func(context.Context) (string, error) { return s.Snapshot(), nil },
		States: map[sdktest.State]sdktest.StateHook{
			sdktest.StateExpired:    {None: "a login of SQL Server has no expiry date"},
			sdktest.StateLocked:     into(s, func(l *tds.Login) { l.LockedOut = true }),
			sdktest.StateDisabled:   into(s, func(l *tds.Login) { l.Disabled = true }),
			sdktest.StateMustChange: into(s, func(l *tds.Login) { l.MustChange = true }),
		},
		FailedLogins: func(_ context.Context, name string) (int, error) {
			l, ok := s.Login(name)
			if !ok {
				return 0, fmt.Errorf("there is no login %s", name)
			}
			return l.Bad, nil
		},
		RefusedRole: sdk.Role{Name: "refused", Version: 1, Phases: map[sdk.Phase][]string{
			sdk.PhaseGrant: {"USE app", "CREATE USER %Username% FOR LOGIN %Username%", "ALTER ROLE [nothing] ADD MEMBER %Username%"},
		}},
	})
	if strings.Contains(s.Logged(), "Aa1.") { // how the kit's passwords begin
		t.Error("a password would be in the server's traces")
	}
}
