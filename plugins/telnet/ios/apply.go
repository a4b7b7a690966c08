package ios

import (
	"context"
	"maps"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// application is one Apply under way.
type application struct {
	s        *session
	in       sdk.Intent
	password sdk.Secret
	before   *user // nil: the account is not there

	created bool   // the account was made by this call
	sent    bool   // something was changed
	wanted  secret // what the account's secret shall be
	ended   int    // sessions
	learnt  map[string]string
}

// Apply implements sdk.Provisioner.
func (Profile) Apply(ctx context.Context, t sdk.Target, ch sdk.Change, progress sdk.Progress) (sdk.Result, error) {
	in := ch.Intent
	ops, err := operations(in)
	if err != nil {
		return sdk.Result{}, err
	}
	if sdk.PlanHash(planOf(in, ops)) != sdk.PlanHash(ch.Plan) {
		return sdk.Result{}, sdk.Errorf(sdk.ClassPlanChanged, "the plan is not what would be done on this device; nothing was done").
			WithFix("plan again and have that plan approved")
	}
	s, err := manage(ctx, t)
	if err != nil {
		return sdk.Result{}, err
	}
	defer s.Close()
	users, err := s.users()
	if err != nil {
		return sdk.Result{}, err
	}
	a := &application{s: s, in: in, password: ch.Password, before: users[in.Account], learnt: map[string]string{}}
	if err := a.guard(t.Management.Username); err != nil {
		return sdk.Result{}, err
	}
	for _, op := range ops {
		progress(sdk.Event{Step: op.ID, State: sdk.StepStarted, Message: op.Title})
		done, err := op.do(a)
		if err != nil {
			progress(sdk.Event{Step: op.ID, State: sdk.StepFailed, Message: sdk.ErrorText(err)})
			return sdk.Result{}, a.undo(ops[0].Step, err, progress)
		}
		state := sdk.StepSkipped
		if done {
			state = sdk.StepDone
		}
		progress(sdk.Event{Step: op.ID, State: state})
	}
	return a.result()
}

// result reads back what became of the account.
func (a *application) result() (sdk.Result, error) {
	users, err := a.s.users()
	if err != nil {
		return sdk.Result{}, a.uncertain(err)
	}
	after := users[a.in.Account]
	wrong := func(what string) error {
		return sdk.Errorf(sdk.ClassProtocol, "the device reported success, but account %s %s", a.in.Account, what).
			WithFix("look at the device: another program may manage its accounts")
	}
	switch {
	case a.in.Action == sdk.Deprovision && after != nil:
		return sdk.Result{}, wrong("is still there")
	case a.in.Action != sdk.Deprovision && after == nil:
		return sdk.Result{}, wrong("is not there")
	case after != nil && after.secret != a.wanted:
		return sdk.Result{}, wrong("does not have the secret that was set")
	case a.ended > 0 && after != nil && after.sessions > 0:
		return sdk.Result{}, wrong("still has sessions")
	}
	changed := a.ended > 0 || (a.before == nil) != (after == nil)
	if a.before != nil && after != nil {
		changed = changed || a.before.secret != after.secret || a.before.privilege != after.privilege
	}
	facts := after.facts(a.in.Account)
	if facts.Attributes != nil {
		maps.Copy(facts.Attributes, a.learnt)
	}
	return sdk.Result{Facts: facts, Changed: changed}, nil
}

// guard refuses accounts that are not the one meant, before anything is touched.
func (a *application) guard(management string) error {
	in, u := a.in, a.before
	if (in.Action == sdk.Disable || in.Action == sdk.Deprovision) && in.Account == management {
		return sdk.Errorf(sdk.ClassInvalid, "%s is the management account, and is never disabled or removed", in.Account)
	}
	if u == nil {
		if in.Action == sdk.Provision || in.Action == sdk.Deprovision {
			return nil
		}
		return sdk.Errorf(sdk.ClassNotFound, "the device has no account %s", in.Account).WithFix("provision it again")
	}
	foreign := func(why string) error {
		return sdk.Errorf(sdk.ClassExists, "account %s exists on the device, %s", in.Account, why).
			WithFix("choose another name, or adopt the account")
	}
	mark := u.secret.mark()
	switch {
	case in.Identity != "" && in.Identity != u.name:
		return foreign("but is not " + in.Identity)
	case mark != "" && mark != markOf(in.AccountID):
		return foreign("and was made for another account id")
	case mark == "" && (in.Identity == "" || in.Action == sdk.Provision || in.Action == sdk.Deprovision):
		return foreign("and was not made by Reeve")
	}
	return nil
}

// uncertain corrects errors that say that nothing was done, once something was.
func (a *application) uncertain(err error) error {
	if !a.sent || sdk.ClassOf(err) == sdk.ClassUnknownOutcome {
		return err
	}
	return sdk.Errorf(sdk.ClassUnknownOutcome, "some steps for account %s were done, others were not: %s", a.in.Account, sdk.ErrorText(err)).
		Wrap(err).WithFix("read the account back, then try again")
}

// undo removes an account that this call made, if a later step failed. It returns err, completed.
func (a *application) undo(create sdk.Step, err error, progress sdk.Progress) error {
	e, ok := err.(*sdk.Error) //nolint:errorlint // errors of steps are not wrapped
	if !ok || e.Class == sdk.ClassUnknownOutcome || !a.created || !a.sent {
		return a.uncertain(err)
	}
	users, readErr := a.s.users()
	if readErr != nil {
		return a.uncertain(readErr)
	}
	u := users[a.in.Account]
	if u == nil || u.secret.mark() != markOf(a.in.AccountID) {
		return err
	}
	completed := *e
	if err := a.config("no username " + a.in.Account); err != nil {
		completed.Details = map[string]string{"residue": "not undone: " + strings.ReplaceAll(create.Command, "\n", "; ")}
		return &completed
	}
	completed.Message += "; the account was removed again"
	progress(sdk.Event{Step: create.ID, State: sdk.StepInfo, Message: "undone: " + strings.ReplaceAll(create.Compensation, "\n", "; ")})
	return &completed
}

// users reads every account of the device.
func (s *session) users() (map[string]*user, error) {
	lines, err := s.command("show running-config | include ^username")
	if err != nil {
		return nil, err
	}
	users := parseUsers(lines)
	if lines, err = s.command("show users"); err != nil {
		return nil, err
	}
	for name, open := range parseSessions(lines) {
		if u := users[name]; u != nil {
			u.sessions = len(open)
		}
	}
	if len(users) == 0 { // the management account is one
		return nil, sdk.Errorf(sdk.ClassProtocol, "%s shows no account at all, not even %s", s.Address(), s.user).
			WithFix(`the device must know its accounts itself ("username", not only a TACACS+ or RADIUS server)`)
	}
	return users, nil
}
