package shadow

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/quote"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// Step is a step of a plan and what is needed to do it. The step's Command is the very script that is run.
type Step struct {
	sdk.Step
	Needed  func(s State) bool // nil: always done
	Already int                // exit status that means "it was already so"; 0: none
	// Lenient says that a compensation that fails had nothing to undo.
	Lenient bool
	// Refused are exit statuses that have an error of their own.
	Refused map[int]*sdk.Error
	Use     Use

	input bool // the script reads "name:password" as one line
	uid   bool // the script gets the uid as $1
}

// Use is what a step of a role is for.
type Use int

// Known is a step that is undone or needs no undoing; of a Command of a role nobody knows what it changes. A Check fails the
// change if it does not succeed; what a Fact prints is kept with the account's facts, under the step's ID.
const (
	Known Use = iota
	Command
	Check
	Fact
)

// Already is the status with which scripts of this package say that there was nothing to do.
const Already = 3

// Role returns the steps of an intent's role in the given phases.
type Role func(phases ...sdk.Phase) ([]Step, error)

// Steps returns what makes in true, whatever state the account is in. shell is that of new accounts; "" is /bin/bash.
func Steps(in sdk.Intent, shell string, role Role) ([]Step, error) {
	u, err := quote.ShArg(in.Account)
	if err != nil {
		return nil, sdk.Errorf(sdk.ClassInvalid, "the account name has a NUL byte")
	}
	b := builder{role: role}
	switch in.Action {
	case sdk.Provision:
		create, err := create(in, u, shell)
		if err != nil {
			return nil, err
		}
		b.add(create)
		b.of(sdk.PhaseCreate, sdk.PhaseGrant)
		b.add(Step{Step: sdk.Step{
			ID: "password", Title: "Set the password", Changes: true,
			Command: `IFS= read -r line && printf '%s\n' "$line" | chpasswd # standard input: ` + in.Account + ":********",
		}, input: true}, unlock(u, in.ExpiresAt))
		b.look()
	case sdk.Rotate:
		b.add(Step{Step: sdk.Step{
			ID: "password", Title: "Set the password; an account that is locked stays locked", Changes: true,
			Command: "s=$(getent shadow -- " + u + "); s=${s#*:}; case ${s%%:*} in '!'?*) lock=-L;; *) lock=;; esac; " +
				`IFS= read -r line && printf '%s\n' "$line" | chpasswd && { [ -z "$lock" ] || usermod -L -- ` + u + `; }` +
				" # standard input: " + in.Account + ":********",
		}, input: true})
		b.of(sdk.PhaseRotate)
		b.look()
	case sdk.Disable:
		b.add(lock(u), endSessions(u))
		b.of(sdk.PhaseDisable)
	case sdk.Enable:
		b.of(sdk.PhaseEnable) // before the account is open
		b.add(unlock(u, in.ExpiresAt))
		b.look()
	case sdk.Deprovision:
		b.of(sdk.PhaseRevoke)
		for i := range b.steps {
			b.steps[i].Needed = present
		}
		b.add(NoSudoers(in.Account), lock(u), endSessions(u),
			Step{Step: sdk.Step{
				ID: "remove", Title: "Make sure that the account and its home directory are gone", Changes: true,
				Command: "userdel -r -- " + u,
			}, Needed: present, Already: 6}, // userdel(8): 6, the user does not exist
			Step{Step: sdk.Step{
				ID: "leftovers", Title: "List files that still belong to the account's uid",
				Command: `find / -xdev -uid "$1" 2>/dev/null | head -n 20`,
			}, uid: true, Needed: present})
		b.of(sdk.PhaseRemove)
	default:
		return nil, sdk.Errorf(sdk.ClassInvalid, "unknown action %q", in.Action)
	}
	return b.steps, b.err
}

type builder struct {
	role  Role
	steps []Step
	err   error // the first
}

func (b *builder) add(s ...Step) { b.steps = append(b.steps, s...) }

func (b *builder) of(phases ...sdk.Phase) {
	s, err := b.role(phases...)
	if err != nil && b.err == nil {
		b.err = err
	}
	b.add(s...)
}

// look adds the role's commands that only read.
func (b *builder) look() {
	b.of(sdk.PhaseVerify)
	b.of(sdk.PhaseFacts)
}

