package winrm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf16"
)

// What every host is.
const (
	HostName = "WINHOST1"
	Version  = "10.0.20348"
	domain   = "S-1-5-21-1004336348-1177238915-682003330-"
)

// Administrator is the built-in administrator, with whom a test manages the host.
const (
	Administrator         = "Administrator"
	AdministratorPassword = "Adm1n-pä$$'\u2019\"word" //nolint:gosec // of a host that is none
)

// Host is what the host knows: accounts, groups, and what it logged.
type Host struct {
	mu       sync.Mutex
	accounts map[string]*Account // by name in lower case
	groups   map[string]*localGroup
	next     int

	// LockoutThreshold is after how many wrong passwords an account is locked out, but for the built-in administrator.
	LockoutThreshold int
	// MinPassword is the shortest password the host's policy takes.
	MinPassword int
	// DomainController and OldPowerShell make the host one the connector does not serve.
	DomainController, OldPowerShell bool
	// Filtered takes their rights from logins of local administrators (LocalAccountTokenFilterPolicy is not 1).
	Filtered bool
	// Constrained makes PowerShell run in constrained language mode, as policies of AppLocker and WDAC do.
	Constrained bool
	// NoShells makes WinRM give nobody a shell (AllowRemoteShellAccess is false).
	NoShells bool
	// LockWait is how long scripts wait for each other. On a host it is ten seconds.
	LockWait time.Duration
	// Crash, if set, is after what of making an account the host goes down: "made" or "described". It is back at once.
	Crash string
	// Tasks are what the script "run" can do, by the exact text of the command.
	Tasks map[string]Task
	// BeforeScript, if set, is called before a script of that name is done. An error identifier it returns is the script's.
	BeforeScript func(name string) string

	commandLines, scriptBlocks []string
	did                        []string            // names of scripts
	orphans                    map[string][]string // account rights of SIDs whose account is gone; LSA keeps them
	locks                      map[string]chan struct{}
	stalls                     map[string]*Stalled
	waits                      chan struct{}
}

// Task is a command of a test: it prints, stops when told, and returns an exit status.
type Task func(stdout, stderr func(string), stop <-chan struct{}) int

// Account is a local account. Copies of it are handed out.
type Account struct {
	Name, SID, Password   string
	FullName, Description string
	Enabled, LockedOut    bool
	MustChange            bool // unless its password never expires
	NeverExpires          bool // the password
	Expires, Changed      time.Time
	Rights                []string
	Dependents            []string // services and tasks that run as it
	Sessions              int
	badLogins             int
}

type localGroup struct {
	name    string
	members map[string]bool // SIDs
}

func newHost() *Host {
	h := &Host{accounts: map[string]*Account{}, groups: map[string]*localGroup{}, next: 1001, MinPassword: 8, LockoutThreshold: 10, Tasks: map[string]Task{},
		orphans: map[string][]string{}, LockWait: 10 * time.Second, locks: map[string]chan struct{}{}, stalls: map[string]*Stalled{}, waits: make(chan struct{}, 1)}
	// A German host: nothing may depend on names.
	for rid, name := range map[string]string{
		"544": "Administratoren", "545": "Benutzer", "546": "Gäste", "547": "Hauptbenutzer", "551": "Sicherungs-Operatoren",
		"555": "Remotedesktopbenutzer", "556": "Netzwerkkonfigurations-Operatoren", "558": "Systemmonitorbenutzer",
		"559": "Leistungsprotokollbenutzer", "568": "IIS_IUSRS", "573": "Ereignisprotokollleser", "578": "Hyper-V-Administratoren",
		"580": "Remoteverwaltungsbenutzer",
	} {
		h.groups["S-1-5-32-"+rid] = &localGroup{name, map[string]bool{}}
	}
	for rid, a := range map[string]*Account{
		"500": {Name: Administrator, Password: AdministratorPassword, Enabled: true},
		"501": {Name: "Gast"}, "503": {Name: "DefaultAccount"}, "504": {Name: "WDAGUtilityAccount", Password: "unknown"},
	} {
		a.SID = domain + rid
		a.Changed = time.Now().Add(-time.Hour)
		h.accounts[strings.ToLower(a.Name)] = a
	}
	h.groups["S-1-5-32-544"].members[domain+"500"] = true
	return h
}

