package unix

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Apply implements sdk.Provisioner.
func (p Profile) Apply(ctx context.Context, t sdk.Target, ch sdk.Change, progress sdk.Progress) (sdk.Result, error) {
	in := ch.Intent
	ops, err := p.operations(in)
	if err != nil {
		return sdk.Result{}, err
	}
	if sdk.PlanHash(planOf(in, ops)) != sdk.PlanHash(ch.Plan) {
		return sdk.Result{}, sdk.Errorf(sdk.ClassPlanChanged, "the plan is not what would be done on this host; nothing was done").
			WithFix("plan again and have that plan approved")
	}
	sh, err := openRoot(ctx, t)
	if err != nil {
		return sdk.Result{}, unchanged(err)
	}
	defer sh.Close()
	if err := sh.Typable(ch.Password); err != nil {
		return sdk.Result{}, unchanged(err)
	}
	before, err := sh.state(in.Account)
	if err != nil {
		return sdk.Result{}, err
	}
	if err := guard(before, in, sh.user); err != nil {
		return sdk.Result{}, err
	}
	a := &application{shell: sh, change: ch, before: before, progress: progress}
	for _, op := range ops {
		if err := a.do(op); err != nil {
			return sdk.Result{}, a.undo(op, err)
		}
	}
	after, err := sh.state(in.Account)
	if err != nil {
		return sdk.Result{}, a.uncertain(err)
	}
	if err := a.achieved(ops, after); err != nil {
		return sdk.Result{}, err
	}
	facts := after.facts(in.Account)
	changed := in.Action == sdk.Rotate || !before.same(after) || a.ended > 0
	return sdk.Result{Facts: facts, Residue: a.residue, Changed: changed}, nil
}

// guard refuses accounts that are not the one meant, before anything is touched.
func guard(s state, in sdk.Intent, management string) error {
	if !s.exists {
		if in.Action == sdk.Provision || in.Action == sdk.Deprovision {
			return nil
		}
		return sdk.Errorf(sdk.ClassNotFound, "the host has no account %s", in.Account).WithFix("provision it again")
	}
	foreign := func(format string, args ...any) error {
		return sdk.Errorf(sdk.ClassExists, "account %s exists on the host, "+format, append([]any{in.Account}, args...)...).
			WithFix("choose another name, or adopt the account")
	}
	if (in.Action == sdk.Disable || in.Action == sdk.Deprovision) && (s.uid == 0 || in.Account == management) {
		return sdk.Errorf(sdk.ClassInvalid, "%s is root or the management account, and is never disabled or removed", in.Account)
	}
	owner := s.owner()
	switch {
	case in.Identity != "" && in.Identity != s.identity():
		return foreign("but with uid %s instead of %s: it is another account", s.identity(), in.Identity)
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
	shell    *shell
	change   sdk.Change
	before   state
	progress sdk.Progress

	created bool        // the account was made by this call
	done    []operation // changes made, in order
	residue []string
	ended   int // sessions
}

func (a *application) tell(op operation, state sdk.StepState, message string) {
	a.progress(sdk.Event{Step: op.ID, State: state, Message: message})
}

func (a *application) do(op operation) error {
	current := a.before
	if a.created {
		// Made a moment ago, with the right expiry, and with nothing else.
		current = state{exists: true, expires: expiryDay(a.change.Intent.ExpiresAt)}
	}
	if op.needed != nil && !op.needed(current) {
		a.tell(op, sdk.StepSkipped, op.Title)
		return nil
	}
	a.tell(op, sdk.StepStarted, op.Title)
	s := script{text: op.Command, changes: op.Changes}
	if op.input {
		s.input = sdk.NewSecret(append([]byte(a.change.Intent.Account+":"), a.change.Password.Bytes()...))
		defer s.input.Wipe()
	}
	out, err := a.shell.run(s)
	if err != nil {
		a.tell(op, sdk.StepFailed, sdk.ErrorText(err))
		return a.uncertain(err)
	}
	switch {
	case op.already != 0 && out.status == op.already:
		a.tell(op, sdk.StepSkipped, op.Title)
		return nil
	case op.ID == "create" && out.status == 9 && a.ours(): // a call that was cut off has just finished it
		a.tell(op, sdk.StepSkipped, op.Title)
		return nil
	case op.ID == "remove" && out.status == 12: // userdel(8): the home directory cannot be removed
		a.residue = append(a.residue, "home directory "+a.before.home+" was not removed")
	case out.status != 0:
		err := a.failure(op, out)
		a.tell(op, sdk.StepFailed, sdk.ErrorText(err))
		return err
	}
	a.created = a.created || op.ID == "create"
	a.done = append(a.done, op)
	message := ""
	switch op.ID {
	case "sessions":
		a.ended = max(1, a.before.sessions)
		message = fmt.Sprintf("%d sessions ended", a.ended)
	case "remove":
		for line := range strings.Lines(out.text) {
			if strings.HasPrefix(line, "/") { // not what userdel said
				a.residue = append(a.residue, fmt.Sprintf("file of uid %d: %s", a.before.uid, strings.TrimSpace(line)))
			}
		}
	}
	a.tell(op, sdk.StepDone, message)
	return nil
}

// ours reads anew whether there is an account that was made for the intent's account id.
func (a *application) ours() bool {
	s, err := a.shell.state(a.change.Intent.Account)
	return err == nil && s.exists && s.owner() == a.change.Intent.AccountID
}

// uncertain corrects an error of the connection: what one step knows of itself, that it
// changed nothing, is not true of the whole once an earlier step did.
func (a *application) uncertain(err error) error {
	if len(a.done) == 0 || sdk.ClassOf(err) == sdk.ClassUnknownOutcome {
		return err
	}
	return sdk.Errorf(sdk.ClassUnknownOutcome, "some steps for account %s were done, others were not", a.change.Intent.Account).
		Wrap(err).WithFix("read the account back, then try again")
}

// failure explains a step the host refused.
func (a *application) failure(op operation, out output) error {
	said := out.text
	if p := a.change.Password.Reveal(); p != "" {
		said = strings.ReplaceAll(said, p, "********")
	}
	if said = printable(said); said == "it says nothing" {
		said = "exit status " + strconv.Itoa(out.status)
	}
	e := sdk.Errorf(sdk.ClassProtocol, "%s (%s) failed: %s", op.Title, op.ID, said)
	has := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(strings.ToLower(said), t) })
	}
	switch {
	case op.ID == "create" && out.status == 9: // useradd(8): the name is in use, also as that of a group
		e.Class, e.Fix = sdk.ClassExists, "choose another name"
	case has("no space left", "disk quota"):
		e.Class, e.Fix = sdk.ClassBusy, "free space on the host's disk"
	case has("cannot lock", "try again later", "resource temporarily", "existing lock file"):
		e.Class, e.Fix = sdk.ClassBusy, "somebody else is changing the host's account database; try again"
	case has("read-only file system", "permission denied", "operation not permitted"):
		e.Class, e.Fix = sdk.ClassNotPermitted, "let the management account become root on a host whose disk can be written"
	case op.ID == "password" && has("bad password", "too short", "too simple", "too long", "dictionary", "already used",
		"has been used", "is a palindrome", "must choose a longer"):
		e.Class, e.Fix = sdk.ClassPolicyRejected, "generate a password that keeps the host's own rules"
	case op.ID == "unlock" && has("passwordless"):
		e.Class, e.Fix = sdk.ClassPolicyRejected, "rotate the account's password first"
	case op.ID == "sessions" && out.status == 75, op.ID == "remove" && out.status == 8:
		e.Class, e.Fix = sdk.ClassBusy, "processes of the account cannot be ended; try again"
	}
	return e
}