// RoleStep is a shell command of a role, the one with the index among those of its phase.
func RoleStep(in sdk.Intent, phase sdk.Phase, index int, command string) Step {
	s := Step{Step: sdk.Step{
		ID: fmt.Sprintf("%s-%d", phase, index+1), Title: fmt.Sprintf("Role %s, %s", in.Role.Name, phase), Command: command, Changes: true,
	}, Use: Command}
	switch phase {
	case sdk.PhaseVerify:
		s.Changes, s.Use = false, Check
	case sdk.PhaseFacts:
		s.Changes, s.Use = false, Fact
	}
	return s
}

// PlanOf is the plan that has the steps.
func PlanOf(in sdk.Intent, steps []Step) sdk.Plan {
	p := sdk.Plan{Action: in.Action, Account: in.Account}
	for _, s := range steps {
		p.Steps = append(p.Steps, s.Step)
	}
	return p
}

func create(in sdk.Intent, u, shell string) (Step, error) {
	if in.AccountID == "" {
		return Step{}, sdk.Errorf(sdk.ClassInvalid, "an account is made only for an account id, which marks it on the host")
	}
	words := in.Comment
	if mark := marker(in.AccountID); !strings.HasPrefix(words, mark) { // the controller's comments begin with it
		words = strings.TrimSpace(mark + " " + words)
	}
	comment, err := quote.ShArg(words)
	if err != nil {
		return Step{}, sdk.Errorf(sdk.ClassInvalid, "the comment has a NUL byte")
	}
	if shell == "" {
		shell = "/bin/bash"
	}
	expiry := ""
	if !in.ExpiresAt.IsZero() {
		expiry = "-e " + date(in.ExpiresAt) + " "
	}
	return Step{Step: sdk.Step{
		ID: "create", Title: "Make sure that the account exists", Changes: true,
		Command:      "useradd -m -s " + shell + " -c " + comment + " " + expiry + "-- " + u,
		Compensation: "userdel -r -- " + u,
	}, Needed: func(s State) bool { return !s.Exists }}, nil
}

func present(s State) bool { return s.Exists }

func lock(u string) Step {
	return Step{Step: sdk.Step{
		ID: "lock", Title: "Make sure that neither password nor key lets anybody in", Changes: true,
		Command: "usermod -L -e 1 -- " + u,
	}, Needed: func(s State) bool {
		return s.Exists && (s.Expires != lockedDay || s.Password != "locked" && s.Password != "none")
	}}
}

func unlock(u string, expires time.Time) Step {
	wanted := expiryDay(expires)
	return Step{Step: sdk.Step{
		ID: "unlock", Title: "Make sure that the account can log in until it expires", Changes: true,
		Command: "usermod -U -e " + date(expires) + " -- " + u,
	}, Needed: func(s State) bool { return s.Expires != wanted || s.Password == "locked" }}
}

func endSessions(u string) Step {
	return Step{Step: sdk.Step{
		ID: "sessions", Title: "End every session and process of the account", Changes: true,
		Command: "pgrep -u " + u + " >/dev/null || exit 3; " +
			"command -v loginctl >/dev/null && loginctl terminate-user " + u + " >/dev/null 2>&1; n=0; " +
			"while pgrep -u " + u + " >/dev/null; do [ $n -lt 50 ] || exit 75; " +
			"pkill -KILL -u " + u + "; sleep 0.1; n=$((n+1)); done",
	}, Needed: present, Already: Already}
}

// SudoersFile is where an account's rules are. sudo ignores files with a dot in their
// name; names of accounts have none.
func SudoersFile(account string) string { return "/etc/sudoers.d/reeve-" + account }

// NoSudoers takes away the account's rules.
func NoSudoers(account string) Step {
	return Step{Step: sdk.Step{
		ID: "sudoers", Title: "Make sure that no sudo rule of ours is left", Changes: true,
		Command: "f=" + SudoersFile(account) + `; [ -e "$f" ] || exit 3; rm -f -- "$f"`,
	}, Already: Already}
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

// RoleCommand is a shell command of a role with its placeholders filled in, quoted where they stand.
func RoleCommand(command string, in sdk.Intent) (string, error) {
	if strings.ContainsFunc(command, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", errors.New("it has a control character")
	}
	c, err := template.Shell.Parse(command)
	if err != nil {
		return "", err
	}
	return c.Render(func(s template.Slot) (string, error) {
		if s.Name == sdk.UsernamePlaceholder {
			return in.Account, nil
		}
		return in.Params[s.Name], nil
	}, nil)
}
