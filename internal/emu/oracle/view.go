package oracle

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// view is a table or view and what it shows.
type view struct {
	columns map[string]byte
	open    bool // everybody may read it
	rows    func(d *DB, who *entry) []row
}

const (
	vText, vNumber, vDate, vStamp = typeText, typeNumber, typeDate, typeTimestamp
)

var views = map[string]view{
	"DUAL": {open: true, columns: map[string]byte{"DUMMY": vText}, rows: func(*DB, *entry) []row { return []row{{"DUMMY": "X"}} }},
	"DBA_USERS": {
		columns: map[string]byte{
			"USERNAME": vText, "USER_ID": vNumber, "CREATED": vDate, "EXTERNAL_NAME": vText, "AUTHENTICATION_TYPE": vText,
			"ACCOUNT_STATUS": vText, "PROFILE": vText, "PASSWORD_CHANGE_DATE": vDate, "LAST_LOGIN": vStamp, "ORACLE_MAINTAINED": vText,
			"EXPIRY_DATE": vDate, "LOCK_DATE": vDate,
		},
		rows: func(d *DB, _ *entry) []row {
			return each(d.users, func(u *user) []row {
				r := row{
					"USERNAME": u.name, "USER_ID": u.id, "CREATED": u.created, "ACCOUNT_STATUS": u.status(), "PROFILE": u.profile,
					"AUTHENTICATION_TYPE": "PASSWORD", "ORACLE_MAINTAINED": "N",
					"PASSWORD_CHANGE_DATE": stamp(u.changed), "LAST_LOGIN": stamp(u.last),
				}
				if u.external != "" {
					r["EXTERNAL_NAME"], r["AUTHENTICATION_TYPE"] = u.external, "EXTERNAL"
				}
				if u.name == "SYS" {
					r["ORACLE_MAINTAINED"] = "Y"
				}
				return []row{r}
			})
		},
	},
	"DBA_SYS_PRIVS": {
		columns: map[string]byte{"GRANTEE": vText, "PRIVILEGE": vText, "ADMIN_OPTION": vText},
		rows: func(d *DB, _ *entry) []row {
			return each(d.users, func(u *user) (rows []row) {
				for p, admin := range u.rights {
					rows = append(rows, row{"GRANTEE": u.name, "PRIVILEGE": p, "ADMIN_OPTION": yes(admin)})
				}
				return rows
			})
		},
	},
	"USER_SYS_PRIVS": {
		open: true, columns: map[string]byte{"PRIVILEGE": vText, "ADMIN_OPTION": vText},
		rows: func(_ *DB, who *entry) (rows []row) {
			for p, admin := range who.user.rights {
				rows = append(rows, row{"PRIVILEGE": p, "ADMIN_OPTION": yes(admin)})
			}
			return rows
		},
	},
	"SESSION_PRIVS": {
		open: true, columns: map[string]byte{"PRIVILEGE": vText},
		rows: func(d *DB, who *entry) (rows []row) {
			for _, p := range systemRights {
				if d.may(who.user, p) {
					rows = append(rows, row{"PRIVILEGE": p})
				}
			}
			return rows
		},
	},
	"SESSION_ROLES": {
		open: true, columns: map[string]byte{"ROLE": vText},
		rows: func(_ *DB, who *entry) (rows []row) {
			for name, h := range who.user.roles {
				if h.active {
					rows = append(rows, row{"ROLE": name})
				}
			}
			return rows
		},
	},
	"USER_ROLE_PRIVS": {
		open: true, columns: map[string]byte{"GRANTED_ROLE": vText, "ADMIN_OPTION": vText},
		rows: func(_ *DB, who *entry) (rows []row) {
			for name, h := range who.user.roles {
				rows = append(rows, row{"GRANTED_ROLE": name, "ADMIN_OPTION": yes(h.admin)})
			}
			return rows
		},
	},
	"USER_TAB_PRIVS": {
		open:    true,
		columns: map[string]byte{"GRANTEE": vText, "OWNER": vText, "TABLE_NAME": vText, "PRIVILEGE": vText, "GRANTABLE": vText},
		rows:    func(_ *DB, who *entry) []row { return objectRows(who.user) },
	},
	"V$PWFILE_USERS": {
		columns: map[string]byte{"USERNAME": vText, "SYSDBA": vText, "SYSOPER": vText, "SYSBACKUP": vText, "SYSDG": vText, "SYSKM": vText},
		rows: func(d *DB, _ *entry) []row {
			return each(d.users, func(u *user) []row {
				r := row{"USERNAME": u.name}
				for _, right := range administrativeRights {
					r[right] = strings.ToUpper(strconv.FormatBool(u.admin[right]))
				}
				if len(u.admin) == 0 {
					return nil
				}
				return []row{r}
			})
		},
	},
	"DBA_ROLE_PRIVS": {
		columns: map[string]byte{"GRANTEE": vText, "GRANTED_ROLE": vText, "ADMIN_OPTION": vText, "DEFAULT_ROLE": vText},
		rows: func(d *DB, _ *entry) []row {
			return each(d.users, func(u *user) (rows []row) {
				for name, h := range u.roles {
					rows = append(rows, row{
						"GRANTEE": u.name, "GRANTED_ROLE": name, "ADMIN_OPTION": yes(h.admin), "DEFAULT_ROLE": yes(h.active),
					})
				}
				return rows
			})
		},
	},
	"DBA_TAB_PRIVS": {
		columns: map[string]byte{"GRANTEE": vText, "OWNER": vText, "TABLE_NAME": vText, "PRIVILEGE": vText, "GRANTABLE": vText},
		rows: func(d *DB, _ *entry) []row {
			return each(d.users, objectRows)
		},
	},
	"DBA_PROFILES": {
		columns: map[string]byte{"PROFILE": vText, "RESOURCE_NAME": vText, "LIMIT": vText},
		rows: func(d *DB, _ *entry) (rows []row) {
			for name, p := range d.profiles {
				limit := "1"
				if p.LockForever {
					limit = "UNLIMITED"
				}
				rows = append(rows, row{"PROFILE": name, "RESOURCE_NAME": "PASSWORD_LOCK_TIME", "LIMIT": limit})
			}
			return rows
		},
	},
	"DBA_TS_QUOTAS": {
		columns: map[string]byte{"USERNAME": vText, "TABLESPACE_NAME": vText, "MAX_BYTES": vNumber},
		rows: func(d *DB, _ *entry) []row {
			return each(d.users, func(u *user) (rows []row) {
				for space, n := range u.quotas {
					rows = append(rows, row{"USERNAME": u.name, "TABLESPACE_NAME": space, "MAX_BYTES": n})
				}
				return rows
			})
		},
	},
	"DBA_OBJECTS": {
		columns: map[string]byte{"OWNER": vText, "OBJECT_NAME": vText},
		rows: func(d *DB, _ *entry) []row {
			return each(d.users, func(u *user) (rows []row) {
				for _, o := range u.owned {
					rows = append(rows, row{"OWNER": u.name, "OBJECT_NAME": o})
				}
				return rows
			})
		},
	},
	"DBA_SYNONYMS": {
		columns: map[string]byte{"OWNER": vText, "SYNONYM_NAME": vText, "TABLE_OWNER": vText, "TABLE_NAME": vText},
		rows: func(d *DB, _ *entry) (rows []row) {
			for s, target := range d.synonyms {
				schema, object, _ := strings.Cut(target, ".")
				rows = append(rows, row{"OWNER": s.owner, "SYNONYM_NAME": s.name, "TABLE_OWNER": schema, "TABLE_NAME": object})
			}
			return rows
		},
	},
	"GV$SESSION": {
		columns: map[string]byte{"INST_ID": vNumber, "SID": vNumber, "SERIAL#": vNumber, "USERNAME": vText},
		rows: func(d *DB, _ *entry) (rows []row) {
			for e := range d.sessions {
				rows = append(rows, row{"INST_ID": 1, "SID": e.sid, "SERIAL#": e.serial, "USERNAME": e.user.name})
			}
			return rows
		},
	},
}

