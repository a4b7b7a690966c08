package connector

import (
	"context"
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/quote"
	"github.com/reeve-pam/reeve/plugins/sdk/shadow"
)

// Plan implements sdk.Provisioner. It connects only when the role needs to know which
// groups the host has.
func (c Connector) Plan(ctx context.Context, t sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	names, err := wantedGroups(in)
	if err != nil {
		return sdk.Plan{}, err
	}
	var existing []string
	if len(names) > 0 {
		h, err := c.manage(ctx, t)
		if err != nil {
			return sdk.Plan{}, err
		}
		defer h.Close()
		if existing, err = shadow.Groups(ctx, h, names); err != nil {
			return sdk.Plan{}, err
		}
	}
	steps, err := steps(t, in, existing)
	if err != nil {
		return sdk.Plan{}, err
	}
	return shadow.PlanOf(in, steps), nil
}

// Apply implements sdk.Provisioner.
func (c Connector) Apply(ctx context.Context, t sdk.Target, ch sdk.Change, progress sdk.Progress) (sdk.Result, error) {
	names, err := wantedGroups(ch.Intent)
	if err != nil {
		return sdk.Result{}, err
	}
	h, err := c.manage(ctx, t)
	if err != nil {
		return sdk.Result{}, err
	}
	defer h.Close()
	var existing []string
	if len(names) > 0 {
		if existing, err = shadow.Groups(ctx, h, names); err != nil {
			return sdk.Result{}, err
		}
	}
	steps, err := steps(t, ch.Intent, existing)
	if err != nil {
		return sdk.Result{}, err
	}
	if err := shadow.SamePlan(ch, steps); err != nil {
		return sdk.Result{}, err
	}
	return shadow.Apply(ctx, h, ch, steps, progress)
}

// steps returns what makes in true on a host that has those of the role's groups.
func steps(t sdk.Target, in sdk.Intent, existing []string) ([]shadow.Step, error) {
	return shadow.Steps(in, t.Options["shell"], func(phases ...sdk.Phase) ([]shadow.Step, error) { return roleSteps(in, existing, phases) })
}

// giving are the phases of each action whose commands may make the account a member of groups.
var giving = map[sdk.Action][]sdk.Phase{
	sdk.Provision: {sdk.PhaseCreate, sdk.PhaseGrant}, sdk.Rotate: {sdk.PhaseRotate}, sdk.Disable: {sdk.PhaseDisable},
	sdk.Enable: {sdk.PhaseEnable}, sdk.Deprovision: {sdk.PhaseRevoke},
}

// wantedGroups returns every group that the account may become a member of. It refuses a role with a command that
// cannot be read, whatever its phase.
func wantedGroups(in sdk.Intent) ([]string, error) {
	var names []string
	for phase := range in.Role.Phases {
		cs, err := commands(in, phase)
		if err != nil {
			return nil, err
		}
		for _, c := range cs {
			if slices.Contains(giving[in.Action], phase) && !c.not {
				names = append(names, c.groups...)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// roleSteps are what the role's commands of the phases do, at one moment of the account's life. sudo rules come last, together.
func roleSteps(in sdk.Intent, existing []string, phases []sdk.Phase) ([]shadow.Step, error) {
	u, err := quote.ShArg(in.Account)
	if err != nil {
		return nil, sdk.Errorf(sdk.ClassInvalid, "the account name has a NUL byte")
	}
	var steps []shadow.Step
	var lines []string
	add := func(phase sdk.Phase, s shadow.Step) {
		if phase != sdk.PhaseGrant && s.Use == shadow.Known {
			s.ID = string(phase) + "-" + s.ID
		}
		steps = append(steps, s)
	}
	for _, phase := range phases {
		cs, err := commands(in, phase)
		if err != nil {
			return nil, err
		}
		for i, c := range cs {
			switch {
			case c.run != "":
				add(phase, shadow.RoleStep(in, phase, i, c.run))
			case phase == sdk.PhaseVerify || phase == sdk.PhaseFacts:
				q := c.question(in.Account, u)
				if phase == sdk.PhaseFacts {
					q = "if " + q + "; then echo yes; else echo no; fi"
				}
				s := shadow.RoleStep(in, phase, i, q)
				s.Title += ": " + c.text
				add(phase, s)
			case c.rule != "":
				if !slices.Contains(lines, c.rule) {
					lines = append(lines, c.rule)
				}
			case c.sudoers: // none
				add(phase, shadow.NoSudoers(in.Account))
			case c.shell != "":
				add(phase, setShell(u, c.shell))
			case c.key != "":
				s, err := authorize(u, c.key, c.not)
				if err != nil {
					return nil, err
				}
				add(phase, s)
			case c.not:
				for _, g := range c.groups {
					add(phase, leave(u, g))
				}
			default:
				i := slices.IndexFunc(c.groups, func(g string) bool { return slices.Contains(existing, g) })
				if i >= 0 {
					add(phase, join(u, c.groups[i]))
				} else if !c.optional {
					return nil, sdk.Errorf(sdk.ClassUnsupported, "the host has no group %s, which role %s needs",
						strings.Join(c.groups, " or "), in.Role.Name).WithFix("create the group, or choose another role")
				}
			}
		}
	}
	if len(lines) > 0 {
		s, err := sudoers(in.Account, lines)
		if err != nil {
			return nil, err
		}
		add(phases[len(phases)-1], s)
	}
	return steps, nil
}
