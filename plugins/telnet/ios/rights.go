package ios

import (
	"context"
	"regexp"
	"strconv"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/telnet/role"
)

var (
	levelLine = regexp.MustCompile(`(?i)^current privilege level is (\d{1,2})$`)
	plainUser = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
)

// parseLevel is the privilege level that "show privilege" tells; -1 if it does not.
func parseLevel(lines []string) int {
	for _, line := range lines {
		if m := levelLine.FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[1]) // two digits at most
			return n
		}
	}
	return -1
}

// CheckRights implements sdk.RightsChecker, from what the device says: the privilege level, and whether it lets the login
// read accounts and into configuration mode, where nothing is changed.
func (Profile) CheckRights(ctx context.Context, t sdk.Target, r sdk.Role, params map[string]string) ([]sdk.Right, error) {
	for phase := range r.Phases {
		if _, err := role.Commands(sdk.Intent{Account: "reeve", Role: r, Params: params}, phase, role.IOS); err != nil {
			return nil, err
		}
	}
	level := sdk.Right{Name: "privilege level 15", Reason: "change accounts, and save the configuration"}
	read := sdk.Right{Name: "show running-config", Reason: "read accounts, and whose they are"}
	configure := sdk.Right{Name: "configure terminal", Reason: "make, change and remove accounts"}
	s, err := manage(ctx, t)
	switch sdk.ClassOf(err) {
	case "":
		defer s.Close()
		if level.Held, read.Held, configure.Held, err = s.rights(); err != nil {
			return nil, err
		}
	case sdk.ClassNotPermitted: // not even enable
	default:
		return nil, err
	}
	rights := []sdk.Right{level, read, configure}
	if user := t.Management.Username; !level.Held && plainUser.MatchString(user) {
		for i := range rights {
			if !rights[i].Held {
				rights[i].Grant = "configure terminal\nusername " + user + " privilege 15\nend\nwrite memory"
			}
		}
	} // at level 15 it is the device's AAA server that refuses: nothing to paste
	return rights, nil
}

// rights asks the device.
func (s *session) rights() (level, read, configure bool, err error) {
	held := func(command string) ([]string, bool) {
		lines, e := s.command(command)
		if c := sdk.ClassOf(e); e != nil && c != sdk.ClassInvalid && c != sdk.ClassNotPermitted && err == nil {
			err = e
		}
		return lines, e == nil
	}
	lines, told := held("show privilege")
	_, read = held("show running-config | include ^username")
	if _, configure = held("configure terminal"); configure {
		_, _ = held("end")
	}
	level = parseLevel(lines) == 15 || !told && read && configure
	return level, read, configure, err
}
