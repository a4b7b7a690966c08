package connector_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/ssh/connector"
)

// own is a role with these phases, and a parameter Text of any value.
func own(phases map[sdk.Phase][]string) sdk.Role {
	return sdk.Role{
		Name: "own", Version: 1, Phases: phases,
		Params: []sdk.RoleParam{{Name: "Text", Pattern: `^.*$`, Help: "any"}, {Name: "Key", Pattern: `^.*$`, Help: "AAAA…"}},
	}
}

func TestCommandsAreRunInTheirPhase(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	phases := map[sdk.Phase][]string{sdk.PhaseFacts: {"run printf '%%s' %Text%", "group adm", "run grep -c nobody-at-all /etc/passwd"}}
	for _, phase := range []sdk.Phase{
		sdk.PhaseCreate, sdk.PhaseGrant, sdk.PhaseRotate, sdk.PhaseDisable, sdk.PhaseEnable, sdk.PhaseRevoke, sdk.PhaseRemove, sdk.PhaseVerify,
	} {
		phases[phase] = []string{"run { echo " + string(phase) + " %Text% ; id -u -- %Username% ; cat; } >>/root/phases 2>/dev/null; true"}
	}
	role := own(phases)
	if err := (connector.Connector{}).Describe().CheckRole(role); err != nil {
		t.Fatal(err)
	}
	for _, action := range []sdk.Action{sdk.Provision, sdk.Rotate, sdk.Disable, sdk.Enable, sdk.Deprovision} {
		in := b.intent(action, "alice", "")
		in.Role, in.Params = role, map[string]string{"Text": `'$(id)"; `, "Key": "x"}
		r := b.must(in)
		if a := r.Facts.Attributes; action != sdk.Disable && action != sdk.Deprovision &&
			(a["facts-1"] != `'$(id)";` || a["facts-2"] != "no" || a["facts-3"] != "0") {
			t.Errorf("%s: %v", action, a)
		}
	}
	var want string
	for phase := range strings.FieldsSeq("create grant verify rotate verify disable enable verify revoke") {
		want += phase + " '$(id)\"; \n1000\n"
	}
	want += "remove '$(id)\"; \n"
	if got := b.inside("cat /root/phases"); got != want { // nothing, and no password, was there for cat to read
		t.Errorf("%q, want %q", got, want)
	}
}

func TestWordsGiveAndTakeInEveryPhase(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, line, _ := newKey(t)
	_, other, _ := newKey(t)
	data := strings.Fields(line)[1]
	role := own(map[sdk.Phase][]string{
		sdk.PhaseCreate:  {"group adm", "sudoers %Username% ALL=(root) /usr/bin/id"},
		sdk.PhaseGrant:   {"key ssh-ed25519 %Key%", "sudoers %Username% ALL=(root) /usr/bin/true"},
		sdk.PhaseRotate:  {"group adm"},
		sdk.PhaseDisable: {"no group adm|wheel", "no sudoers", "no key ssh-ed25519 %Key%", "shell /usr/sbin/nologin"},
		sdk.PhaseEnable:  {"shell /bin/bash", "group adm", "sudoers %Username% ALL=(root) /usr/bin/id"},
		sdk.PhaseVerify:  {"group wheel|adm", "no group sudo", "group? docker", "sudoers %Username% ALL=(root) /usr/bin/id", "key ssh-ed25519 %Key%", "shell /bin/bash"},
		sdk.PhaseRevoke:  {"no group adm"},
	})
	if err := (connector.Connector{}).Describe().CheckRole(role); err != nil {
		t.Fatal(err)
	}
	do := func(action sdk.Action) (sdk.Result, error) {
		in := b.intent(action, "alice", "")
		in.Role, in.Params = role, map[string]string{"Text": "x", "Key": data}
		return b.apply(t.Context(), in)
	}
	must := func(action sdk.Action) sdk.Facts {
		t.Helper()
		r, err := do(action)
		if err != nil {
			t.Fatalf("%s: %v", action, err)
		}
		return r.Facts
	}
	f := must(sdk.Provision)
	if !slices.Equal(f.Groups, []string{"adm", "alice"}) || len(f.Grants) != 2 || f.Attributes["authorized_keys"] == "" {
		t.Errorf("provision: %+v", f)
	}
	if r, err := do(sdk.Provision); err != nil || r.Changed {
		t.Errorf("again: changed %t, %v", r.Changed, err)
	}
	b.inside("gpasswd -d alice adm; echo '" + other + "' >>/home/alice/.ssh/authorized_keys")
	if f = must(sdk.Rotate); !slices.Contains(f.Groups, "adm") {
		t.Errorf("rotate: %+v", f)
	}
	f = must(sdk.Disable)
	if slices.Contains(f.Groups, "adm") || len(f.Grants) != 0 || f.Attributes["shell"] != "/usr/sbin/nologin" {
		t.Errorf("disable: %+v", f)
	}
	if got := b.inside("cat /home/alice/.ssh/authorized_keys; ls -A /home/alice/.ssh; ls -A /etc/sudoers.d"); got != other+"\nauthorized_keys\n" {
		t.Errorf("what the account and root hold after disable: %q", got)
	}
	// The key is missing, which is what the role's verify looks for.
	e := b.failure("enable", func() error { _, err := do(sdk.Enable); return err }(), sdk.ClassProtocol)
	if !strings.Contains(e.Message, "verify-5") || e.Fix == "" {
		t.Errorf("%v", e)
	}
	role.Phases[sdk.PhaseEnable] = append(role.Phases[sdk.PhaseEnable], "key ssh-ed25519 %Key%")
	if f = must(sdk.Enable); !slices.Contains(f.Groups, "adm") || len(f.Grants) != 1 || f.Attributes["shell"] != "/bin/bash" {
		t.Errorf("enable: %+v", f)
	}
	if f = must(sdk.Deprovision); f.Exists {
		t.Errorf("deprovision: %+v", f)
	}
	must(sdk.Deprovision) // gone already
}

func TestAFailedRoleCommandIsUndoneOrTold(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	in := b.intent(sdk.Provision, "alice", "")
	in.Role = own(map[sdk.Phase][]string{sdk.PhaseGrant: {"run touch /root/half; echo wrong >&2; exit 9"}})
	_, err := b.apply(t.Context(), in)
	e, _ := errors.AsType[*sdk.Error](err)
	if e == nil || !strings.Contains(e.Message, "wrong") || e.Details["residue"] != "" {
		t.Errorf("%v", err)
	}
	b.untouched("alice")
	b.provision("alice", "linux-standard", nil)
	_, err = b.apply(t.Context(), in) // of an account that stays, nobody knows what the command did
	e, _ = errors.AsType[*sdk.Error](err)
	if e == nil || !strings.Contains(e.Details["residue"], "touch /root/half") {
		t.Errorf("%v", err)
	}
}
