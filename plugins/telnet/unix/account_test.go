package unix_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/telnet/connector"
)

func TestRolesGiveTheirGroupsAndTakeThemAway(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for roleName, group := range map[string]string{"telnet-admin": "sudo", "telnet-log-reader": "adm"} {
		in := intent(sdk.Provision, "user-"+group)
		in.Role = role(roleName)
		r := b.must(in)
		if !slices.Contains(r.Facts.Groups, group) || !strings.Contains(b.inside("getent group "+group), in.Account) {
			t.Errorf("%s: groups %v", roleName, r.Facts.Groups)
		}
		if r = b.must(in); r.Changed {
			t.Errorf("%s again: changed", roleName)
		}
		in.Action = sdk.Deprovision
		b.must(in)
		if strings.Contains(b.inside("cat /etc/group /etc/gshadow /etc/passwd /etc/shadow"), in.Account) {
			t.Errorf("%s: something of the account is left", roleName)
		}
	}
	in := intent(sdk.Provision, "bob")
	in.Role, in.Params = role("telnet-privilege"), map[string]string{"Level": "3"}
	if _, err := b.apply(t.Context(), in); sdk.ClassOf(err) != sdk.ClassUnsupported {
		t.Errorf("a role for devices: %v", err)
	}
}

func TestRoleCommandsRunInTheirPhase(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	own := sdk.Role{Name: "own", Version: 1, Params: []sdk.RoleParam{{Name: "Text", Pattern: `^.*$`, Help: "any"}}, Phases: map[sdk.Phase][]string{}}
	for _, phase := range []sdk.Phase{
		sdk.PhaseCreate, sdk.PhaseGrant, sdk.PhaseRotate, sdk.PhaseDisable, sdk.PhaseEnable, sdk.PhaseRevoke, sdk.PhaseRemove,
	} {
		own.Phases[phase] = []string{"unix { echo " + string(phase) + " %Text%; id -u -- %Username%; } >>/root/phases 2>/dev/null; true"}
	}
	own.Phases[sdk.PhaseVerify] = []string{"unix id -u -- %Username% >/dev/null"}
	own.Phases[sdk.PhaseFacts] = []string{"unix printf '%%s' %Text%", "unix grep -c ^%Username%x: /etc/passwd"}
	for _, action := range []sdk.Action{sdk.Provision, sdk.Rotate, sdk.Disable, sdk.Enable, sdk.Deprovision} {
		in := intent(action, "alice")
		in.Role, in.Params = own, map[string]string{"Text": `'$(id)"; `}
		r := b.must(in)
		if looks := action != sdk.Disable && action != sdk.Deprovision; looks != (r.Facts.Attributes["facts-1"] == `'$(id)";`) ||
			looks != (r.Facts.Attributes["facts-2"] == "0") {
			t.Errorf("%s: %v", action, r.Facts.Attributes)
		}
	}
	var want string
	for phase := range strings.FieldsSeq("create grant rotate disable enable revoke") {
		want += phase + " '$(id)\"; \n1000\n"
	}
	want += "remove '$(id)\"; \n"
	if got := b.inside("cat /root/phases"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	in := intent(sdk.Provision, "bob")
	in.Role = sdk.Role{Name: "own", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {"unix echo wrong >&2; exit 9"}}}
	_, err := b.apply(t.Context(), in)
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok || !strings.Contains(e.Message, "wrong") || e.Details["residue"] != "" {
		t.Errorf("%v", err)
	}
	if _, there, _ := b.host.Passwd("bob"); there {
		t.Error("an account whose role failed was left behind")
	}
	in.Role.Phases = map[sdk.Phase][]string{sdk.PhaseVerify: {"unix echo no admin; id -Gn -- %Username% | grep -qw sudo"}}
	_, err = b.apply(t.Context(), in)
	if e, ok = errors.AsType[*sdk.Error](err); !ok || e.Class != sdk.ClassProtocol || !strings.Contains(e.Message, "no admin") || e.Fix == "" {
		t.Errorf("%v", err)
	}
	if _, there, _ := b.host.Passwd("bob"); there {
		t.Error("an account whose role is not what it should be was left behind")
	}
}

func TestRightsAreThoseOfTheHost(t *testing.T) {
	t.Parallel()
	b := newBench(t, testlab.HostAccount{Name: "ops", Password: accountPassword})
	check := func() []sdk.Right {
		rights, err := connector.Connector{}.CheckRights(t.Context(), b.target, role("telnet-admin"), nil)
		b.tell(rights, err)
		if err != nil {
			t.Fatal(err)
		}
		return rights
	}
	held := func(rights []sdk.Right) bool {
		return !slices.ContainsFunc(rights, func(r sdk.Right) bool { return !r.Held || r.Grant != "" })
	}
	if rights := check(); !held(rights) || len(rights) < 10 {
		t.Errorf("root: %+v", rights)
	}
	b.target.Management = credential("ops", accountPassword)
	rights := check()
	if len(rights) != 1 || rights[0].Held || rights[0].Grant == "" {
		t.Fatalf("without sudo: %+v", rights)
	}
	b.inside(rights[0].Grant) // it is what an administrator runs
	if rights = check(); !held(rights) {
		t.Errorf("with the rule: %+v", rights)
	}
	b.must(intent(sdk.Provision, "alice"))
}

