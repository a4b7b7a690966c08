package connector

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/quote"
	"github.com/reeve-pam/reeve/plugins/sdk/shadow"
)

func join(u, g string) shadow.Step {
	return shadow.Step{Step: sdk.Step{
		ID: "group-" + g, Title: "Make sure that the account is a member of " + g, Changes: true,
		Command:      "usermod -aG " + g + " -- " + u,
		Compensation: "gpasswd -d " + u + " " + g,
	}, Needed: func(s shadow.State) bool { return !slices.Contains(s.Groups, g) }, Lenient: true} // gpasswd refuses who is no member
}

func leave(u, g string) shadow.Step {
	return shadow.Step{Step: sdk.Step{
		ID: "no-group-" + g, Title: "Make sure that the account is no member of " + g, Changes: true,
		Command:      "gpasswd -d " + u + " " + g,
		Compensation: "usermod -aG " + g + " -- " + u,
	}, Needed: func(s shadow.State) bool { return slices.Contains(s.Groups, g) }}
}

func setShell(u, shell string) shadow.Step {
	return shadow.Step{Step: sdk.Step{
		ID: "shell", Title: "Make sure that the account's shell is " + shell, Changes: true,
		Command: "usermod -s " + shell + " -- " + u,
	}, Needed: func(s shadow.State) bool { return s.Shell != shell }}
}

// sudoers writes the rules where sudo does not see them, has them checked, and moves
// them into place; rules that sudo would not accept together with the others are
// taken away again. With -f, visudo asks for no more than sudo itself does: without, it
// also refuses files of others whose mode is not 0440.
func sudoers(account string, lines []string) (shadow.Step, error) {
	content, err := quote.ShArg(strings.Join(lines, "\n"))
	if err != nil {
		return shadow.Step{}, sdk.Errorf(sdk.ClassInvalid, "a sudo rule has a NUL byte")
	}
	file := shadow.SudoersFile(account)
	return shadow.Step{Step: sdk.Step{
		ID: "sudoers", Title: "Make sure that the account has exactly these sudo rules", Changes: true,
		Command: `grep -Eqs '^[@#]includedir[[:space:]]+/etc/sudoers\.d/?[[:space:]]*$' /etc/sudoers || exit 78; ` +
			`t=$(mktemp /etc/sudoers.d/.reeve_XXXXXX) || exit 1; trap 'rm -f -- "$t"' EXIT; ` +
			`chown 0:0 "$t" && chmod 0440 "$t" && printf '%s\n' ` + content + ` >"$t" && ` +
			`visudo -cqf "$t" && mv -f -- "$t" ` + file + ` && { visudo -cqf /etc/sudoers || { rm -f -- ` + file + `; exit 79; }; }`,
		Compensation: "rm -f -- " + file,
	}, Needed: func(s shadow.State) bool { return !slices.Equal(s.Sudoers, lines) }, Refused: map[int]*sdk.Error{
		78: sdk.Errorf(sdk.ClassUnsupported, "the host's /etc/sudoers does not include the directory /etc/sudoers.d").
			WithFix(`add "@includedir /etc/sudoers.d" to it, or choose another role`),
		79: sdk.Errorf(sdk.ClassUnsupported, "sudo does not accept the rules together with those the host has").
			WithFix("run visudo -c on the host and mend what it names"),
	}}, nil
}

// The scripts that are run as the account get its home directory as $1 and a line of authorized_keys as $2: it
// may have made a link of any part of the path.
const (
	addKey = `cd "$1" && umask 077 && mkdir -p .ssh && f=.ssh/authorized_keys && ` +
		`{ [ ! -s "$f" ] || [ -z "$(tail -c 1 "$f")" ] || echo >>"$f"; } && printf "%s\n" "$2" >>"$f"`
	dropKey = `cd "$1" && umask 077 && f=.ssh/authorized_keys && k=${2#* } && k=${k%% *} && ` +
		`{ grep -vF -e "$k" "$f" >"$f.reeve" || [ $? -eq 1 ]; } && cat "$f.reeve" >"$f" && rm -f "$f.reeve"`
)

// authorize lets a public key log in as the account, or no longer.
func authorize(u, key string, not bool) (shadow.Step, error) {
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key)) //nolint:dogsled // of a line that has nothing else
	if err != nil {
		return shadow.Step{}, sdk.Errorf(sdk.ClassInvalid, "the role's public key cannot be read")
	}
	line, err := quote.ShArg(key + " reeve")
	if err != nil {
		return shadow.Step{}, sdk.Errorf(sdk.ClassInvalid, "the role's public key has a NUL byte")
	}
	fingerprint := ssh.FingerprintSHA256(public)
	id, title, script := "key-", "Make sure that the key %s may log in as the account", addKey
	if not {
		id, title, script = "no-key-", "Make sure that the key %s may not log in as the account", dropKey
	}
	return shadow.Step{Step: sdk.Step{
		ID: id + fingerprint, Title: fmt.Sprintf(title, fingerprint), Changes: true,
		Command: "h=$(getent passwd -- " + u + ") && h=${h%:*} && exec runuser -u " + u + " -- sh -c '" + script + `' sh "${h##*:}" ` + line,
	}, Needed: func(s shadow.State) bool { return slices.Contains(s.Keys, fingerprint) == not }}, nil
}

// question is a list of shell commands that succeeds if what the command makes sure of is so.
func (c command) question(account, u string) string {
	entry := "getent passwd -- " + u
	var q string
	switch {
	case len(c.groups) > 0:
		q = "id -Gn -- " + u + ` | tr " " "\n" | grep -qxF -e ` + strings.Join(c.groups, " -e ")
		if c.optional {
			q = "! getent group " + strings.Join(c.groups, " ") + " >/dev/null || " + q
		}
	case c.shell != "":
		q = entry + " | grep -q ':" + c.shell + "$'"
	case c.key != "":
		q = "h=$(" + entry + ") && h=${h%:*} && grep -qsF -e " + strings.Fields(c.key)[1] + ` -- "${h##*:}/.ssh/authorized_keys"`
	case c.rule != "":
		rule, _ := quote.ShArg(c.rule) // printable ASCII, as parseCommand sees to it
		q = "grep -qsxF -e " + rule + " -- " + shadow.SudoersFile(account)
	case c.sudoers:
		return "[ ! -e " + shadow.SudoersFile(account) + " ]"
	}
	if c.not {
		q = "! { " + q + "; }"
	}
	return q
}
