package main

import (
	"context"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/recipe"
)

// mask stands for the password in plans.
const mask = "N'********'"

// step is one step and how it is done: Do reports whether there was anything to do.
type step = recipe.Step[*work]

// Plan implements sdk.Provisioner. What is done does not depend on the server.
func (connector) Plan(_ context.Context, t sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	steps, err := steps(t, in)
	return recipe.Plan(in, steps), err
}

// steps is what makes an intent true.
func steps(t sdk.Target, in sdk.Intent) ([]step, error) {
	who, err := ident(in.Account)
	if err != nil {
		return nil, err
	}
	if strings.EqualFold(in.Account, t.Management.Username) && (in.Action == sdk.Disable || in.Action == sdk.Deprovision) {
		return nil, sdk.Errorf(sdk.ClassInvalid, "%s is the management account; without it nothing more can be done", in.Account).
			WithFix("give the asset another management account first")
	}
	b := builder{in: in}
	enable := b.step("enable", "Make sure that the login is enabled", "ALTER LOGIN "+who+" ENABLE", (*work).enable)
	disable := b.step("disable", "Disable the login", "ALTER LOGIN "+who+" DISABLE", (*work).disable)
	kill := b.step("kill", "End the login's sessions", "KILL (each session of "+in.Account+")", (*work).kill)
	password := b.step("password", "Set the password", "ALTER LOGIN "+who+" WITH PASSWORD = "+mask+" UNLOCK", (*work).setPassword)
	switch in.Action {
	case sdk.Provision:
		sid := ""
		if m := mark(in.AccountID); m != nil {
			sid = ", SID = 0x" + strings.ToUpper(hex.EncodeToString(m))
		}
		create := b.step("create", "Make sure that the login exists",
			"CREATE LOGIN "+who+" WITH PASSWORD = "+mask+sid+", DEFAULT_DATABASE = [master], CHECK_EXPIRATION = OFF, CHECK_POLICY = ON", (*work).create)
		create.Compensation = "DROP LOGIN " + who
		b.add(create)
		b.role(sdk.PhaseCreate)
		b.role(sdk.PhaseGrant)
		b.add(password, enable)
		b.look()
	case sdk.Rotate:
		b.add(password)
		b.role(sdk.PhaseRotate)
		b.look()
	case sdk.Enable:
		b.add(enable)
		b.role(sdk.PhaseEnable)
		b.look()
	case sdk.Disable:
		b.add(disable, kill)
		b.role(sdk.PhaseDisable)
	case sdk.Deprovision:
		b.add(disable, kill)
		b.role(sdk.PhaseRevoke)
		b.add(
			b.step("owned", "Give databases and jobs that the login owns to sa",
				"ALTER AUTHORIZATION ON DATABASE::(each) TO [sa]; EXEC msdb.dbo.sp_update_job (each)", (*work).giveAway),
			b.step("users", "Drop the login's users in every database; what they own goes to dbo",
				"ALTER AUTHORIZATION ON SCHEMA::(each) TO [dbo]; ALTER AUTHORIZATION ON ROLE::(each) TO [dbo]; DROP USER (in each database)",
				(*work).dropUsers),
			b.step("drop", "Make sure that the login is gone", "DROP LOGIN "+who, (*work).drop))
		b.role(sdk.PhaseRemove)
	default:
		return nil, sdk.Errorf(sdk.ClassInvalid, "unknown action %q", in.Action).
			WithFix("use a version of this connector that knows it")
	}
	return b.steps, b.err
}

type builder struct {
	in    sdk.Intent
	steps []step
	err   error // the first
}

func (b *builder) step(id, title, command string, do func(*work, context.Context, sdk.Step) (bool, error)) step {
	s := sdk.Step{ID: id, Title: title, Command: command, Changes: true}
	return step{Step: s, Do: func(ctx context.Context, w *work) (bool, error) { return do(w, ctx, s) }}
}

func (b *builder) add(s ...step) { b.steps = append(b.steps, s...) }

// look adds the role's commands that only read.
func (b *builder) look() {
	b.role(sdk.PhaseVerify)
	b.role(sdk.PhaseFacts)
}

// role adds the role's commands for a phase. Each phase begins in the database master.
func (b *builder) role(phase sdk.Phase) {
	database := ""
	for i, command := range b.in.Role.Phases[phase] {
		r, err := render(command, b.in.Account, b.in.Params)
		if err != nil && b.err == nil {
			b.err = err
		}
		id, title := string(phase)+"-"+strconv.Itoa(i+1), "The role's command"
		if r.use != "" {
			database = r.use
			s := b.step(id, "Work in the database "+database, r.sql, nil)
			s.Changes = false
			s.Do = func(ctx context.Context, w *work) (bool, error) { return false, w.enter(ctx, phase, r.use) }
			b.add(s)
			continue
		}
		if r.modern != "" {
			title += "; today one writes " + r.modern
		}
		s := b.step(id, title, r.sql, nil)
		where := database
		if phase == sdk.PhaseVerify || phase == sdk.PhaseFacts {
			if err == nil && b.err == nil && !r.reads {
				b.err = sdk.Errorf(sdk.ClassInvalid, "the role's command %q does more than to read, in the phase %s", command, phase).
					WithFix("use one SELECT there")
			}
			s.Title, s.Changes = "Make sure that the role's command finds something", false
			if phase == sdk.PhaseFacts {
				s.Title = "Read what the role wants to know"
			}
			s.Do = func(ctx context.Context, w *work) (bool, error) { return false, w.look(ctx, phase, where, r.sql, id) }
			b.add(s)
			continue
		}
		s.Do = func(ctx context.Context, w *work) (bool, error) { return w.command(ctx, phase, where, r, id) }
		b.add(s)
	}
}
