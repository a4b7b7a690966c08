package tds

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// statement does one statement.
func (p *script) statement() {
	switch {
	case p.word("SELECT"):
		p.query()
	case p.word("DECLARE"):
		p.declare()
	case p.word("EXEC"), p.word("EXECUTE"):
		p.exec()
	case p.word("SET"):
		p.set()
	case p.word("USE"):
		p.use(p.name())
	case p.word("PRINT"):
		p.reply.info(0, p.next(template.Text).Value)
	case p.word("RAISERROR"): // a message, not an error, if its severity is 10 or less
		p.needMark("(")
		text := p.next(template.Text).Value
		for _, number := range []string{"0", "1"} {
			p.needMark(",")
			p.need(number)
		}
		p.needMark(")")
		p.reply.info(50000, text)
		if p.word("WITH", "NOWAIT") {
			p.flush()
		}
	case p.word("WAITFOR", "DELAY"):
		d := p.next(template.Text).Value
		t, err := time.Parse("15:04:05", d)
		if err != nil {
			fail(148, 15, "Incorrect time syntax in time string '%s'.", d)
		}
		p.unlocked(func() {
			p.wait(time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second)
		})
	case p.word("CREATE", "LOGIN"):
		p.createLogin()
	case p.word("ALTER", "LOGIN"):
		p.alterLogin()
	case p.word("DROP", "LOGIN"):
		p.dropLogin()
	case p.word("CREATE", "USER"):
		p.createUser()
	case p.word("DROP", "USER"):
		p.dropUser()
	case p.word("ALTER", "SERVER", "ROLE"):
		p.alterServerRole()
	case p.word("ALTER", "ROLE"):
		p.alterRole()
	case p.word("CREATE", "ROLE"):
		p.createRole()
	case p.word("CREATE", "SCHEMA"):
		p.createSchema()
	case p.word("ALTER", "AUTHORIZATION", "ON"):
		p.alterAuthorization()
	case p.word("GRANT"):
		p.grant(true)
	case p.word("REVOKE"):
		p.grant(false)
	case p.word("KILL"):
		p.kill()
	default:
		p.syntax()
	}
}

// unlocked does what takes its time while others work.
func (p *script) unlocked(f func()) {
	p.server.state.mu.Unlock()
	defer p.server.state.mu.Lock()
	f()
}

// settings are the options of SET that clients send after a login.
var settings = []string{
	"NOCOUNT", "ANSI_NULLS", "ANSI_NULL_DFLT_ON", "ANSI_PADDING", "ANSI_WARNINGS", "ARITHABORT", "CONCAT_NULL_YIELDS_NULL",
	"CURSOR_CLOSE_ON_COMMIT", "DATEFIRST", "DATEFORMAT", "IMPLICIT_TRANSACTIONS", "LANGUAGE", "NUMERIC_ROUNDABORT",
	"QUOTED_IDENTIFIER", "TEXTSIZE", "XACT_ABORT", "LOCK_TIMEOUT",
}

func (p *script) set() {
	if p.word("TRANSACTION", "ISOLATION", "LEVEL") {
		p.need("READ")
		p.need("COMMITTED")
		return
	}
	if name := strings.ToUpper(p.next(template.Word).Text); !slices.Contains(settings, name) {
		p.at--
		p.syntax()
	}
	p.mark("-")
	p.next(template.Word)
}

func (p *script) use(name string) {
	d := p.server.state.databases[strings.ToLower(name)]
	if d == nil || !p.session.login.enters(d) {
		fail(911, 16, "Database '%s' does not exist. Make sure that the name is entered correctly.", name)
	}
	p.reply.envText(envDatabase, d.name, p.session.database.name)
	p.reply.info(5701, "Changed database context to '"+d.name+"'.")
	p.session.database = d
}

