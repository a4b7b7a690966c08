package connector

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/ssh/transport"
)

// rightsScript prints what the host has of what a role needs; its arguments are groups.
const rightsScript = `for t in useradd usermod userdel chpasswd getent gpasswd id cut sha256sum find pgrep pkill visudo runuser; do
  command -v "$t" >/dev/null && echo "program $t"
done
getent shadow root >/dev/null && echo shadow
[ -w /etc/passwd ] && [ -w /etc/shadow ] && echo writable
grep -Eqs '^[@#]includedir[[:space:]]+/etc/sudoers\.d/?[[:space:]]*$' /etc/sudoers && echo includedir
command -v apt-get >/dev/null && echo apt-get
for g; do getent group -- "$g" >/dev/null && echo "group $g"; done
echo end
`

// packages are Debian's, for programs that can be missing.
var packages = map[string]string{
	"useradd": "passwd", "usermod": "passwd", "userdel": "passwd", "chpasswd": "passwd", "gpasswd": "passwd",
	"pgrep": "procps", "pkill": "procps", "visudo": "sudo", "runuser": "util-linux", "find": "findutils", "getent": "libc-bin",
}

var plainUser = regexp.MustCompile(`^[a-z_][a-z0-9_-]*$`)

// CheckRights implements sdk.RightsChecker, by a fresh login. On a Linux host there is one
// right, to be root; beside it a role needs programs and groups, which the answer lists too.
func (c Connector) CheckRights(ctx context.Context, t sdk.Target, r sdk.Role, params map[string]string) ([]sdk.Right, error) {
	// The account's name makes no difference to what is needed.
	cs, err := commands(sdk.Intent{Account: "reeve", Role: r, Params: params})
	if err != nil {
		return nil, err
	}
	h, err := become(ctx, t, c.Kept.Fresh)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var groups []string
	for _, c := range cs {
		groups = append(groups, c.groups...)
	}
	root := sdk.Right{Name: "root, by sudo or by login", Reason: "make, change and remove accounts"}
	out, err := h.Script(ctx, transport.Script{Text: rightsScript, Args: groups})
	if sdk.ClassOf(err) == sdk.ClassNotPermitted { // the rest is not seen without it
		root.Grant = sudoRule(h.User(), t.Management.Password.Empty())
		return []sdk.Right{root}, nil
	}
	if err != nil {
		return nil, err
	}
	found := strings.Split(strings.TrimSpace(out.Stdout), "\n")
	if !slices.Contains(found, "end") {
		return nil, sdk.Errorf(sdk.ClassProtocol, "the host's answer is incomplete: %s", out.Stderr)
	}
	root.Held = true
	return append([]sdk.Right{root}, needs(cs, found)...), nil
}

// needs lists what else accounts with these commands need, given what was found.
func needs(cs []command, found []string) []sdk.Right {
	var rights []sdk.Right
	need := func(held bool, name, reason, grant string) {
		if held {
			grant = ""
		}
		if !slices.ContainsFunc(rights, func(r sdk.Right) bool { return r.Name == name }) {
			rights = append(rights, sdk.Right{Name: name, Reason: reason, Held: held, Grant: grant})
		}
	}
	program := func(name, reason string) {
		install := ""
		if slices.Contains(found, "apt-get") && packages[name] != "" {
			install = "apt-get install " + packages[name]
		}
		need(slices.Contains(found, "program "+name), "the program "+name, reason, install)
	}
	need(slices.Contains(found, "shadow") && slices.Contains(found, "writable"), "the account database, readable and writable",
		"change accounts and see that it was done", "") // why they are not, a person has to find out
	for _, p := range []string{"useradd", "usermod", "userdel", "chpasswd", "getent", "gpasswd", "id", "cut", "sha256sum"} {
		program(p, "make, change and remove accounts")
	}
	for _, p := range []string{"pgrep", "pkill", "find"} {
		program(p, "end sessions, and find what an account leaves behind")
	}
	for _, c := range cs {
		switch {
		case c.rule != "":
			program("visudo", "check the role's sudo rules")
			need(slices.Contains(found, "includedir"), "@includedir /etc/sudoers.d in /etc/sudoers", "have the role's sudo rules read",
				"echo '@includedir /etc/sudoers.d' >>/etc/sudoers && visudo -c")
		case c.key != "":
			program("runuser", "write the role's key as the account")
		case len(c.groups) > 0 && !c.optional:
			has := slices.ContainsFunc(c.groups, func(g string) bool { return slices.Contains(found, "group "+g) })
			need(has, "the group "+strings.Join(c.groups, " or "), "make accounts members of it", "groupadd "+c.groups[0])
		}
	}
	return rights
}

// sudoRule is what root runs so that user may become root as this connector does it.
func sudoRule(user string, keyed bool) string {
	if !plainUser.MatchString(user) {
		return ""
	}
	tag := ""
	if keyed {
		tag = "NOPASSWD: "
	}
	file := "/etc/sudoers.d/reeve-management"
	return "printf '%s\\n' '" + user + " ALL=(root) " + tag + "/bin/sh' >" + file + " && chmod 0440 " + file + " && visudo -c"
}
