package connector

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/quote"
	"github.com/reeve-pam/reeve/plugins/ssh/transport"
)

// operation is a step of a plan and what is needed to do it. The step's Command is the
// very script that is run.
type operation struct {
	sdk.Step
	input   bool               // the script reads "name:password" as one line
	uid     bool               // the script gets the uid as $1
	needed  func(s state) bool // nil: always done
	already int                // exit status that means "it was already so"; 0: none
}

// exitAlready is the status with which scripts say that there was nothing to do.
const exitAlready = 3

// Plan implements sdk.Provisioner. It connects only when the role needs to know which
// groups the host has.
func (c Connector) Plan(ctx context.Context, t sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	has := func(context.Context, []string) ([]string, error) { return nil, nil }
	if names, err := wantedGroups(in); err != nil {
		return sdk.Plan{}, err
	} else if len(names) > 0 {
		h, err := c.manage(ctx, t)
		if err != nil {
			return sdk.Plan{}, err
		}
		defer h.Close()
		has = func(ctx context.Context, names []string) ([]string, error) { return existingGroups(ctx, h, names) }
	}
	ops, err := operations(ctx, t, in, has)
	if err != nil {
		return sdk.Plan{}, err
	}
	return planOf(in, ops), nil
}

func planOf(in sdk.Intent, ops []operation) sdk.Plan {
	p := sdk.Plan{Action: in.Action, Account: in.Account}
	for _, op := range ops {
		p.Steps = append(p.Steps, op.Step)
	}
	return p
}

// wantedGroups returns every group the intent's role names.
func wantedGroups(in sdk.Intent) ([]string, error) {
	if in.Action != sdk.Provision {
		return nil, nil
	}
	cs, err := commands(in)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, c := range cs {
		names = append(names, c.groups...)
	}
	return names, nil
}

// existingGroups returns those of names that the host has.
func existingGroups(ctx context.Context, h *transport.Host, names []string) ([]string, error) {
	out, err := h.Script(ctx, transport.Script{
		Text: `for g; do getent group -- "$g" >/dev/null && echo "$g"; done; exit 0`, Args: names,
	})
	if err != nil {
		return nil, err
	}
	if out.Status != 0 {
		return nil, sdk.Errorf(sdk.ClassProtocol, "the host's groups cannot be read: %s", out.Stderr)
	}
	return strings.Fields(out.Stdout), nil
}

// operations returns what makes in true, whatever state the account is in.
func operations(
	ctx context.Context, t sdk.Target, in sdk.Intent, has func(context.Context, []string) ([]string, error),
) ([]operation, error) {
	u, err := quote.ShArg(in.Account)
	if err != nil {
		return nil, sdk.Errorf(sdk.ClassInvalid, "the account name has a NUL byte")
	}
	switch in.Action {
	case sdk.Provision:
		names, err := wantedGroups(in)
		if err != nil {
			return nil, err
		}
		var existing []string
		if len(names) > 0 {
			if existing, err = has(ctx, names); err != nil {
				return nil, err
			}
		}
		return provision(t, in, u, existing)
	case sdk.Rotate:
		return []operation{{Step: sdk.Step{
			ID: "password", Title: "Set the password; an account that is locked stays locked", Changes: true,
			Command: "s=$(getent shadow -- " + u + "); s=${s#*:}; case ${s%%:*} in '!'?*) lock=-L;; *) lock=;; esac; " +
				`IFS= read -r line && printf '%s\n' "$line" | chpasswd && { [ -z "$lock" ] || usermod -L -- ` + u + `; }` +
				" # standard input: " + in.Account + ":********",
		}, input: true}}, nil
	case sdk.Disable:
		return []operation{lock(u), endSessions(u)}, nil
	case sdk.Enable:
		return []operation{unlock(u, in.ExpiresAt)}, nil
	case sdk.Deprovision:
		return []operation{
			{Step: sdk.Step{
				ID: "sudoers", Title: "Make sure that no sudo rule of ours is left", Changes: true,
				Command: "f=" + sudoersFile(in.Account) + `; [ -e "$f" ] || exit 3; rm -f -- "$f"`,
			}, already: exitAlready},
			lock(u), endSessions(u),
			{Step: sdk.Step{
				ID: "remove", Title: "Make sure that the account and its home directory are gone", Changes: true,
				Command: "userdel -r -- " + u,
			}, needed: present, already: 6}, // userdel(8): 6, the user does not exist
			{Step: sdk.Step{
				ID: "leftovers", Title: "List files that still belong to the account's uid",
				Command: `find / -xdev -uid "$1" 2>/dev/null | head -n 20`,
			}, uid: true, needed: present},
		}, nil
	default:
		return nil, sdk.Errorf(sdk.ClassInvalid, "unknown action %q", in.Action)
	}
}

