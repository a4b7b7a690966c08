package ios_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/emu/device"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/telnet/connector"
	"github.com/reeve-pam/reeve/plugins/telnet/ios"
)

func TestAccountLivesOnADeviceThatIsDifficult(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		faults  device.Faults
		options func(*device.Options)
	}{
		"as it should be":                       {},
		"every byte by itself":                  {faults: device.Faults{Dribble: true}},
		"pages that cannot be turned off":       {faults: device.Faults{AlwaysPage: true}, options: manyUsers},
		"passwords are echoed":                  {faults: device.Faults{EchoSecret: true}},
		"a banner that looks like a prompt":     {options: func(o *device.Options) { o.Banner = "Router#\nUsername:\n% Login invalid \nR1#" }},
		"words after the login, in prompt form": {options: func(o *device.Options) { o.Motd = "Sw#\r\nUsername: x\r\nPassword: x" }, faults: device.Faults{Dribble: true}},
		"a long name":                           {options: func(o *device.Options) { o.Hostname = "core-router-with-a-very-long-name.example" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, c.options)
			b.SetFaults(c.faults)
			r := b.must(sdk.Provision, "alice")
			if !r.Changed || !r.Facts.Exists || !b.LoginWorks("alice", accountPassword) || !strings.Contains(b.Saved(), "username alice secret 8") {
				t.Errorf("provision: %+v\n%s", r, b.Saved())
			}
			b.must(sdk.Rotate, "alice")
			if r = b.must(sdk.Disable, "alice"); !r.Facts.Locked || b.LoginWorks("alice", accountPassword) {
				t.Errorf("disable: %+v", r)
			}
			if r = b.must(sdk.Enable, "alice"); r.Facts.Locked || !b.LoginWorks("alice", accountPassword) {
				t.Errorf("enable: %+v", r)
			}
			b.must(sdk.Deprovision, "alice")
			if _, there := b.User("alice"); there || strings.Contains(b.Saved(), "username alice") {
				t.Error("the account is still there")
			}
		})
	}
}

func manyUsers(o *device.Options) {
	for _, c := range "abcdefghijklmnopqrstuvwxyz" {
		o.Users[string(c)+"-other"] = device.User{Privilege: 1, Kind: "5", Secret: "$1$mERr$hx5rVt7rPNoS4wqbXKX7m0"}
	}
}

func TestRolesSetThePrivilegeLevel(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for roleName, c := range map[string]struct {
		params map[string]string
		want   string
	}{
		"telnet-standard":  {want: "privilege 1"},
		"telnet-admin":     {want: "privilege 15"},
		"telnet-privilege": {params: map[string]string{"Level": "7"}, want: "privilege 7"},
	} {
		in := intent(sdk.Provision, roleName)
		in.Role, in.Params = role(roleName), c.params
		r, err := b.apply(t.Context(), in)
		if err != nil || !slices.Equal(r.Facts.Grants, []string{c.want}) {
			t.Errorf("%s: %v, %v", roleName, r.Facts.Grants, err)
		}
		if r, err = b.apply(t.Context(), in); err != nil || r.Changed {
			t.Errorf("%s again: changed %t, %v", roleName, r.Changed, err)
		}
	}
	in := intent(sdk.Provision, "bob")
	in.Role = role("telnet-log-reader")
	_, err := b.apply(t.Context(), in)
	b.wantClass(err, sdk.ClassUnsupported)
	in.Role = sdk.Role{Name: "own", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {"ios no such command"}}}
	_, err = b.apply(t.Context(), in)
	b.wantClass(err, sdk.ClassInvalid)
	if _, there := b.User("bob"); there {
		t.Error("an account whose role failed was left behind")
	}
}

func TestDisableEndsSessions(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.must(sdk.Provision, "alice")
	alice := b.target
	alice.Management = sdk.Credential{Username: "alice", Password: sdk.NewSecret([]byte(accountPassword))}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = ios.Profile{}.Run(ctx, b.enabled(alice), "wait 60 s", &output{})
	}()
	for !slices.Contains(b.Sessions(), "alice") {
		time.Sleep(time.Millisecond)
	}
	if f, err := (ios.Profile{}).Inspect(t.Context(), b.target, "alice"); err != nil || f.Sessions != 1 {
		t.Errorf("inspect: %+v, %v", f, err)
	}
	r := b.must(sdk.Disable, "alice")
	if slices.Contains(b.Sessions(), "alice") || r.Facts.Sessions != 0 {
		t.Errorf("sessions after disable: %v, %+v", b.Sessions(), r.Facts)
	}
	cancel()
	<-done
}

