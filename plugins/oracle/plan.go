package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/recipe"
)

// mask stands for the password in plans.
const mask = `"********"`

// step is one step and how it is done: Do reports whether there was anything to do.
type step = recipe.Step[*work]

// Plan implements sdk.Provisioner.
func (connector) Plan(ctx context.Context, t sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	srv, err := parsed(t.Fingerprint.Product, t.Fingerprint.Version)
	if t.Fingerprint.Product == "" { // never probed
		var s *session
		if s, err = connect(ctx, t); err == nil {
			srv = s.server
			s.close()
		}
	}
	if err != nil {
		return sdk.Plan{}, err
	}
	steps, err := steps(srv, t, in)
	return recipe.Plan(in, steps), err
}

// steps is what makes an intent true on a server of this kind.
func steps(srv server, t sdk.Target, in sdk.Intent) ([]step, error) {
	if limit := srv.nameLimit(); len(in.Account) > limit {
		return nil, sdk.Errorf(sdk.ClassInvalid, "the account name is longer than the %d bytes that Oracle %s takes", limit, srv.version()).
			WithFix("choose a shorter name")
	}
	who, err := name(in.Account)
	if err != nil {
		return nil, err
	}
	manager, err := managementName(t.Management.Username)
	if err != nil {
		return nil, err
	}
	if in.Account == strings.Trim(manager, `"`) && (in.Action == sdk.Disable || in.Action == sdk.Deprovision) {
		return nil, sdk.Errorf(sdk.ClassInvalid, "%s is the management account; without it nothing more can be done", in.Account).
			WithFix("give the asset another management account first")
	}
	b := builder{server: srv, target: t, in: in, who: who}
	switch in.Action {
	case sdk.Provision:
		b.provision()
	case sdk.Rotate:
		b.password()
		b.role(sdk.PhaseRotate)
		b.look()
	case sdk.Enable:
		b.add("unlock", "Make sure that the account is not locked", "ALTER USER "+who+" ACCOUNT UNLOCK", (*work).unlock)
		b.role(sdk.PhaseEnable)
		b.look()
	case sdk.Disable:
		b.add("lock", "Lock the account", "ALTER USER "+who+" ACCOUNT LOCK", (*work).lock)
		b.role(sdk.PhaseDisable)
		b.kill()
	case sdk.Deprovision:
		b.deprovision()
	default:
		return nil, sdk.Errorf(sdk.ClassInvalid, "unknown action %q", in.Action).
			WithFix("use a version of this connector that knows it")
	}
	return b.steps, b.err
}

type builder struct {
	server server
	target sdk.Target
	in     sdk.Intent
	who    string
	steps  []step
	err    error // the first
}

func (b *builder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *builder) add(id, title, command string, do func(*work, context.Context, sdk.Step) (bool, error)) *step {
	s := sdk.Step{ID: id, Title: title, Command: command, Changes: true}
	b.steps = append(b.steps, step{Step: s, Do: func(ctx context.Context, w *work) (bool, error) { return do(w, ctx, s) }})
	return &b.steps[len(b.steps)-1]
}

// provision: the account is locked and has no password until its rights are in place.
func (b *builder) provision() {
	options := map[string]string{}
	for _, o := range []string{optionSpace, optionTemporary, optionProfile} {
		n, err := name(b.target.Options[o])
		if err != nil {
			b.fail(sdk.Errorf(sdk.ClassInvalid, "the option %s cannot be written in SQL", o).
				WithFix("set it to a name without double quotes"))
		}
		options[o] = n
	}
	b.add("create", "Make sure that the account exists; a new one is locked, and without a password, until its rights are in place",
		"CREATE USER "+b.who+" IDENTIFIED EXTERNALLY AS '"+distinguished(b.in.AccountID)+"' DEFAULT TABLESPACE "+options[optionSpace]+
			" TEMPORARY TABLESPACE "+options[optionTemporary]+" PROFILE "+options[optionProfile]+" ACCOUNT LOCK",
		(*work).create).Compensation = "DROP USER " + b.who
	if b.in.AccountID != "" {
		statement, err := markStatement(b.in.AccountID, b.in.Account, "ID<user id>_<created>")
		if err != nil {
			b.fail(err)
		}
		b.add("mark", "Write down that the account is Reeve's", statement, (*work).mark)
	}
	b.role(sdk.PhaseCreate)
	b.add("session", "Allow the account to log in", "GRANT CREATE SESSION TO "+b.who, (*work).grant)
	if b.role(sdk.PhaseGrant) {
		b.add("default-roles", "Make the granted roles active at login", "ALTER USER "+b.who+" DEFAULT ROLE ALL", (*work).defaultRoles)
	}
	b.password()
	b.add("unlock", "Make sure that the account is not locked", "ALTER USER "+b.who+" ACCOUNT UNLOCK", (*work).unlock)
	b.look()
}

