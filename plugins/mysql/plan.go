package main

import (
	"context"
	"strconv"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/recipe"
)

// step is one step and how it is done: Do reports whether there was anything to do.
type step = recipe.Step[*work]

// Plan implements sdk.Provisioner.
func (c connector) Plan(ctx context.Context, t sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	srv, err := parsed(t.Fingerprint.Product, t.Fingerprint.Version)
	if t.Fingerprint.Product == "" { // never probed
		var s *session
		if s, err = c.manage(ctx, t); err == nil {
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
	host, err := accountHost(t)
	if err != nil {
		return nil, err
	}
	who, err := pair(in.Account, host)
	if err != nil {
		return nil, err
	}
	if in.Account == t.Management.Username && (in.Action == sdk.Disable || in.Action == sdk.Deprovision) {
		return nil, sdk.Errorf(sdk.ClassInvalid, "%s is the management account; without it nothing more can be done", in.Account).
			WithFix("give the asset another management account first")
	}
	b := builder{in: in, host: host}
	password := b.step("password", "Set the password",
		"ALTER USER "+who+" "+srv.identifiedBy(mask), (*work).setPassword)
	lock := b.step("lock", "Lock the account, in every host entry of ours",
		"ALTER USER "+who+" ACCOUNT LOCK", (*work).lock)
	unlock := b.step("unlock", "Make sure that the account is not locked",
		"ALTER USER "+who+" ACCOUNT UNLOCK", (*work).unlock)
	kill := b.step("kill", "End the account's sessions",
		"KILL CONNECTION (each session of "+in.Account+")", (*work).kill)
	switch in.Action {
	case sdk.Provision:
		document, err := srv.attributeClause(in)
		if err != nil {
			return nil, err
		}
		require := ""
		if t.Options[optionTLS] != "no" {
			require = " REQUIRE SSL"
		}
		create := b.step("create", "Make sure that the account exists; a new one is locked until its rights are in place",
			"CREATE USER "+who+" "+srv.identifiedBy(mask)+require+srv.markClause(in)+" ACCOUNT LOCK"+document, (*work).create)
		create.Compensation = "DROP USER " + who
		b.add(create)
		b.role(sdk.PhaseCreate)
		if granted := b.role(sdk.PhaseGrant); granted != "" {
			b.add(b.step("default-role", "Make the granted role active at login",
				defaultRole(srv, granted, who), (*work).grant))
		}
		b.add(password, unlock)
		b.look()
	case sdk.Rotate:
		b.add(password)
		b.role(sdk.PhaseRotate)
		b.look()
	case sdk.Enable:
		b.role(sdk.PhaseEnable)
		b.add(unlock)
		b.look()
	case sdk.Disable:
		b.add(lock)
		b.role(sdk.PhaseDisable)
		b.add(kill)
	case sdk.Deprovision:
		definers := b.step("definers", "Look for views, routines, triggers and events that run as the account",
			"SELECT … FROM information_schema … WHERE DEFINER = "+who, (*work).definers)
		definers.Changes = false
		b.add(definers, lock)
		b.role(sdk.PhaseRevoke)
		b.add(b.step("revoke-all", "Take away all rights",
			"REVOKE ALL PRIVILEGES, GRANT OPTION FROM "+who, (*work).revokeAll), kill)
		b.role(sdk.PhaseRemove)
		b.add(b.step("drop", "Make sure that the account is gone, with every other host entry of ours",
			"DROP USER "+who, (*work).drop))
	default:
		return nil, sdk.Errorf(sdk.ClassInvalid, "unknown action %q", in.Action)
	}
	return b.steps, b.err
}

// defaultRole: without it a granted role is there and does nothing.
// https://mariadb.com/kb/en/set-default-role/
// https://dev.mysql.com/doc/refman/8.0/en/set-default-role.html
func defaultRole(srv server, role, who string) string {
	if srv.product == mariaDB { // it has one default role
		return "SET DEFAULT ROLE " + role + " FOR " + who
	}
	return "SET DEFAULT ROLE ALL TO " + who
}

type builder struct {
	in    sdk.Intent
	host  string
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

// role adds the role's commands for a phase. It returns the first role of the server
// they grant, if any.
func (b *builder) role(phase sdk.Phase) (granted string) {
	for i, command := range b.in.Role.Phases[phase] {
		r, err := render(command, b.in.Account, b.host, b.in.Params)
		if err != nil && b.err == nil {
			b.err = err
		}
		if granted == "" {
			granted = r.role()
		}
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
		if !changes && err == nil && b.err == nil && r.verb() != "SELECT" && r.verb() != "SHOW" {
			b.err = sdk.Errorf(sdk.ClassInvalid, "the role's command %q changes something in the phase %s", command, phase).
				WithFix("use SELECT or SHOW there")
		}
		s := b.step(string(phase)+"-"+strconv.Itoa(i+1), title, r.sql, do)
		s.Changes = changes
		b.add(s)
	}
	return granted
}
