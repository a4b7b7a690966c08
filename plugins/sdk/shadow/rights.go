package shadow

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// rightsScript prints what the host has of what a role needs; its arguments are programs, "--" and groups.
const rightsScript = `while [ "$1" != -- ]; do command -v "$1" >/dev/null && echo "program $1"; shift; done; shift
getent shadow root >/dev/null && echo shadow
[ -w /etc/passwd ] && [ -w /etc/shadow ] && echo writable
grep -Eqs '^[@#]includedir[[:space:]]+/etc/sudoers\.d/?[[:space:]]*$' /etc/sudoers && echo includedir
command -v apt-get >/dev/null && echo apt-get
for g; do getent group -- "$g" >/dev/null && echo "group $g"; done
echo end
`

// packages are Debian's, for programs that can be missing.
var packages = map[string]string{
	"useradd": "passwd", "usermod": "passwd", "userdel": "passwd", "chpasswd": "passwd", "gpasswd": "passwd", "ps": "procps",
	"pgrep": "procps", "pkill": "procps", "visudo": "sudo", "runuser": "util-linux", "find": "findutils", "getent": "libc-bin",
}

// Needs are what the management account needs on a host for a role: one right, to be root, and programs and groups.
type Needs struct {
	Rights []sdk.Right
	found  []string
}

const rootRight, rootReason = "root, by sudo or by login", "make, change and remove accounts"

// NoRoot is the answer where user may not become root: more is not seen without. keyed says that it has no password to give sudo.
func NoRoot(user string, keyed bool) []sdk.Right {
	return []sdk.Right{{Name: rootRight, Reason: rootReason, Grant: sudoRule(user, keyed)}}
}

// CheckRights lists what every role needs, and looks for more programs and groups that this one may.
func CheckRights(ctx context.Context, h Host, programs, groups []string) (*Needs, error) {
	out, err := h.Script(ctx, Script{Text: rightsScript, Args: slices.Concat(tools, programs, []string{"--"}, groups)})
	if err != nil {
		return nil, err
	}
	n := &Needs{found: strings.Split(strings.TrimSpace(out.Stdout), "\n")}
	if !n.Found("end") {
		return nil, incomplete(out)
	}
	n.Add(true, rootRight, rootReason, "")
	n.Add(n.Found("shadow") && n.Found("writable"), "the account database, readable and writable",
		"change accounts and see that it was done", "") // why they are not, a person has to find out
	for _, p := range tools {
		reason := rootReason
		if slices.Contains([]string{"ps", "pgrep", "pkill", "find"}, p) {
			reason = "end sessions, and find what an account leaves behind"
		}
		n.Program(p, reason)
	}
	return n, nil
}

// Found reports whether the host has "program X", "group X" or "includedir" (of /etc/sudoers.d).
func (n *Needs) Found(what string) bool { return slices.Contains(n.found, what) }

// Add adds a right, once; grant is what an administrator runs to give it.
func (n *Needs) Add(held bool, name, reason, grant string) {
	if held {
		grant = ""
	}
	if !slices.ContainsFunc(n.Rights, func(r sdk.Right) bool { return r.Name == name }) {
		n.Rights = append(n.Rights, sdk.Right{Name: name, Reason: reason, Held: held, Grant: grant})
	}
}

// Program adds a program that CheckRights was asked to look for.
func (n *Needs) Program(name, reason string) {
	install := ""
	if n.Found("apt-get") && packages[name] != "" {
		install = "apt-get install " + packages[name]
	}
	n.Add(n.Found("program "+name), "the program "+name, reason, install)
}

var plainUser = regexp.MustCompile(`^[a-z_][a-z0-9_-]*$`)

// sudoRule is what root runs so that user may become root as connectors do it.
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