func (b *builder) password() {
	b.add("password", "Set the password", "ALTER USER "+b.who+" IDENTIFIED BY "+mask, (*work).setPassword)
	if b.server.rollover() {
		b.add("rollover", "End the time in which the old password is still good, if the profile gives one",
			"ALTER USER "+b.who+" EXPIRE PASSWORD ROLLOVER PERIOD", (*work).endRollover)
	}
}

func (b *builder) kill() {
	command := "ALTER SYSTEM KILL SESSION '<sid>,<serial#>,@<instance>' IMMEDIATE (each session of " + b.in.Account + ")"
	if b.target.Options[optionKill] == rds {
		command = "rdsadmin.rdsadmin_util.kill (each session of " + b.in.Account + ")"
	}
	b.add("kill", "End the account's sessions", command, (*work).kill)
}

func (b *builder) deprovision() {
	b.add("lock", "Lock the account", "ALTER USER "+b.who+" ACCOUNT LOCK", (*work).lock)
	b.role(sdk.PhaseRevoke)
	b.kill()
	drop := "DROP USER " + b.who
	if b.in.Params[paramCascade] == yes {
		drop += " CASCADE"
	} else {
		b.add("objects", "Refuse to go on if the account owns objects: they would be dropped with it",
			"SELECT COUNT(*) FROM dba_objects WHERE owner = :1", (*work).objects).Changes = false
	}
	b.role(sdk.PhaseRemove)
	b.add("drop", "Make sure that the account is gone", drop, (*work).drop)
	if b.in.AccountID != "" {
		m, err := name(markName(b.in.AccountID))
		if err != nil {
			b.fail(err)
		}
		b.add("unmark", "Remove the note that the account is Reeve's", "DROP SYNONYM "+m, (*work).unmark)
	}
}

// look adds the role's commands that only read.
func (b *builder) look() {
	b.role(sdk.PhaseVerify)
	b.role(sdk.PhaseFacts)
}

// role adds the role's commands for a phase. It reports whether they grant roles.
func (b *builder) role(phase sdk.Phase) (grants bool) {
	for i, command := range b.in.Role.Phases[phase] {
		r, err := render(command, b.in.Account, b.in.Params)
		if err != nil {
			b.fail(err)
			return false
		}
		grants = grants || r.grants
		do, title, changes := (*work).run, "The role's command", true
		switch phase {
		case sdk.PhaseVerify:
			do, title, changes = (*work).check, "Make sure that the role's statement finds something", false
		case sdk.PhaseFacts:
			do, title, changes = (*work).learn, "Read what the role wants to know", false
		case sdk.PhaseGrant:
			do = (*work).grant
		case sdk.PhaseRevoke, sdk.PhaseRemove:
			do = (*work).revoke
		}
		if !changes && !r.reads {
			b.fail(sdk.Errorf(sdk.ClassInvalid, "the role's command %q does more than to read, in the phase %s", command, phase).
				WithFix("use one SELECT there"))
		}
		if r.as != "" {
			title += ", in a session AS " + r.as
		}
		b.add(string(phase)+"-"+strconv.Itoa(i+1), title, r.sql, do).Changes = changes
	}
	return grants
}
