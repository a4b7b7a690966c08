package oracle

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Error is an answer such as ORA-01918.
type Error struct {
	Code int
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("ORA-%05d: %s", e.Code, e.Text) }

func oraError(code int, format string, args ...any) *Error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

// DB is the state of a server. Its methods may be called at any time.
type DB struct {
	options Options
	faults  func() Faults
	sys     *entry

	mu       sync.Mutex
	users    map[string]*user
	roles    map[string]*role
	profiles map[string]*Profile
	spaces   map[string]bool    // tablespaces
	synonyms map[synonym]string // what for, as "SCHEMA"."OBJECT"
	sessions map[*entry]bool
	locks    map[int]*entry // of DBMS_LOCK
	lastID   int
	lastSID  int
	log      []string
}

// firstSID is the session that came before all of clients.
const firstSID = 40

type synonym struct{ owner, name string }

// user is a row of DBA_USERS, and what was granted to it.
type user struct {
	name     string
	id       int
	created  time.Time
	external string   // distinguished name; such a user has no password
	password verifier // hash is nil without one
	old      []verifier
	changed  time.Time
	locked   bool
	timed    bool // locked after too many wrong passwords
	failures int
	expired  bool
	rollover bool // the old password is still good
	profile  string
	last     time.Time
	owned    []string // names of objects
	quotas   map[string]int
	rights   map[string]bool  // system privilege: may be passed on
	roles    map[string]*held // role
	objects  map[string]bool  // "READ ON HR.T": may be passed on
	admin    map[string]bool  // administrative privileges, as in the password file
}

type held struct{ admin, active bool }

// role is what a role grants. everything is for DBA.
type role struct {
	rights     map[string]bool
	everything bool
}

// Profile is what a password must be like.
type Profile struct {
	FailedLogins int  // until the account is locked; 0: no limit
	LockForever  bool // PASSWORD_LOCK_TIME is UNLIMITED, and such a lock looks as an administrator's
	Rejects      func(password string) bool
	NoReuse      bool
	Rollover     bool // PASSWORD_ROLLOVER_TIME is set
}

// entry is a row of V$SESSION.
type entry struct {
	user        *user
	as          string // administrative privilege that was logged in with
	sid, serial int
	conn        net.Conn
}

func newDB(o Options, faults func() Faults) *DB {
	d := &DB{
		options: o, faults: faults,
		users: map[string]*user{}, roles: map[string]*role{}, profiles: map[string]*Profile{"DEFAULT": {}},
		spaces:   map[string]bool{"SYSTEM": true, "SYSAUX": true, "USERS": true, "TEMP": true},
		synonyms: map[synonym]string{}, sessions: map[*entry]bool{}, locks: map[int]*entry{},
		lastID: 100, lastSID: firstSID,
	}
	for name, rights := range map[string][]string{
		"CONNECT": {"CREATE SESSION"}, "RESOURCE": {"CREATE TABLE", "CREATE PROCEDURE", "CREATE SEQUENCE"},
		"SELECT_CATALOG_ROLE": {"catalog"}, "DBA": nil, "AUDIT_VIEWER": nil, "SCHEDULER_ADMIN": nil,
		"DATAPUMP_EXP_FULL_DATABASE": nil, "DATAPUMP_IMP_FULL_DATABASE": nil,
	} {
		d.roles[name] = &role{rights: map[string]bool{}, everything: name == "DBA"}
		for _, r := range rights {
			d.roles[name].rights[r] = true
		}
	}
	sys := d.newUser("SYS")
	sys.roles["DBA"] = &held{admin: true, active: true}
	d.users["SYS"] = sys
	sys.admin["SYSDBA"] = true
	d.sys = &entry{user: sys, as: "SYSDBA"}
	return d
}

func (d *DB) newUser(name string) *user {
	d.lastID++
	return &user{
		name: name, id: d.lastID, created: time.Now(), profile: "DEFAULT",
		quotas: map[string]int{}, rights: map[string]bool{}, roles: map[string]*held{}, objects: map[string]bool{}, admin: map[string]bool{},
	}
}

// record writes a statement down as the server's audit trail would.
func (d *DB) record(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, text)
}

// Log returns every statement and query that came over the network, as they came.
func (d *DB) Log() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.log)
}

func (d *DB) forgetLog() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = nil
}

// SetProfile changes a profile, or adds it.
func (d *DB) SetProfile(name string, p Profile) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.profiles[name] = &p
}

// AddRole adds a role that grants nothing.
func (d *DB) AddRole(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.roles[name] = &role{rights: map[string]bool{}}
}

// Own makes a user the owner of objects.
func (d *DB) Own(name string, objects ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users[name].owned = append(d.users[name].owned, objects...)
}

// Exists reports whether there is a user.
func (d *DB) Exists(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.users[name] != nil
}

