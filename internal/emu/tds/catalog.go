package tds

import (
	"slices"
	"strconv"
	"strings"
)

// view is a catalog view: its columns and, of the rows, those that the session may see.
// learn.microsoft.com/sql/relational-databases/system-catalog-views
type view struct {
	columns []column
	rows    []map[string]any
}

// version is the product's version as people write it.
func version(v [4]byte) string {
	return strconv.Itoa(int(v[0])) + "." + strconv.Itoa(int(v[1])) + "." + strconv.Itoa(int(v[2])<<8|int(v[3])) + ".0"
}

// view finds a view by its name: sys.x, or database.sys.x for those that databases have.
func (p *script) view(path []string) view {
	d := p.session.database
	if len(path) == 3 {
		d = p.server.state.databases[strings.ToLower(path[0])]
		if d == nil {
			fail(208, 16, "Invalid object name '%s'.", strings.Join(path, "."))
		}
		if !p.session.login.enters(d) {
			fail(916, 14, "The server principal \"%s\" is not able to access the database \"%s\" under the current security context.",
				p.session.login.name, d.name)
		}
		path = path[1:]
	}
	switch name := strings.ToLower(strings.Join(path, ".")); name {
	case "sys.server_principals", "sys.sql_logins":
		return p.principals(name == "sys.sql_logins")
	case "sys.server_role_members":
		return p.roleMembers()
	case "sys.server_permissions":
		return p.permissions()
	case "sys.databases":
		return p.databases()
	case "sys.dm_exec_sessions":
		return p.sessions()
	case "sys.database_principals":
		return p.databasePrincipals(d)
	case "sys.database_role_members":
		return p.databaseRoleMembers(d)
	case "sys.database_permissions":
		return p.databasePermissions(d)
	case "sys.schemas":
		v := view{columns: []column{{"name", kindText}, {"schema_id", kindInt}, {"principal_id", kindInt}}}
		for _, s := range d.schemas {
			v.add(s.name, int64(s.id), int64(s.owner))
		}
		return v
	case "sys.objects":
		v := view{columns: []column{{"name", kindText}, {"object_id", kindInt}, {"schema_id", kindInt}}}
		for id, name := range d.objects {
			v.add(name, int64(id), int64(1))
		}
		return v
	case "dbo.sysjobs":
		if d.name == "msdb" {
			return p.jobs(d)
		}
	}
	p.server.unknown("the view "+strings.Join(path, "."), p.text)
	fail(208, 16, "Invalid object name '%s'.", strings.Join(path, "."))
	return view{}
}

func (v *view) add(values ...any) {
	row := map[string]any{}
	for i, c := range v.columns {
		row[c.name] = values[i]
	}
	v.rows = append(v.rows, row)
}

// sees reports whether the session may see a server principal: itself, sa, roles; others with a
// permission. learn.microsoft.com/sql/relational-databases/security/metadata-visibility-configuration
func (p *script) sees(l *login) bool {
	me := p.session.login
	return l == me || l.id == 1 || l.kind == "R" || me.has("VIEW ANY DEFINITION") || me.has("ALTER ANY LOGIN")
}

func (p *script) principals(sqlOnly bool) view {
	v := view{columns: []column{
		{"name", kindText}, {"principal_id", kindInt}, {"sid", kindBinary}, {"type", kindText}, {"is_disabled", kindBit},
		{"default_database_name", kindText}, {"is_policy_checked", kindBit}, {"is_expiration_checked", kindBit},
	}}
	if !sqlOnly {
		v.columns = v.columns[:6]
	}
	for _, l := range byID(p.server.state.logins, func(l *login) int { return l.id }) {
		if p.sees(l) && (!sqlOnly || l.kind == "S") {
			v.add(l.name, int64(l.id), l.sid, l.kind, l.disabled, l.database, l.policy, l.expires)
		}
	}
	return v
}

func (p *script) roleMembers() view {
	v := view{columns: []column{{"role_principal_id", kindInt}, {"member_principal_id", kindInt}}}
	for _, l := range byID(p.server.state.logins, func(l *login) int { return l.id }) {
		for role := range l.roles {
			if p.sees(l) {
				v.add(int64(p.server.state.logins[role].id), int64(l.id))
			}
		}
	}
	return v
}

