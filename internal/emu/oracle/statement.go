package oracle

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// errSyntax is the number of every answer to a statement that is not understood. A client of Reeve's never sends one,
// so it fails the test.
const errSyntax = 900

// statement does one statement for a client.
func (s *Server) statement(e *entry, text string, binds []string) *Error {
	s.DB.record(text)
	err := s.DB.exec(e, text, binds)
	if err != nil && err.Code == errSyntax {
		s.unknown("a statement that is not understood (%s): %s", err.Text, text)
	}
	return err
}

// tokens reads a statement as PL/SQL does, without what lies between.
func tokens(text string) ([]template.Token, *Error) {
	all, err := template.PLSQL.Tokens(text)
	if err != nil {
		return nil, oraError(errSyntax, "%v", err)
	}
	var out []template.Token
	for _, t := range all {
		if t.Kind != template.Space && t.Kind != template.Comment {
			out = append(out, t)
		}
	}
	return out, nil
}

// parser walks through the tokens of one statement. The first thing that does not fit ends it, by a panic that exec
// recovers: *Error.
type parser struct {
	db   *DB
	who  *entry
	rest []template.Token
}

func (d *DB) exec(e *entry, text string, binds []string) (failed *Error) {
	all, failed := tokens(text)
	if failed != nil {
		return failed
	}
	p := &parser{db: d, who: e, rest: all}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *Error:
			failed = r
		default:
			panic(r)
		}
	}()
	if p.peek("BEGIN") || p.peek("DECLARE") {
		p.block()
		return nil
	}
	if len(binds) > 0 {
		return oraError(1036, "illegal variable name/number") // DDL takes none
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case p.words("CREATE", "USER"):
		p.createUser()
	case p.words("ALTER", "USER"):
		p.alterUser()
	case p.words("DROP", "USER"):
		p.dropUser()
	case p.words("GRANT"):
		p.grant(true)
	case p.words("REVOKE"):
		p.grant(false)
	case p.words("ALTER", "SYSTEM", "KILL", "SESSION"):
		p.kill()
	case p.words("CREATE", "OR", "REPLACE", "SYNONYM"):
		p.createSynonym()
	case p.words("DROP", "SYNONYM"):
		p.dropSynonym()
	default:
		return oraError(errSyntax, "unknown")
	}
	return nil
}

func (p *parser) fail(code int, format string, args ...any) { panic(oraError(code, format, args...)) }

func (p *parser) check(e *Error) {
	if e != nil {
		panic(e)
	}
}

func (p *parser) peek(word string) bool {
	return len(p.rest) > 0 && p.rest[0].Kind == template.Word && strings.EqualFold(p.rest[0].Text, word)
}

// words takes the words if they come next.
func (p *parser) words(words ...string) bool {
	was := p.rest
	for _, w := range words {
		if !p.peek(w) {
			p.rest = was
			return false
		}
		p.rest = p.rest[1:]
	}
	return true
}

