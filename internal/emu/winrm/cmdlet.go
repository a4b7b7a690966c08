package winrm

import (
	"strconv"
	"strings"
)

// cmdlets are those that the host has.
var cmdlets = []string{
	"Add-LocalGroupMember", "Remove-LocalGroupMember", "New-LocalGroup", "Remove-LocalGroup", "Set-LocalUser", "Set-Item", "Set-ItemProperty", "Get-Service",
}

// role does a command of a role.
func (h *Host) role(command string) *refusal {
	h.scriptBlocks = append(h.scriptBlocks, command)
	return h.cmdlet(command)
}

// Console does a command as an administrator at the host's console, and returns the identifier of the error; "" if there is none.
func (h *Host) Console(command string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.cmdlet(command); r != nil {
		return r.id
	}
	return ""
}

func (h *Host) cmdlet(command string) *refusal {
	cmdlet, p, err := parseCommand(command)
	if err != nil {
		return &refusal{id: "ParseException", code: codeException, bug: "a command that is not modelled"}
	}
	switch cmdlet {
	case "Add-LocalGroupMember", "Remove-LocalGroupMember":
		return h.membership(cmdlet == "Add-LocalGroupMember", p)
	case "New-LocalGroup":
		if _, there := h.group(p["Name"]); there || p["Name"] == "" {
			return refuse("GroupExists")
		}
		h.groups[domain+strconv.Itoa(h.next)] = &localGroup{p["Name"], map[string]bool{}}
		h.next++
	case "Remove-LocalGroup":
		for sid, g := range h.groups {
			if strings.EqualFold(g.name, p["Name"]) {
				delete(h.groups, sid)
				return nil
			}
		}
		return refuse("GroupNotFound")
	case "Set-LocalUser":
		x := h.accounts[strings.ToLower(p["Name"])]
		if x == nil {
			return refuse("UserNotFound")
		}
		if name, ok := p["FullName"]; ok {
			x.FullName = name
		}
	case "Set-ItemProperty":
		if p["Path"] != `HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System` || p["Name"] != "LocalAccountTokenFilterPolicy" || p["Type"] != "DWord" {
			return refuse("PathNotFound")
		}
		h.Filtered = p["Value"] != "1"
	case "Set-Item":
		if p["Path"] != `WSMan:\localhost\Shell\AllowRemoteShellAccess` {
			return refuse("PathNotFound")
		}
		h.NoShells = p["Value"] != "true"
	default:
		return refuse("CommandNotFoundException")
	}
	return nil
}

// membership puts somebody into a group, or takes him out.
func (h *Host) membership(add bool, p map[string]string) *refusal {
	g, _ := h.group(p["SID"] + p["Name"] + p["Group"])
	x := h.accounts[strings.ToLower(strings.TrimPrefix(p["Member"], HostName+`\`))]
	if x == nil {
		x = h.bySID(p["Member"])
	}
	switch {
	case len(p) != 2:
		return &refusal{id: "NamedParameterNotFound", code: codeException}
	case g == nil:
		return refuse("GroupNotFound")
	case x == nil:
		return refuse("PrincipalNotFound")
	case add && g.members[x.SID]:
		return refuse("MemberExists")
	case !add && !g.members[x.SID]:
		return refuse("MemberNotFound")
	case add:
		g.members[x.SID] = true
	default:
		delete(g.members, x.SID)
	}
	return nil
}

// group finds a group by SID or name.
func (h *Host) group(who string) (g *localGroup, there bool) {
	if g := h.groups[who]; g != nil {
		return g, true
	}
	for _, g := range h.groups {
		if strings.EqualFold(g.name, who) {
			return g, true
		}
	}
	return nil, false
}

// mayLock reports whether an account may make the file that is the lock of scripts.
func (h *Host) mayLock(user string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	me := h.accounts[strings.ToLower(user)]
	return me != nil && h.elevated(me)
}
