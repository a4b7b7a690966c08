package unix

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/quote"
	"github.com/reeve-pam/reeve/plugins/telnet/role"
)

// operation is a step of a plan and what is needed to do it. The step's Command is the
// very script that is run.
type operation struct {
	sdk.Step
	input   bool               // the script reads "name:password" as one line
	needed  func(s state) bool // nil: always done
	already int                // exit status that means "it was already so"; 0: none
}

// exitAlready is the status with which scripts say that there was nothing to do.
const exitAlready = 3

// Plan implements sdk.Provisioner. It does not connect.
func (p Profile) Plan(_ context.Context, _ sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	ops, err := p.operations(in)
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

// operations returns what makes in true, whatever state the account is in.
func (p Profile) operations(in sdk.Intent) ([]operation, error) {
	u, err := quote.ShArg(in.Account)
	if err != nil {
		return nil, sdk.Errorf(sdk.ClassInvalid, "the account name has a NUL byte")
	}
	var ops []operation
	var failed error
	roleSteps := func(phase sdk.Phase, needed func(state) bool) {
		commands, err := role.Commands(in, phase, role.Unix)
		if err != nil {
			failed = err
		}
		for i, c := range commands {
			ops = append(ops, operation{Step: sdk.Step{
				ID: fmt.Sprintf("%s-%d", phase, i+1), Title: fmt.Sprintf("Role %s, %s", in.Role.Name, phase), Command: c, Changes: true,
			}, needed: needed})
		}
	}
	add := func(more ...operation) { ops = append(ops, more...) }
	switch in.Action {
	case sdk.Provision:
		create, err := p.create(in, u)
		if err != nil {
			return nil, err
		}
		add(create)
		roleSteps(sdk.PhaseCreate, nil)
		roleSteps(sdk.PhaseGrant, nil)
		add(password("Set the password", "", u, in), unlock(u, in.ExpiresAt))
	case sdk.Rotate:
		add(password("Set the password; an account that is locked stays locked",
			"s=$(getent shadow -- "+u+"); s=${s#*:}; case ${s%%:*} in '!'?*) lock=-L;; *) lock=;; esac; ", u, in))
		roleSteps(sdk.PhaseRotate, nil)
	case sdk.Disable:
		add(lock(u), endSessions(u))
		roleSteps(sdk.PhaseDisable, nil)
	case sdk.Enable:
		add(unlock(u, in.ExpiresAt))
		roleSteps(sdk.PhaseEnable, nil)
	case sdk.Deprovision:
		roleSteps(sdk.PhaseRevoke, present)
		add(lock(u), endSessions(u),
			operation{Step: sdk.Step{
				ID: "remove", Title: "Make sure that the account and its home directory are gone; list files that still belong to its uid",
				Command: "i=$(id -u -- " + u + ") || exit 3; userdel -r -- " + u + "; rc=$?; " +
					`[ $rc -eq 0 ] || [ $rc -eq 12 ] && find / -xdev -uid "$i" 2>/dev/null | head -n 20; exit $rc`,
				Changes: true,
			}, needed: present, already: exitAlready})
		roleSteps(sdk.PhaseRemove, nil)
	default:
		return nil, sdk.Errorf(sdk.ClassInvalid, "unknown action %q", in.Action)
	}
	return ops, failed
}

func (p Profile) create(in sdk.Intent, u string) (operation, error) {
	if in.AccountID == "" {
		return operation{}, sdk.Errorf(sdk.ClassInvalid, "an account is made only for an account id, which marks it on the host")
	}
	words := in.Comment
	if mark := marker(in.AccountID); !strings.HasPrefix(words, mark) { // the controller's comments begin with it
		words = strings.TrimSpace(mark + " " + words)
	}
	comment, err := quote.ShArg(words)
	if err != nil {
		return operation{}, sdk.Errorf(sdk.ClassInvalid, "the comment has a NUL byte")
	}
	shell := p.Shell
	if shell == "" {
		shell = "/bin/bash"
	}
	expiry := ""
	if !in.ExpiresAt.IsZero() {
		expiry = "-e " + date(in.ExpiresAt) + " "
	}
	return operation{Step: sdk.Step{
		ID: "create", Title: "Make sure that the account exists", Changes: true,
		Command:      "useradd -m -s " + shell + " -c " + comment + " " + expiry + "-- " + u,
		Compensation: "userdel -r -- " + u,
	}, needed: func(s state) bool { return !s.exists }}, nil
}

func present(s state) bool { return s.exists }

// password gives chpasswd one line. The shell's own read and printf never make it an
// argument of a process.
func password(title, before, u string, in sdk.Intent) operation {
	command := before + `IFS= read -r line && printf '%s\n' "$line" | chpasswd`
	if before != "" {
		command += ` && { [ -z "$lock" ] || usermod -L -- ` + u + `; }`
	}
	return operation{Step: sdk.Step{
		ID: "password", Title: title, Changes: true,
		Command: command + " # is asked for, and given, " + in.Account + ":********",
	}, input: true}
}

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
		Command: "pgrep -u " + u + " >/dev/null || exit 3; n=0; while pgrep -u " + u + " >/dev/null; do " +
			"[ $n -lt 50 ] || exit 75; pkill -KILL -u " + u + "; sleep 0.1; n=$((n+1)); done",
	}, needed: present, already: exitAlready}
}

func date(t time.Time) string {
	if t.IsZero() {
		return "''"
	}
	return dayOf(expiryDay(t)).Format(time.DateOnly)
}