// objectRows are the privileges on objects that a user has.
func objectRows(u *user) (rows []row) {
	for what, grantable := range u.objects {
		privilege, object, _ := strings.Cut(what, " ON ")
		owner, table, _ := strings.Cut(object, ".")
		rows = append(rows, row{
			"GRANTEE": u.name, "OWNER": owner, "TABLE_NAME": table, "PRIVILEGE": privilege, "GRANTABLE": yes(grantable),
		})
	}
	return rows
}

// each collects the rows of all users, in the order of their names.
func each(users map[string]*user, rows func(*user) []row) (all []row) {
	for _, name := range slices.Sorted(maps.Keys(users)) {
		all = append(all, rows(users[name])...)
	}
	return all
}

func yes(v bool) string {
	if v {
		return "YES"
	}
	return "NO"
}

// stamp is a time, or NULL.
func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

// view takes the name of a view and reads it.
func (q *selector) view() []row {
	name := q.name()
	if name == "SYS" && q.mark(".") {
		name = q.name()
	}
	v, ok := views[name]
	if !ok {
		q.fail(errSyntax, "an unknown view")
	}
	if _, granted := q.who.user.objects["SELECT ON SYS."+name]; !v.open && !granted &&
		!q.db.may(q.who.user, "SELECT ANY DICTIONARY") && !q.db.may(q.who.user, "catalog") {
		q.fail(942, "table or view does not exist")
	}
	q.columns = v.columns
	return v.rows(q.db, q.who)
}