// exec reads EXEC [@result =] procedure [@name = value, …].
func (p *script) exec() {
	result := ""
	if p.at+1 < len(p.all) && strings.HasPrefix(p.all[p.at].Text, "@") {
		result = strings.ToLower(p.next(template.Word).Text)
		p.needMark("=")
	}
	path := p.path()
	named, listed := map[string]any{}, []any{}
	for !p.end() && p.all[p.at].Text != ";" && p.all[p.at].Kind != template.Mark && !strings.EqualFold(p.all[p.at].Text, "SELECT") {
		if strings.HasPrefix(p.all[p.at].Text, "@") && p.at+1 < len(p.all) && p.all[p.at+1].Text == "=" {
			name := strings.ToLower(p.next(template.Word).Text)
			p.needMark("=")
			negative := p.mark("-")
			v := p.constant()
			if n, ok := v.(int64); ok && negative {
				v = -n
			}
			named[name] = v
		} else {
			listed = append(listed, p.constant())
		}
		if !p.mark(",") {
			break
		}
	}
	// value is a parameter by its name or its place.
	value := func(name string, place int) string {
		if v, ok := named[name].(string); ok {
			return v
		}
		if place < len(listed) {
			v, _ := listed[place].(string)
			return v
		}
		return ""
	}
	code := int64(0)
	switch procedure := strings.ToLower(path[len(path)-1]); procedure {
	case "sp_addsrvrolemember", "sp_dropsrvrolemember":
		p.memberOfServer(value("@rolename", 1), value("@loginame", 0), procedure == "sp_addsrvrolemember")
	case "sp_addrolemember", "sp_droprolemember":
		p.memberOfDatabase(value("@rolename", 0), value("@membername", 1), procedure == "sp_addrolemember")
	case "sp_getapplock":
		timeout, _ := named["@locktimeout"].(int64)
		if value("@lockmode", 1) != "Exclusive" || value("@lockowner", 2) != "Session" || value("@resource", 0) == "" {
			p.syntax()
		}
		code = p.appLock(value("@resource", 0), time.Duration(timeout)*time.Millisecond)
	case "sp_update_job":
		p.updateJob(value("@job_id", 0), value("@owner_login_name", -1))
	default:
		p.server.unknown("the procedure "+procedure, p.text)
		fail(2812, 16, "Could not find stored procedure '%s'.", procedure)
	}
	if result != "" {
		if _, ok := p.variables[result]; !ok {
			fail(137, 15, "Must declare the scalar variable \"%s\".", result)
		}
		p.variables[result] = code
	}
}

// appLock waits for a lock of the session: 0 at once, 1 after waiting, -1 in vain.
func (p *script) appLock(resource string, timeout time.Duration) int64 {
	key := p.session.database.name + " " + resource
	deadline := time.Now().Add(timeout)
	for code := int64(0); ; code = 1 {
		taken := false
		for _, s := range p.server.state.sessions {
			taken = taken || s != p.session && s.locks[key]
		}
		if !taken {
			p.session.locks[key] = true
			return code
		}
		if !time.Now().Before(deadline) {
			return -1
		}
		p.unlocked(func() { p.wait(5 * time.Millisecond) })
		select {
		case <-p.cancel:
			return -2
		default:
		}
	}
}

func (p *script) updateJob(id, owner string) {
	if !p.session.login.has("CONTROL SERVER") {
		fail(14525, 16, "Only members of sysadmin role are allowed to update or delete jobs owned by a different login.")
	}
	l := p.server.state.logins[strings.ToLower(owner)]
	for _, j := range p.server.state.jobs {
		if strings.EqualFold(j.id, id) && l != nil {
			j.owner = l.sid
			return
		}
	}
	fail(14262, 16, "The specified @job_id ('%s') does not exist.", id)
}

