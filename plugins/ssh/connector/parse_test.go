package connector

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

const answer = `passwd alice:x:1004:1004:reeve acct_1 ticket:/home/alice:/bin/bash
password locked
aging 20000:0:99999:7::22406:
hash 0123456789abcdef
groups alice sudo adm
sudoers alice ALL=(ALL:ALL) NOPASSWD: ALL
process 12 sshd
process 40 bash
process 40 sleep
key 256 SHA256:abc alice@host (ED25519)
end
`

func TestStateIsParsed(t *testing.T) {
	t.Parallel()
	got, ok := parseState(answer, "alice")
	want := state{
		exists: true, uid: 1004, comment: "reeve acct_1 ticket", home: "/home/alice", shell: "/bin/bash",
		hash: "0123456789abcdef", password: "locked", changed: 20000, expires: 22406,
		groups: []string{"adm", "alice", "sudo"}, sudoers: []string{"alice ALL=(ALL:ALL) NOPASSWD: ALL"},
		sessions: 1, keys: []string{"SHA256:abc"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(state{})); diff != "" || !ok {
		t.Errorf("ok %t: %s", ok, diff)
	}
	if got.owner() != "acct_1" || !got.locked() || !got.facts("alice").Locked {
		t.Errorf("owner %q, locked %t", got.owner(), got.locked())
	}
	for name, text := range map[string]string{
		"cut off":         strings.TrimSuffix(answer, "end\n"),
		"another account": strings.Replace(answer, "passwd alice", "passwd bob", 1),
		"no uid":          strings.Replace(answer, ":1004:1004:", ":x:1004:", 1),
		"empty":           "",
	} {
		if _, ok := parseState(text, "alice"); ok {
			t.Errorf("%s: accepted", name)
		}
	}
	if s, ok := parseState("exists no\nend\n", "alice"); !ok || s.exists {
		t.Errorf("absent: %+v, %t", s, ok)
	}
}

func FuzzParseState(f *testing.F) {
	f.Add(answer)
	f.Add("exists no\nend\n")
	f.Add("passwd alice:::::\nend")
	f.Fuzz(func(t *testing.T, text string) {
		s, ok := parseState(text, "alice")
		if !ok && s.exists {
			t.Error("an answer that is not whole made an account")
		}
		if ok && s.exists && (s.uid < 0 || s.sessions < 0) {
			t.Errorf("state %+v", s)
		}
		_ = s.facts("alice")
	})
}

func TestExpiryIsNeverEarly(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"2031-05-06T00:00:00Z", "2031-05-06T23:59:59Z", "2028-02-29T12:00:00+14:00", "1999-12-31T23:00:00-11:00"} {
		instant, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		refused := dayOf(expiryDay(instant))
		if refused.Before(instant) || refused.Sub(instant) > 24*time.Hour {
			t.Errorf("an account that ends at %s is refused from %s", at, refused)
		}
	}
	if expiryDay(time.Time{}) != -1 || date(time.Time{}) != "''" {
		t.Error("an account without an end has one")
	}
}

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
		if _, err := commands(sdk.Intent{Account: "alice", Role: r, Params: params[r.Name]}); err != nil {
			t.Error(err)
		}
	}
}

func TestRoleCommands(t *testing.T) {
	t.Parallel()
	run := func(text string, params map[string]string) ([]command, error) {
		return commands(sdk.Intent{Account: "alice", Params: params, Role: sdk.Role{
			Name: "r", Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {text}},
		}})
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
	if _, err := commands(sdk.Intent{Account: "alice", Role: sdk.Role{
		Name: "r", Phases: map[sdk.Phase][]string{sdk.PhaseRemove: {"group a"}},
	}}); err == nil {
		t.Error("commands of a phase that is never done were accepted")
	}
}

// FuzzRoleKey: whatever the parts of a key are, what is written is one key without options.
func FuzzRoleKey(f *testing.F) {
	f.Add("ssh-ed25519", publicKey)
	f.Add("command=x", "ssh-ed25519")
	f.Fuzz(func(t *testing.T, kind, data string) {
		cs, err := commands(sdk.Intent{Account: "alice", Params: map[string]string{"T": kind, "K": data}, Role: sdk.Role{
			Name: "r", Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {"key %T% %K%"}},
		}})
		if err != nil {
			return
		}
		for _, c := range cs {
			op, err := authorize("'alice'", c.key)
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
		}})
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

// TestAPasswordArrivesWholeOrNotAtAll runs the password step's own shell code, with
// chpasswd replaced by a program that shows what it was given.
func TestAPasswordArrivesWholeOrNotAtAll_C34(t *testing.T) {
	t.Parallel()
	ops, err := operations(t.Context(), sdk.Target{}, sdk.Intent{Action: sdk.Rotate, Account: "alice"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	script := "getent() { :; }; chpasswd() { cat; }; " + ops[0].Command
	for input, want := range map[string]string{
		`alice:a'"$(id)\n\\ %s x` + "\n": `alice:a'"$(id)\n\\ %s x` + "\n",
		"alice:  two spaces  \n":         "alice:  two spaces  \n",
		"alice:cut off":                  "", // the connection ended in the middle
		"alice:one\nroot:two\n":          "alice:one\n",
		"":                               "",
	} {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
		cmd.Stdin = strings.NewReader(input)
		out, _ := cmd.Output() // its status is not zero when nothing was done
		if string(out) != want {
			t.Errorf("given %q, chpasswd read %q, want %q", input, out, want)
		}
	}
}
