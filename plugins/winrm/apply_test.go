package main

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	emu "github.com/reeve-pam/reeve/internal/emu/winrm"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

func TestEveryRoleGivesItsGroupsOrRightsAndTakesThemAgain(t *testing.T) {
	t.Parallel()
	for _, r := range roles() {
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			s := emu.Start(t, emu.Options{})
			in := intent(sdk.Provision)
			in.Role = r
			facts := must(t, target(s), in, first).Facts
			a, _ := s.Host.Account("alice")
			groups := s.Host.Groups("alice")
			switch {
			case r.Name == "win-service-account":
				if len(a.Rights) != 3 || len(groups) != 0 {
					t.Errorf("rights %v, groups %v", a.Rights, groups)
				}
			case len(groups) != 1 || !strings.Contains(r.Phases[sdk.PhaseGrant][0], groups[0]) || !slices.Equal(facts.Grants, groups):
				t.Errorf("groups %v, facts %v", groups, facts.Grants)
			}
			if a.Description != "reeve acct_1" || a.FullName != in.Comment || !a.Expires.Equal(in.ExpiresAt) {
				t.Errorf("account %q, %q, %s", a.Description, a.FullName, a.Expires)
			}
			if again := must(t, target(s), in, first); again.Changed && r.Name != "win-service-account" {
				t.Error("the second provision says that it changed something")
			}
			in.Action = sdk.Deprovision
			must(t, target(s), in, "")
			if _, there := s.Host.Account("alice"); there {
				t.Error("the account is there")
			}
		})
	}
}

