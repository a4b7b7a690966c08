package main

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/recipe"
)

// step is one step and how it is done: Do reports whether there was anything to do.
type step = recipe.Step[*work]

// Plan implements sdk.Provisioner. It needs no connection.
func (connector) Plan(_ context.Context, t sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	steps, err := steps(t, in)
	return recipe.Plan(in, steps), err
}

// steps is what makes an intent true.
func steps(t sdk.Target, in sdk.Intent) ([]step, error) {
	p, err := placeOf(t)
	if err != nil {
		return nil, err
	}
	cn, err := rdn(in.Account)
	if err != nil {
		return nil, sdk.Errorf(sdk.ClassInvalid, "the account name cannot be written in a distinguished name")
	}
	if (in.Action == sdk.Disable || in.Action == sdk.Deprovision) && strings.EqualFold(plainName(t.Management.Username), in.Account) {
		return nil, itself(in.Account)
	}
	b := builder{in: in}
	who := "account " + in.Account + ": "
	switch in.Action {
	case sdk.Provision:
		dn, upn := cn+","+p.ou, in.Account+"@"+p.suffix
		create := b.step("create", "Make sure that the account exists; a new one is disabled until its rights are in place",
			"add "+dn+": objectClass user; sAMAccountName "+in.Account+"; userPrincipalName "+upn+"; userAccountControl 514; "+
				settings(in)+markText(in), (*work).create)
		create.Compensation = "delete " + dn
		b.add(create,
			b.step("settings", "Make sure of expiry and description", who+"replace "+settings(in), (*work).settings),
			b.step("password", "Set the password, twice, so that no password before it is accepted any more",
				who+"replace unicodePwd: "+mask+revisionText, (*work).setPassword))
		b.role(sdk.PhaseCreate)
		b.role(sdk.PhaseGrant)
		b.add(b.enable(who))
		if p.quarantine == "" {
			b.takesOnly(sdk.PhaseRemove)
		}
	case sdk.Rotate:
		b.add(b.step("password", "Set the password, twice, so that no password before it is accepted any more",
			who+"replace unicodePwd: "+mask+revisionText, (*work).setPassword),
			b.step("unlock", "Lift a lockout by wrong passwords", who+"replace lockoutTime: 0", (*work).unlock))
		b.role(sdk.PhaseRotate)
	case sdk.Enable:
		b.add(b.enable(who))
		b.role(sdk.PhaseEnable)
	case sdk.Disable:
		b.add(b.disable(who))
		b.role(sdk.PhaseDisable)
	case sdk.Deprovision:
		b.add(b.disable(who))
		b.role(sdk.PhaseRevoke)
		if p.quarantine == "" {
			b.add(b.step("delete", "Make sure that the account is gone", who+"delete", (*work).remove))
		} else {
			b.add(b.step("leave-groups", "Take the account out of every group", who+"delete it from the members of each group", (*work).leaveGroups),
				b.step("scramble", "Set a password that nobody knows, twice", who+"replace unicodePwd: "+mask+revisionText, (*work).scramble),
				b.step("quarantine", "Move the account, and free its names",
					who+"move below "+p.quarantine+"; replace sAMAccountName; delete userPrincipalName", (*work).quarantine))
		}
		b.role(sdk.PhaseRemove)
	default:
		return nil, sdk.Errorf(sdk.ClassInvalid, "unknown action %q", in.Action)
	}
	return b.steps, b.err
}

func itself(account string) error {
	return sdk.Errorf(sdk.ClassInvalid, "%s is the management account; without it nothing more can be done", account).
		WithFix("give the asset another management account first")
}

// plainName is the account's name in NAME, NAME@domain or DOMAIN\NAME.
func plainName(username string) string {
	if _, name, ok := strings.Cut(username, `\`); ok {
		return name
	}
	name, _, _ := strings.Cut(username, "@")
	return name
}

// settings are the attributes that an intent says something about.
func settings(in sdk.Intent) string {
	s := "accountExpires " + strconv.FormatInt(ticksOf(in.ExpiresAt), 10)
	if !in.ExpiresAt.IsZero() {
		s += " (" + in.ExpiresAt.UTC().Format("2006-01-02T15:04:05Z") + ")"
	} else {
		s += " (never)"
	}
	if in.Comment != "" {
		s += "; description " + in.Comment
	}
	return s
}

func markText(in sdk.Intent) string {
	if in.AccountID == "" {
		return revisionText
	}
	return "; " + attributeMark + " " + mark(in.AccountID) + revisionText
}

type builder struct {
	in    sdk.Intent
	steps []step
	err   error // the first
}

func (b *builder) step(id, title, command string, do func(*work, context.Context) (bool, error)) step {
	s := sdk.Step{ID: id, Title: title, Command: command, Changes: true}
	return step{Step: s, Do: func(ctx context.Context, w *work) (bool, error) { return do(w, ctx) }}
}

func (b *builder) add(s ...step) { b.steps = append(b.steps, s...) }

func (b *builder) enable(who string) step {
	return b.step("enable", "Make sure that the account is enabled and not locked out",
		who+"replace userAccountControl: without bit 2; lockoutTime: 0"+revisionText, (*work).enable)
}

func (b *builder) disable(who string) step {
	return b.step("disable", "Disable the account", who+"replace userAccountControl: with bit 2"+revisionText, (*work).disable)
}

// role adds the role's commands for a phase.
func (b *builder) role(phase sdk.Phase) {
	for i, line := range b.in.Role.Phases[phase] {
		a, err := actionOf(line, b.in)
		if err != nil {
			if b.err == nil {
				b.err = badCommand(i, phase, b.in.Role, err)
			}
			continue
		}
		s := sdk.Step{
			ID: string(phase) + "-" + strconv.Itoa(i+1), Title: "The role's command",
			Command: "account " + b.in.Account + ": " + a.String(), Changes: true,
		}
		b.add(step{Step: s, Do: func(ctx context.Context, w *work) (bool, error) { return w.run(ctx, a) }})
	}
}

// takesOnly refuses a role that gives something in a phase in which the account is gone.
func (b *builder) takesOnly(phase sdk.Phase) {
	for i, line := range b.in.Role.Phases[phase] {
		if a, err := actionOf(line, b.in); err == nil && !a.removes() && b.err == nil {
			b.err = badCommand(i, phase, b.in.Role, errors.New("the account is deleted then, unless the option "+optionQuarantine+" is set"))
		}
	}
}

func badCommand(i int, phase sdk.Phase, r sdk.Role, err error) error {
	return sdk.Errorf(sdk.ClassInvalid, "command %d of phase %s of the role %s: %v", i+1, phase, r.Name, err).
		WithFix("correct the role's command, or its parameters")
}