// Add makes an account outside of WinRM, as somebody at the console would.
func (h *Host) Add(a Account) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.add(a).SID
}

func (h *Host) add(a Account) *Account {
	a.SID = domain + strconv.Itoa(h.next)
	h.next++
	a.Changed = time.Now()
	h.accounts[strings.ToLower(a.Name)] = &a
	return &a
}

// Join makes an account a member of a group.
func (h *Host) Join(name, group string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.groups[group].members[h.accounts[strings.ToLower(name)].SID] = true
}

// Account is a copy of an account.
func (h *Host) Account(name string) (Account, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.accounts[strings.ToLower(name)]
	if a == nil {
		return Account{}, false
	}
	return *a, true
}

// Change changes an account outside of WinRM.
func (h *Host) Change(name string, f func(*Account)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h.accounts[strings.ToLower(name)])
}

// Remove removes an account outside of WinRM.
func (h *Host) Remove(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.accounts, strings.ToLower(name))
}

// Groups are the SIDs of an account's groups.
func (h *Host) Groups(name string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.accounts[strings.ToLower(name)]
	if a == nil {
		return nil
	}
	return h.groupsOf(a.SID)
}

func (h *Host) groupsOf(sid string) []string {
	var sids []string
	for group, g := range h.groups {
		if g.members[sid] {
			sids = append(sids, group)
		}
	}
	slices.Sort(sids)
	return sids
}

// RemoveGroup removes a group outside of WinRM.
func (h *Host) RemoveGroup(sid string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.groups, sid)
}

// CommandLines are those of processes, as event 4688 records them.
func (h *Host) CommandLines() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.commandLines)
}

// ScriptBlocks are what PowerShell ran, as event 4104 records it.
func (h *Host) ScriptBlocks() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.scriptBlocks)
}

// Did are the names of the scripts that were run, in their order.
func (h *Host) Did() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.did)
}

// Snapshot is all that can be changed.
func (h *Host) Snapshot() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var lines []string
	for _, a := range h.accounts {
		c := *a
		c.badLogins = 0
		lines = append(lines, fmt.Sprintf("%+v %v", c, h.groupsOf(a.SID)))
	}
	for sid, g := range h.groups {
		lines = append(lines, sid+" "+g.name)
	}
	for sid, rights := range h.orphans {
		lines = append(lines, fmt.Sprint("rights of nobody: ", sid, rights))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// login finds the account that may log in with a password, which fits knows. Windows tells nobody why it does not, and looks at the password
// before anything but a lockout.
func (h *Host) login(name string, fits func(password string) bool) *Account {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.accounts[strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(name, HostName+`\`), `.\`))]
	if a == nil || a.LockedOut || a.Password == "" {
		return nil
	}
	if !fits(a.Password) {
		a.badLogins++
		a.LockedOut = h.LockoutThreshold > 0 && a.badLogins >= h.LockoutThreshold && !strings.HasSuffix(a.SID, "-500")
		return nil
	}
	if !h.open(a) {
		return nil
	}
	a.badLogins = 0
	return a
}

// open reports whether an account lets anybody in at all.
func (h *Host) open(a *Account) bool {
	return a.Enabled && !a.LockedOut && !a.mustChange() && (a.Expires.IsZero() || a.Expires.After(time.Now())) && a.Password != ""
}

// mustChange reports whether the password must be changed before anything else. One that never expires need not be (SAM computes it so).
func (a *Account) mustChange() bool { return a.MustChange && !a.NeverExpires }

// BadLogins is how often a wrong password was tried since the last right one.
func (h *Host) BadLogins(name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.accounts[strings.ToLower(name)].badLogins
}

// mayUseWinRM reports whether an account is let in by WinRM's own permissions. An administrator without an administrator's rights is not.
func (h *Host) mayUseWinRM(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.accounts[strings.ToLower(name)]
	return a != nil && (h.elevated(a) || h.groups["S-1-5-32-580"].members[a.SID])
}

// elevated reports whether a login has an administrator's rights.
func (h *Host) elevated(a *Account) bool {
	return h.groups["S-1-5-32-544"].members[a.SID] && (!h.Filtered || strings.HasSuffix(a.SID, "-500"))
}

// takes reports whether the policy takes a password.
func (h *Host) takes(password string) bool {
	n := len(utf16.Encode([]rune(password)))
	return n >= h.MinPassword && n <= 127
}