func (p *parser) mark(m string) bool {
	if len(p.rest) == 0 || p.rest[0].Kind != template.Mark || p.rest[0].Text != m {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *parser) need(ok bool, what string) {
	if !ok {
		p.fail(errSyntax, "%s is missing", what)
	}
}

func (p *parser) end() { p.need(len(p.rest) == 0, "the end") }

// name takes a name: as quoted, or in upper case.
func (p *parser) name() string {
	p.need(len(p.rest) > 0, "a name")
	t := p.rest[0]
	p.rest = p.rest[1:]
	name := ""
	switch t.Kind {
	case template.Name:
		name = t.Value
	case template.Word:
		name = strings.ToUpper(t.Text)
	}
	p.need(name != "", "a name")
	if len(name) > p.db.nameLimit() {
		p.fail(972, "identifier is too long")
	}
	return name
}

func (d *DB) nameLimit() int {
	if d.options.Major < 18 {
		return 30
	}
	return 128
}

func (p *parser) text() string {
	p.need(len(p.rest) > 0 && p.rest[0].Kind == template.Text, "a text")
	t := p.rest[0]
	p.rest = p.rest[1:]
	return t.Value
}

func (p *parser) user(code int) *user {
	name := p.name()
	u := p.db.users[name]
	if u == nil {
		p.fail(code, "user '%s' does not exist", name)
	}
	return u
}

func (p *parser) createUser() {
	p.check(p.db.need(p.who, "CREATE USER"))
	name := p.name()
	if p.db.options.Root && !strings.HasPrefix(name, "C##") && p.who != p.db.sys {
		p.fail(65096, "invalid common user or role name")
	}
	if p.db.users[name] != nil || p.db.roles[name] != nil {
		p.fail(1920, "user name '%s' conflicts with another user or role name", name)
	}
	u := p.db.newUser(name)
	p.need(p.peek("IDENTIFIED"), "IDENTIFIED")
	p.userClauses(u)
	p.db.users[name] = u
}

func (p *parser) alterUser() {
	u := p.user(1918)
	if u != p.who.user {
		p.check(p.db.need(p.who, "ALTER USER"))
	}
	p.need(len(p.rest) > 0, "a clause")
	changed := *u // nothing is changed if one clause fails
	p.userClauses(&changed)
	*u = changed
}

func (p *parser) userClauses(u *user) {
	for len(p.rest) > 0 {
		switch {
		case p.words("IDENTIFIED", "EXTERNALLY", "AS"):
			u.external, u.password = p.text(), verifier{}
			p.need(strings.HasPrefix(u.external, "CN="), "a distinguished name")
		case p.words("IDENTIFIED", "BY"):
			p.password(u)
		case p.words("ACCOUNT", "LOCK"):
			u.locked = true
		case p.words("ACCOUNT", "UNLOCK"):
			u.locked, u.timed, u.failures = false, false, 0
		case p.words("PASSWORD", "EXPIRE"):
			u.expired = true
		case p.words("EXPIRE", "PASSWORD", "ROLLOVER", "PERIOD"):
			u.rollover = false
		case p.words("DEFAULT", "TABLESPACE"), p.words("TEMPORARY", "TABLESPACE"):
			p.tablespace()
		case p.words("DEFAULT", "ROLE", "ALL"):
			for _, h := range u.roles {
				h.active = true
			}
		case p.words("DEFAULT", "ROLE", "NONE"):
			for _, h := range u.roles {
				h.active = false
			}
		case p.words("PROFILE"):
			if u.profile = p.name(); p.db.profiles[u.profile] == nil {
				p.fail(2380, "profile %s does not exist", u.profile)
			}
		case p.words("QUOTA"):
			n := p.size()
			p.need(p.words("ON"), "ON")
			u.quotas[p.tablespace()] = n
		default:
			p.fail(errSyntax, "an unknown clause")
		}
	}
}

func (p *parser) tablespace() string {
	name := p.name()
	if !p.db.spaces[name] {
		p.fail(959, "tablespace '%s' does not exist", name)
	}
	return name
}

var sizeForm = regexp.MustCompile(`^([0-9]+)([KMGT]?)$`)

// size takes 100M or UNLIMITED, which is -1.
func (p *parser) size() int {
	if p.words("UNLIMITED") {
		return -1
	}
	p.need(len(p.rest) > 0 && p.rest[0].Kind == template.Word, "a size")
	m := sizeForm.FindStringSubmatch(strings.ToUpper(p.rest[0].Text))
	p.need(m != nil, "a size")
	p.rest = p.rest[1:]
	n, _ := strconv.Atoi(m[1])
	return n << map[string]int{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[m[2]]
}

// password takes a password, which is quoted like a name and has no escapes.
func (p *parser) password(u *user) {
	p.need(len(p.rest) > 0 && (p.rest[0].Kind == template.Name || p.rest[0].Kind == template.Word), "a password")
	password := p.rest[0].Value
	p.rest = p.rest[1:]
	limit := 30
	if p.db.options.Major >= 23 {
		limit = 1024
	}
	profile := p.db.profiles[u.profile]
	switch {
	case password == "":
		p.fail(988, "missing or invalid password(s)")
	case len(password) > limit:
		p.fail(28218, "password length more than %d bytes", limit)
	case profile.Rejects != nil && profile.Rejects(password):
		p.fail(28003, "password verification for the specified password failed")
	}
	if profile.NoReuse {
		for _, v := range append(u.old, u.password) {
			if v.hash != nil && v.matches(password) {
				p.fail(28007, "the password cannot be reused")
			}
		}
	}
	if u.password.hash != nil {
		u.old = append(u.old, u.password)
		u.rollover = profile.Rollover
	}
	u.password, u.external, u.expired, u.changed = newVerifier(password), "", false, time.Now()
}

func (p *parser) dropUser() {
	p.check(p.db.need(p.who, "DROP USER"))
	u := p.user(1918)
	cascade := p.words("CASCADE")
	p.end()
	for e := range p.db.sessions {
		if e.user == u {
			p.fail(1940, "cannot drop a user that is currently connected")
		}
	}
	if len(u.owned) > 0 && !cascade {
		p.fail(1922, "CASCADE must be specified to drop '%s'", u.name)
	}
	delete(p.db.users, u.name)
	for s := range p.db.synonyms {
		if s.owner == u.name {
			delete(p.db.synonyms, s)
		}
	}
}

func (p *parser) createSynonym() {
	p.check(p.db.need(p.who, "CREATE SYNONYM"))
	name := p.name()
	p.need(p.words("FOR"), "FOR")
	schema := p.name()
	p.need(p.mark("."), ".")
	object := p.name()
	p.end()
	p.db.synonyms[synonym{p.who.user.name, name}] = schema + "." + object
}

func (p *parser) dropSynonym() {
	s := synonym{p.who.user.name, p.name()}
	p.end()
	if _, ok := p.db.synonyms[s]; !ok {
		p.fail(1434, "private synonym to be dropped does not exist")
	}
	delete(p.db.synonyms, s)
}

var killForm = regexp.MustCompile(`^([0-9]+),([0-9]+)(,@1)?$`)

func (p *parser) kill() {
	m := killForm.FindStringSubmatch(p.text())
	p.words("IMMEDIATE")
	p.end()
	if p.db.options.RDS {
		p.fail(1031, "insufficient privileges")
	}
	p.check(p.db.need(p.who, "ALTER SYSTEM"))
	if m == nil {
		p.fail(26, "missing or invalid session ID")
	}
	p.endSession(m[1], m[2])
}

// endSession ends a session, by its SID and serial number.
func (p *parser) endSession(sid, serial string) {
	for e := range p.db.sessions {
		if strconv.Itoa(e.sid) == sid && strconv.Itoa(e.serial) == serial {
			if e == p.who {
				p.fail(27, "cannot kill current session")
			}
			if !p.db.faults().KillDoesNothing {
				_ = e.conn.Close()
				delete(p.db.sessions, e)
			}
			return
		}
	}
	p.fail(30, "User session ID does not exist.")
}

// The PL/SQL blocks that are understood, their tokens joined by single spaces.
var (
	lockBlock = regexp.MustCompile(`^DECLARE r INTEGER ; BEGIN r : = SYS \. DBMS_LOCK \. REQUEST \( ([0-9]+) , SYS \. DBMS_LOCK \. X_MODE , ([0-9]+) \) ; ` +
		`IF r NOT IN \( 0 , 4 \) THEN RAISE_APPLICATION_ERROR \( - 20990 , '[a-z ]+' \) ; END IF ; END ;$`)
	releaseBlock = regexp.MustCompile(`^DECLARE r INTEGER ; BEGIN r : = SYS \. DBMS_LOCK \. RELEASE \( ([0-9]+) \) ; END ;$`)
	rdsKillBlock = regexp.MustCompile(`^BEGIN rdsadmin \. rdsadmin_util \. kill \( sid = > ([0-9]+) , serial = > ([0-9]+) , method = > 'IMMEDIATE' \) ; END ;$`)
	nullBlock    = regexp.MustCompile(`^BEGIN NULL ; END ;$`)
)

func (p *parser) block() {
	words := make([]string, len(p.rest))
	for i, t := range p.rest {
		words[i] = t.Text
	}
	text := strings.Join(words, " ")
	if nullBlock.MatchString(text) {
		return
	}
	if m := rdsKillBlock.FindStringSubmatch(text); m != nil {
		p.db.mu.Lock()
		defer p.db.mu.Unlock()
		if !p.db.options.RDS {
			p.fail(6550, "PLS-00201: identifier 'RDSADMIN.RDSADMIN_UTIL' must be declared")
		}
		p.endSession(m[1], m[2])
		return
	}
	if m := releaseBlock.FindStringSubmatch(text); m != nil {
		id, _ := strconv.Atoi(m[1])
		p.db.mu.Lock()
		defer p.db.mu.Unlock()
		if p.db.locks[id] == p.who {
			delete(p.db.locks, id)
		}
		return
	}
	m := lockBlock.FindStringSubmatch(text)
	if m == nil {
		p.fail(errSyntax, "an unknown block")
	}
	id, _ := strconv.Atoi(m[1])
	seconds, _ := strconv.Atoi(m[2])
	p.lock(id, time.Duration(seconds)*time.Second)
}

// lock takes a lock of DBMS_LOCK for the session, and waits for it.
func (p *parser) lock(id int, wait time.Duration) {
	deadline := time.Now().Add(wait)
	for {
		p.db.mu.Lock()
		_, direct := p.who.user.objects["EXECUTE ON SYS.DBMS_LOCK"]
		holder := p.db.locks[id]
		if direct && (holder == nil || holder == p.who) {
			p.db.locks[id] = p.who
		}
		p.db.mu.Unlock()
		switch {
		case !direct && !p.db.may(p.who.user, "EXECUTE ANY PROCEDURE"):
			p.fail(6550, "PLS-00201: identifier 'SYS.DBMS_LOCK' must be declared")
		case holder == nil || holder == p.who:
			return
		case time.Now().After(deadline):
			p.fail(20990, "busy")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
