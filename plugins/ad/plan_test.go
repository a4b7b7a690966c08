package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

func TestPlanNeedsNoConnection(t *testing.T) {
	t.Parallel()
	tgt := sdk.Target{
		Address: "127.0.0.1", Port: 1, Management: sdk.Credential{Username: `LAB\reeve`},
		Options: map[string]string{optionOU: "OU=Reeve,DC=lab,DC=test", optionQuarantine: "OU=Old,DC=lab,DC=test"},
	}
	in := intent(sdk.Provision)
	in.Account = "a.lice"
	in.ExpiresAt = time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	in.Role, in.Params = role(t, "ad-helpdesk"), map[string]string{"Group": "Help (1)*"}
	const settings = "accountExpires 134433326450000000 (2027-01-02T03:04:05Z); description for alice, ticket 7"
	for action, want := range map[sdk.Action][]string{
		sdk.Provision: {
			`add CN=a\2Elice,OU=Reeve,DC=lab,DC=test: objectClass user; sAMAccountName a.lice; userPrincipalName a.lice@lab.test; ` +
				"userAccountControl 514; " + settings + "; extensionName reeve:acct_1; extensionName: a new revision",
			"account a.lice: replace " + settings,
			"account a.lice: replace unicodePwd: ********; extensionName: a new revision",
			`account a.lice: add-to-group "(sAMAccountName=Help \281\29\2a)"`,
			"account a.lice: replace userAccountControl: without bit 2; lockoutTime: 0; extensionName: a new revision",
		},
		sdk.Rotate:  {"account a.lice: replace unicodePwd: ********; extensionName: a new revision", "account a.lice: replace lockoutTime: 0"},
		sdk.Enable:  {"account a.lice: replace userAccountControl: without bit 2; lockoutTime: 0; extensionName: a new revision"},
		sdk.Disable: {"account a.lice: replace userAccountControl: with bit 2; extensionName: a new revision"},
		sdk.Deprovision: {
			"account a.lice: replace userAccountControl: with bit 2; extensionName: a new revision",
			`account a.lice: remove-from-group "(sAMAccountName=Help \281\29\2a)"`,
			"account a.lice: delete it from the members of each group",
			"account a.lice: replace unicodePwd: ********; extensionName: a new revision",
			"account a.lice: move below OU=Old,DC=lab,DC=test; replace sAMAccountName; delete userPrincipalName",
		},
	} {
		in.Action = action
		plan, err := connector{}.Plan(t.Context(), tgt, in)
		if err != nil {
			t.Fatal(err)
		}
		var commands []string
		for _, s := range plan.Steps {
			commands = append(commands, s.Command)
		}
		if d := cmp.Diff(want, commands); d != "" {
			t.Errorf("%s: %s", action, d)
		}
	}

	in.Action = sdk.Provision
	in.Role = custom(sdk.PhaseGrant, "grant everything")
	_, err := connector{}.Plan(t.Context(), tgt, in)
	wantClass(t, "a command that is none", err, sdk.ClassInvalid)
	in.Role, in.Params = custom(sdk.PhaseGrant, "add-to-group name %P%"), nil
	_, err = connector{}.Plan(t.Context(), tgt, in)
	wantClass(t, "a value that is missing", err, sdk.ClassInvalid)
	in.Role = sdk.Role{}
	for option, value := range map[string]string{optionSuffix: "@x", optionQuarantine: "OU=Old,DC=other,DC=test"} {
		bad := tgt
		bad.Options = map[string]string{optionOU: tgt.Options[optionOU], option: value}
		_, err = connector{}.Plan(t.Context(), bad, in)
		wantClass(t, option, err, sdk.ClassInvalid)
	}
}

func TestNoSecretIsTold(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt := target(d)
	secrets := []string{canary, d.ManagementPassword}
	check := func(what string, values ...any) {
		t.Helper()
		for _, v := range values {
			raw, _ := json.Marshal(v)
			text := fmt.Sprintf("%v %+v %s", v, v, raw)
			if e, ok := v.(*sdk.Error); ok {
				text = fmt.Sprint(e.Message, e.Fix, e.Details)
			}
			for _, secret := range secrets {
				if strings.Contains(text, secret) {
					t.Errorf("%s tells a secret", what)
				}
			}
		}
	}
	wrong := tgt
	wrong.Management.Password = secret(canary)
	for _, at := range []sdk.Target{tgt, wrong} {
		for _, in := range []sdk.Intent{intent(sdk.Provision), intent(sdk.Rotate), intent(sdk.Disable)} {
			plan, err := connector{}.Plan(t.Context(), at, in)
			check("plan", plan, err)
			var events []sdk.Event
			r, err := connector{}.Apply(t.Context(), at, sdk.Change{Intent: in, Plan: plan, Password: secret(first)},
				func(e sdk.Event) { events = append(events, e) })
			check("apply", events, r, err)
		}
		p, err := connector{}.Probe(t.Context(), at)
		check("probe", p, err)
		f, err := connector{}.Inspect(t.Context(), at, "alice")
		check("inspect", f, err)
		rights, err := connector{}.CheckRights(t.Context(), at, role(t, "ad-domain-admin"), nil)
		check("rights", rights, err)
		err = connector{}.Discover(t.Context(), at, func(f sdk.Facts) bool { check("discover", f); return true })
		check("discover", err)
		v, err := connector{}.Verify(t.Context(), at, sdk.Credential{Username: "alice", Password: secret(first)})
		check("verify", v, err)
	}
	_, err := apply(t.Context(), tgt, intent(sdk.Rotate), "canary-41cf-weak") // the domain refuses it
	secrets = append(secrets, "canary-41cf-weak")
	check("a refused password", err)
	if logs := d.Logs(); strings.Contains(logs, canary) || strings.Contains(logs, d.ManagementPassword) {
		t.Error("a secret is in the server's log")
	}
}