func (p *script) permissions() view {
	v := view{columns: []column{{"class", kindInt}, {"grantee_principal_id", kindInt}, {"permission_name", kindText}, {"state_desc", kindText}}}
	for _, l := range p.server.state.logins {
		for r, option := range l.rights {
			state := map[bool]string{false: "GRANT", true: "GRANT_WITH_GRANT_OPTION"}[option]
			if p.sees(l) {
				v.add(int64(100), int64(l.id), r, state)
			}
		}
	}
	return v
}

func (p *script) databases() view {
	v := view{columns: []column{{"name", kindText}, {"database_id", kindInt}, {"owner_sid", kindBinary}, {"state", kindInt}}}
	for _, d := range byID(p.server.state.databases, func(d *database) int { return d.id }) {
		v.add(d.name, int64(d.id), d.owner, int64(0))
	}
	return v
}

func (p *script) sessions() view {
	v := view{columns: []column{
		{"session_id", kindInt}, {"login_name", kindText}, {"original_login_name", kindText}, {"original_security_id", kindBinary},
		{"is_user_process", kindBit},
	}}
	v.add(int64(1), "sa", "sa", []byte{1}, false) // one of the server's own
	for _, s := range p.server.state.sessions {
		if s == p.session || p.session.login.has("VIEW SERVER STATE") {
			v.add(int64(s.id), s.login.name, s.login.name, s.login.sid, true)
		}
	}
	return v
}

// seesAll reports whether the session may see every principal of a database.
func (p *script) seesAll(d *database) bool {
	me := p.session.login
	return me.has("VIEW ANY DEFINITION") || me.may(d, "VIEW DEFINITION") || me.may(d, "ALTER ANY USER")
}

func (p *script) databasePrincipals(d *database) view {
	v := view{columns: []column{
		{"name", kindText}, {"principal_id", kindInt}, {"type", kindText}, {"sid", kindBinary}, {"owning_principal_id", kindInt},
		{"is_fixed_role", kindBit},
	}}
	for _, u := range byID(d.principals, func(u *principal) int { return u.id }) {
		if !p.seesAll(d) && !u.fixed && u.id > 4 && u != d.user(p.session.login.sid) {
			continue
		}
		var sid, owner any
		if u.sid != nil {
			sid = u.sid
		}
		if u.owner != 0 {
			owner = int64(u.owner)
		}
		v.add(u.name, int64(u.id), u.kind, sid, owner, u.fixed)
	}
	return v
}

func (p *script) databaseRoleMembers(d *database) view {
	v := view{columns: []column{{"role_principal_id", kindInt}, {"member_principal_id", kindInt}}}
	for _, u := range d.principals {
		for role := range u.roles {
			if p.seesAll(d) || u == d.user(p.session.login.sid) {
				v.add(int64(d.principals[role].id), int64(u.id))
			}
		}
	}
	return v
}

func (p *script) databasePermissions(d *database) view {
	v := view{columns: []column{
		{"class", kindInt}, {"major_id", kindInt}, {"grantee_principal_id", kindInt}, {"permission_name", kindText}, {"state_desc", kindText},
	}}
	for _, u := range d.principals {
		for _, r := range u.rights {
			if p.seesAll(d) || u == d.user(p.session.login.sid) {
				v.add(int64(r.class), int64(r.major), int64(u.id), r.name, "GRANT")
			}
		}
	}
	return v
}

func (p *script) jobs(msdb *database) view {
	me := p.session.login
	if u := msdb.user(me.sid); !me.has("CONTROL SERVER") && (u == nil || !slices.Contains(u.rights, right{0, 0, "SELECT"}) && !u.roles["db_datareader"]) {
		fail(229, 14, "The SELECT permission was denied on the object 'sysjobs', database 'msdb', schema 'dbo'.")
	}
	v := view{columns: []column{{"job_id", kindText}, {"name", kindText}, {"owner_sid", kindBinary}}}
	for _, j := range p.server.state.jobs {
		v.add(j.id, j.name, j.owner)
	}
	return v
}
