package main

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// account is a role of the server, as it stores it.
type account struct {
	oid         string // tells it from a later role of the same name
	name        string
	login       bool // it may log in
	attributes  []string
	limit       int
	until       *time.Time // when its password expires
	comment     string
	hasPassword bool // true where the server does not show it
}

// identity tells an account from another that is later given the same name.
func (a *account) identity() string { return a.name + "#" + a.oid }

// The columns of an account. Passwords are shown to superusers alone.
// https://www.postgresql.org/docs/current/view-pg-roles.html
const (
	accountColumns = `SELECT r.oid::text, r.rolname::text, r.rolcanlogin, r.rolsuper, r.rolcreatedb, r.rolcreaterole, r.rolreplication,
 r.rolbypassrls, r.rolinherit, r.rolconnlimit::int,
 CASE WHEN isfinite(r.rolvaliduntil) THEN r.rolvaliduntil WHEN r.rolvaliduntil < 'epoch' THEN 'epoch' END,
 COALESCE(shobj_description(r.oid, 'pg_authid'), ''), `
	hiddenHash  = `true FROM pg_roles r`
	visibleHash = `p.rolpassword IS NOT NULL FROM pg_roles r JOIN pg_authid p ON p.oid = r.oid`
)

// accounts reads the roles for which a condition holds, by name.
func (s *session) accounts(ctx context.Context, condition string, args ...any) ([]*account, error) {
	from := hiddenHash
	if s.super {
		from = visibleHash
	}
	var all []*account
	err := s.query(ctx, "read the roles", accountColumns+from+" WHERE "+condition+" ORDER BY r.rolname", func(r pgx.Rows) error {
		var a account
		var super, createDB, createRole, replication, bypass, inherit bool
		if err := r.Scan(&a.oid, &a.name, &a.login, &super, &createDB, &createRole, &replication, &bypass, &inherit,
			&a.limit, &a.until, &a.comment, &a.hasPassword); err != nil {
			return err
		}
		for _, attribute := range []struct {
			set  bool
			name string
		}{
			{super, "SUPERUSER"}, {createDB, "CREATEDB"}, {createRole, "CREATEROLE"}, {replication, "REPLICATION"},
			{bypass, "BYPASSRLS"}, {!inherit, "NOINHERIT"},
		} {
			if attribute.set {
				a.attributes = append(a.attributes, attribute.name)
			}
		}
		all = append(all, &a)
		return nil
	}, args...)
	return all, err
}

// longestName is what the server keeps of a name, in bytes. Longer ones it cuts, also when it
// looks for them, and so finds another.
const longestName = 63

// account reads one role; nil if it is not there.
func (s *session) account(ctx context.Context, name string) (*account, error) {
	if len(name) > longestName {
		return nil, nil //nolint:nilnil // there cannot be one
	}
	all, err := s.accounts(ctx, "r.rolname = $1", name)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[0], nil
}

// memberships are the roles an account is a member of.
func (s *session) memberships(ctx context.Context, a *account) ([]string, error) {
	return s.strings(ctx, "read the memberships", `SELECT DISTINCT g.rolname::text FROM pg_auth_members m
 JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = $1::oid ORDER BY 1`, a.oid)
}

// sharedRights are an account's rights that hold for the whole server, its membership in
// roles excepted, and how many objects it owns where.
func (s *session) sharedRights(ctx context.Context, a *account) ([]string, error) {
	rights, err := s.strings(ctx, "read the rights on databases", `SELECT e.privilege_type || ' ON DATABASE ' || quote_ident(d.datname) ||
 CASE WHEN e.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
 FROM pg_database d, aclexplode(d.datacl) e WHERE e.grantee = $1::oid
 UNION ALL
 SELECT 'MEMBER OF ' || quote_ident(g.rolname) || ' WITH ADMIN OPTION'
 FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = $1::oid AND m.admin_option
 UNION ALL
 SELECT COALESCE(d.datname || ': ', '') || 'OWNER OF ' || count(*) || ' OBJECTS'
 FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid
 WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1::oid AND s.deptype = 'o' GROUP BY d.datname`, a.oid)
	return append(rights, a.attributes...), err
}

