package connector

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/ssh/transport"
)

// Apply implements sdk.Provisioner. If a step of Provision fails, the steps this call
// did are undone; what could not be undone is listed in the error's Details as
// "residue", one per line.
func (c Connector) Apply(ctx context.Context, t sdk.Target, ch sdk.Change, progress sdk.Progress) (sdk.Result, error) {
	in := ch.Intent
	h, err := c.manage(ctx, t)
	if err != nil {
		return sdk.Result{}, err
	}
	defer h.Close()
	ops, err := operations(ctx, t, in, func(ctx context.Context, names []string) ([]string, error) {
		return existingGroups(ctx, h, names)
	})
	if err != nil {
		return sdk.Result{}, err
	}
	if sdk.PlanHash(planOf(in, ops)) != sdk.PlanHash(ch.Plan) {
		return sdk.Result{}, sdk.Errorf(sdk.ClassPlanChanged, "the plan is not what would be done on this host; nothing was done").
			WithFix("plan again and have that plan approved")
	}
	before, err := readState(ctx, h, in.Account)
	if err != nil {
		return sdk.Result{}, err
	}
	if err := guard(before, in, h.User()); err != nil {
		return sdk.Result{}, err
	}

	a := &application{host: h, change: ch, before: before, progress: progress}
	for _, op := range ops {
		if err := a.do(ctx, op); err != nil {
			return sdk.Result{}, a.undo(ctx, op, err)
		}
	}
	after, err := readState(ctx, h, in.Account)
	if err != nil {
		return sdk.Result{}, a.uncertain(err)
	}
	if err := a.achieved(ops, after); err != nil {
		return sdk.Result{}, err
	}
	facts := after.facts(in.Account)
	if a.ended > 0 {
		if facts.Attributes == nil {
			facts.Attributes = map[string]string{}
		}
		facts.Attributes["sessions_ended"] = strconv.Itoa(a.ended)
	}
	return sdk.Result{Facts: facts, Residue: a.residue, Changed: a.changed}, nil
}

