package main

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"testing"

	emu "github.com/reeve-pam/reeve/internal/emu/winrm"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// helped is a target that is managed with a local account which has no rights.
func helped(s *emu.Server, name string) sdk.Target {
	s.Host.Add(emu.Account{Name: name, Password: first, Enabled: true})
	tgt := target(s)
	tgt.Management = sdk.Credential{Username: name, Password: secret(first)}
	return tgt
}

// lacking are the rights that are not held. Each one says what it is for, and only those say how to give them.
func lacking(t testing.TB, tgt sdk.Target, r sdk.Role) (missing []sdk.Right) {
	t.Helper()
	all, err := connector{}.CheckRights(t.Context(), tgt, r, nil)
	if err != nil || len(all) == 0 {
		t.Fatalf("%v, %v", all, err)
	}
	for _, right := range all {
		if right.Name == "" || right.Reason == "" || right.Held && right.Grant != "" {
			t.Errorf("%+v", right)
		}
		if !right.Held {
			missing = append(missing, right)
		}
	}
	return missing
}

// TestRightsThatARoleNeedsAreSaidAndTheirCommandsAreEnough gives a management account that has nothing exactly what CheckRights says, and then
// does with it what the role is for.
func TestRightsThatARoleNeedsAreSaidAndTheirCommandsAreEnough(t *testing.T) {
	t.Parallel()
	for _, r := range roles() {
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			s := emu.Start(t, emu.Options{})
			s.Host.Filtered = true
			tgt := helped(s, "helper")
			in := intent(sdk.Provision)
			in.Role = r
			missing := lacking(t, tgt, r)
			if len(missing) != 2 {
				t.Fatalf("%+v", missing)
			}
			for _, right := range missing {
				_, err := apply(t.Context(), tgt, in, second)
				wantClass(t, "provision without "+right.Name, err, sdk.ClassNotPermitted)
				if id := s.Host.Console(right.Grant); id != "" {
					t.Errorf("%s: %s", right.Grant, id)
				}
			}
			before := s.Host.Snapshot()
			if left := lacking(t, tgt, r); len(left) > 0 || s.Host.Snapshot() != before {
				t.Errorf("still missing: %+v", left)
			}
			must(t, tgt, in, second)
			in.Action = sdk.Deprovision
			must(t, tgt, in, "")
		})
	}
}

func TestEveryRightThatLacksIsNamed(t *testing.T) {
	t.Parallel()
	mine := func(command string) sdk.Role {
		return sdk.Role{Name: "mine", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {command}}}
	}
	both := []string{"member of Administrators (S-1-5-32-544)", "LocalAccountTokenFilterPolicy = 1"}
	for name, c := range map[string]struct {
		role string
		mine sdk.Role
		set  func(h *emu.Host)
		want []string
		left []string // when all has been given that can be given
	}{
		"nothing": {set: func(*emu.Host) {}, want: both}, // WinRM refuses, and does not say which of them it is
		"in WinRM, no administrator": {
			set: func(h *emu.Host) { h.Join("helper", "S-1-5-32-580"); h.Filtered = true }, want: both,
		},
		"in WinRM, no administrator, policy set": {set: func(h *emu.Host) { h.Join("helper", "S-1-5-32-580") }, want: both[:1]},
		"an administrator whose rights are taken": {
			set: func(h *emu.Host) {
				h.Join("helper", "S-1-5-32-580")
				h.Join("helper", "S-1-5-32-544")
				h.Filtered = true
			},
			want: both[1:],
		},
		"an administrator": {set: func(h *emu.Host) { h.Join("helper", "S-1-5-32-544") }},
		"no shells": {
			set: func(h *emu.Host) { h.Join("helper", "S-1-5-32-544"); h.NoShells = true }, want: []string{"AllowRemoteShellAccess"},
		},
		"constrained": {
			set:  func(h *emu.Host) { h.Join("helper", "S-1-5-32-544"); h.Constrained = true },
			want: []string{"PowerShell's full language (no AppLocker or WDAC policy that constrains it)"},
			left: []string{"PowerShell's full language (no AppLocker or WDAC policy that constrains it)"},
		},
		"a group that Windows would make": {
			role: "win-hyperv-admin", set: func(h *emu.Host) { h.Join("helper", "S-1-5-32-544"); h.RemoveGroup("S-1-5-32-578") },
			want: []string{"the group S-1-5-32-578"}, left: []string{"the group S-1-5-32-578"},
		},
		"a group of one's own": {
			mine: mine("Add-LocalGroupMember -Group 'Editors’’ choice' -Member %Username%"),
			set:  func(h *emu.Host) { h.Join("helper", "S-1-5-32-544") },
		},
		"another group of one's own": {
			mine: mine("Add-LocalGroupMember -Group 'Web editors' -Member %Username%"),
			set:  func(h *emu.Host) { h.Join("helper", "S-1-5-32-544") }, want: []string{"the group Web editors"},
		},
		"a command": {
			mine: mine("Add-Nonsense -Member %Username%"), set: func(h *emu.Host) { h.Join("helper", "S-1-5-32-544") },
			want: []string{"the command Add-Nonsense"}, left: []string{"the command Add-Nonsense"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := emu.Start(t, emu.Options{})
			tgt := helped(s, "helper")
			c.set(s.Host)
			r := c.mine
			if r.Name == "" {
				r = role(t, cmp.Or(c.role, "win-rdp-user"))
			}
			missing := lacking(t, tgt, r)
			if got := names(missing); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
			for _, right := range missing {
				if right.Grant == "" {
					continue
				}
				if id := s.Host.Console(right.Grant); id != "" {
					t.Errorf("%s: %s", right.Grant, id)
				}
			}
			if got := names(lacking(t, tgt, r)); !slices.Equal(got, c.left) {
				t.Errorf("afterwards %q, want %q", got, c.left)
			}
		})
	}
}

