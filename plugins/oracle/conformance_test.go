package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/reeve-pam/reeve/internal/emu/oracle"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

// TestConformance runs the kit against the emulator, with the program an agent would start and a management account that
// has the least rights. The server is a 23ai, which takes passwords of more than 30 bytes: the kit's corpus has some.
func TestConformance(t *testing.T) {
	t.Parallel()
	s, other := oracle.Start(t, oracle.Options{Major: 23}), oracle.Start(t, oracle.Options{})
	s.Exec(`GRANT "SELECT_CATALOG_ROLE" TO "` + oracle.Management + `" WITH ADMIN OPTION`) // to pass it on
	s.DB.SetProfile("STRICT", oracle.Profile{FailedLogins: 1})
	program := direct.Build(t)
	var names atomic.Int64
	sdktest.Run(t, sdktest.Config{
		Binary:         program,
		Target:         target(s),
		WrongTrust:     sdk.Trust{CAPEM: other.CAPEM},
		Role:           role(t, "oracle-monitor"),
		NewAccountName: func() string { return fmt.Sprintf("KIT_%d", names.Add(1)) },
		Exists:         func(_ context.Context, name string) (bool, error) { return s.DB.Exists(name), nil },
		LoginWorks: func(ctx context.Context, name, password string) (bool, error) {
			return loginWorks(ctx, s, name, password)
		},
		CreateForeign: func(_ context.Context, name, password string) error {
			s.Exec(`CREATE USER "`+name+`" IDENTIFIED BY "`+password+`"`, `GRANT CREATE SESSION TO "`+name+`"`)
			return nil
		},
		Snapshot: func(context.Context) (string, error) { return s.DB.Snapshot(), nil },
		States: map[sdktest.State]sdktest.StateHook{
			sdktest.StateExpired: {None: "an account of Oracle has no expiry date; EXPIRY_DATE is that of its password"},
			sdktest.StateLocked: {
				Set: func(ctx context.Context, name string) error {
					s.Exec(`ALTER USER "` + name + `" PROFILE STRICT`)
					works, err := loginWorks(ctx, s, name, "wrong")
					if err == nil && (works || s.DB.Status(name) != "LOCKED(TIMED)") {
						err = errors.New("a wrong password did not lock it")
					}
					return err
				},
				Hidden: "ORA-28000 is the answer for every lock",
			},
			sdktest.StateDisabled: {
				Set: func(_ context.Context, name string) error {
					s.Exec(`ALTER USER "` + name + `" ACCOUNT LOCK`)
					return nil
				},
				Hidden: "ORA-28000 is the answer for every lock",
			},
			sdktest.StateMustChange: {
				Set: func(_ context.Context, name string) error {
					s.Exec(`ALTER USER "` + name + `" PASSWORD EXPIRE`)
					return nil
				},
			},
		},
		FailedLogins: func(_ context.Context, name string) (int, error) { return s.DB.FailedLogins(name), nil },
		RefusedRole: sdk.Role{Name: "refused", Version: 1, Phases: map[sdk.Phase][]string{
			sdk.PhaseGrant: {"GRANT SELECT_CATALOG_ROLE TO %Username%", "GRANT NOTHING TO %Username%"},
		}},
	})
	for _, statement := range s.DB.Log() { // the password is where it must be, and nowhere else
		if strings.Contains(statement, "Aa1.") && !strings.HasPrefix(statement, `ALTER USER "KIT_`) {
			t.Errorf("a password is in a statement: %s", statement)
		}
	}
}
