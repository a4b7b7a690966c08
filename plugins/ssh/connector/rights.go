package connector

import (
	"context"
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/shadow"
)

// CheckRights implements sdk.RightsChecker, by a fresh login. On a Linux host there is one
// right, to be root; beside it a role needs programs and groups, which the answer lists too.
func (c Connector) CheckRights(ctx context.Context, t sdk.Target, r sdk.Role, params map[string]string) ([]sdk.Right, error) {
	// The account's name makes no difference to what is needed.
	in := sdk.Intent{Account: "reeve", Role: r, Params: params}
	var cs []command
	for phase := range r.Phases {
		of, err := commands(in, phase)
		if err != nil {
			return nil, err
		}
		if phase != sdk.PhaseVerify && phase != sdk.PhaseFacts {
			cs = append(cs, of...)
		}
	}
	h, err := become(ctx, t, c.Kept.Fresh)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var groups []string
	for _, c := range cs {
		groups = append(groups, c.groups...)
	}
	n, err := shadow.CheckRights(ctx, h, []string{"visudo", "runuser"}, groups)
	if sdk.ClassOf(err) == sdk.ClassNotPermitted {
		return shadow.NoRoot(h.User(), t.Management.Password.Empty()), nil
	}
	if err != nil {
		return nil, err
	}
	for _, c := range cs {
		switch {
		case c.rule != "":
			n.Program("visudo", "check the role's sudo rules")
			n.Add(n.Found("includedir"), "@includedir /etc/sudoers.d in /etc/sudoers", "have the role's sudo rules read",
				"echo '@includedir /etc/sudoers.d' >>/etc/sudoers && visudo -c")
		case c.key != "":
			n.Program("runuser", "write the role's key as the account")
		case len(c.groups) > 0 && !c.optional && !c.not:
			has := slices.ContainsFunc(c.groups, func(g string) bool { return n.Found("group " + g) })
			n.Add(has, "the group "+strings.Join(c.groups, " or "), "make accounts members of it", "groupadd "+c.groups[0])
		}
	}
	return n.Rights, nil
}