func names(rights []sdk.Right) (all []string) {
	for _, r := range rights {
		all = append(all, r.Name)
	}
	return all
}

func TestWhatIsRunToGiveARightHoldsHostileNamesAsValues(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"o'brien", "o’brien", "a‚b‛c", "$(x)`x", "a b&c"} {
		s := emu.Start(t, emu.Options{})
		tgt := helped(s, name)
		for _, right := range lacking(t, tgt, role(t, "win-user")) {
			if id := s.Host.Console(right.Grant); id != "" {
				t.Errorf("%s: %s", right.Grant, id)
			}
		}
		if got := s.Host.Groups(name); !slices.Equal(got, []string{"S-1-5-32-544"}) {
			t.Errorf("%s: groups %v", name, got)
		}
	}
	// Of an account that is not the host's own WinRM refuses no less, and a policy for local accounts would be too much.
	rights, err := refusedRights(`CORP\svc`, explainFault("open a shell", faultAccessDenied, false))
	if err != nil || len(rights) != 2 || !strings.HasSuffix(rights[0].Grant, ` -Member 'CORP\svc'`) || !strings.Contains(rights[1].Reason, "domain") {
		t.Errorf("%+v, %v", rights, err)
	}
	rights, err = refusedRights(`.\svc`, explainFault("open a shell", faultAccessDenied, false))
	if err != nil || !strings.HasSuffix(rights[0].Grant, ` -Member 'svc'`) || strings.Contains(rights[1].Reason, "domain") {
		t.Errorf("%+v, %v", rights, err)
	}
}

func TestTheDocumentationHasTheSameCommands(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/connectors/winrm.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{policyGrant, shellGrant, filled(addTo+administrators+member, "NAME"), filled("New-LocalGroup -Name %Username%", "GROUP")} {
		if !strings.Contains(string(page), "`"+command+"`") {
			t.Errorf("it does not have %s", command)
		}
	}
}

func TestRightsOfWhomCannotBeAskedAreAnError(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	wrong := target(s)
	wrong.Management.Password = secret(second)
	_, err := connector{}.CheckRights(t.Context(), wrong, role(t, "win-user"), nil)
	wantClass(t, "a wrong password", err, sdk.ClassAuthFailed)
	s.Trouble("Create", emu.Quota)
	_, err = connector{}.CheckRights(t.Context(), target(s), role(t, "win-user"), nil)
	wantClass(t, "no more shells", err, sdk.ClassBusy)
	s.Trouble("Create", emu.None)
	s.Host.OldPowerShell = true
	_, err = connector{}.CheckRights(t.Context(), target(s), role(t, "win-user"), nil)
	wantClass(t, "an old PowerShell", err, sdk.ClassUnsupported)
	s.Host.DomainController = true
	_, err = connector{}.CheckRights(t.Context(), target(s), role(t, "win-user"), nil)
	wantClass(t, "a domain controller", err, sdk.ClassUnsupported)
	bad := sdk.Role{Name: "mine", Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {"Add-X -Member x%Username%; 'y"}}}
	_, err = connector{}.CheckRights(t.Context(), target(s), bad, nil)
	wantClass(t, "a command that is none", err, sdk.ClassInvalid)
	s.Host.DomainController, s.Host.OldPowerShell, s.Host.Constrained = false, false, true
	_, err = apply(t.Context(), target(s), intent(sdk.Provision), first)
	wantClass(t, "provision where PowerShell is constrained", err, sdk.ClassNotPermitted)
}
