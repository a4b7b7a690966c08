package connector

import (
	"slices"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

const publicKey = "AAAAC3NzaC1lZDI1NTE5AAAAIJ0w0uUQTX9xS8rpGsSoV0PuJ1NQ3+lqc0OMvf9bBd0B"

func TestTheCatalogueIsUnderstood(t *testing.T) {
	t.Parallel()
	d := Connector{}.Describe()
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	params := map[string]map[string]string{
		"linux-backup-operator":  {"Paths": "/etc /srv/data"},
		"linux-service-operator": {"Units": "nginx.service getty@tty1"},
		"linux-web-admin":        {"Units": "nginx.service"},
		"linux-network-operator": {"Interfaces": "eth0 eth1.7"},
		"linux-sftp-only":        {"Group": "sftponly"},
		"linux-ssh-key-only":     {"KeyType": "ssh-ed25519", "Key": publicKey},
	}
	for _, r := range d.Roles {
		if err := r.CheckParams(params[r.Name]); err != nil {
			t.Error(err)
		}
		if _, err := commands(sdk.Intent{Account: "alice", Role: r, Params: params[r.Name]}, sdk.PhaseGrant); err != nil {
			t.Error(err)
		}
	}
}

func TestRoleCommands(t *testing.T) {
	t.Parallel()
	run := func(text string, params map[string]string) ([]command, error) {
		return commands(sdk.Intent{Account: "alice", Params: params, Role: sdk.Role{
			Name: "r", Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {text}},
		}}, sdk.PhaseGrant)
	}
	got, err := run("sudoers %Username% ALL=(root) /bin/%Verb% %Unit%", map[string]string{"Verb": "a b", "Unit": "x y"})
	want := []string{
		"alice ALL=(root) /bin/a x", "alice ALL=(root) /bin/a y", "alice ALL=(root) /bin/b x", "alice ALL=(root) /bin/b y",
	}
	if lines := rules(got); err != nil || !slices.Equal(lines, want) {
		t.Errorf("repeated: %q, %v", lines, err)
	}
	if got, err := run("group? a|b", nil); err != nil || !got[0].optional || !slices.Equal(got[0].groups, []string{"a", "b"}) {
		t.Errorf("group: %+v, %v", got, err)
	}
	if got, err := run("key %T% %K%", map[string]string{"T": "ssh-ed25519", "K": publicKey}); err != nil || got[0].key != "ssh-ed25519 "+publicKey {
		t.Errorf("key: %+v, %v", got, err)
	}
	for _, text := range []string{
		"", "group", "group ", "group A", "group a b", "group a;id", "group -a", "group a|", "delete everything",
		"sudoers ALL ALL=(ALL) ALL", "sudoers root ALL=(ALL) ALL", "sudoers %Username%ALL=ALL", "sudoers %Username% ALL=/bin/cat *",
		"shell", "shell /bin/zsh", "shell /bin/sh -c id", "key", "key ssh-ed25519", "key ssh-ed25519 AAAA", "key command=\"id\" ssh-ed25519 " + publicKey,
		"key ssh-rsa " + publicKey, "key ssh-ed25519 " + publicKey + "\nssh-ed25519 " + publicKey,
		"sudoers %Username% ALL=ALL\nroot ALL=ALL", "sudoers %Username% ALL=a\\", "sudoers %Username% ALL=a # x",
	} {
		if got, err := run(text, nil); err == nil {
			t.Errorf("%q was accepted: %+v", text, got)
		}
		switch strings.Fields(text + " x")[0] {
		case "key", "shell": // what is a key is not seen from the pattern
		default:
			r := sdk.Role{Name: "r", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {text}}}
			if err := (Connector{}).Describe().CheckRole(r); err == nil {
				t.Errorf("%q can be saved", text)
			}
		}
	}
}

func TestAfterRemovalThereIsNothingToGive(t *testing.T) {
	t.Parallel()
	for command, fits := range map[string]bool{
		"run logger gone: %Username%": true, "group adm": false, "no group adm": false, "no sudoers": false, "shell /bin/sh": false,
	} {
		r := sdk.Role{Name: "r", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseRemove: {command}}}
		if err := (Connector{}).Describe().CheckRole(r); (err == nil) != fits {
			t.Errorf("%q: %v", command, err)
		}
	}
}

// rules are the sudoers lines among cs.
func rules(cs []command) []string {
	var lines []string
	for _, c := range cs {
		if c.rule != "" {
			lines = append(lines, c.rule)
		}
	}
	return lines
}

// FuzzRoleKey: whatever the parts of a key are, what is written is one key without options.
func FuzzRoleKey(f *testing.F) {
	f.Add("ssh-ed25519", publicKey)
	f.Add("command=x", "ssh-ed25519")
	f.Fuzz(func(t *testing.T, kind, data string) {
		cs, err := commands(sdk.Intent{Account: "alice", Params: map[string]string{"T": kind, "K": data}, Role: sdk.Role{
			Name: "r", Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {"key %T% %K%"}},
		}}, sdk.PhaseGrant)
		if err != nil {
			return
		}
		for _, c := range cs {
			op, err := authorize("'alice'", c.key, false)
			if err != nil || strings.ContainsAny(c.key, "\n'\"\\") || len(strings.Fields(c.key)) != 2 || !strings.HasSuffix(op.Command, " '"+c.key+" reeve'") {
				t.Errorf("%q %q became %q, %v", kind, data, c.key, err)
			}
		}
	})
}

// FuzzRoleParameter: whatever a parameter holds, the rules stay rules for the account
// alone, one line each, with nothing in them that sudoers would understand.
func FuzzRoleParameter(f *testing.F) {
	for _, v := range []string{"nginx", "a b", "x, ALL", "x\nroot ALL=ALL", `a\`, "*", "..", "/etc/../root", "-x", "a=b", "!ALL", "%sudo"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, value string) {
		cs, err := commands(sdk.Intent{Account: "alice", Params: map[string]string{"P": value}, Role: sdk.Role{
			Name: "r", Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {"sudoers %Username% ALL=(root) /bin/x %P%"}},
		}}, sdk.PhaseGrant)
		if err != nil {
			return
		}
		for _, line := range rules(cs) {
			rest, ok := strings.CutPrefix(line, "alice ALL=(root) /bin/x ")
			if !ok || strings.ContainsAny(rest, " ,:=\\!*?[]()\"'#%\n\t") || strings.HasPrefix(rest, "-") || strings.Contains(rest, "..") {
				t.Errorf("%q became the rule %q", value, line)
			}
		}
	})
}
