package winrm

import (
	"slices"
	"strings"
	"time"
)

// scripts are those that are modelled, by their SHA-256. Whoever changes a script of the connector looks at its model below, and then
// writes the new hash here.
var scripts = map[string]string{
	"865eb7ddd3f175132d416bdc97ab492bac78460d46a84b9e98ee23e2a0ad910f": "probe",
	"e2c4089464dff152d398def1ae4b197760dd4c85db5217fd5da786daec8037e4": "read",
	"bb4593c654aa2394f0fbc26368615b8240fb82c0d9c6747bb17a79c2d6113d11": "dependents",
	"6390850e3c1ea8b0f7d890381a241f9b024fe628b454f6c5a3467ea99b53e87c": "create",
	"3e61a4baa2e5b5647a8ae8decc0a62cbef139d99918bef3003802ef5b48b014c": "password",
	"4829278e0d687f71db74c16a267dfa00b25468981b9bed2294816c4f2bd9880a": "enable",
	"421952b728545d8d26e32cef12fa6d20a8870767bf559e2200abea953aea892d": "disable",
	"7894fe643c25493931817af3f293473a2886246e9fb7c88e4c7d6eda28bc664b": "sessions",
	"e35c3224f7743eadefed0f48839ede24b35d945eba78ac4818e9f4536c19992a": "remove",
	"308f852145c28f8d945c9d48948caa42d192406309cf52eb553df507da3c683d": "role",
	"a0ef0a3069c140207b43502fbf9b5a45ee69bfeb5de7cded973ff7ae6ac1f7d4": "right",
	"011b093307d965e0f88beca6bd9c4fac4c0eee2f3fce2f9f768f762461a48b5c": "run",
}

// ScriptOf is the name of the script whose text has the SHA-256, in hex; "" if none has.
func ScriptOf(hash string) string { return scripts[hash] }

// refusal is why a script fails. bug is set if no host would have been asked that.
type refusal struct {
	id    string
	code  int
	bug   string
	crash bool // the host is gone
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
		return nil, &refusal{id: "UnauthorizedAccess", code: codeDenied}
	}
	if name == "probe" {
		return h.probe(me, a), nil
	}
	if !h.elevated(me) {
		if name == "read" {
			return nil, refuse("IncludeUserNameRequiresElevation")
		}
		return nil, refuse("AccessDenied")
	}
	switch name {
	case "read":
		return h.facts(me, a), nil
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

func (h *Host) probe(me *Account, a arguments) any {
	noGroups, noCommands := []string{}, []string{}
	for _, g := range a.Groups {
		if _, there := h.group(g); !there || h.OldPowerShell || !h.elevated(me) {
			noGroups = append(noGroups, g)
		}
	}
	for _, c := range a.Commands {
		if !slices.Contains(cmdlets, c) {
			noCommands = append(noCommands, c)
		}
	}
	return map[string]any{
		"caption": "Microsoft Windows Server 2022 Standard", "version": Version, "computer": HostName, "powershell": "5.1.20348.2400",
		"dc": h.DomainController, "module": !h.OldPowerShell, "admin": h.elevated(me), "local": true, "filtered": h.Filtered,
		"member": h.groups["S-1-5-32-544"].members[me.SID], "sid": me.SID, "nogroups": noGroups, "nocommands": noCommands,
	}
}

func (h *Host) facts(me *Account, a arguments) any {
	found := []any{}
	for _, x := range h.accounts {
		if a.Account != "" && !strings.EqualFold(x.Name, a.Account) && !strings.EqualFold(x.Name, a.Temporary) {
			continue
		}
		groups := []any{}
		for _, sid := range h.groupsOf(x.SID) {
			groups = append(groups, map[string]any{"name": h.groups[sid].name, "sid": sid})
		}
		found = append(found, map[string]any{
			"name": x.Name, "sid": x.SID, "enabled": x.Enabled, "expires": unix(x.Expires), "changed": unix(x.Changed), "logon": nil,
			"lockedout": x.LockedOut, "mustchange": x.mustChange(), "description": x.Description, "fullname": x.FullName,
			"groups": groups, "sessions": x.Sessions,
		})
	}
	return map[string]any{"me": me.SID, "dc": h.DomainController, "now": time.Now().Unix(), "accounts": found}
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
	case !validName(a.Temporary):
		return nil, &refusal{id: "InvalidName", code: codeException, bug: "a temporary name that Windows does not take"}
	case h.accounts[strings.ToLower(a.Temporary)] != nil:
		return nil, refuse("UserExists")
	case len(a.Description) > 48:
		return nil, &refusal{id: "ParameterArgumentValidationError", code: codeException, bug: "a description of more than 48 characters"}
	case !h.takes(secret):
		return nil, refuse("InvalidPassword")
	}
	// SAM makes an account that is disabled and has a name and nothing else, and is then told the rest.
	x := h.add(Account{Name: a.Temporary})
	x.Changed = time.Time{}
	if h.crashes("made") {
		return nil, &refusal{crash: true}
	}
	x.NeverExpires = true
	x.Password, x.FullName, x.Description, x.Expires, x.Changed = secret, a.FullName, a.Description, instant(a.Expires), time.Now()
	if h.crashes("described") {
		return nil, &refusal{crash: true}
	}
	delete(h.accounts, strings.ToLower(a.Temporary))
	switch _, group := h.group(a.Account); {
	case group:
		return nil, refuse("NameInUse")
	case !validName(a.Account):
		return nil, refuse("InvalidName")
	}
	x.Name = a.Account
	h.accounts[strings.ToLower(a.Account)] = x
	return map[string]any{"sid": x.SID}, nil
}

func validName(name string) bool {
	return name != "" && len(name) <= 20 && !strings.ContainsAny(name, "\"/\\[]:;|=,+*?<>@")
}

// crashes reports whether the host goes down at a place, once.
func (h *Host) crashes(at string) bool {
	if h.Crash != at {
		return false
	}
	h.Crash = ""
	return true
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
		if len(x.Rights) > 0 {
			h.orphans[x.SID] = x.Rights
		}
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
		return nil, &refusal{id: "Win32", code: 1313} // ERROR_NO_SUCH_PRIVILEGE
	}
	i := slices.Index(x.Rights, a.Right)
	switch {
	case a.Add && i < 0:
		x.Rights = append(x.Rights, a.Right)
	case !a.Add && i < 0:
		return nil, &refusal{id: "Win32", code: 2} // ERROR_FILE_NOT_FOUND
	case !a.Add:
		x.Rights = slices.Delete(x.Rights, i, i+1)
	}
	return map[string]any{}, nil
}
