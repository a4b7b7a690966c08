package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

// TestConformance runs the kit against a real domain controller, with the program an agent would start and a management
// account that may manage one unit and the members of one group.
func TestConformance(t *testing.T) {
	t.Parallel()
	l := testlab.New(t)
	d := testlab.NewSambaAD(t, l, testlab.SambaOptions{})
	addGroup(t, d, "helpdesk", "helpdesk")
	program := direct.Build(t)
	var names atomic.Int64
	sdktest.Run(t, sdktest.Config{
		Binary:         program,
		Target:         target(d),
		WrongTrust:     sdk.Trust{CAPEM: otherAuthority},
		Role:           role(t, "ad-helpdesk"),
		Params:         map[string]string{"Group": "helpdesk"},
		NewAccountName: func() string { return fmt.Sprintf("kit_%d", names.Add(1)) },
		Exists: func(ctx context.Context, name string) (bool, error) {
			a, err := d.Account(ctx, name)
			return a != nil, err
		},
		LoginWorks: func(ctx context.Context, name, password string) (bool, error) {
			err := d.Login(ctx, name, password)
			if errors.Is(err, testlab.ErrRefused) {
				return false, nil
			}
			return err == nil, err
		},
		CreateForeign: d.AddAccount,
		States: map[sdktest.State]sdktest.StateHook{
			sdktest.StateExpired:    {Set: replace(d, "accountExpires", testlab.FileTime(time.Now().Add(-time.Hour)))},
			sdktest.StateDisabled:   {Set: replace(d, "userAccountControl", "514")},
			sdktest.StateMustChange: {Set: replace(d, "pwdLastSet", "0")},
			sdktest.StateLocked: {Set: func(ctx context.Context, name string) error {
				for range 5 {
					if err := d.Login(ctx, name, "wrong"); !errors.Is(err, testlab.ErrRefused) {
						return fmt.Errorf("a wrong password: %w", err)
					}
				}
				return nil
			}},
		},
		FailedLogins: func(ctx context.Context, name string) (int, error) {
			a, err := d.Account(ctx, name)
			if err != nil || a == nil || a.GetAttributeValue("badPwdCount") == "" {
				return 0, err
			}
			return strconv.Atoi(a.GetAttributeValue("badPwdCount"))
		},
		RefusedRole: custom(sdk.PhaseGrant, "add-to-group name helpdesk", "set-flag not-delegated", "add-to-group rid:512"),
		Snapshot:    func(ctx context.Context) (string, error) { return snapshot(ctx, d) },
	})
	if strings.Contains(d.Logs(), "Aa1.") { // how the kit's passwords begin
		t.Error("a password is in the server's log")
	}
}

// replace sets an attribute of an account as the administrator.
func replace(d *testlab.DomainController, attribute, value string) func(context.Context, string) error {
	return func(ctx context.Context, name string) error {
		a, err := d.Account(ctx, name)
		if err != nil {
			return err
		}
		return d.Replace(ctx, a.DN, map[string][]string{attribute: {value}})
	}
}

// snapshot is everything about accounts and groups that a connector could change. pwdLastSet moves with every password.
func snapshot(ctx context.Context, d *testlab.DomainController) (string, error) {
	attributes := []string{
		"objectClass", "sAMAccountName", "userPrincipalName", "userAccountControl", "accountExpires", "pwdLastSet", "lockoutTime",
		"description", "extensionName", "member", "primaryGroupID", "servicePrincipalName",
	}
	all, err := d.Search(ctx, "(|(objectClass=user)(objectClass=group)(objectClass=organizationalUnit))", attributes...)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, e := range all {
		fmt.Fprintln(&b, e.DN)
		for _, name := range attributes {
			values := e.GetAttributeValues(name)
			slices.Sort(values)
			fmt.Fprintln(&b, " ", name, values)
		}
	}
	return b.String(), nil
}
