package ios_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/internal/emu/device"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/telnet/ios"
)

func TestOutcomeOfACutConnectionIsToldTruthfully(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		faults device.Faults
		action sdk.Action
		want   sdk.Class
		done   bool
	}{
		"before anything":           {device.Faults{CutAt: "show running"}, sdk.Rotate, sdk.ClassUnreachable, false},
		"before the configuration":  {device.Faults{CutAt: "configure"}, sdk.Rotate, sdk.ClassUnreachable, false},
		"before the change is done": {device.Faults{CutAt: "username"}, sdk.Rotate, sdk.ClassUnknownOutcome, false},
		"after the change is done":  {device.Faults{CutAfter: "username"}, sdk.Rotate, sdk.ClassUnknownOutcome, true},
		"before it is saved":        {device.Faults{CutAt: "write"}, sdk.Rotate, sdk.ClassUnknownOutcome, true},
		"no answer to the change":   {device.Faults{HangAt: "username"}, sdk.Rotate, sdk.ClassUnknownOutcome, false},
		"it cannot be saved":        {device.Faults{SaveFails: true}, sdk.Rotate, sdk.ClassUnknownOutcome, true},
		"it is not done":            {device.Faults{Deaf: true}, sdk.Rotate, sdk.ClassProtocol, false},
		"removal that is not done":  {device.Faults{Deaf: true}, sdk.Deprovision, sdk.ClassProtocol, false},
		"secrets it does not know":  {device.Faults{OldSecrets: true}, sdk.Rotate, sdk.ClassUnsupported, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, nil)
			b.must(sdk.Provision, "alice")
			before, _ := b.User("alice")
			b.SetFaults(c.faults)
			ctx := t.Context()
			if c.faults.HangAt != "" {
				ctx = soon(t)
			}
			_, err := b.apply(ctx, intent(c.action, "alice"))
			b.wantClass(err, c.want)
			if after, _ := b.User("alice"); (after != before) != c.done {
				t.Errorf("the change was done: %t, want %t", !c.done, c.done)
			}
			b.SetFaults(device.Faults{})
			b.must(c.action, "alice")
		})
	}
}

func TestFailedProvisionLeavesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.SetFaults(device.Faults{SaveFails: true})
	_, err := b.apply(t.Context(), intent(sdk.Provision, "alice"))
	b.wantClass(err, sdk.ClassProtocol)
	if _, there := b.User("alice"); there {
		t.Error("the account is still there")
	}
}

func TestLoginFailuresHaveTheirClass(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options func(*device.Options)
		faults  device.Faults
		change  func(*sdk.Target)
		want    sdk.Class
		missing bool // the probe succeeds and tells what is missing
	}{
		"wrong password": {change: func(t *sdk.Target) { t.Management.Password = sdk.NewSecret([]byte("C4nary-wrong")) }, want: sdk.ClassAuthFailed},
		"wrong name":     {change: func(t *sdk.Target) { t.Management.Username = "nobody" }, want: sdk.ClassAuthFailed},
		"a name that cannot be typed": {
			change: func(t *sdk.Target) { t.Management.Username = "a?" }, want: sdk.ClassInvalid,
		},
		"no password": {change: func(t *sdk.Target) { t.Management.Password = sdk.Secret{} }, want: sdk.ClassInvalid},
		"password not of seven bits": {
			change: func(t *sdk.Target) { t.Management.Password = sdk.NewSecret([]byte("Grün-C4nary")) }, want: sdk.ClassUnsupported,
		},
		"no privilege and no enable secret": {options: func(o *device.Options) { unprivileged(o, "") }, missing: true},
		"another enable secret":             {options: func(o *device.Options) { unprivileged(o, "other") }, missing: true},
		"enabled with the same password":    {options: func(o *device.Options) { unprivileged(o, managementPassword) }},
		"silence":                           {faults: device.Faults{HangAt: "show version"}, want: sdk.ClassUnreachable},
		"an end":                            {faults: device.Faults{CutAt: "terminal"}, want: sdk.ClassUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, c.options)
			b.SetFaults(c.faults)
			if c.change != nil {
				c.change(&b.target)
			}
			ctx := t.Context()
			if c.faults.HangAt != "" {
				ctx = soon(t)
			}
			f, err := ios.Profile{}.Probe(ctx, b.target)
			b.tell(f, err)
			switch {
			case c.want != "" && sdk.ClassOf(err) != c.want:
				t.Errorf("error %v, want class %s", err, c.want)
			case c.want == "" && (err != nil || len(f.MissingRights) > 0 != c.missing):
				t.Errorf("%+v, %v", f, err)
			case c.want == "" && !c.missing && (f.Version != "15.7(3)M8" || f.Attributes["hostname"] != "R1"):
				t.Errorf("%+v", f)
			}
		})
	}
}

func unprivileged(o *device.Options, enable string) {
	u := o.Users["reeve"]
	u.Privilege = 1
	o.Users["reeve"] = u
	o.EnableSecret = enable
}

func TestPasswordIsSentOnlyWhenItIsAskedFor(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.SetFaults(device.Faults{EchoSecret: true})
	var out output
	status, err := ios.Profile{}.Run(context.Background(), b.target, "show users", &out)
	if err != nil || status != 0 || strings.Contains(out.String(), managementPassword) {
		t.Errorf("%d, %v\n%s", status, err, out.String())
	}
	if slices.ContainsFunc(b.Commands(), func(c string) bool { return strings.Contains(c, "C4nary") }) {
		t.Errorf("a password was typed as a command: %q", b.Commands())
	}
}