func TestANewAccountIsDisabledUntilItHasItsRights(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	in := intent(sdk.Provision)
	in.Role = role(t, "win-administrator")
	_, err := applyWith(t.Context(), target(s), in, first, func(e sdk.Event) {
		if e.Step == "enable" && e.State == sdk.StepStarted {
			a, _ := s.Host.Account("alice")
			if a.Enabled || len(s.Host.Groups("alice")) != 1 {
				t.Errorf("before the last step: enabled %t, groups %v", a.Enabled, s.Host.Groups("alice"))
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := plainLogin(t.Context(), s, "alice", first); !ok || err != nil {
		t.Errorf("login: %t, %v", ok, err)
	}
}

func TestARoleThatTheHostRefusesLeavesNoAccount(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		command string
		want    sdk.Class
	}{
		"no such group":   {"Add-LocalGroupMember -SID 'S-1-5-32-999' -Member %Username%", sdk.ClassUnsupported},
		"no such command": {"Add-Nonsense -Member %Username%", sdk.ClassInvalid},
		"no such right":   {"Add-AccountRight -Right SeNonsense -Member %Username%", sdk.ClassInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := emu.Start(t, emu.Options{})
			before := s.Host.Snapshot()
			in := intent(sdk.Provision)
			in.Role = sdk.Role{Name: "mine", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {c.command}}}
			_, err := apply(t.Context(), target(s), in, first)
			wantClass(t, "provision", err, c.want)
			if s.Host.Snapshot() != before {
				t.Error("something is left")
			}
			// An account of an earlier call stays.
			good := intent(sdk.Provision)
			must(t, target(s), good, first)
			_, err = apply(t.Context(), target(s), in, first)
			wantClass(t, "provision of an account that was there", err, c.want)
			if _, there := s.Host.Account("alice"); !there {
				t.Error("an account that was there is gone")
			}
		})
	}
}

func TestWhatAFailedGrantGaveIsTakenBack(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	before := s.Host.Snapshot()
	in := intent(sdk.Provision)
	in.Role = role(t, "win-service-account")
	in.Role.Phases = maps.Clone(in.Role.Phases)
	in.Role.Phases[sdk.PhaseGrant] = append(slices.Clone(in.Role.Phases[sdk.PhaseGrant]),
		"New-LocalGroup -Name 'Friends of %Username%'", addTo+builtin+"999"+member)
	in.Role.Phases[sdk.PhaseRevoke] = append(slices.Clone(in.Role.Phases[sdk.PhaseRevoke]), "Remove-LocalGroup -Name 'Friends of %Username%'")
	_, err := apply(t.Context(), target(s), in, first)
	wantFix(t, "provision", err, sdk.ClassUnsupported)
	if s.Host.Snapshot() != before {
		t.Errorf("left: %s", s.Host.Snapshot())
	}
	// What cannot be taken back is told.
	for _, c := range [][2]string{{"right", "revoke-"}, {"remove", "the account alice"}} {
		script, word, undoing := c[0], c[1], false
		s.Host.BeforeScript = func(name string) string {
			undoing = undoing || name == "role"
			if undoing && name == script {
				return "AccessDenied"
			}
			return ""
		}
		_, err := apply(t.Context(), target(s), in, first)
		e, _ := errors.AsType[*sdk.Error](err)
		if e == nil || !strings.Contains(e.Details["residue"], word) || e.Fix == "" {
			t.Errorf("%s that is refused: %+v", script, e)
		}
		s.Host.BeforeScript = nil
	}
}

func TestCommandsOfAllPhasesAreDoneInTheirTurn(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	r := sdk.Role{Name: "mine", Version: 1, Params: []sdk.RoleParam{{Name: "Who", Pattern: "^.*$"}}, Phases: map[sdk.Phase][]string{}}
	all := []sdk.Phase{sdk.PhaseCreate, sdk.PhaseGrant, sdk.PhaseRotate, sdk.PhaseEnable, sdk.PhaseDisable, sdk.PhaseRevoke}
	for _, p := range all {
		r.Phases[p] = []string{"Set-LocalUser -Name %Username% -FullName '" + string(p) + " by %Who%'"}
	}
	r.Phases[sdk.PhaseRemove] = []string{"Remove-LocalGroupMember -SID S-1-5-32-545 -Member %Username%"}
	in := intent(sdk.Provision)
	in.Role, in.Params = r, map[string]string{"Who": "o'br\u2019ien $(x)"}
	for _, c := range []struct {
		action sdk.Action
		want   []string
	}{
		{sdk.Provision, []string{"read", "create", "role", "role", "enable", "read"}},
		{sdk.Rotate, []string{"read", "password", "role", "read"}},
		{sdk.Disable, []string{"read", "disable", "role", "sessions", "read"}},
		{sdk.Enable, []string{"read", "enable", "role", "read"}},
		{sdk.Deprovision, []string{"read", "dependents", "role", "disable", "sessions", "remove", "role", "read"}},
	} {
		in.Action = c.action
		password := ""
		if c.action == sdk.Provision || c.action == sdk.Rotate {
			password = second
		}
		done := len(s.Host.Did())
		must(t, target(s), in, password)
		if got := s.Host.Did()[done:]; !slices.Equal(got, c.want) {
			t.Errorf("%s did %v, want %v", c.action, got, c.want)
		}
		if a, there := s.Host.Account("alice"); there && !strings.HasSuffix(a.FullName, " by o'br\u2019ien $(x)") {
			t.Errorf("%s: the parameter became %q", c.action, a.FullName)
		}
	}
}

func TestHostileNamesStayValues(t *testing.T) {
	t.Parallel()
	for _, name := range []string{`o'brien`, `o’brien`, "$(x)`x", "a‚b‛c", "a b&c", "a%d{0}"} { // beyond the name rule, which the SDK checks
		s := emu.Start(t, emu.Options{})
		in := intent(sdk.Provision)
		in.Account, in.Role = name, role(t, "win-rdp-user")
		must(t, target(s), in, first)
		if got := s.Host.Groups(name); !slices.Equal(got, []string{"S-1-5-32-555"}) {
			t.Errorf("%s: groups %v", name, got)
		}
		in.Action = sdk.Deprovision
		must(t, target(s), in, "")
		if _, there := s.Host.Account(name); there {
			t.Errorf("%s is still there", name)
		}
	}
}

func TestAccountsOfWindowsItselfAndTheManagementAccountAreLeftAlone(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	s.Host.Add(emu.Account{Name: "boss", Password: first, Enabled: true})
	s.Host.Join("boss", "S-1-5-32-544")
	before := s.Host.Snapshot()
	tgt := target(s)
	for _, name := range []string{"Administrator", "administrator", "Gast", "DefaultAccount", "WDAGUtilityAccount", "boss"} {
		if name == "boss" {
			tgt.Management = sdk.Credential{Username: emu.HostName + `\boss`, Password: secret(first)}
		}
		a, _ := s.Host.Account(name)
		for _, action := range []sdk.Action{sdk.Provision, sdk.Enable, sdk.Disable, sdk.Deprovision} {
			in := intent(action)
			in.Account, in.Identity = name, a.SID // even one that somebody has adopted
			password := ""
			if action == sdk.Provision {
				password = second
			}
			_, err := apply(t.Context(), tgt, in, password)
			wantClass(t, string(action)+" of "+name, err, sdk.ClassInvalid)
		}
	}
	if s.Host.Snapshot() != before {
		t.Error("something was changed")
	}
	// The management account is found by its SID where its name does not tell.
	tgt.Management.Username = "BOSS"
	in := intent(sdk.Disable)
	in.Account = "boss"
	a, _ := s.Host.Account("boss")
	in.Identity = a.SID
	_, err := apply(t.Context(), tgt, in, "")
	wantClass(t, "disable of the management account", err, sdk.ClassInvalid)
	// Its password, and that of the built-in administrator, may be changed.
	in.Action = sdk.Rotate
	must(t, tgt, in, second)
	if ok, err := plainLogin(t.Context(), s, "boss", second); !ok || err != nil {
		t.Errorf("login with the new password: %t, %v", ok, err)
	}
}

func TestTheManagementAccountCanChangeItsOwnPassword(t *testing.T) {
	t.Parallel()
	for _, auth := range []string{authNTLM, authBasic} {
		s := emu.Start(t, emu.Options{Basic: true})
		tgt := target(s)
		tgt.Options[optionAuth] = auth
		a, _ := s.Host.Account(emu.Administrator)
		in := intent(sdk.Rotate)
		in.Account, in.Identity = emu.Administrator, a.SID
		must(t, tgt, in, second)
		if ok, err := plainLogin(t.Context(), s, emu.Administrator, second); !ok || err != nil || s.Shells() != 0 {
			t.Errorf("%s: login with the new password: %t, %v; %d shells are left", auth, ok, err, s.Shells())
		}
	}
}

func TestAgentsAtOneAccountAllSucceedOrSayWhoWasThere(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	s.Host.BeforeScript = func(name string) string {
		if name == "create" { // between the look and the making
			if _, there := s.Host.Account("alice"); !there {
				s.Host.Add(emu.Account{Name: "alice", Password: second, Description: "reeve acct_1"})
			}
		}
		return ""
	}
	r := must(t, target(s), intent(sdk.Provision), first)
	if ok, err := plainLogin(t.Context(), s, "alice", first); !ok || err != nil || r.Facts.Locked {
		t.Errorf("login: %t, %v, %+v", ok, err, r.Facts)
	}
	s.Host.BeforeScript = func(name string) string {
		if name == "create" {
			s.Host.Add(emu.Account{Name: "bob", Password: second, Description: "somebody else's"})
		}
		return ""
	}
	in := intent(sdk.Provision)
	in.Account, in.AccountID = "bob", "acct_2"
	_, err := apply(t.Context(), target(s), in, first)
	wantClass(t, "provision beside a stranger", err, sdk.ClassExists)
	if b, _ := s.Host.Account("bob"); b.Password != second || b.Enabled {
		t.Error("somebody else's account was changed")
	}
}

func TestAnAccountThatServicesNeedIsNotRemoved(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	must(t, target(s), intent(sdk.Provision), first)
	s.Host.Change("alice", func(a *emu.Account) { a.Dependents = []string{"service Spooler", `task \Backup`} })
	_, err := apply(t.Context(), target(s), intent(sdk.Deprovision), "")
	wantClass(t, "deprovision", err, sdk.ClassNotPermitted)
	if err == nil || !strings.Contains(err.Error(), `service Spooler, task \Backup`) {
		t.Errorf("the error does not say who: %v", err)
	}
	if a, there := s.Host.Account("alice"); !there || !a.Enabled {
		t.Error("the account was changed")
	}
}

func TestSessionsEndWithTheAccount(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	must(t, target(s), intent(sdk.Provision), first)
	s.Host.Change("alice", func(a *emu.Account) { a.Sessions = 3 })
	f, err := connector{}.Inspect(t.Context(), target(s), "alice")
	if err != nil || f.Sessions != 3 {
		t.Errorf("facts say %d sessions, %v", f.Sessions, err)
	}
	var notes []string
	_, err = applyWith(t.Context(), target(s), intent(sdk.Disable), "", func(e sdk.Event) {
		if e.State == sdk.StepInfo {
			notes = append(notes, e.Message)
		}
	})
	if a, _ := s.Host.Account("alice"); err != nil || a.Sessions != 0 || !slices.Equal(notes, []string{"sessions ended: 3"}) {
		t.Errorf("%v, %d sessions, notes %q", err, a.Sessions, notes)
	}
}

func TestAPasswordThatThePolicyRefusesIsSaidToBeSo(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	must(t, target(s), intent(sdk.Provision), first)
	s.Host.MinPassword = 40
	for _, action := range []sdk.Action{sdk.Rotate, sdk.Provision} {
		in := intent(action)
		if action == sdk.Provision {
			in.Account, in.AccountID = "bob", "acct_2"
		}
		_, err := apply(t.Context(), target(s), in, second)
		wantClass(t, string(action), err, sdk.ClassPolicyRejected)
	}
	_, err := apply(t.Context(), target(s), intent(sdk.Rotate), strings.Repeat("🔑", 100)) // 200 units of UTF-16
	wantClass(t, "rotate to too many units", err, sdk.ClassPolicyRejected)
	if _, there := s.Host.Account("bob"); there {
		t.Error("an account is left")
	}
	if ok, err := plainLogin(t.Context(), s, "alice", first); !ok || err != nil {
		t.Errorf("login with the old password: %t, %v", ok, err)
	}
}

func TestAnAccountIsHeldToItsIdentity(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	in := intent(sdk.Provision)
	in.Identity = must(t, target(s), in, first).Facts.Identity
	s.Host.Remove("alice")
	s.Host.Add(emu.Account{Name: "Alice", Password: second, Enabled: true, Description: "reeve acct_1"}) // even with our mark
	before := s.Host.Snapshot()
	for _, action := range []sdk.Action{sdk.Rotate, sdk.Enable, sdk.Disable, sdk.Deprovision} {
		in.Action = action
		password := ""
		if action == sdk.Rotate {
			password = first
		}
		_, err := apply(t.Context(), target(s), in, password)
		wantClass(t, string(action), err, sdk.ClassExists)
	}
	if s.Host.Snapshot() != before {
		t.Error("it was changed")
	}
}

func TestALockedOutAccountIsOpenedByEnable(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	must(t, target(s), intent(sdk.Provision), first)
	s.Host.Change("alice", func(a *emu.Account) { a.LockedOut = true })
	if r := must(t, target(s), intent(sdk.Enable), ""); !r.Changed {
		t.Error("it says that nothing was done")
	}
	if ok, err := plainLogin(t.Context(), s, "alice", first); !ok || err != nil {
		t.Errorf("login: %t, %v", ok, err)
	}
}

func TestAPlanIsRefusedByAnotherConnectorVersion(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	in := intent(sdk.Provision)
	plan, err := connector{}.Plan(t.Context(), target(s), in)
	if err != nil || !strings.Contains(plan.Steps[0].Command, "create.ps1 ("+scriptCreate.id()+")") {
		t.Fatalf("%v, %+v", err, plan.Steps)
	}
	plan.Steps[0].Command = strings.Replace(plan.Steps[0].Command, scriptCreate.id(), "0123456789ab", 1)
	_, err = connector{}.Apply(t.Context(), target(s), sdk.Change{Intent: in, Plan: plan, Password: secret(first)}, func(sdk.Event) {})
	wantClass(t, "apply", err, sdk.ClassPlanChanged)
	if s.Asked("Create") != 0 {
		t.Error("it connected")
	}
}

func TestALongAccountIDStillFitsIntoADescription(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, id := range []string{"acct_1", strings.Repeat("a", 42), strings.Repeat("a", 43), strings.Repeat("a", 64)} {
		m := mark(id)
		if len(m) > maxDescription || seen[m] {
			t.Errorf("the mark of %s is %q", id, m)
		}
		seen[m] = true
	}
	if _, err := steps(sdk.Target{}, sdk.Intent{Action: sdk.Provision, Account: "x"}); err == nil {
		t.Error("an account without an id was planned")
	}
}