// localRights are an account's rights in the database of the session. Objects of a schema
// are counted, not listed: there may be thousands.
func (s *session) localRights(ctx context.Context, a *account) ([]string, error) {
	return s.strings(ctx, "read the rights in the database "+s.database, `SELECT current_database() || ': ' || privilege || ' ON ' || place ||
 CASE WHEN passed THEN ' WITH GRANT OPTION' ELSE '' END FROM (
  SELECT e.privilege_type AS privilege, 'SCHEMA ' || quote_ident(n.nspname) AS place, e.is_grantable AS passed
   FROM pg_namespace n, aclexplode(n.nspacl) e WHERE e.grantee = $1::oid
  UNION ALL
  SELECT e.privilege_type, count(*) || CASE c.relkind WHEN 'S' THEN ' SEQUENCES' ELSE ' TABLES' END ||
    ' IN SCHEMA ' || quote_ident(n.nspname), e.is_grantable
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) e WHERE e.grantee = $1::oid
   GROUP BY e.privilege_type, c.relkind = 'S', c.relkind, n.nspname, e.is_grantable
  UNION ALL
  SELECT e.privilege_type, count(*) || ' FUNCTIONS IN SCHEMA ' || quote_ident(n.nspname), e.is_grantable
   FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, aclexplode(p.proacl) e WHERE e.grantee = $1::oid
   GROUP BY e.privilege_type, n.nspname, e.is_grantable
  UNION ALL
  SELECT e.privilege_type, 'NEW ' || CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
    WHEN 'T' THEN 'TYPES' ELSE 'SCHEMAS' END || ' OF ' || quote_ident(pg_get_userbyid(d.defaclrole)) ||
    COALESCE(' IN SCHEMA ' || quote_ident(n.nspname), ''), e.is_grantable
   FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) e WHERE e.grantee = $1::oid
 ) AS rights ORDER BY 1`, a.oid)
}

// dependence are the databases in which an account owns something or has rights, the
// session's own first if it has any at all.
func (s *session) dependence(ctx context.Context, a *account) ([]string, error) {
	return s.strings(ctx, "read where the account has something", `SELECT name FROM (
 SELECT DISTINCT COALESCE(d.datname, current_database())::text AS name
 FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid
 WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1::oid) AS places ORDER BY name <> current_database(), name`, a.oid)
}

// sessions lists the server's processes that work for an account, but not our own.
func (s *session) sessions(ctx context.Context, a *account) ([]string, error) {
	return s.strings(ctx, "read the sessions",
		"SELECT pid::text FROM pg_stat_activity WHERE usesysid = $1::oid AND pid <> pg_backend_pid()", a.oid)
}

// facts is what the server says about an account. Rights within databases are read where
// here is given: in its own and, by further connections, in the others.
func (s *session) facts(ctx context.Context, a *account, others func(database string) (*session, error)) (sdk.Facts, error) {
	f := sdk.Facts{
		Exists: true, Account: a.name, Identity: a.identity(), Locked: !a.login, HasPassword: a.hasPassword,
		Attributes: map[string]string{}, ReadAt: time.Now().UTC(),
	}
	if a.until != nil {
		f.ExpiresAt = a.until.UTC()
	}
	id, said := markOf(a.comment)
	for name, value := range map[string]string{"made_for": id, "comment": said} {
		if value != "" {
			f.Attributes[name] = value
		}
	}
	ids, err := s.sessions(ctx, a)
	if err != nil {
		return sdk.Facts{}, err
	}
	f.Sessions = len(ids)
	if f.Groups, err = s.memberships(ctx, a); err != nil {
		return sdk.Facts{}, err
	}
	if f.Grants, err = s.sharedRights(ctx, a); err != nil {
		return sdk.Facts{}, err
	}
	if others != nil {
		local, err := s.everyLocalRight(ctx, a, others)
		if err != nil {
			return sdk.Facts{}, err
		}
		f.Grants = append(f.Grants, local...)
	}
	slices.Sort(f.Groups)
	slices.Sort(f.Grants)
	return f, nil
}

// everyLocalRight is localRights of each database in which the account has something. One
// that the management account cannot enter is named.
func (s *session) everyLocalRight(ctx context.Context, a *account, others func(string) (*session, error)) ([]string, error) {
	databases, err := s.dependence(ctx, a)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, db := range databases {
		there := s
		if db != s.database {
			there, err = others(db)
			switch sdk.ClassOf(err) {
			case "":
			case sdk.ClassNotPermitted, sdk.ClassInvalid:
				all = append(all, db+": rights that the management account cannot see")
				continue
			default:
				return nil, s.doubt("read the rights in the database "+db, err)
			}
		}
		rights, err := there.localRights(ctx, a)
		if there != s {
			there.close()
		}
		if err != nil {
			return nil, err
		}
		all = append(all, rights...)
	}
	return all, nil
}
