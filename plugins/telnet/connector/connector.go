package connector

import (
	"context"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/shadow"
	"github.com/reeve-pam/reeve/plugins/telnet/ios"
	"github.com/reeve-pam/reeve/plugins/telnet/unix"
)

// profile is one kind of dialogue.
type profile interface {
	sdk.Prober
	sdk.Provisioner
	sdk.Verifier
	sdk.Inspector
	sdk.Discoverer
	sdk.Runner
	sdk.RightsChecker
}

// profileOf refuses targets nobody has marked as legacy.
func profileOf(t sdk.Target) (profile, error) {
	if t.Options[optionLegacy] != "yes" {
		return nil, sdk.Errorf(sdk.ClassUnsupported,
			"Telnet sends passwords unprotected and cannot prove which host answers, so it is not used for %s", t.Address).
			WithFix(`use SSH; where the host has nothing better, set its option "legacy" to "yes"`)
	}
	if t.Options[optionProfile] == profileIOS {
		return ios.Profile{}, nil
	}
	return unix.Profile{Shell: t.Options[optionShell]}, nil
}

// Probe implements sdk.Prober.
func (Connector) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	p, err := profileOf(t)
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	return p.Probe(ctx, t)
}

// Plan implements sdk.Provisioner. It does not connect.
func (Connector) Plan(ctx context.Context, t sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	p, err := profileOf(t)
	if err != nil {
		return sdk.Plan{}, err
	}
	return p.Plan(ctx, t, in)
}

// Apply implements sdk.Provisioner.
func (Connector) Apply(ctx context.Context, t sdk.Target, c sdk.Change, progress sdk.Progress) (sdk.Result, error) {
	p, err := profileOf(t)
	if err != nil {
		return sdk.Result{}, err
	}
	return p.Apply(ctx, t, c, progress)
}

// Verify implements sdk.Verifier, by a fresh login.
func (Connector) Verify(ctx context.Context, t sdk.Target, as sdk.Credential) (sdk.Verdict, error) {
	p, err := profileOf(t)
	if err != nil {
		return sdk.Verdict{}, err
	}
	v, err := p.Verify(ctx, t, as)
	if err != nil {
		return shadow.VerdictOf(err)
	}
	return v, nil
}

// Inspect implements sdk.Inspector.
func (Connector) Inspect(ctx context.Context, t sdk.Target, account string) (sdk.Facts, error) {
	p, err := profileOf(t)
	if err != nil {
		return sdk.Facts{}, err
	}
	return p.Inspect(ctx, t, account)
}

// Discover implements sdk.Discoverer.
func (Connector) Discover(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
	p, err := profileOf(t)
	if err != nil {
		return err
	}
	return p.Discover(ctx, t, yield)
}

// Run implements sdk.Runner.
func (Connector) Run(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
	p, err := profileOf(t)
	if err != nil {
		return 0, err
	}
	return p.Run(ctx, t, command, out)
}

// CheckRights implements sdk.RightsChecker.
func (Connector) CheckRights(ctx context.Context, t sdk.Target, r sdk.Role, params map[string]string) ([]sdk.Right, error) {
	p, err := profileOf(t)
	if err != nil {
		return nil, err
	}
	return p.CheckRights(ctx, t, r, params)
}
