package winrm

import (
	"slices"
	"strings"
	"time"
)

// scripts are those that are modelled, by their SHA-256. Whoever changes a script of the connector looks at its model below, and then
// writes the new hash here.
var scripts = map[string]string{
	"1617a0bb011765e698a8f46d55fdf3b390f65625247122249839bd1dbd6b3ffd": "probe",
	"70466112deb86d9d0bfef9597e886ecbf2e50f1b5abd519e85dcc4bf19912ea9": "read",
	"96dfd03523ede67468653ad28e49c7988ad626e53a1ce9d49c393d944c954c0d": "dependents",
	"b69ce9aea785bd909e84f8c57a95bfe87234b87d90d72bbb013e2064f8459138": "create",
	"1ad008ab20406f04d3c80ab6c1ac0f0b75ec31b019343a26be97e6417aaa5eb3": "password",
	"8401d6d92e363709f62a2111bf08bf43420e52fec69c3685c8506b3c32010948": "enable",
	"b69afffa3c9a6778f899eb4da01cf3163a9bff925d73f1863c85f9cc61eb526e": "disable",
	"30e1b4ad9325593c93f233d81edda7f2a8308cfab8bbf1ae698668bf69fb2ae3": "sessions",
	"d6b3c062fdfb0d7e6c613c701324677246325935115128fa2aaa634107d47c17": "remove",
	"4477cd83dd19cd4296c9e8191df66c209410b33e069122c756a9072ef7b957ad": "role",
	"1be5a457b70dc091251833fb3467414f763d3d1a1e6a4f3133f15524af48786f": "right",
	"6b4ae1cd3f559b4f2470068da35cd4f59fbd7ae8f24de8f04f8c62b94c85055c": "run",
}

// ScriptOf is the name of the script whose text has the SHA-256, in hex; "" if none has.
func ScriptOf(hash string) string { return scripts[hash] }

// refusal is why a script fails. bug is set if no host would have been asked that.
type refusal struct {
	id   string
	code int
	bug  string
}

// Numbers of exceptions.
const (
	codeException = -2146233088 // COR_E_EXCEPTION
	codeDenied    = -2147024891 // E_ACCESSDENIED
)

func refuse(id string) *refusal { return &refusal{id: id, code: codeException} }

// do does a script as the account that is logged in.
func (h *Host) do(name, user string, a arguments, secret string) (any, *refusal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	me := h.accounts[strings.ToLower(user)]
	if me == nil {
		return nil, &refusal{"UnauthorizedAccess", codeDenied, ""}
	}
	if name == "probe" {
		return map[string]any{
			"caption": "Microsoft Windows Server 2022 Standard", "version": Version, "computer": HostName, "powershell": "5.1.20348.2400",
			"dc": h.DomainController, "module": !h.OldPowerShell, "admin": h.elevated(me), "local": true, "filtered": h.Filtered,
		}, nil
	}
	if !h.elevated(me) {
		if name == "read" {
			return nil, refuse("IncludeUserNameRequiresElevation")
		}
		return nil, refuse("AccessDenied")
	}
	switch name {
	case "read":
		return h.facts(me, a.Account), nil
	case "create":
		return h.create(a, secret)
	case "role":
		return map[string]any{}, h.role(a.Command)
	}
	x := h.bySID(a.SID)
	if x == nil {
		return nil, refuse("UserNotFound")
	}
	return h.change(name, x, a, secret)
}

func (h *Host) bySID(sid string) *Account {
	for _, x := range h.accounts {
		if x.SID == sid {
			return x
		}
	}
	return nil
}

func (h *Host) facts(me *Account, name string) any {
	found := []any{}
	for _, x := range h.accounts {
		if name != "" && !strings.EqualFold(x.Name, name) {
			continue
		}
		groups := []any{}
		for _, sid := range h.groupsOf(x.SID) {
			groups = append(groups, map[string]any{"name": h.groups[sid].name, "sid": sid})
		}
		found = append(found, map[string]any{
			"name": x.Name, "sid": x.SID, "enabled": x.Enabled, "expires": unix(x.Expires), "changed": unix(x.Changed), "logon": nil,
			"lockedout": x.LockedOut, "mustchange": x.MustChange, "description": x.Description, "fullname": x.FullName,
			"groups": groups, "sessions": x.Sessions,
		})
	}
	return map[string]any{"me": me.SID, "dc": h.DomainController, "accounts": found}
}

