package shadow

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// maxFact bounds what one command of a role may add to an account's facts, in bytes.
const maxFact = 1 << 10

// SamePlan returns an error unless the plan is the one that has the steps.
func SamePlan(ch sdk.Change, steps []Step) error {
	if sdk.PlanHash(PlanOf(ch.Intent, steps)) == sdk.PlanHash(ch.Plan) {
		return nil
	}
	return sdk.Errorf(sdk.ClassPlanChanged, "the plan is not what would be done on this host; nothing was done").
		WithFix("plan again and have that plan approved")
}

// Apply does the steps, and reads back. If a step of Provision fails, the steps this call
// did are undone; what could not be undone is listed in the error's Details as
// "residue", one per line.
func Apply(ctx context.Context, h Host, ch sdk.Change, steps []Step, progress sdk.Progress) (sdk.Result, error) {
	in := ch.Intent
	before, err := Read(ctx, h, in.Account)
	if err != nil {
		return sdk.Result{}, err
	}
	if err := guard(before, in, h.User()); err != nil {
		return sdk.Result{}, err
	}
	a := &application{host: h, change: ch, before: before, progress: progress, learnt: map[string]string{}}
	for _, s := range steps {
		if err := a.do(ctx, s); err != nil {
			return sdk.Result{}, a.undo(ctx, s, err)
		}
	}
	after, err := Read(ctx, h, in.Account)
	if err != nil {
		return sdk.Result{}, a.uncertain(err)
	}
	if err := a.achieved(steps, after); err != nil {
		return sdk.Result{}, err
	}
	facts := after.Facts(in.Account)
	if a.ended > 0 {
		a.learnt["sessions_ended"] = strconv.Itoa(a.ended)
	}
	if facts.Attributes == nil && len(a.learnt) > 0 {
		facts.Attributes = map[string]string{}
	}
	maps.Copy(facts.Attributes, a.learnt)
	return sdk.Result{Facts: facts, Residue: a.residue, Changed: a.changed || !before.same(after)}, nil
}

// guard refuses accounts that are not the one meant, before anything is touched.
func guard(s State, in sdk.Intent, management string) error {
	if !s.Exists {
		switch in.Action {
		case sdk.Provision, sdk.Deprovision:
			return nil
		default:
			return sdk.Errorf(sdk.ClassNotFound, "the host has no account %s", in.Account).
				WithFix("provision it again")
		}
	}
	foreign := func(format string, args ...any) error {
		return sdk.Errorf(sdk.ClassExists, "account %s exists on the host, "+format, append([]any{in.Account}, args...)...).
			WithFix("choose another name, or adopt the account")
	}
	if (in.Action == sdk.Disable || in.Action == sdk.Deprovision) && (s.UID == 0 || in.Account == management) {
		return sdk.Errorf(sdk.ClassInvalid, "%s is root or the management account, and is never disabled or removed", in.Account).
			WithFix("give the asset another management account first")
	}
	owner := s.Owner()
	switch {
	case in.Identity != "" && in.Identity != s.Identity():
		return foreign("but with uid %s instead of %s: it is another account", s.Identity(), in.Identity)
	case owner != "" && owner != in.AccountID:
		return foreign("and was made for %s", owner)
	case owner == "" && (in.Identity == "" || in.Action == sdk.Provision || in.Action == sdk.Deprovision):
		// A uid alone is not enough to remove an account: hosts give it out again.
		return foreign("and was not made by Reeve")
	}
	return nil
}

// application is one Apply under way.
type application struct {
	host     Host
	change   sdk.Change
	before   State
	progress sdk.Progress

	done    []Step // changes made, in order
	changed bool   // something differs from before, other than the password's hash alone
	residue []string
	ended   int // sessions
	learnt  map[string]string
}

func (a *application) tell(step Step, state sdk.StepState, message string) {
	a.progress(sdk.Event{Step: step.ID, State: state, Message: message})
}