// enabled lets a user run tasks.
func (b *bench) enabled(t sdk.Target) sdk.Target {
	u, _ := b.User(t.Management.Username)
	u.Privilege = 15
	b.SetUser(t.Management.Username, u)
	return t
}

func TestAdoptedAccountsAreRotatedAndLockedButNotRemoved(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.SetUser("carol", device.User{Privilege: 3, Kind: "5", Secret: "$1$mERr$hx5rVt7rPNoS4wqbXKX7m0"})
	adopted := func(action sdk.Action) error {
		in := intent(action, "carol")
		in.Identity = "carol"
		_, err := b.apply(t.Context(), in)
		return err
	}
	b.wantClass(adopted(sdk.Disable), sdk.ClassUnsupported)
	for _, action := range []sdk.Action{sdk.Rotate, sdk.Disable, sdk.Rotate, sdk.Enable} {
		if err := adopted(action); err != nil {
			t.Fatalf("%s: %v", action, err)
		}
		if want := action == sdk.Enable || !strings.Contains(b.Running(), "$8$L"); b.LoginWorks("carol", accountPassword) != want {
			t.Errorf("after %s the login works: %t", action, !want)
		}
	}
	b.wantClass(adopted(sdk.Deprovision), sdk.ClassExists)
	b.wantClass(adopted(sdk.Provision), sdk.ClassExists)
}

func TestManagementAccountIsNeverRemoved(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for _, action := range []sdk.Action{sdk.Disable, sdk.Deprovision} {
		in := intent(action, "reeve")
		in.Identity = "reeve"
		if _, err := b.apply(t.Context(), in); sdk.ClassOf(err) != sdk.ClassInvalid {
			t.Errorf("%s: %v", action, err)
		}
	}
}

func TestDiscoverFindsEveryAccount(t *testing.T) {
	t.Parallel()
	b := newBench(t, manyUsers)
	var found []string
	err := ios.Profile{}.Discover(t.Context(), b.target, func(f sdk.Facts) bool {
		found = append(found, f.Account)
		return len(found) < 27
	})
	if err != nil || len(found) != 27 || !slices.IsSorted(found) || !slices.Contains(found, "reeve") {
		t.Errorf("%v, %v", found, err)
	}
}

func TestRightsAreWhatTheDeviceSays(t *testing.T) {
	t.Parallel()
	const grant = "configure terminal\nusername reeve privilege 15\nend\nwrite memory"
	for name, c := range map[string]struct {
		level  int
		enable string
		held   bool
	}{
		"level 15": {level: 15, held: true}, "level 7": {level: 7}, "level 1": {level: 1}, "level 1 with enable": {level: 1, enable: managementPassword, held: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(o *device.Options) {
				u := o.Users["reeve"]
				u.Privilege = c.level
				o.Users["reeve"], o.EnableSecret = u, c.enable
			})
			before := b.Running()
			rights, err := connector.Connector{}.CheckRights(t.Context(), b.target, role("telnet-admin"), nil)
			b.tell(rights, err)
			if err != nil || len(rights) != 3 {
				t.Fatalf("%+v, %v", rights, err)
			}
			for _, r := range rights {
				if r.Held != c.held || r.Held != (r.Grant == "") || !r.Held && r.Grant != grant {
					t.Errorf("%+v", r)
				}
			}
			if b.Running() != before {
				t.Error("the configuration changed")
			}
		})
	}
}

func TestCommandsOfARoleThatLookAreDoneAtTheEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	in := intent(sdk.Provision, "alice")
	in.Role = sdk.Role{Name: "own", Version: 1, Phases: map[sdk.Phase][]string{
		sdk.PhaseGrant:  {"ios username %Username% privilege 7"},
		sdk.PhaseVerify: {"ios show running-config | include ^username %Username% privilege 7"},
		sdk.PhaseFacts:  {"ios show privilege", "ios show running-config | include ^username %Username% .*secret"},
	}}
	r, err := b.apply(t.Context(), in)
	if err != nil || r.Facts.Attributes["facts-1"] != "Current privilege level is 15" ||
		!strings.HasSuffix(r.Facts.Attributes["facts-2"], "secret 8 ********") {
		t.Errorf("%+v, %v", r.Facts.Attributes, err)
	}
	in.Account, in.AccountID = "bob", "acct_bob"
	in.Role.Phases[sdk.PhaseVerify] = []string{"ios show running-config | include ^username %Username% privilege 9"}
	_, err = b.apply(t.Context(), in)
	b.wantClass(err, sdk.ClassProtocol)
	if _, there := b.User("bob"); there {
		t.Error("an account whose role is not what it should be was left behind")
	}
}
