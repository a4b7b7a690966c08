package main

import (
	"context"
	"strconv"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/recipe"
)

// step is one step and how it is done: Do reports whether there was anything to do.
type step = recipe.Step[*work]

// Plan implements sdk.Provisioner. It needs no server: what is done is the same on all.
func (connector) Plan(_ context.Context, t sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	steps, err := steps(t, in)
	if err != nil {
		return sdk.Plan{}, err
	}
	return recipe.Plan(in, steps), nil
}

// steps is what makes an intent true.
func steps(t sdk.Target, in sdk.Intent) ([]step, error) {
	if err := allowedName(in.Account); err != nil {
		return nil, err
	}
	if in.Account == t.Management.Username && (in.Action == sdk.Disable || in.Action == sdk.Deprovision) {
		return nil, sdk.Errorf(sdk.ClassInvalid, "%s is the management account; without it nothing more can be done", in.Account).
			WithFix("give the asset another management account first")
	}
	limit, err := connectionLimit(t)
	if err != nil {
		return nil, err
	}
	b := builder{in: in, values: map[string]string{
		"Username": in.Account, "Verifier": mask, "Limit": limit, "Until": until(in.ExpiresAt),
		"Comment": marked(in), "Custodian": custodian(t, in),
	}}
	switch in.Action {
	case sdk.Provision:
		b.provision()
	case sdk.Rotate:
		b.change("password", "Set the password", setPassword+ifExpires(in), (*work).setPassword)
		b.role(sdk.PhaseRotate)
		b.commit()
	case sdk.Enable:
		b.change("login", "Make sure that the account may log in", allowLogin+ifExpires(in), (*work).allowLogin)
		b.role(sdk.PhaseEnable)
		b.commit()
	case sdk.Disable:
		b.endLogins()
		if b.role(sdk.PhaseDisable) {
			b.commit()
		}
	case sdk.Deprovision:
		b.endLogins()
		if b.role(sdk.PhaseRevoke) {
			b.commit()
		}
		b.remove()
	default:
		return nil, sdk.Errorf(sdk.ClassInvalid, "unknown action %q", in.Action)
	}
	return b.steps, b.err
}

// Statements that several actions use. A password that expires is what an account of this
// kind has instead of an end of its own.
const (
	setPassword = "ALTER ROLE %Username% PASSWORD '%Verifier%'" //nolint:gosec // a statement
	allowLogin  = "ALTER ROLE %Username% LOGIN"
	validUntil  = " VALID UNTIL '%Until%'"
)

func ifExpires(in sdk.Intent) string {
	if in.ExpiresAt.IsZero() {
		return ""
	}
	return validUntil
}

func until(t time.Time) string {
	if t.IsZero() {
		return "infinity"
	}
	return t.UTC().Format("2006-01-02 15:04:05.999999Z07:00")
}

type builder struct {
	in      sdk.Intent
	values  map[string]string // of the placeholders in our own statements
	steps   []step
	commits int
	err     error // the first
}

func (b *builder) provision() {
	b.change("create", "Make sure that the account exists",
		"CREATE ROLE %Username% LOGIN PASSWORD '%Verifier%' CONNECTION LIMIT "+b.values["Limit"]+ifExpires(b.in), (*work).create)
	b.steps[0].Compensation = "ROLLBACK"
	if b.values["Comment"] != "" {
		b.change("mark", "Mark a new account as ours", "COMMENT ON ROLE %Username% IS '%Comment%'", (*work).mark)
	}
	b.role(sdk.PhaseCreate)
	b.role(sdk.PhaseGrant)
	b.change("password", "Make sure that an account that was there has the password", setPassword, (*work).keepPassword)
	b.change("login", "Make sure that it may log in until then", allowLogin+validUntil, (*work).allowLogin)
	b.commit()
}

func (b *builder) endLogins() {
	b.change("lock", "Make sure that the account may not log in", "ALTER ROLE %Username% NOLOGIN", (*work).lock)
	b.commit()
	b.add("terminate", "End the account's sessions",
		"SELECT pg_terminate_backend(pid) (each session of "+b.in.Account+")", (*work).terminate)
}

func (b *builder) remove() {
	to := "CURRENT_USER"
	if b.values["Custodian"] != "" {
		to = "%Custodian%"
	}
	b.change("owned", "Give away what the account owns and take away its rights, in each database where it has any",
		"REASSIGN OWNED BY %Username% TO "+to, (*work).giveAway)
	last := &b.steps[len(b.steps)-1]
	if who, err := fill("%Username%", b.values); err == nil {
		last.Command = "GRANT " + who + " TO CURRENT_USER; " + last.Command + "; DROP OWNED BY " + who
	}
	b.change("drop", "Make sure that the account is gone", "DROP ROLE %Username%", (*work).drop)
	b.role(sdk.PhaseRemove)
	b.commit()
}

// add adds a step whose command is text for people.
func (b *builder) add(id, title, command string, do func(*work, context.Context, string) (bool, error)) {
	s := sdk.Step{ID: id, Title: title, Command: command, Changes: true}
	b.steps = append(b.steps, step{Step: s, Do: func(ctx context.Context, w *work) (bool, error) { return do(w, ctx, command) }})
}

// change adds a step that sends a statement of ours. The step's function gets the statement
// with the verifier in the place of the mask.
func (b *builder) change(id, title, statement string, do func(*work, context.Context, string) (bool, error)) {
	masked, err := fill(statement, b.values)
	if err != nil && b.err == nil {
		b.err = err
	}
	s := sdk.Step{ID: id, Title: title, Command: masked, Changes: true}
	b.steps = append(b.steps, step{Step: s, Do: func(ctx context.Context, w *work) (bool, error) {
		text, err := w.statement(statement, b.values)
		if err != nil {
			return false, err
		}
		return do(w, ctx, text)
	}})
}

// commit makes true at once what the steps since the last one did.
func (b *builder) commit() {
	b.commits++
	id := "commit"
	if b.commits > 1 {
		id += "-" + strconv.Itoa(b.commits)
	}
	b.add(id, "Make all of it true at once", "COMMIT", (*work).commitStep)
}

// role adds the role's commands for a phase and reports whether there are any.
func (b *builder) role(phase sdk.Phase) bool {
	commands := b.in.Role.Phases[phase]
	for i, command := range commands {
		text, err := render(command, b.in.Account, b.in.Params)
		if err != nil && b.err == nil {
			b.err = err
		}
		do := (*work).run
		switch phase {
		case sdk.PhaseGrant:
			do = (*work).grant
		case sdk.PhaseRevoke, sdk.PhaseRemove:
			do = (*work).revoke
		}
		b.add(string(phase)+"-"+strconv.Itoa(i+1), "The role's command", text, do)
	}
	return len(commands) > 0
}