// unix is what the function Get-Seconds of the scripts makes of an instant.
func unix(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.Unix()
}

func instant(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}

func (h *Host) create(a arguments, secret string) (any, *refusal) {
	switch {
	case h.accounts[strings.ToLower(a.Account)] != nil:
		return nil, refuse("UserExists")
	case a.Account == "" || len(a.Account) > 20 || strings.ContainsAny(a.Account, "\"/\\[]:;|=,+*?<>@"):
		return nil, refuse("InvalidName")
	case len(a.Description) > 48:
		return nil, &refusal{"ParameterArgumentValidationError", codeException, "a description of more than 48 characters"}
	case !h.takes(secret):
		return nil, refuse("InvalidPassword")
	}
	x := h.add(Account{Name: a.Account, Password: secret, FullName: a.FullName, Description: a.Description, Expires: instant(a.Expires)})
	return map[string]any{"sid": x.SID}, nil
}

func (h *Host) change(name string, x *Account, a arguments, secret string) (any, *refusal) {
	switch name {
	case "password":
		same := a.Check && h.open(x) && x.Password == secret
		if !same {
			if !h.takes(secret) {
				return nil, refuse("InvalidPassword")
			}
			x.Password, x.Changed, x.MustChange = secret, time.Now(), false
		}
		return map[string]any{"changed": !same}, nil
	case "enable":
		x.Enabled, x.LockedOut, x.Expires = true, false, instant(a.Expires)
	case "disable":
		x.Enabled = false
	case "sessions":
		ended := x.Sessions
		x.Sessions = 0
		return map[string]any{"ended": ended, "left": 0}, nil
	case "dependents":
		return map[string]any{"dependents": append([]string{}, x.Dependents...)}, nil
	case "remove":
		delete(h.accounts, strings.ToLower(x.Name))
		for _, g := range h.groups {
			delete(g.members, x.SID)
		}
		return map[string]any{"profileleft": false}, nil
	case "right":
		return h.right(x, a)
	default:
		return nil, &refusal{bug: "it has no model"}
	}
	return map[string]any{}, nil
}

func (h *Host) right(x *Account, a arguments) (any, *refusal) {
	if !slices.Contains([]string{"SeServiceLogonRight", "SeDenyInteractiveLogonRight", "SeDenyRemoteInteractiveLogonRight"}, a.Right) {
		return nil, &refusal{"Win32", 1313, ""} // ERROR_NO_SUCH_PRIVILEGE
	}
	i := slices.Index(x.Rights, a.Right)
	switch {
	case a.Add && i < 0:
		x.Rights = append(x.Rights, a.Right)
	case !a.Add && i < 0:
		return nil, &refusal{"Win32", 2, ""} // ERROR_FILE_NOT_FOUND
	case !a.Add:
		x.Rights = slices.Delete(x.Rights, i, i+1)
	}
	return map[string]any{}, nil
}

// role does the cmdlets that roles use.
func (h *Host) role(command string) *refusal {
	h.scriptBlocks = append(h.scriptBlocks, command)
	cmdlet, p, err := parseCommand(command)
	if err != nil {
		return &refusal{"ParseException", codeException, "a command that is not modelled"}
	}
	switch cmdlet {
	case "Add-LocalGroupMember", "Remove-LocalGroupMember":
		g, x := h.groups[p["SID"]], h.accounts[strings.ToLower(p["Member"])]
		switch {
		case len(p) != 2:
			return &refusal{"NamedParameterNotFound", codeException, ""}
		case g == nil:
			return refuse("GroupNotFound")
		case x == nil:
			return refuse("PrincipalNotFound")
		case cmdlet == "Add-LocalGroupMember" && g.members[x.SID]:
			return refuse("MemberExists")
		case cmdlet == "Remove-LocalGroupMember" && !g.members[x.SID]:
			return refuse("MemberNotFound")
		}
		if cmdlet == "Add-LocalGroupMember" {
			g.members[x.SID] = true
		} else {
			delete(g.members, x.SID)
		}
	case "Set-LocalUser":
		x := h.accounts[strings.ToLower(p["Name"])]
		if x == nil {
			return refuse("UserNotFound")
		}
		if name, ok := p["FullName"]; ok {
			x.FullName = name
		}
	default:
		return refuse("CommandNotFoundException")
	}
	return nil
}