// guard refuses accounts that are not the one meant, before anything is touched.
func guard(s state, in sdk.Intent, management string) error {
	if !s.exists {
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
	if (in.Action == sdk.Disable || in.Action == sdk.Deprovision) && (s.uid == 0 || in.Account == management) {
		return sdk.Errorf(sdk.ClassInvalid, "%s is root or the management account, and is never disabled or removed", in.Account).
			WithFix("give the asset another management account first")
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
	host     *transport.Host
	change   sdk.Change
	before   state
	progress sdk.Progress

	done    []operation // changes made, in order
	changed bool        // something differs from before, other than the password's hash alone
	residue []string
	ended   int // sessions
}

func (a *application) tell(op operation, state sdk.StepState, message string) {
	a.progress(sdk.Event{Step: op.ID, State: state, Message: message})
}

func (a *application) do(ctx context.Context, op operation) error {
	current := a.before
	if !a.before.exists && len(a.done) > 0 && a.change.Intent.Action == sdk.Provision {
		// Made a moment ago, with the right expiry, and with nothing else.
		current = state{exists: true, expires: expiryDay(a.change.Intent.ExpiresAt)}
	}
	if op.needed != nil && !op.needed(current) {
		a.tell(op, sdk.StepSkipped, op.Title)
		return nil
	}
	a.tell(op, sdk.StepStarted, op.Title)
	script := transport.Script{Text: op.Command, Changes: op.Changes}
	if op.input {
		line := append([]byte(a.change.Intent.Account+":"), a.change.Password.Bytes()...)
		script.Input = sdk.NewSecret(append(line, '\n'))
		defer script.Input.Wipe()
	}
	if op.uid {
		script.Args = uidArg(a.before)
	}
	out, err := a.host.Script(ctx, script)
	if err != nil {
		a.tell(op, sdk.StepFailed, sdk.ErrorText(err))
		return a.uncertain(err)
	}
	switch {
	case op.already != 0 && out.Status == op.already:
		a.tell(op, sdk.StepSkipped, op.Title)
		return nil
	case op.ID == "create" && out.Status == 9 && a.madeMeanwhile(ctx):
		// An attempt whose connection was lost may still have been at work when we looked.
	case op.ID == "remove" && out.Status == 12: // userdel(8): the home directory cannot be removed
		a.residue = append(a.residue, "home directory "+a.before.home+" was not removed")
	case out.Status != 0:
		err := a.failure(op, out)
		a.tell(op, sdk.StepFailed, sdk.ErrorText(err))
		return err
	}
	if op.Changes {
		a.done = append(a.done, op)
		a.changed = a.changed || op.ID != "password" || a.change.Intent.Action == sdk.Rotate
	}
	message := ""
	switch op.ID {
	case "sessions":
		a.ended = a.before.sessions
		message = fmt.Sprintf("%d sessions ended", a.ended)
	case "leftovers":
		for line := range strings.Lines(out.Stdout) {
			a.residue = append(a.residue, fmt.Sprintf("file of uid %d: %s", a.before.uid, strings.TrimSpace(line)))
		}
		message = fmt.Sprintf("%d files left", len(a.residue))
	}
	a.tell(op, sdk.StepDone, message)
	return nil
}

// madeMeanwhile reports whether the account that useradd found is the one we were to make.
func (a *application) madeMeanwhile(ctx context.Context) bool {
	s, err := readState(ctx, a.host, a.change.Intent.Account)
	return err == nil && s.exists && s.owner() == a.change.Intent.AccountID
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

// failure explains a step the host refused.
func (a *application) failure(op operation, out transport.Output) error {
	said := out.Stderr
	if p := a.change.Password.Reveal(); p != "" {
		said = strings.ReplaceAll(said, p, "********")
	}
	if said == "" {
		said = "exit status " + strconv.Itoa(out.Status)
	}
	e := sdk.Errorf(sdk.ClassProtocol, "%s failed: %s", op.title(), said)
	has := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(strings.ToLower(said), t) })
	}
	switch {
	case op.ID == "create" && out.Status == 9: // useradd(8): the name is in use, also as that of a group
		e.Class = sdk.ClassExists
	case op.ID == "sudoers" && out.Status == 78:
		e.Message = "the host's /etc/sudoers does not include the directory /etc/sudoers.d"
		e.Class, e.Fix = sdk.ClassUnsupported, `add "@includedir /etc/sudoers.d" to it, or choose another role`
	case op.ID == "sudoers" && out.Status == 79:
		e.Message = "sudo does not accept the rules together with those the host has"
		e.Class, e.Fix = sdk.ClassUnsupported, "run visudo -c on the host and mend what it names"
	case has("no space left", "disk quota"):
		e.Class, e.Fix = sdk.ClassBusy, "free space on the host's disk"
	case has("cannot lock", "try again later", "resource temporarily", "existing lock file"):
		e.Class, e.Fix = sdk.ClassBusy, "somebody else is changing the host's account database; try again"
	case has("read-only file system", "permission denied", "operation not permitted"):
		e.Class = sdk.ClassNotPermitted
	case op.ID == "password" && has("bad password", "too short", "too simple", "too long", "dictionary", "already used",
		"has been used", "is a palindrome", "must choose a longer"):
		e.Class, e.Fix = sdk.ClassPolicyRejected, "generate a password that keeps the host's own rules"
	case op.ID == "unlock" && has("passwordless"):
		e.Class, e.Fix = sdk.ClassPolicyRejected, "rotate the account's password first"
	case op.ID == "sessions" && out.Status == 75, op.ID == "remove" && out.Status == 8:
		e.Class, e.Fix = sdk.ClassBusy, "processes of the account cannot be ended; try again"
	}
	return e
}

// undo compensates what was done, last first, beginning with the step that failed,
// which may have done half of its work. It returns err, completed.
func (a *application) undo(ctx context.Context, failed operation, err error) error {
	e, ok := err.(*sdk.Error) //nolint:errorlint // errors of do are not wrapped
	if !ok || e.Class == sdk.ClassUnknownOutcome || a.change.Intent.Action != sdk.Provision {
		return err
	}
	var left []string
	for _, op := range slices.Backward(append(slices.Clone(a.done), failed)) {
		if op.Compensation == "" {
			continue
		}
		undone, err := a.compensate(ctx, op)
		if err != nil || !undone {
			left = append(left, "not undone: "+op.Command)
			a.tell(op, sdk.StepInfo, "could not be undone: "+op.Compensation)
			continue
		}
		a.tell(op, sdk.StepInfo, "undone: "+op.Compensation)
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
func (a *application) compensate(ctx context.Context, op operation) (bool, error) {
	if op.ID == "create" {
		s, err := readState(ctx, a.host, a.change.Intent.Account)
		if err != nil {
			return false, err
		}
		if !s.exists || s.owner() != a.change.Intent.AccountID {
			return true, nil
		}
	}
	out, err := a.host.Script(ctx, transport.Script{Text: op.Compensation, Changes: true})
	if err != nil {
		return false, err
	}
	// gpasswd refuses to remove who is not a member, which is what was wanted.
	return out.Status == 0 || strings.HasPrefix(op.ID, "group-"), nil
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