// The useradd of an attempt that was cut off ends after the next attempt has looked.
func TestAnAccountThatALostAttemptMakesMeanwhileIsOurs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	in := intent(sdk.Provision, "carol")
	plan, err := (connector.Connector{}).Plan(t.Context(), b.target, in)
	if err != nil {
		t.Fatal(err)
	}
	r, err := (connector.Connector{}).Apply(t.Context(), b.target, sdk.Change{Intent: in, Plan: plan, Password: sdk.NewSecret([]byte(accountPassword))},
		func(e sdk.Event) {
			if e.Step == "create" && e.State == sdk.StepStarted {
				b.inside(plan.Steps[0].Command)
			}
		})
	if err != nil || !r.Facts.Exists || !r.Changed {
		t.Errorf("%+v, %v", r, err)
	}
	if err := b.host.TelnetLogin(t.Context(), "carol", accountPassword); err != nil {
		t.Error(err)
	}
}

func TestDisableEndsSessionsAndRemovalTellsWhatIsLeft(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.must(intent(sdk.Provision, "alice"))
	alice := b.target
	alice.Management = credential("alice", accountPassword)
	out := newOutput()
	done := make(chan error, 1)
	go func() {
		_, err := connector.Connector{}.Run(t.Context(), alice, "echo begun; touch /var/tmp/of-alice; sleep 4321", out)
		done <- err
	}()
	<-out.news
	if f, err := (connector.Connector{}).Inspect(t.Context(), b.target, "alice"); err != nil || f.Sessions != 1 {
		t.Errorf("inspect: %+v, %v", f, err)
	}
	r := b.must(intent(sdk.Disable, "alice"))
	if err := <-done; sdk.ClassOf(err) != sdk.ClassUnknownOutcome {
		t.Errorf("the session ended with %v", err)
	}
	if !r.Facts.Locked || r.Facts.Sessions != 0 {
		t.Errorf("%+v", r.Facts)
	}
	r = b.must(intent(sdk.Deprovision, "alice"))
	if !slices.ContainsFunc(r.Residue, func(s string) bool { return strings.HasSuffix(s, ": /var/tmp/of-alice") }) {
		t.Errorf("residue %q", r.Residue)
	}
}

func TestFaultsOfTheHostHaveTheirClass(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		set, unset func(*bench) error
		want       sdk.Class
	}{
		"a full disk":      {func(b *bench) error { return b.host.FillDisk() }, func(b *bench) error { return b.host.FreeDisk() }, sdk.ClassBusy},
		"a read-only disk": {func(b *bench) error { return b.host.ReadOnly() }, func(b *bench) error { return b.host.ReadWrite() }, sdk.ClassNotPermitted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			if err := c.set(b); err != nil {
				t.Fatal(err)
			}
			_, err := b.apply(t.Context(), intent(sdk.Provision, "alice"))
			e, _ := errors.AsType[*sdk.Error](err)
			if sdk.ClassOf(err) != c.want && sdk.ClassOf(err) != sdk.ClassBusy || e.Fix == "" {
				t.Errorf("%v, want class %s", err, c.want)
			}
			if err := c.unset(b); err != nil {
				t.Fatal(err)
			}
			b.must(intent(sdk.Provision, "alice"))
			if err := b.host.TelnetLogin(t.Context(), "alice", accountPassword); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestChangeThatIsCutOffIsOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.must(intent(sdk.Provision, "alice"))
	if err := b.host.LockAccounts(); err != nil { // chpasswd waits for it
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := b.apply(ctx, intent(sdk.Rotate, "alice"))
	if sdk.ClassOf(err) != sdk.ClassUnknownOutcome {
		t.Errorf("%v", err)
	}
	// What was under way goes on after the connection has ended.
	b.inside("pgrep -x chpasswd")
	b.host.UnlockAccounts()
	b.inside("for i in $(seq 100); do pgrep -x chpasswd >/dev/null || exit 0; sleep 0.1; done; exit 1")
	b.must(intent(sdk.Rotate, "alice"))
}

func TestDiscoverFindsPeople(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.inside(`useradd -m -c 'ends in \n end' alice; useradd -r daemon2`)
	var found []string
	err := connector.Connector{}.Discover(t.Context(), b.target, func(f sdk.Facts) bool {
		found = append(found, f.Account)
		return true
	})
	slices.Sort(found)
	if err != nil || !slices.Equal(found, []string{"alice", "root"}) {
		t.Errorf("%v, %v", found, err)
	}
}
