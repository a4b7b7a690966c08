package ios

import (
	"context"
	"fmt"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/telnet/role"
)

// operation is a step of a plan and how it is done. do reports whether there was anything
// to do.
type operation struct {
	sdk.Step
	do func(*application) (bool, error)
}

// Profile is the dialogue with devices.
type Profile struct{}

// Plan implements sdk.Provisioner. It does not connect.
func (Profile) Plan(_ context.Context, _ sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	ops, err := operations(in)
	if err != nil {
		return sdk.Plan{}, err
	}
	return planOf(in, ops), nil
}

func planOf(in sdk.Intent, ops []operation) sdk.Plan {
	p := sdk.Plan{Action: in.Action, Account: in.Account}
	for _, op := range ops {
		p.Steps = append(p.Steps, op.Step)
	}
	return p
}

// configure is how a step in configuration mode is shown.
func configure(line string) string { return "configure terminal\n" + line + "\nend" }

func userCommand(account string, s secret) string {
	return "username " + account + " secret " + secretType + " " + string(s)
}

// operations returns what makes in true, whatever state the account is in.
func operations(in sdk.Intent) ([]operation, error) {
	shown := configure(userCommand(in.Account, "$8$********"))
	remove := "no username " + in.Account
	var ops []operation
	var failed error
	add := func(id, title, command, compensation string, do func(*application) (bool, error)) {
		ops = append(ops, operation{Step: sdk.Step{
			ID: id, Title: title, Command: command, Compensation: compensation, Changes: true,
		}, do: do})
	}
	roleSteps := func(phase sdk.Phase) {
		commands, err := role.Commands(in, phase, role.IOS)
		if err != nil {
			failed = err
		}
		for i, c := range commands {
			add(fmt.Sprintf("%s-%d", phase, i+1), fmt.Sprintf("Role %s, %s", in.Role.Name, phase), configure(c), "",
				func(a *application) (bool, error) { return a.role(phase, c) })
		}
	}
	look := func() { // at the prompt; what finds nothing has not found what it looked for
		for _, phase := range []sdk.Phase{sdk.PhaseVerify, sdk.PhaseFacts} {
			commands, err := role.Commands(in, phase, role.IOS)
			if err != nil {
				failed = err
			}
			for i, c := range commands {
				id := fmt.Sprintf("%s-%d", phase, i+1)
				ops = append(ops, operation{Step: sdk.Step{ID: id, Title: fmt.Sprintf("Role %s, %s", in.Role.Name, phase), Command: c},
					do: func(a *application) (bool, error) { return true, a.look(phase, id, c) }})
			}
		}
	}
	sessions := func() {
		add("sessions", "End every session of the account", "show users\nclear line <each of the account's>", "", (*application).endSessions)
	}
	switch in.Action {
	case sdk.Provision:
		if in.AccountID == "" {
			return nil, sdk.Errorf(sdk.ClassInvalid, "an account is made only for an account id, which marks it on the device")
		}
		add("account", "Make sure that the account exists and has the password", shown, configure(remove), (*application).provision)
		roleSteps(sdk.PhaseCreate)
		roleSteps(sdk.PhaseGrant)
	case sdk.Rotate:
		add("password", "Set the password; an account that is locked stays locked", shown, "", (*application).rotate)
		roleSteps(sdk.PhaseRotate)
	case sdk.Disable:
		add("lock", "Make sure that no password lets anybody in", shown, "", (*application).lock)
		sessions()
		roleSteps(sdk.PhaseDisable)
	case sdk.Enable:
		add("unlock", "Make sure that the account can log in", shown, "", (*application).unlock)
		roleSteps(sdk.PhaseEnable)
	case sdk.Deprovision:
		roleSteps(sdk.PhaseRevoke)
		add("remove", "Make sure that the account is gone", configure(remove), "", (*application).remove)
		sessions()
		roleSteps(sdk.PhaseRemove)
	default:
		return nil, sdk.Errorf(sdk.ClassInvalid, "unknown action %q", in.Action)
	}
	add("save", "Keep the configuration over a restart", "write memory", "", (*application).save)
	if in.Action == sdk.Provision || in.Action == sdk.Rotate || in.Action == sdk.Enable {
		look()
	}
	return ops, failed
}

// mutation is the error of a change that was sent. A device that refuses a command has not
// done it; after anything else nobody knows.
func (a *application) mutation(err error) error {
	switch sdk.ClassOf(err) {
	case "", sdk.ClassInvalid, sdk.ClassNotPermitted:
		return err
	}
	return sdk.Errorf(sdk.ClassUnknownOutcome, "the connection to %s ended while a change was under way", a.s.Address()).
		Wrap(err).WithFix("read the account back before anything else is tried")
}