func provision(t sdk.Target, in sdk.Intent, u string, existing []string) ([]operation, error) {
	if in.AccountID == "" {
		return nil, sdk.Errorf(sdk.ClassInvalid, "an account is made only for an account id, which marks it on the host")
	}
	words := in.Comment
	if mark := marker(in.AccountID); !strings.HasPrefix(words, mark) { // the controller's comments begin with it
		words = strings.TrimSpace(mark + " " + words)
	}
	comment, err := quote.ShArg(words)
	if err != nil {
		return nil, sdk.Errorf(sdk.ClassInvalid, "the comment has a NUL byte")
	}
	shell := t.Options["shell"]
	if shell == "" {
		shell = "/bin/bash"
	}
	expiry := ""
	if !in.ExpiresAt.IsZero() {
		expiry = "-e " + date(in.ExpiresAt) + " "
	}
	ops := []operation{{Step: sdk.Step{
		ID: "create", Title: "Make sure that the account exists", Changes: true,
		Command:      "useradd -m -s " + shell + " -c " + comment + " " + expiry + "-- " + u,
		Compensation: "userdel -r -- " + u,
	}, needed: absent}}

	cs, err := commands(in)
	if err != nil {
		return nil, err
	}
	for _, c := range cs {
		switch {
		case c.rule != "":
			continue
		case c.shell != "":
			ops = append(ops, setShell(u, c.shell))
			continue
		case c.key != "":
			op, err := authorize(u, c.key)
			if err != nil {
				return nil, err
			}
			ops = append(ops, op)
			continue
		}
		i := slices.IndexFunc(c.groups, func(g string) bool { return slices.Contains(existing, g) })
		if i < 0 && c.optional {
			continue
		}
		if i < 0 {
			return nil, sdk.Errorf(sdk.ClassUnsupported, "the host has no group %s, which role %s needs",
				strings.Join(c.groups, " or "), in.Role.Name).WithFix("create the group, or choose another role")
		}
		g := c.groups[i]
		ops = append(ops, operation{Step: sdk.Step{
			ID: "group-" + g, Title: "Make sure that the account is a member of " + g, Changes: true,
			Command:      "usermod -aG " + g + " -- " + u,
			Compensation: "gpasswd -d " + u + " " + g,
		}, needed: func(s state) bool { return !slices.Contains(s.groups, g) }})
	}
	if lines := rules(cs); len(lines) > 0 {
		op, err := sudoers(in.Account, lines)
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return append(ops,
		operation{Step: sdk.Step{
			ID: "password", Title: "Set the password", Changes: true,
			Command: `IFS= read -r line && printf '%s\n' "$line" | chpasswd # standard input: ` + in.Account + ":********",
		}, input: true},
		unlock(u, in.ExpiresAt),
	), nil
}

func present(s state) bool { return s.exists }
func absent(s state) bool  { return !s.exists }

func lock(u string) operation {
	return operation{Step: sdk.Step{
		ID: "lock", Title: "Make sure that neither password nor key lets anybody in", Changes: true,
		Command: "usermod -L -e 1 -- " + u,
	}, needed: func(s state) bool {
		return s.exists && (s.expires != lockedDay || s.password != "locked" && s.password != "none")
	}}
}

func unlock(u string, expires time.Time) operation {
	wanted := expiryDay(expires)
	return operation{Step: sdk.Step{
		ID: "unlock", Title: "Make sure that the account can log in until it expires", Changes: true,
		Command: "usermod -U -e " + date(expires) + " -- " + u,
	}, needed: func(s state) bool { return s.expires != wanted || s.password == "locked" }}
}

func endSessions(u string) operation {
	return operation{Step: sdk.Step{
		ID: "sessions", Title: "End every session and process of the account", Changes: true,
		Command: "pgrep -u " + u + " >/dev/null || exit 3; " +
			"command -v loginctl >/dev/null && loginctl terminate-user " + u + " >/dev/null 2>&1; n=0; " +
			"while pgrep -u " + u + " >/dev/null; do [ $n -lt 50 ] || exit 75; " +
			"pkill -KILL -u " + u + "; sleep 0.1; n=$((n+1)); done",
	}, needed: present, already: exitAlready}
}

// sudoersFile is where an account's rules are. sudo ignores files with a dot in their
// name; names of accounts have none.
func sudoersFile(account string) string { return "/etc/sudoers.d/reeve-" + account }

// sudoers writes the rules where sudo does not see them, has them checked, and moves
// them into place; rules that sudo would not accept together with the others are
// taken away again. With -f, visudo asks for no more than sudo itself does: without, it
// also refuses files of others whose mode is not 0440.
func sudoers(account string, lines []string) (operation, error) {
	content, err := quote.ShArg(strings.Join(lines, "\n"))
	if err != nil {
		return operation{}, sdk.Errorf(sdk.ClassInvalid, "a sudo rule has a NUL byte")
	}
	file := sudoersFile(account)
	return operation{Step: sdk.Step{
		ID: "sudoers", Title: "Make sure that the account has exactly these sudo rules", Changes: true,
		Command: `grep -Eqs '^[@#]includedir[[:space:]]+/etc/sudoers\.d/?[[:space:]]*$' /etc/sudoers || exit 78; ` +
			`t=$(mktemp /etc/sudoers.d/.reeve_XXXXXX) || exit 1; trap 'rm -f -- "$t"' EXIT; ` +
			`chown 0:0 "$t" && chmod 0440 "$t" && printf '%s\n' ` + content + ` >"$t" && ` +
			`visudo -cqf "$t" && mv -f -- "$t" ` + file + ` && { visudo -cqf /etc/sudoers || { rm -f -- ` + file + `; exit 79; }; }`,
		Compensation: "rm -f -- " + file,
	}, needed: func(s state) bool { return !slices.Equal(s.sudoers, lines) }}, nil
}

// expiryDay is the day of shadow(5) from which an account is refused. Expiry has the
// granularity of days there, and the controller ends accounts on time; so this is the
// first day that lies wholly after the instant.
func expiryDay(t time.Time) int {
	if t.IsZero() {
		return -1
	}
	return int(t.Unix()/(24*60*60)) + 1
}

func date(t time.Time) string {
	if t.IsZero() {
		return "''"
	}
	return dayOf(expiryDay(t)).Format(time.DateOnly)
}

// title is how progress and errors name an operation.
func (op operation) title() string { return fmt.Sprintf("%s (%s)", op.Title, op.ID) }

func uidArg(s state) []string { return []string{strconv.Itoa(s.uid)} }
