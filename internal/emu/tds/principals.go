package tds

import (
	"bytes"
	"crypto/rand"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

func (p *script) createLogin() {
	i := p.server.state
	name := p.name()
	if !p.session.login.has("ALTER ANY LOGIN") {
		fail(15247, 16, "User does not have permission to perform this action.")
	}
	l := &login{name: name, kind: "S", policy: true, database: "master", roles: map[string]bool{}, rights: map[string]bool{"CONNECT SQL": false}}
	if p.word("FROM", "WINDOWS") {
		l.kind = "U"
	} else {
		if strings.Contains(name, `\`) {
			fail(15006, 16, "'%s' is not a valid name because it contains invalid characters.", name)
		}
		p.need("WITH", "PASSWORD")
		p.needMark("=")
		password := p.password(l)
		p.loginOptions(l, true)
		p.judge(l, password)
	}
	if l.sid == nil {
		l.sid = make([]byte, 16)
		_, _ = rand.Read(l.sid)
	}
	if i.logins[strings.ToLower(name)] != nil {
		fail(15025, 16, "The server principal '%s' already exists.", name)
	}
	for _, other := range i.logins {
		if bytes.Equal(other.sid, l.sid) {
			fail(15433, 16, "Supplied parameter sid is in use.")
		}
	}
	l.id = i.next
	i.next++
	i.logins[strings.ToLower(name)] = l
}

// password reads the password of a login: a text, or what another server stored.
func (p *script) password(l *login) string {
	t := p.next(template.Text, template.Word)
	l.set, l.mustRenew, l.expired = time.Now(), false, false
	if b, ok := binary16(t); ok {
		p.need("HASHED")
		if len(b) != 70 || b[0] != 2 {
			fail(15021, 16, "Invalid value given for parameter PASSWORD. Specify a valid parameter value.")
		}
		l.hash = b
		return ""
	}
	if t.Kind != template.Text {
		p.at--
		p.syntax()
	}
	l.hash = hashed(t.Value)
	l.mustRenew = p.word("MUST_CHANGE")
	if t.Value == "" {
		fail(15116, 16, "Password validation failed. The password does not meet the operating system policy requirements because it is too short.")
	}
	return t.Value
}

// judge refuses passwords that Windows' policy does, with its usual settings.
func (p *script) judge(l *login, password string) {
	if len(password) > 128 {
		fail(15117, 16, "Password validation failed. The password does not meet the operating system policy requirements because it is too long.")
	}
	if !l.policy || password == "" {
		return
	}
	if len([]rune(password)) < 8 {
		fail(15116, 16, "Password validation failed. The password does not meet the operating system policy requirements because it is too short.")
	}
	classes := map[int]bool{}
	for _, r := range password {
		switch {
		case unicode.IsUpper(r):
			classes[0] = true
		case unicode.IsLower(r):
			classes[1] = true
		case unicode.IsDigit(r):
			classes[2] = true
		default:
			classes[3] = true
		}
	}
	if len(classes) < 3 || strings.Contains(strings.ToLower(password), strings.ToLower(l.name)) {
		fail(15118, 16, "Password validation failed. The password does not meet the operating system policy requirements because it is not complex enough.")
	}
}

func (p *script) loginOptions(l *login, create bool) {
	for p.mark(",") {
		option := strings.ToUpper(p.next(template.Word).Text)
		p.needMark("=")
		switch option {
		case "CHECK_POLICY", "CHECK_EXPIRATION":
			on := p.word("ON")
			if !on {
				p.need("OFF")
			}
			if option == "CHECK_POLICY" {
				l.policy = on
			} else {
				l.expires = on
			}
		case "DEFAULT_DATABASE":
			l.database = strings.ToLower(p.name())
		case "SID":
			sid, ok := binary16(p.next(template.Word))
			if !create || !ok || len(sid) != 16 {
				fail(15419, 16, "Supplied parameter sid should be binary(16).")
			}
			l.sid = sid
		default:
			p.at -= 2
			p.syntax()
		}
	}
}

// change finds a login that the session may change.
func (p *script) change(verb, name string) *login {
	l := p.server.state.logins[strings.ToLower(name)]
	me := p.session.login
	if l == nil || l.kind == "R" || !me.has("ALTER ANY LOGIN") || l.roles["sysadmin"] && !me.has("CONTROL SERVER") {
		fail(15151, 16, "Cannot %s the login '%s', because it does not exist or you do not have permission.", verb, name)
	}
	return l
}

func (p *script) alterLogin() {
	l := p.change("alter", p.name())
	switch {
	case p.word("DISABLE"):
		l.disabled = true
	case p.word("ENABLE"):
		l.disabled = false
	case p.word("WITH", "PASSWORD"):
		p.needMark("=")
		changed := *l
		password := p.password(&changed)
		if p.word("UNLOCK") {
			changed.lockedOut, changed.bad = false, 0
		}
		p.loginOptions(&changed, false)
		p.judge(&changed, password)
		*l = changed
	case p.word("WITH", "DEFAULT_DATABASE"):
		p.needMark("=")
		l.database = strings.ToLower(p.name())
	default:
		p.syntax()
	}
}

func (p *script) dropLogin() {
	i := p.server.state
	l := p.change("drop", p.name())
	for _, s := range i.sessions {
		if s.login == l {
			fail(15434, 16, "Could not drop login '%s' as the user is currently logged in.", l.name)
		}
	}
	for _, d := range i.databases {
		if bytes.Equal(d.owner, l.sid) {
			fail(15174, 16, "Login '%s' owns one or more database(s). Change the owner of the database(s) before dropping the login.", l.name)
		}
	}
	for _, j := range i.jobs {
		if bytes.Equal(j.owner, l.sid) {
			fail(15170, 16, "This login is the owner of 1 job(s). You must delete or reassign these jobs before the login can be dropped.")
		}
	}
	delete(i.logins, strings.ToLower(l.name))
}

func (p *script) createUser() {
	d, me := p.session.database, p.session.login
	name := p.name()
	u := &principal{name: name, kind: "S", roles: map[string]bool{}}
	p.need("FOR", "LOGIN")
	l := p.server.state.logins[strings.ToLower(p.name())]
	if p.word("WITH", "DEFAULT_SCHEMA") {
		p.needMark("=")
		p.name()
	}
	switch {
	case !me.may(d, "ALTER ANY USER") && !me.is(d, "db_accessadmin"):
		fail(15247, 16, "User does not have permission to perform this action.")
	case l == nil || l.kind == "R":
		fail(15007, 16, "'%s' is not a valid login or you do not have permission.", name)
	case d.principals[strings.ToLower(name)] != nil:
		fail(15023, 16, "User, group, or role '%s' already exists in the current database.", name)
	case d.user(l.sid) != nil:
		fail(15063, 16, "The login already has an account under a different user name.")
	}
	u.sid, u.id = l.sid, d.next
	d.next++
	d.principals[strings.ToLower(name)] = u
}

func (p *script) dropUser() {
	d, me := p.session.database, p.session.login
	name := p.name()
	u := d.principals[strings.ToLower(name)]
	if u == nil || u.kind != "S" || u.id < 5 || !me.may(d, "ALTER ANY USER") {
		fail(15151, 16, "Cannot drop the user '%s', because it does not exist or you do not have permission.", name)
	}
	for _, s := range d.schemas {
		if s.owner == u.id {
			fail(15138, 16, "The database principal owns a schema in the database, and cannot be dropped.")
		}
	}
	for _, r := range d.principals {
		if r.owner == u.id {
			fail(15421, 16, "The database principal owns a database role and cannot be dropped.")
		}
	}
	delete(d.principals, strings.ToLower(name))
}

// addOrDrop reads ADD MEMBER x or DROP MEMBER x.
func (p *script) addOrDrop() (add bool, member string) {
	if add = p.word("ADD", "MEMBER"); !add {
		p.need("DROP", "MEMBER")
	}
	return add, p.name()
}

func (p *script) alterServerRole() {
	role := p.name()
	add, member := p.addOrDrop()
	p.memberOfServer(role, member, add)
}

// memberOfServer changes who is in a fixed server role. That takes to be in it, or in sysadmin.
// learn.microsoft.com/sql/t-sql/statements/alter-server-role-transact-sql#permissions
func (p *script) memberOfServer(role, member string, add bool) {
	role = strings.ToLower(role)
	me := p.session.login
	if !slices.Contains(serverRoles, role) || !me.roles["sysadmin"] && !me.roles[role] {
		fail(15151, 16, "Cannot alter the server role '%s', because it does not exist or you do not have permission.", role)
	}
	l := p.server.state.logins[strings.ToLower(member)]
	if l == nil || l.kind == "R" {
		fail(15151, 16, "Cannot add the principal '%s', because it does not exist or you do not have permission.", member)
	}
	if add {
		l.roles[role] = true
	} else {
		delete(l.roles, role)
	}
}

func (p *script) alterRole() {
	role := p.name()
	add, member := p.addOrDrop()
	p.memberOfDatabase(role, member, add)
}

// memberOfDatabase changes who is in a database role; in a fixed one only db_owner may.
// learn.microsoft.com/sql/t-sql/statements/alter-role-transact-sql#permissions
func (p *script) memberOfDatabase(role, member string, add bool) {
	d, me := p.session.database, p.session.login
	role = strings.ToLower(role)
	r := d.principals[role]
	if r == nil || r.kind != "R" || !me.is(d, "db_owner") && (r.fixed || !me.may(d, "ALTER ANY ROLE") && !me.is(d, "db_securityadmin")) {
		fail(15151, 16, "Cannot alter the role '%s', because it does not exist or you do not have permission.", role)
	}
	u := d.principals[strings.ToLower(member)]
	if u == nil || u.fixed || u.id < 5 {
		fail(15151, 16, "Cannot add the principal '%s', because it does not exist or you do not have permission.", member)
	}
	if add {
		u.roles[role] = true
	} else {
		delete(u.roles, role)
	}
}

// authorized reads AUTHORIZATION x and finds that principal.
func (p *script) authorized() int {
	p.need("AUTHORIZATION")
	u := p.session.database.principals[strings.ToLower(p.name())]
	if u == nil {
		fail(15151, 16, "Cannot find the user, because it does not exist or you do not have permission.")
	}
	return u.id
}

func (p *script) createRole() {
	name := p.name()
	owner := p.authorized()
	p.session.database.addRole(name).owner = owner
}

func (p *script) createSchema() {
	d := p.session.database
	name := p.name()
	d.schemas = append(d.schemas, &schema{len(d.schemas) + 1, p.authorized(), name})
}

// alterAuthorization gives a schema or a role of the database, or a database, to somebody else.
func (p *script) alterAuthorization() {
	d, me := p.session.database, p.session.login
	class := strings.ToUpper(p.next(template.Word).Text)
	p.needMark("::")
	name := p.name()
	p.need("TO")
	to := p.name()
	u := d.principals[strings.ToLower(to)]
	if class != "DATABASE" && (u == nil || !me.is(d, "db_owner")) {
		fail(15151, 16, "Cannot find the principal '%s', because it does not exist or you do not have permission.", to)
	}
	switch class {
	case "SCHEMA":
		for _, s := range d.schemas {
			if strings.EqualFold(s.name, name) {
				s.owner = u.id
				return
			}
		}
	case "ROLE":
		if r := d.principals[strings.ToLower(name)]; r != nil && r.kind == "R" && !r.fixed {
			r.owner = u.id
			return
		}
	case "DATABASE":
		l := p.server.state.logins[strings.ToLower(to)]
		if other := p.server.state.databases[strings.ToLower(name)]; other != nil && l != nil && me.has("CONTROL SERVER") {
			other.owner = l.sid
			other.principals["dbo"].sid = l.sid
			return
		}
	default:
		p.syntax()
	}
	fail(15151, 16, "Cannot find the %s '%s', because it does not exist or you do not have permission.", strings.ToLower(class), name)
}