// config does one line in configuration mode.
func (a *application) config(line string) error {
	if _, err := a.s.command("configure terminal"); err != nil {
		return err
	}
	_, err := a.s.command(line)
	if c := sdk.ClassOf(err); c == "" || c == sdk.ClassInvalid || c == sdk.ClassNotPermitted {
		if _, back := a.s.command("end"); back != nil && err == nil {
			err = back
		}
	}
	if err == nil {
		a.sent = true
	}
	return a.mutation(err)
}

func (a *application) setSecret(s secret) error {
	err := a.config(userCommand(a.in.Account, s))
	if e, ok := err.(*sdk.Error); ok && e.Class == sdk.ClassInvalid { //nolint:errorlint // not wrapped
		return sdk.Errorf(sdk.ClassUnsupported, "%s does not take secrets of type 8", a.s.Address()).Wrap(err).
			WithFix("update the device: IOS knows them since 15.3(3)M")
	}
	a.wanted = s
	return err
}

func (a *application) provision() (bool, error) {
	if u := a.before; u != nil && u.secret.is(a.password) && !u.secret.locked() {
		a.wanted = u.secret
		return false, nil
	}
	s, err := newSecret(a.password, markOf(a.in.AccountID))
	if err != nil {
		return false, err
	}
	a.created = a.before == nil
	return true, a.setSecret(s)
}

func (a *application) rotate() (bool, error) {
	s, err := newSecret(a.password, a.before.secret.mark())
	if err != nil {
		return false, err
	}
	if a.before.secret.locked() {
		s = s.lock()
	}
	return true, a.setSecret(s)
}

func (a *application) lock() (bool, error) {
	switch {
	case a.before.secret.locked():
		a.wanted = a.before.secret
		return false, nil
	case !a.before.secret.lockable():
		return false, sdk.Errorf(sdk.ClassUnsupported, "a device cannot lock an account, and the password of %s was not set by Reeve, "+
			"so that it could not be put back", a.in.Account).WithFix("rotate the account's password first")
	}
	return true, a.setSecret(a.before.secret.lock())
}

func (a *application) unlock() (bool, error) {
	if !a.before.secret.locked() {
		a.wanted = a.before.secret
		return false, nil
	}
	return true, a.setSecret(a.before.secret.unlock())
}

func (a *application) remove() (bool, error) {
	if a.before == nil {
		return false, nil
	}
	return true, a.config("no username " + a.in.Account)
}

func (a *application) role(phase sdk.Phase, command string) (bool, error) {
	if phase == sdk.PhaseRevoke && a.before == nil {
		return false, nil
	}
	return true, a.config(command)
}

// look does a command of the role that only reads.
func (a *application) look(phase sdk.Phase, id, command string) error {
	lines, err := a.s.command(command)
	if phase == sdk.PhaseFacts && err == nil {
		for i, l := range lines {
			lines[i] = mask(l)
		}
		text := strings.TrimSpace(strings.Join(lines, "\n"))
		a.learnt[id] = strings.ToValidUTF8(text[:min(len(text), 1<<10)], "")
	}
	found := strings.TrimSpace(strings.Join(lines, "")) != ""
	if phase == sdk.PhaseVerify && (err == nil && !found || sdk.ClassOf(err) == sdk.ClassInvalid) {
		return sdk.Errorf(sdk.ClassProtocol, "%s at %s: the role's command finds nothing, so the role is not what it should be", id, a.s.Address()).
			WithFix("look at the account on the device, and at the role")
	}
	return err
}

func (a *application) endSessions() (bool, error) {
	lines, err := a.s.command("show users")
	if err != nil {
		return false, err
	}
	open := parseSessions(lines)[a.in.Account]
	for _, n := range open {
		if _, err := a.s.command(fmt.Sprintf("clear line %d", n)); err != nil {
			return false, a.mutation(err)
		}
		a.sent = true
	}
	a.ended = len(open)
	return len(open) > 0, nil
}

// save writes the running configuration to where the device starts from.
func (a *application) save() (bool, error) {
	lines, err := a.s.command("write memory")
	if err == nil && !strings.Contains(strings.Join(lines, "\n"), "[OK]") {
		err = sdk.Errorf(sdk.ClassInvalid, "no [OK]")
	}
	if sdk.ClassOf(err) == sdk.ClassInvalid {
		return false, sdk.Errorf(sdk.ClassProtocol, "%s did not save its configuration: a restart would undo what was done", a.s.Address()).
			Wrap(err).WithFix(`see what "write memory" says at the device`)
	}
	return true, a.mutation(err)
}
