package main

import (
	"context"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/recipe"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// step is one step and how it is done: Do reports whether there was anything to do.
type step = recipe.Step[*work]

// Plan implements sdk.Provisioner. It does not connect: what is done is the same on every host.
func (connector) Plan(_ context.Context, t sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	steps, err := steps(t, in)
	return recipe.Plan(in, steps), err
}

// steps is what makes an intent true.
func steps(t sdk.Target, in sdk.Intent) ([]step, error) {
	if own, _ := strings.CutPrefix(t.Management.Username, `.\`); strings.EqualFold(in.Account, own) && in.Action != sdk.Rotate {
		// Of one with the name of a domain or the host before it, Apply tells by the SID.
		return nil, sdk.Errorf(sdk.ClassInvalid, "%s is the management account; without it nothing more can be done", in.Account).
			WithFix("give the asset another management account first")
	}
	b := builder{in: in}
	name := map[string]any{"account": in.Account}
	expires := map[string]any{"account": in.Account, "expires": seconds(in.ExpiresAt)}
	enable := b.step("enable", "Make sure that the account can log in until it expires", scriptEnable, expires, (*work).enable)
	disable := b.step("disable", "Make sure that the account is disabled", scriptDisable, name, (*work).disable)
	sessions := b.step("sessions", "End every session and process of the account", scriptSessions, name, (*work).endSessions)
	switch in.Action {
	case sdk.Provision:
		if in.AccountID == "" {
			return nil, sdk.Errorf(sdk.ClassInvalid, "an account is made only for an account id, which marks it on the host").WithFix("give one")
		}
		create := b.step("create", "Make sure that the account exists; a new one is disabled until its rights are in place", scriptCreate,
			map[string]any{
				"account": in.Account, "temporary": temporary(in.AccountID), "description": mark(in.AccountID), "fullname": in.Comment,
				"expires": seconds(in.ExpiresAt),
			}, (*work).create)
		create.Command += " " + mask
		create.Compensation = command(scriptRemove, name)
		b.add(create)
		b.role(sdk.PhaseCreate)
		b.role(sdk.PhaseGrant)
		b.add(b.password(true), enable)
	case sdk.Rotate:
		b.add(b.password(false))
		b.role(sdk.PhaseRotate)
	case sdk.Enable:
		b.add(enable)
		b.role(sdk.PhaseEnable)
	case sdk.Disable:
		b.add(disable)
		b.role(sdk.PhaseDisable)
		b.add(sessions)
	case sdk.Deprovision:
		dependents := b.step("dependents", "Look for services and scheduled tasks that run as the account", scriptDependents, name, (*work).dependents)
		dependents.Changes = false
		b.add(dependents)
		b.role(sdk.PhaseRevoke)
		b.add(disable, sessions,
			b.step("remove", "Make sure that the account and its profile are gone", scriptRemove, name, (*work).remove))
		b.role(sdk.PhaseRemove)
	default:
		return nil, sdk.Errorf(sdk.ClassInvalid, "unknown action %q", in.Action)
	}
	return b.steps, b.err
}

// mask stands in plans where a password is sent.
const mask = "********"

// command is what a step does, for plans: which version of which script, and what it is given.
func command(sc script, args map[string]any) string {
	j, _ := json.Marshal(args) // strings and numbers always marshal
	return sc.name + ".ps1 (" + sc.id() + ") " + string(j)
}

type builder struct {
	in    sdk.Intent
	steps []step
	err   error // the first
}

type doing func(w *work, ctx context.Context, s sdk.Step, args map[string]any) (bool, error)

func (b *builder) step(id, title string, sc script, args map[string]any, do doing) step {
	s := sdk.Step{ID: id, Title: title, Command: command(sc, args), Changes: true}
	return step{Step: s, Do: func(ctx context.Context, w *work) (bool, error) { return do(w, ctx, s, args) }}
}

func (b *builder) password(check bool) step {
	s := b.step("password", "Set the password", scriptPassword, map[string]any{"account": b.in.Account, "check": check}, (*work).setPassword)
	s.Command += " " + mask
	return s
}

func (b *builder) add(s ...step) { b.steps = append(b.steps, s...) }

// role adds the role's commands for a phase.
func (b *builder) role(phase sdk.Phase) {
	for i, text := range b.in.Role.Phases[phase] {
		rendered, err := render(text, b.in.Account, b.in.Params)
		if err != nil {
			if b.err == nil {
				b.err = sdk.Errorf(sdk.ClassInvalid, "role %s, phase %s, command %d: %v", b.in.Role.Name, phase, i+1, err).WithFix("correct the command")
			}
			return
		}
		id := string(phase) + "-" + strconv.Itoa(i+1)
		if m := rightCommand.FindStringSubmatch(rendered); m != nil && m[3] == b.in.Account {
			b.add(b.step(id, "The role's command", scriptRight,
				map[string]any{"account": b.in.Account, "right": m[2], "add": m[1] == "Add"}, (*work).right))
			continue
		}
		b.add(b.step(id, "The role's command", scriptRole, map[string]any{"command": rendered}, roleCommand(phase)))
	}
}

// rightCommand is the one command that is not PowerShell's own. Windows has no cmdlet for account rights; a script does it.
var rightCommand = regexp.MustCompile(`^(Add|Remove)-AccountRight -Right (Se[A-Za-z]{1,60}) -Member '([^'‘’‚‛]{1,20})'$`)

// render fills in a role's command.
func render(text, account string, params map[string]string) (string, error) {
	c, err := template.PowerShell.Parse(text)
	if err != nil {
		return "", err
	}
	return c.Render(func(s template.Slot) (string, error) {
		if s.Name == sdk.UsernamePlaceholder {
			return account, nil
		}
		return params[s.Name], nil
	}, nil)
}