// undo removes an account that this call made, if a later step failed. It returns err, completed.
func (a *application) undo(failed operation, err error) error {
	e, ok := err.(*sdk.Error) //nolint:errorlint // errors of do are not wrapped
	if !ok || e.Class == sdk.ClassUnknownOutcome || a.change.Intent.Action != sdk.Provision {
		return err
	}
	completed := *e
	var left []string
	switch create := a.change.Plan.Steps[0]; {
	case a.created || failed.ID == "create" && !a.before.exists:
		if !a.ours() { // useradd also fails because somebody else has just made the account
			break
		}
		out, err := a.shell.run(script{text: create.Compensation, changes: true})
		if err != nil || out.status != 0 && out.status != 12 {
			left = append(left, "not undone: "+create.Command)
		}
		a.progress(sdk.Event{Step: create.ID, State: sdk.StepInfo, Message: "undone: " + create.Compensation})
	default:
		for _, op := range append(a.done, failed) {
			if strings.Contains(op.ID, "-") { // of the role
				left = append(left, "not undone: "+op.Command)
			}
		}
	}
	if len(left) > 0 {
		completed.Message += fmt.Sprintf("; %d steps could not be undone", len(left))
		completed.Details = map[string]string{"residue": strings.Join(left, "\n")}
	}
	return &completed
}

// achieved compares what was read back with what was asked for. Exit statuses prove
// nothing.
func (a *application) achieved(ops []operation, s state) error {
	in := a.change.Intent
	wrong := func(format string, args ...any) error {
		return sdk.Errorf(sdk.ClassProtocol, "the host reported success, but "+format, args...).
			WithFix("look at the host: another program may manage its accounts")
	}
	if in.Action == sdk.Deprovision {
		if s.exists {
			return wrong("account %s is still there", in.Account)
		}
		return nil
	}
	if !s.exists {
		return wrong("account %s is not there", in.Account)
	}
	if a.before.exists && s.uid != a.before.uid {
		return wrong("the uid of %s changed from %d to %d", in.Account, a.before.uid, s.uid)
	}
	for _, op := range ops {
		switch {
		case op.ID == "password" && (s.hash == a.before.hash || s.password != "set" && s.password != "locked"):
			return wrong("the password of %s did not change", in.Account)
		case op.ID == "sessions" && s.sessions > 0:
			return wrong("%s still has %d sessions", in.Account, s.sessions)
		case op.ID == "sessions" || op.ID == "password" || op.ID == "create" || op.needed == nil:
		case op.needed(s):
			return wrong("this did not come true: %s", op.Title)
		}
	}
	return nil
}