func (p *script) kill() {
	t := p.next(template.Word)
	id, err := strconv.Atoi(t.Text)
	if err != nil {
		p.at--
		p.syntax()
	}
	if !p.session.login.has("ALTER ANY CONNECTION") {
		fail(6102, 14, "User does not have permission to use the KILL statement.")
	}
	s := p.server.state.sessions[id]
	switch s {
	case p.session:
		fail(6104, 16, "Cannot use KILL to kill your own process.")
	case nil:
		fail(6106, 16, "Process ID %d is not an active process ID.", id)
	}
	s.kill()
	delete(p.server.state.sessions, id)
}

// serverRights are the permissions on the server that are known.
var serverRights = []string{
	"CONTROL SERVER", "CONNECT SQL", "ALTER ANY LOGIN", "ALTER ANY CONNECTION", "ALTER ANY SERVER AUDIT", "CONNECT ANY DATABASE",
	"SELECT ALL USER SECURABLES", "VIEW ANY DEFINITION", "VIEW SERVER STATE",
}

var databaseRights = []string{"SELECT", "INSERT", "UPDATE", "DELETE", "EXECUTE", "ALTER ANY USER", "ALTER ANY ROLE", "VIEW DEFINITION"}

// grant does GRANT right, … [ON SCHEMA::s | ON [dbo.]table] TO x, and REVOKE … FROM.
func (p *script) grant(give bool) {
	var rights []string
	for {
		var words []string
		for !p.end() && p.all[p.at].Kind == template.Word && !slices.Contains([]string{"ON", "TO", "FROM"}, strings.ToUpper(p.all[p.at].Text)) {
			words = append(words, strings.ToUpper(p.next(template.Word).Text))
		}
		name := strings.Join(words, " ")
		if !slices.Contains(serverRights, name) && !slices.Contains(databaseRights, name) {
			p.syntax()
		}
		rights = append(rights, name)
		if !p.mark(",") {
			break
		}
	}
	class, major := 0, 0
	d := p.session.database
	if p.word("ON") {
		class, major = p.securable(d)
	}
	if !give {
		p.need("FROM")
	} else {
		p.need("TO")
	}
	grantee := strings.ToLower(p.name())
	option := give && p.word("WITH", "GRANT", "OPTION")
	for _, name := range rights {
		if slices.Contains(serverRights, name) {
			p.grantOnServer(name, grantee, give, option)
			continue
		}
		u := d.principals[grantee]
		if !p.session.login.is(d, "db_securityadmin") {
			fail(4613, 16, "Grantor does not have GRANT permission.")
		}
		if u == nil {
			fail(15151, 16, "Cannot find the user '%s', because it does not exist or you do not have permission.", grantee)
		}
		r := right{class, major, name}
		u.rights = slices.DeleteFunc(u.rights, func(x right) bool { return x == r })
		if give {
			u.rights = append(u.rights, r)
		}
	}
}

func (p *script) securable(d *database) (class, major int) {
	if p.word("SCHEMA") {
		p.needMark("::")
		name := p.name()
		for _, s := range d.schemas {
			if strings.EqualFold(s.name, name) {
				return 3, s.id
			}
		}
		fail(15151, 16, "Cannot find the schema '%s', because it does not exist or you do not have permission.", name)
	}
	path := p.path()
	for id, name := range d.objects {
		if strings.EqualFold(name, path[len(path)-1]) {
			return 1, id
		}
	}
	fail(15151, 16, "Cannot find the object '%s', because it does not exist or you do not have permission.", path[len(path)-1])
	return 0, 0
}

func (p *script) grantOnServer(name, grantee string, give, option bool) {
	if p.session.database.name != "master" {
		fail(4621, 16, "Permissions at the server scope can only be granted when the current database is master")
	}
	if !p.session.login.has("CONTROL SERVER") && !p.session.login.rights[name] {
		fail(4613, 16, "Grantor does not have GRANT permission.")
	}
	l := p.server.state.logins[grantee]
	if l == nil || l.kind == "R" {
		fail(15151, 16, "Cannot find the login '%s', because it does not exist or you do not have permission.", grantee)
	}
	if give {
		l.rights[name] = option
	} else {
		delete(l.rights, name)
	}
}