func (a *application) do(ctx context.Context, step Step) error {
	current := a.before
	if !a.before.Exists && len(a.done) > 0 && a.change.Intent.Action == sdk.Provision {
		// Made a moment ago, with the right expiry, and with nothing else.
		current = State{Exists: true, Expires: expiryDay(a.change.Intent.ExpiresAt)}
	}
	if step.Needed != nil && !step.Needed(current) {
		a.tell(step, sdk.StepSkipped, step.Title)
		return nil
	}
	a.tell(step, sdk.StepStarted, step.Title)
	script := Script{Text: step.Command, Changes: step.Changes}
	if step.input {
		line := append([]byte(a.change.Intent.Account+":"), a.change.Password.Bytes()...)
		script.Input = sdk.NewSecret(append(line, '\n'))
		defer script.Input.Wipe()
	}
	if step.uid {
		script.Args = []string{a.before.Identity()}
	}
	out, err := a.host.Script(ctx, script)
	if err != nil {
		a.tell(step, sdk.StepFailed, sdk.ErrorText(err))
		return a.uncertain(err)
	}
	switch {
	case step.Already != 0 && out.Status == step.Already:
		a.tell(step, sdk.StepSkipped, step.Title)
		return nil
	case step.ID == "create" && out.Status == 9 && a.madeMeanwhile(ctx):
		// An attempt whose connection was lost may still have been at work when we looked.
	case step.ID == "remove" && out.Status == 12: // userdel(8): the home directory cannot be removed
		a.residue = append(a.residue, "home directory "+a.before.Home+" was not removed")
	case step.Use == Fact:
		a.learn(step, out.Stdout) // whatever the status: grep -c says 0 with 1
	case out.Status != 0:
		err := a.failure(step, out)
		a.tell(step, sdk.StepFailed, sdk.ErrorText(err))
		return err
	}
	if step.Changes {
		a.done = append(a.done, step)
		a.changed = a.changed || step.Use == Known && step.ID != "password" || a.change.Intent.Action == sdk.Rotate
	}
	message := ""
	switch step.ID {
	case "sessions":
		a.ended = a.before.Sessions
		message = fmt.Sprintf("%d sessions ended", a.ended)
	case "leftovers":
		for line := range strings.Lines(out.Stdout) {
			a.residue = append(a.residue, fmt.Sprintf("file of uid %d: %s", a.before.UID, strings.TrimSpace(line)))
		}
		message = fmt.Sprintf("%d files left", len(a.residue))
	}
	a.tell(step, sdk.StepDone, message)
	return nil
}

// madeMeanwhile reports whether the account that useradd found is the one we were to make.
func (a *application) madeMeanwhile(ctx context.Context) bool {
	s, err := Read(ctx, a.host, a.change.Intent.Account)
	return err == nil && s.Exists && s.Owner() == a.change.Intent.AccountID
}

// uncertain corrects an error of the connection: what one step knows of itself, that it
// changed nothing, is not true of the whole once an earlier step did.
func (a *application) uncertain(err error) error {
	if len(a.done) == 0 {
		return err
	}
	switch sdk.ClassOf(err) {
	case sdk.ClassUnknownOutcome:
		return err
	default:
		return sdk.Errorf(sdk.ClassUnknownOutcome, "some steps for account %s were done, others were not", a.change.Intent.Account).
			Wrap(err).WithFix("read the account back, then try again")
	}
}

// masked is text of the host without the password.
func (a *application) masked(text string) string {
	if p := a.change.Password.Reveal(); p != "" {
		text = strings.ReplaceAll(text, p, "********")
	}
	return text
}

// learn keeps what a command of the role tells of the account.
func (a *application) learn(step Step, text string) {
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, strings.ToValidUTF8(a.masked(text), "")))
	a.learnt[step.ID] = strings.ToValidUTF8(text[:min(len(text), maxFact)], "")
}

