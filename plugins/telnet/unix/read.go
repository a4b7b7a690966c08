package unix

import (
	"context"
	"errors"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/quote"
	"github.com/reeve-pam/reeve/plugins/sdk/shadow"
	"github.com/reeve-pam/reeve/plugins/telnet/dialogue"
	"github.com/reeve-pam/reeve/plugins/telnet/role"
)

// Profile is the dialogue with Unix hosts.
type Profile struct {
	Shell string // login shell of new accounts
}

// Probe implements sdk.Prober.
func (Profile) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	sh, err := openRoot(ctx, t)
	if sdk.ClassOf(err) == sdk.ClassNotPermitted {
		return sdk.Fingerprint{Product: "linux", Version: "unknown", MissingRights: []string{sdk.ErrorText(err)}}, nil
	}
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	defer sh.Close()
	f, err := shadow.Probe(ctx, sh, "stty")
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	f.Attributes["protection"] = "none"
	return f, nil
}

// Plan implements sdk.Provisioner. It does not connect.
func (p Profile) Plan(_ context.Context, _ sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	steps, err := p.steps(in)
	if err != nil {
		return sdk.Plan{}, err
	}
	return shadow.PlanOf(in, steps), nil
}

// Apply implements sdk.Provisioner.
func (p Profile) Apply(ctx context.Context, t sdk.Target, ch sdk.Change, progress sdk.Progress) (sdk.Result, error) {
	steps, err := p.steps(ch.Intent)
	if err != nil {
		return sdk.Result{}, err
	}
	if err := shadow.SamePlan(ch, steps); err != nil {
		return sdk.Result{}, err
	}
	sh, err := openRoot(ctx, t)
	if err != nil {
		return sdk.Result{}, unchanged(err)
	}
	defer sh.Close()
	if err := sh.Typable(ch.Password); err != nil {
		return sdk.Result{}, unchanged(err)
	}
	return shadow.Apply(ctx, sh, ch, steps, progress)
}

// steps returns what makes in true, whatever state the account is in.
func (p Profile) steps(in sdk.Intent) ([]shadow.Step, error) {
	return shadow.Steps(in, p.Shell, func(phases ...sdk.Phase) ([]shadow.Step, error) {
		var steps []shadow.Step
		for _, phase := range phases {
			commands, err := role.Commands(in, phase, role.Unix)
			if err != nil {
				return nil, err
			}
			for i, c := range commands {
				steps = append(steps, shadow.RoleStep(in, phase, i, c))
			}
		}
		return steps, nil
	})
}

// CheckRights implements sdk.RightsChecker. What a role's own commands need cannot be told from their text; root may do it.
func (Profile) CheckRights(ctx context.Context, t sdk.Target, r sdk.Role, params map[string]string) ([]sdk.Right, error) {
	for phase := range r.Phases {
		if _, err := role.Commands(sdk.Intent{Account: "reeve", Role: r, Params: params}, phase, role.Unix); err != nil {
			return nil, err
		}
	}
	sh, err := openRoot(ctx, t)
	if sdk.ClassOf(err) == sdk.ClassNotPermitted {
		return shadow.NoRoot(t.Management.Username, false), nil
	}
	if err != nil {
		return nil, err
	}
	defer sh.Close()
	n, err := shadow.CheckRights(ctx, sh, []string{"stty"}, nil)
	if err != nil {
		return nil, err
	}
	n.Program("stty", "type without an echo")
	return n.Rights, nil
}

// Verify implements sdk.Verifier: one fresh login, in which the host is asked who we are. An account
// whose shell allows no commands is verified by the login alone. login(1) does not say why it refuses a password, and telnetd
// may keep what it says: with a management account the reason is looked for.
func (p Profile) Verify(ctx context.Context, t sdk.Target, as sdk.Credential) (sdk.Verdict, error) {
	v, err := p.verify(ctx, t, as)
	if errors.Is(err, errHungUp) { // a host that answers until it has the password is no host that cannot be reached
		v, _ = shadow.VerdictOf(err)
		v.Kind, err = sdk.VerdictUnknown, nil
	}
	silent := err == nil && v.Kind == sdk.VerdictUnknown
	if sdk.ClassOf(err) != sdk.ClassAuthFailed && !silent || t.Management.Username == "" || t.Management.Username == as.Username {
		return v, err
	}
	if sh, e := openRoot(ctx, t); e == nil {
		defer sh.Close()
		if why, ok := shadow.Explain(ctx, sh, as.Username, silent); ok {
			return why, nil
		}
	}
	return v, err
}

func (Profile) verify(ctx context.Context, t sdk.Target, as sdk.Credential) (sdk.Verdict, error) {
	l, err := logIn(ctx, t, as)
	if err != nil {
		return sdk.Verdict{}, err
	}
	defer l.Close()
	sh := &shell{login: l}
	if !l.noShell {
		err = sh.start(task)
	}
	if sh.noShell {
		return sdk.Verdict{Kind: sdk.VerdictOK, Message: "logged in; the account's shell runs no commands", Identity: as.Username}, nil
	}
	if err != nil && dialogue.Ended(err) {
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: "the host ended the connection after the password",
			Fix: "look whether the account is locked or has expired, and whether its shell works"}, nil
	}
	if err != nil {
		return sdk.Verdict{}, err
	}
	out, err := sh.run(script{text: "id -un"})
	if err != nil {
		return sdk.Verdict{}, err
	}
	return sdk.Verdict{Kind: sdk.VerdictOK, Message: "logged in", Identity: printable(out.text)}, nil
}

// Inspect implements sdk.Inspector.
func (Profile) Inspect(ctx context.Context, t sdk.Target, account string) (sdk.Facts, error) {
	sh, err := openRoot(ctx, t)
	if err != nil {
		return sdk.Facts{}, err
	}
	defer sh.Close()
	return shadow.Inspect(ctx, sh, account)
}

// Discover implements sdk.Discoverer.
func (Profile) Discover(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
	sh, err := openRoot(ctx, t)
	if err != nil {
		return err
	}
	defer sh.Close()
	return shadow.Discover(ctx, sh, yield)
}

// Run implements sdk.Runner. The command runs in the management account's own shell,
// without sudo, and reads nothing. Both its streams arrive as one.
func (Profile) Run(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
	quoted, err := quote.ShArg(command)
	if err != nil {
		return 0, sdk.Errorf(sdk.ClassInvalid, "the command has a NUL byte")
	}
	s := script{text: `"${SHELL:-/bin/sh}" -c ` + quoted, changes: true}
	if _, err := s.lines(); err != nil {
		return 0, err
	}
	sh, err := open(ctx, t, t.Management, task)
	if err != nil {
		return 0, unchanged(err)
	}
	defer sh.Close()
	return sh.stream(s, func(text string) { out.Stdout([]byte(text)) })
}