// Status is a user's ACCOUNT_STATUS; "" if there is none.
func (d *DB) Status(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if u := d.users[name]; u != nil {
		return u.status()
	}
	return ""
}

// FailedLogins counts the wrong passwords since the last login of a user.
func (d *DB) FailedLogins(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if u := d.users[name]; u != nil {
		return u.failures
	}
	return 0
}

// Sessions counts the sessions of a user.
func (d *DB) Sessions(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for e := range d.sessions {
		if e.user.name == name {
			n++
		}
	}
	return n
}

// EndSessions ends the sessions of a user behind everybody's back.
func (d *DB) EndSessions(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for e := range d.sessions {
		if e.user.name == name {
			_ = e.conn.Close()
			delete(d.sessions, e)
		}
	}
}

// Logins counts the logins that were accepted.
func (d *DB) Logins() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lastSID - firstSID
}

// Snapshot is everything about users, rights and synonyms, but for what logins change.
func (d *DB) Snapshot() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(d.users)) {
		u := d.users[name]
		roles := map[string]held{}
		for r, h := range u.roles {
			roles[r] = *h
		}
		fmt.Fprintf(&b, "user %s %d %q %x %s %s %v %v %v %v %v\n", name, u.id, u.external, u.password.hash, u.status(), u.profile,
			u.quotas, u.rights, roles, u.objects, u.admin)
	}
	for s, target := range d.synonyms {
		b.WriteString("synonym " + s.owner + "." + s.name + " for " + target + "\n")
	}
	lines := strings.SplitAfter(b.String(), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func (u *user) status() string {
	var parts []string
	if u.expired {
		parts = append(parts, "EXPIRED")
	}
	switch {
	case u.timed:
		parts = append(parts, "LOCKED(TIMED)")
	case u.locked:
		parts = append(parts, "LOCKED")
	}
	if u.rollover {
		if len(parts) == 0 {
			parts = append(parts, "OPEN")
		}
		parts = append(parts, "IN ROLLOVER")
	}
	if len(parts) == 0 {
		return "OPEN"
	}
	return strings.Join(parts, " & ")
}

// verifierOf is the verifier of a user, or one that no password fits.
func (d *DB) verifierOf(name string) (v verifier, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if u := d.users[name]; u != nil && u.password.hash != nil {
		return u.password, true
	}
	return verifier{salt: random(16), hash: random(64)}, false
}

// admit decides about a login whose password was right or wrong. as is the administrative privilege it asks for, or "".
func (d *DB) admit(name, as string, right bool) *Error {
	code := d.faults().FailLogin[name]
	d.mu.Lock()
	defer d.mu.Unlock()
	u := d.users[name]
	switch {
	case code != 0:
		return oraError(code, "as the test wants")
	case u == nil:
		return oraError(1017, "invalid username/password; logon denied")
	case u.locked || u.timed:
		return oraError(28000, "The account is locked.")
	case !right:
		u.failures++
		if limit := d.profiles[u.profile].FailedLogins; limit > 0 && u.failures >= limit {
			u.timed = !d.profiles[u.profile].LockForever
			u.locked = u.locked || !u.timed
		}
		return oraError(1017, "invalid username/password; logon denied")
	case u.expired:
		return oraError(28001, "the account has expired")
	case as != "" && !u.admin[as]:
		return oraError(1031, "insufficient privileges")
	case as == "" && !d.may(u, "CREATE SESSION"):
		return oraError(1045, "user %s lacks CREATE SESSION privilege; logon denied", u.name)
	}
	u.failures, u.last = 0, time.Now()
	return nil
}

// logon begins a session. One with an administrative privilege is another user's: that of SYSDBA is SYS, the others have
// no rights here but to hand that privilege on.
func (d *DB) logon(name, as string, conn net.Conn) *entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lastSID++
	u := d.users[name]
	switch as {
	case "":
	case "SYSDBA":
		u = d.sys.user
	default:
		u = &user{name: as}
	}
	e := &entry{user: u, as: as, sid: d.lastSID, serial: 1000 + d.lastSID, conn: conn}
	d.sessions[e] = true
	return e
}

func (d *DB) logoff(e *entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sessions, e)
	for id, holder := range d.locks {
		if holder == e {
			delete(d.locks, id)
		}
	}
}

// may reports whether a user has a system privilege, by itself or by an active role.
func (d *DB) may(u *user, right string) bool {
	if _, ok := u.rights[right]; ok {
		return true
	}
	for name, h := range u.roles {
		if r := d.roles[name]; r != nil && h.active && (r.everything || r.rights[right]) {
			return true
		}
	}
	return false
}

func (d *DB) need(e *entry, right string) *Error {
	if !d.may(e.user, right) {
		return oraError(1031, "insufficient privileges")
	}
	return nil
}