// failure explains a step the host refused.
func (a *application) failure(step Step, out Output) error {
	said := a.masked(out.Stderr)
	if said == "" {
		said = "exit status " + strconv.Itoa(out.Status)
	}
	e := sdk.Errorf(sdk.ClassProtocol, "%s (%s) failed: %s", step.Title, step.ID, said)
	has := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(strings.ToLower(said), t) })
	}
	switch {
	case step.Refused[out.Status] != nil:
		return step.Refused[out.Status]
	case step.ID == "create" && out.Status == 9: // useradd(8): the name is in use, also as that of a group
		e.Class, e.Fix = sdk.ClassExists, "choose another name"
	case has("no space left", "disk quota"):
		e.Class, e.Fix = sdk.ClassBusy, "free space on the host's disk"
	case has("cannot lock", "try again later", "resource temporarily", "existing lock file"):
		e.Class, e.Fix = sdk.ClassBusy, "somebody else is changing the host's account database; try again"
	case has("read-only file system", "permission denied", "operation not permitted"):
		e.Class, e.Fix = sdk.ClassNotPermitted, "let the management account become root on a host whose disk can be written"
	case step.ID == "password" && has("bad password", "too short", "too simple", "too long", "dictionary", "already used",
		"has been used", "is a palindrome", "must choose a longer"):
		e.Class, e.Fix = sdk.ClassPolicyRejected, "generate a password that keeps the host's own rules"
	case step.ID == "unlock" && has("passwordless"):
		e.Class, e.Fix = sdk.ClassPolicyRejected, "rotate the account's password first"
	case step.ID == "sessions" && out.Status == 75, step.ID == "remove" && out.Status == 8:
		e.Class, e.Fix = sdk.ClassBusy, "processes of the account cannot be ended; try again"
	case step.Use == Check:
		e.Fix = "look at the account on the host, and at the role"
	case step.Use == Command:
		e.Class, e.Fix = sdk.ClassInvalid, "try the command on the host, and correct the role"
	default:
		e.Fix = "try the step's command on the host"
	}
	return e
}

// undo compensates what was done, last first, beginning with the step that failed,
// which may have done half of its work. It returns err, completed.
func (a *application) undo(ctx context.Context, failed Step, err error) error {
	e, ok := err.(*sdk.Error) //nolint:errorlint // errors of do are not wrapped
	if !ok || e.Class == sdk.ClassUnknownOutcome || a.change.Intent.Action != sdk.Provision {
		return err
	}
	var left []string
	for _, step := range slices.Backward(append(slices.Clone(a.done), failed)) {
		if step.Compensation == "" {
			if step.Use == Command && a.before.Exists { // else it goes with the account
				left = append(left, "not undone: "+step.Command)
			}
			continue
		}
		undone, err := a.compensate(ctx, step)
		if err != nil || !undone {
			left = append(left, "not undone: "+step.Command)
			a.tell(step, sdk.StepInfo, "could not be undone: "+step.Compensation)
			continue
		}
		a.tell(step, sdk.StepInfo, "undone: "+step.Compensation)
	}
	completed := *e
	completed.Details = map[string]string{}
	if len(left) == 0 {
		completed.Message += "; everything done before was undone"
	} else {
		completed.Message += fmt.Sprintf("; %d steps could not be undone", len(left))
		completed.Details["residue"] = strings.Join(left, "\n")
	}
	return &completed
}

// compensate undoes one step. Whether there is an account of ours to remove is read
// anew: useradd also fails because somebody else has just made the account.
func (a *application) compensate(ctx context.Context, step Step) (bool, error) {
	if step.ID == "create" {
		s, err := Read(ctx, a.host, a.change.Intent.Account)
		if err != nil {
			return false, err
		}
		if !s.Exists || s.Owner() != a.change.Intent.AccountID {
			return true, nil
		}
	}
	out, err := a.host.Script(ctx, Script{Text: step.Compensation, Changes: true})
	if err != nil {
		return false, err
	}
	return out.Status == 0 || step.Lenient, nil
}

// achieved compares what was read back with what was asked for. Exit statuses prove
// nothing.
func (a *application) achieved(steps []Step, s State) error {
	in := a.change.Intent
	wrong := func(format string, args ...any) error {
		return sdk.Errorf(sdk.ClassProtocol, "the host reported success, but "+format, args...).
			WithFix("look at the host: another program may manage its accounts")
	}
	if in.Action == sdk.Deprovision {
		if s.Exists {
			return wrong("account %s is still there", in.Account)
		}
		return nil
	}
	if !s.Exists {
		return wrong("account %s is not there", in.Account)
	}
	if a.before.Exists && s.UID != a.before.UID {
		return wrong("the uid of %s changed from %d to %d", in.Account, a.before.UID, s.UID)
	}
	for _, step := range steps {
		switch {
		case step.ID == "password" && (s.Hash == a.before.Hash || s.Password != "set" && s.Password != "locked"):
			return wrong("the password of %s did not change", in.Account)
		case step.ID == "sessions" && s.Sessions > 0:
			return wrong("%s still has %d sessions", in.Account, s.Sessions)
		case step.ID == "sessions" || step.ID == "password" || step.ID == "create" || step.Needed == nil:
		case step.Needed(s):
			return wrong("this did not come true: %s", step.Title)
		}
	}
	return nil
}
