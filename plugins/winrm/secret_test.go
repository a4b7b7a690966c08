package main

import (
	"strings"
	"testing"

	emu "github.com/reeve-pam/reeve/internal/emu/winrm"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

func TestNoSecretIsLoggedOnTheHostOrSaid(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	var said record
	step := func(e sdk.Event) { said.add(e.Step, e.Message) }
	tgt := target(s)
	for _, c := range []struct {
		action   sdk.Action
		password string
	}{{sdk.Provision, first}, {sdk.Provision, second}, {sdk.Rotate, first}, {sdk.Disable, ""}, {sdk.Enable, ""}, {sdk.Deprovision, ""}} {
		in := intent(c.action)
		in.Role = role(t, "win-administrator")
		plan, err := connector{}.Plan(t.Context(), tgt, in)
		said.add(plan, err)
		r, err := connector{}.Apply(t.Context(), tgt, sdk.Change{Intent: in, Plan: plan, Password: secret(c.password)}, step)
		if err != nil {
			t.Errorf("%s: %v", c.action, err)
		}
		said.add(r, err)
		if c.action == sdk.Rotate {
			v, err := connector{}.Verify(t.Context(), tgt, sdk.Credential{Username: "alice", Password: secret(second)})
			said.add(v, err)
		}
	}
	f, err := connector{}.Probe(t.Context(), tgt)
	said.add(f, err)
	for _, c := range []sdk.Credential{tgt.Management, {Username: "alice", Password: secret(first)}, {Username: emu.Administrator, Password: secret(second)}} {
		asked := tgt
		asked.Management = c
		rights, err := connector{}.CheckRights(t.Context(), asked, role(t, "win-service-account"), nil)
		said.add(rights, err)
	}
	facts, err := connector{}.Inspect(t.Context(), tgt, "alice")
	said.add(facts, err)
	// And when everything goes wrong.
	must(t, tgt, intent(sdk.Provision), first)
	for _, at := range []string{"Create", "Command", "Send", "Receive", "Signal"} {
		for _, what := range []emu.Trouble{emu.Drop, emu.Empty, emu.Malformed, emu.Quota, emu.Oversized} {
			s.Trouble(at, what)
			_, err := applyWith(t.Context(), tgt, intent(sdk.Rotate), second, step)
			if err == nil && (at != "Signal" || what != emu.Quota) {
				t.Errorf("%s at %s was not noticed", what, at)
			}
			said.add(err)
			s.Trouble(at, emu.None)
		}
	}
	if text := said.text.String(); !strings.Contains(text, "S-1-5-21-") || !strings.Contains(text, "WinRM") {
		t.Fatal("the test looks at nothing")
	}
	if !strings.Contains(strings.Join(s.Host.CommandLines(), ""), "EncodedCommand") {
		t.Fatal("the host logged nothing")
	}
	wantNoSecret(t, s, said.text.String(), first, second, emu.AdministratorPassword)
}
