package oracle

import (
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// systemRights are the system privileges there are.
var systemRights = []string{
	"CREATE SESSION", "CREATE USER", "ALTER USER", "DROP USER", "CREATE SYNONYM", "ALTER SYSTEM", "CREATE TABLE", "CREATE VIEW",
	"CREATE PROCEDURE", "CREATE SEQUENCE", "READ ANY TABLE", "SELECT ANY DICTIONARY", "GRANT ANY PRIVILEGE", "GRANT ANY ROLE",
	"GRANT ANY OBJECT PRIVILEGE", "UNLIMITED TABLESPACE",
}

// administrativeRights are in the password file, and are handed on by sessions that were begun with them; with SYSDBA all.
// "Granting and Revoking Administrative Privileges" in the Database Administrator's Guide
var administrativeRights = []string{"SYSDBA", "SYSOPER", "SYSBACKUP", "SYSDG", "SYSKM"}

var objectRights = []string{"SELECT", "READ", "INSERT", "UPDATE", "DELETE", "EXECUTE"}

// grant does GRANT or REVOKE: of system privileges and roles, or of privileges on an object.
func (p *parser) grant(give bool) {
	what := []string{p.right()}
	for p.mark(",") {
		what = append(what, p.right())
	}
	object := ""
	if p.words("ON") {
		object = p.name()
		p.need(p.mark("."), ".")
		object += "." + p.name()
	}
	preposition, code := "FROM", 1917
	if give {
		preposition = "TO"
	}
	p.need(p.words(preposition), preposition)
	u := p.user(code)
	admin := give && (p.words("WITH", "ADMIN", "OPTION") || p.words("WITH", "GRANT", "OPTION"))
	p.end()
	for _, w := range what {
		switch {
		case object != "":
			p.objectRight(u, w, object, give, admin)
		case slices.Contains(systemRights, w):
			p.systemRight(u, w, give, admin)
		case slices.Contains(administrativeRights, w):
			p.administrativeRight(u, w, give)
		default:
			p.role(u, w, give, admin)
		}
	}
}

// right takes the words of a privilege, or the name of a role.
func (p *parser) right() string {
	if len(p.rest) > 0 && p.rest[0].Kind == template.Name {
		return p.name()
	}
	var words []string
	for len(p.rest) > 0 && p.rest[0].Kind == template.Word && !p.peek("ON") && !p.peek("TO") && !p.peek("FROM") {
		words = append(words, p.name())
	}
	p.need(len(words) > 0, "a privilege or role")
	return strings.Join(words, " ")
}

func (p *parser) systemRight(u *user, right string, give, admin bool) {
	if pass := p.who.user.rights[right]; !pass {
		p.check(p.db.need(p.who, "GRANT ANY PRIVILEGE"))
	}
	if _, has := u.rights[right]; !give && !has {
		p.fail(1952, "system privileges not granted to '%s'", u.name)
	}
	if give {
		u.rights[right] = u.rights[right] || admin
	} else {
		delete(u.rights, right)
	}
}

func (p *parser) administrativeRight(u *user, right string, give bool) {
	if as := p.who.as; as != "SYSDBA" && (as != right || right == "SYSOPER") {
		p.fail(1031, "insufficient privileges")
	}
	if !give && !u.admin[right] {
		p.fail(1952, "system privileges not granted to '%s'", u.name)
	}
	if give {
		u.admin[right] = true
	} else {
		delete(u.admin, right)
	}
}

func (p *parser) role(u *user, name string, give, admin bool) {
	if p.db.roles[name] == nil {
		p.fail(1919, "role '%s' does not exist", name)
	}
	if h := p.who.user.roles[name]; (h == nil || !h.admin) && !p.db.may(p.who.user, "GRANT ANY ROLE") {
		p.fail(1932, "ADMIN option not granted for role '%s'", name)
	}
	switch {
	case give && u.roles[name] != nil:
		u.roles[name].admin = u.roles[name].admin || admin
	case give:
		u.roles[name] = &held{admin: admin, active: true}
	case u.roles[name] == nil:
		p.fail(1951, "ROLE '%s' not granted to '%s'", name, u.name)
	default:
		delete(u.roles, name)
	}
}

func (p *parser) objectRight(u *user, right, object string, give, admin bool) {
	p.need(slices.Contains(objectRights, right), "a privilege on objects")
	what := right + " ON " + object
	owner, _, _ := strings.Cut(object, ".")
	if owner != p.who.user.name && !p.who.user.objects[what] {
		p.check(p.db.need(p.who, "GRANT ANY OBJECT PRIVILEGE"))
	}
	if owner != "SYS" && p.db.users[owner] == nil {
		p.fail(942, "table or view does not exist")
	}
	if _, has := u.objects[what]; !give && !has {
		p.fail(1927, "cannot REVOKE privileges you did not grant")
	}
	if give {
		u.objects[what] = u.objects[what] || admin
	} else {
		delete(u.objects, what)
	}
}
