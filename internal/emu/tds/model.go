package tds

import (
	"bytes"
	"crypto/rand"
	"crypto/sha512"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// login is a server principal: an SQL login (S), a Windows login (U) or a role (R).
type login struct {
	id        int
	name      string
	sid       []byte
	kind      string
	hash      []byte
	disabled  bool
	mustRenew bool
	expired   bool
	lockedOut bool
	bad       int // wrong passwords in a row
	policy    bool
	expires   bool
	database  string
	set       time.Time       // the password
	roles     map[string]bool // fixed server roles
	rights    map[string]bool // server permissions; the value: WITH GRANT OPTION
}

// principal is one of a database: a user (S) or a role (R).
type principal struct {
	id     int
	name   string
	kind   string
	sid    []byte
	owner  int
	fixed  bool
	roles  map[string]bool // names of roles, lower case
	rights []right
}

// right is a database permission.
type right struct {
	class, major int
	name         string
}

type schema struct {
	id, owner int
	name      string
}

type database struct {
	id         int
	name       string
	owner      []byte
	principals map[string]*principal
	schemas    []*schema
	objects    map[int]string // tables, in the schema dbo
	next       int
}

type job struct {
	id, name string
	owner    []byte
}

// session is a client that is logged in.
type session struct {
	id       int
	login    *login
	database *database
	first    *database
	tls      bool
	kill     func()
	locks    map[string]bool
}

func (s *session) reset() { s.database, s.locks = s.first, map[string]bool{} }

// instance is all that the server knows.
type instance struct {
	mu        sync.Mutex
	options   Options
	logins    map[string]*login // by lower-case name
	databases map[string]*database
	sessions  map[int]*session
	jobs      []*job
	next      int // id of a login
}

// serverRoles are the fixed ones, in the order of their ids from 3 on.
var serverRoles = []string{"sysadmin", "securityadmin", "serveradmin", "setupadmin", "processadmin", "diskadmin", "dbcreator", "bulkadmin"}

var databaseRoles = []string{
	"db_owner", "db_accessadmin", "db_securityadmin", "db_ddladmin", "db_backupoperator", "db_datareader", "db_datawriter",
	"db_denydatareader", "db_denydatawriter",
}

func newInstance(options Options) *instance {
	i := &instance{
		options: options, logins: map[string]*login{}, databases: map[string]*database{}, sessions: map[int]*session{}, next: 256,
	}
	i.logins["sa"] = &login{
		id: 1, name: "sa", sid: []byte{1}, kind: "S", policy: true, database: "master", set: time.Now(),
		roles: map[string]bool{"sysadmin": true}, rights: map[string]bool{"CONNECT SQL": false}, hash: hashed(Administrator),
	}
	for n, role := range serverRoles {
		i.logins[role] = &login{id: 3 + n, name: role, sid: []byte{byte(3 + n)}, kind: "R", database: "master"}
	}
	own := "##MS_PolicyEventProcessingLogin##"
	i.logins[strings.ToLower(own)] = &login{id: i.next, name: own, sid: bytes.Repeat([]byte{0xEE}, 16), kind: "S", disabled: true,
		database: "master", hash: hashed(rand.Text()), set: time.Now()}
	i.next++
	for _, name := range append([]string{"master", "tempdb", "model", "msdb"}, options.Databases...) {
		i.addDatabase(name)
	}
	msdb := i.databases["msdb"]
	for _, role := range []string{"SQLAgentUserRole", "SQLAgentReaderRole", "SQLAgentOperatorRole"} {
		msdb.addRole(role)
	}
	return i
}

func (i *instance) addDatabase(name string) {
	d := &database{id: len(i.databases) + 1, name: name, owner: []byte{1}, principals: map[string]*principal{}, objects: map[int]string{}, next: 5}
	for n, u := range []string{"dbo", "guest", "INFORMATION_SCHEMA", "sys"} {
		d.principals[strings.ToLower(u)] = &principal{id: n + 1, name: u, kind: "S", roles: map[string]bool{}}
	}
	d.principals["dbo"].sid = d.owner
	for n, r := range databaseRoles {
		d.principals[r] = &principal{id: 16384 + n, name: r, kind: "R", owner: 1, fixed: true, roles: map[string]bool{}}
	}
	d.schemas = []*schema{{1, 1, "dbo"}}
	i.databases[strings.ToLower(name)] = d
}

func (d *database) addRole(name string) *principal {
	p := &principal{id: d.next, name: name, kind: "R", owner: 1, roles: map[string]bool{}}
	d.next++
	d.principals[strings.ToLower(name)] = p
	return p
}

// user is the user of a login in the database; nil if it has none.
func (d *database) user(sid []byte) *principal {
	for _, p := range d.principals {
		if p.kind == "S" && sid != nil && bytes.Equal(p.sid, sid) {
			return p
		}
	}
	return nil
}

// byID lists principals in the order of their ids.
func byID[P any](all map[string]P, id func(P) int) []P {
	return slices.SortedFunc(maps.Values(all), func(a, b P) int { return id(a) - id(b) })
}

// hashed is a password as servers from 2012 on store it: a version, four bytes of salt, SHA-512.
func hashed(password string) []byte {
	salt := make([]byte, 4)
	_, _ = rand.Read(salt)
	return hashWith(password, salt)
}

func hashWith(password string, salt []byte) []byte {
	sum := sha512.Sum512(append(toUCS2(password), salt...))
	return append(append([]byte{2, 0}, salt...), sum[:]...)
}

func (l *login) matches(password string) bool {
	return len(l.hash) == 70 && bytes.Equal(l.hash, hashWith(password, l.hash[2:6]))
}

// has reports whether a login has a server permission, by itself or through a role.
func (l *login) has(right string) bool {
	_, control := l.rights["CONTROL SERVER"]
	_, itself := l.rights[right]
	return l.roles["sysadmin"] || control || itself ||
		right == "ALTER ANY LOGIN" && l.roles["securityadmin"] ||
		right == "VIEW SERVER STATE" && (l.roles["serveradmin"] || l.roles["processadmin"]) ||
		right == "ALTER ANY CONNECTION" && l.roles["processadmin"]
}

// enters reports whether a login may use a database.
func (l *login) enters(d *database) bool {
	return slices.Contains([]string{"master", "tempdb", "msdb"}, d.name) || l.has("CONNECT ANY DATABASE") || d.user(l.sid) != nil
}

// owns reports whether a login has a role of the database, or may do everything there.
func (l *login) is(d *database, role string) bool {
	if l.has("CONTROL SERVER") || bytes.Equal(d.owner, l.sid) {
		return true
	}
	u := d.user(l.sid)
	return u != nil && (u.roles["db_owner"] || u.roles[role])
}

// may reports whether a login has a permission on the database as a whole.
func (l *login) may(d *database, name string) bool {
	if l.is(d, "db_owner") {
		return true
	}
	u := d.user(l.sid)
	return u != nil && slices.Contains(u.rights, right{0, 0, name})
}

// refusal is the server's answer to a login that fails. Clients see state 1, whatever the reason.
func refusal(user string) *Error {
	return &Error{18456, 1, 14, "Login failed for user '" + user + "'."}
}

// login is what LOGIN7 asks for. It is told that a login is disabled or locked only to who knows
// its password.
func (i *instance) login(r *loginRequest, encrypted bool, kill func()) (*session, *Error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	l := i.logins[strings.ToLower(r.user)]
	if l == nil || l.kind != "S" {
		return nil, refusal(r.user)
	}
	if l.lockedOut {
		return nil, &Error{18486, 1, 14, "Login failed for user '" + r.user + "' because the account is currently locked out."}
	}
	if !l.matches(r.password) {
		l.bad++
		l.lockedOut = l.policy && i.options.Lockout > 0 && l.bad >= i.options.Lockout
		return nil, refusal(r.user)
	}
	l.bad = 0
	if l.disabled {
		return nil, &Error{18470, 1, 14, "Login failed for user '" + r.user + "'. Reason: The account is disabled."}
	}
	if r.newPasswd != "" {
		l.hash, l.mustRenew, l.expired, l.set = hashed(r.newPasswd), false, false, time.Now()
	}
	switch {
	case l.mustRenew:
		return nil, &Error{18488, 1, 14, "Login failed for user '" + r.user + "'. Reason: The password of the account must be changed."}
	case l.expired:
		return nil, &Error{18487, 1, 14, "Login failed for user '" + r.user + "'. Reason: The password of the account has expired."}
	case !l.has("CONNECT SQL"):
		return nil, refusal(r.user)
	}
	name := r.database
	if name == "" {
		name = l.database
	}
	d := i.databases[strings.ToLower(name)]
	if d == nil || !l.enters(d) {
		return nil, &Error{4060, 1, 11, "Cannot open database \"" + name + "\" requested by the login. The login failed."}
	}
	s := &session{id: 51, login: l, database: d, first: d, tls: encrypted, kill: kill, locks: map[string]bool{}}
	for i.sessions[s.id] != nil {
		s.id++
	}
	i.sessions[s.id] = s
	return s, nil
}

func (i *instance) leave(s *session) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.sessions, s.id)
}

// Administrator is the password of the login sa.
const Administrator = "Emulator-sa-1!"
