package main

import (
	"context"
	"database/sql"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Inspect implements sdk.Inspector. An account is a login with a password; logins of Windows are none.
func (c connector) Inspect(ctx context.Context, t sdk.Target, name string) (sdk.Facts, error) {
	s, err := c.manage(ctx, t)
	if err != nil {
		return sdk.Facts{}, err
	}
	defer s.close()
	a, err := s.login(ctx, name)
	if err != nil {
		return sdk.Facts{}, err
	}
	f, _, err := s.facts(ctx, name, a)
	s.good = err == nil
	return f, err
}

// Discover implements sdk.Discoverer. The server's own logins (##…##) are left out.
func (c connector) Discover(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
	s, err := c.manage(ctx, t)
	if err != nil {
		return err
	}
	defer s.close()
	all, err := s.accounts(ctx)
	if err != nil {
		return err
	}
	held, err := s.held(ctx, nil)
	if err != nil {
		return err
	}
	sessions, err := s.allSessions(ctx)
	if err != nil {
		return err
	}
	for _, a := range all {
		if strings.HasPrefix(a.name, "##") {
			continue
		}
		if !yield(factsOf(a, held.of[identity(a.sid)], held.closed, len(sessions[identity(a.sid)]))) {
			break
		}
	}
	s.good = true
	return nil
}

// rights is what one login may do.
type rights struct {
	roles     []string            // of the server
	grants    []string            // for people
	databases map[string][]string // roles in databases
}

// in reports whether a membership is there.
func (r *rights) in(m placed) bool {
	roles := r.roles
	if !m.server {
		database := m.database
		if database == "" {
			database = "master"
		}
		roles = nil
		for name, all := range r.databases {
			if strings.EqualFold(name, database) {
				roles = all
			}
		}
	}
	return slices.ContainsFunc(roles, func(role string) bool { return strings.EqualFold(role, m.role) })
}

// holdings is what logins may do, by their identity.
type holdings struct {
	of     map[string]*rights
	closed []string // databases that could not be looked into
}

func (h *holdings) at(sid []byte) *rights {
	r := h.of[identity(sid)]
	if r == nil {
		r = &rights{databases: map[string][]string{}}
		h.of[identity(sid)] = r
	}
	return r
}

// facts says everything about one login; a is nil if it is not there.
func (s *session) facts(ctx context.Context, name string, a *account) (sdk.Facts, *rights, error) {
	if a == nil {
		return sdk.Facts{Account: name, ReadAt: time.Now().UTC()}, &rights{}, nil
	}
	held, err := s.held(ctx, a.sid)
	if err != nil {
		return sdk.Facts{}, nil, err
	}
	sessions, err := s.sessions(ctx, a.sid)
	r := held.at(a.sid)
	return factsOf(a, r, held.closed, len(sessions)), r, err
}

func factsOf(a *account, r *rights, closed []string, sessions int) sdk.Facts {
	if r == nil {
		r = &rights{}
	}
	slices.Sort(r.roles)
	slices.Sort(r.grants)
	f := sdk.Facts{
		Exists:            true,
		Account:           a.name,
		Identity:          a.identity(),
		Locked:            a.disabled,
		HasPassword:       true,
		PasswordChangedAt: a.changed,
		Groups:            r.roles,
		Grants:            r.grants,
		Sessions:          sessions,
		Attributes: map[string]string{
			"default_database": a.database, "check_policy": yesNo(a.policy), "check_expiration": yesNo(a.expires),
			"bad_passwords": strconv.FormatInt(a.wrong, 10),
		},
		ReadAt: time.Now().UTC(),
	}
	for name, set := range map[string]bool{"locked_out": a.locked, "password_expired": a.expired, "must_change_password": a.renew} {
		if set {
			f.Attributes[name] = "yes"
		}
	}
	if len(closed) > 0 {
		f.Attributes["databases_not_read"] = strings.Join(closed, ", ")
	}
	return f
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// rights reads what the account may do, as one sorted list.
func (w *work) rights(ctx context.Context) ([]string, error) {
	if w.account == nil {
		return nil, nil
	}
	held, err := w.held(ctx, w.account.sid)
	if err != nil {
		return nil, err
	}
	r := held.at(w.account.sid)
	all := slices.Concat(r.grants, r.roles)
	slices.Sort(all)
	return all, nil
}

// held reads the roles and permissions of a login, on the server and in every database, or of all logins. Databases are read over
// this connection, by names of three parts.
func (s *session) held(ctx context.Context, sid []byte) (*holdings, error) {
	h := &holdings{of: map[string]*rights{}}
	only, args := " IS NOT NULL", []any(nil)
	if sid != nil {
		only, args = " = @p1", []any{sid}
	}
	err := s.query(ctx, "read the server roles", `SELECT p.sid, r.name FROM sys.server_role_members AS m
 JOIN sys.server_principals AS r ON r.principal_id = m.role_principal_id
 JOIN sys.server_principals AS p ON p.principal_id = m.member_principal_id WHERE p.sid`+only, func(rows *sql.Rows) error {
		var who []byte
		var role string
		err := rows.Scan(&who, &role)
		h.at(who).roles = append(h.at(who).roles, role)
		return err
	}, args...)
	if err != nil {
		return nil, err
	}
	err = s.query(ctx, "read the server permissions", `SELECT p.sid, g.state_desc, g.permission_name FROM sys.server_permissions AS g
 JOIN sys.server_principals AS p ON p.principal_id = g.grantee_principal_id WHERE g.class = 100 AND p.sid`+only, func(rows *sql.Rows) error {
		var who []byte
		var state, name string
		err := rows.Scan(&who, &state, &name)
		if state != "GRANT" || name != "CONNECT SQL" { // every login has that
			h.at(who).grants = append(h.at(who).grants, strings.ReplaceAll(state, "_", " ")+" "+name)
		}
		return err
	}, args...)
	if err != nil {
		return nil, err
	}
	entered, closed, err := s.databases(ctx)
	if err != nil {
		return nil, err
	}
	h.closed = closed
	for _, name := range entered {
		err := s.heldIn(ctx, h, name, only, args)
		if sdk.ClassOf(err) == sdk.ClassNotPermitted { // a replica that cannot be read, among others
			h.closed = append(h.closed, name)
			continue
		}
		if err != nil {
			return nil, err
		}
	}
	return h, nil
}

// heldIn reads roles and permissions in one database.
func (s *session) heldIn(ctx context.Context, h *holdings, name, only string, args []any) error {
	database, err := ident(name)
	if err != nil {
		return err
	}
	users := 0
	err = s.query(ctx, "read the users of "+name,
		"SELECT principal_id FROM "+database+".sys.database_principals WHERE principal_id > 4 AND sid"+only,
		func(rows *sql.Rows) error { users++; return rows.Scan(new(int64)) }, args...)
	if err != nil || users == 0 {
		return err
	}
	err = s.query(ctx, "read the roles in "+name, `SELECT u.sid, r.name FROM `+database+`.sys.database_role_members AS m
 JOIN `+database+`.sys.database_principals AS r ON r.principal_id = m.role_principal_id
 JOIN `+database+`.sys.database_principals AS u ON u.principal_id = m.member_principal_id WHERE u.principal_id > 4 AND u.sid`+only,
		func(rows *sql.Rows) error {
			var who []byte
			var role string
			err := rows.Scan(&who, &role)
			r := h.at(who)
			r.databases[name] = append(r.databases[name], role)
			r.grants = append(r.grants, name+": ROLE "+role)
			return err
		}, args...)
	if err != nil {
		return err
	}
	return s.query(ctx, "read the permissions in "+name, `SELECT u.sid, g.state_desc, g.permission_name, g.class, o.name, s.name
 FROM `+database+`.sys.database_permissions AS g
 JOIN `+database+`.sys.database_principals AS u ON u.principal_id = g.grantee_principal_id
 LEFT JOIN `+database+`.sys.objects AS o ON g.class = 1 AND o.object_id = g.major_id
 LEFT JOIN `+database+`.sys.schemas AS s ON g.class = 3 AND s.schema_id = g.major_id OR s.schema_id = o.schema_id
 WHERE u.principal_id > 4 AND u.sid`+only,
		func(rows *sql.Rows) error {
			var who []byte
			var state, permission string
			var class int64
			var object, schema sql.NullString
			err := rows.Scan(&who, &state, &permission, &class, &object, &schema)
			if permission != "CONNECT" || state != "GRANT" { // every user has that
				h.at(who).grants = append(h.at(who).grants, name+": "+strings.ReplaceAll(state, "_", " ")+" "+permission+on(class, schema.String, object.String))
			}
			return err
		}, args...)
}

// on says what a permission is about, by its class.
// learn.microsoft.com/sql/relational-databases/system-catalog-views/sys-database-permissions-transact-sql
func on(class int64, schema, object string) string {
	switch {
	case class == 0:
		return ""
	case class == 1 && object != "":
		return " ON " + schema + "." + object
	case class == 3 && schema != "":
		return " ON SCHEMA " + schema
	default:
		return " ON something of class " + strconv.FormatInt(class, 10)
	}
}

// sessions lists the sessions that a login began, but not this one.
func (s *session) sessions(ctx context.Context, sid []byte) ([]int64, error) {
	var ids []int64
	err := s.query(ctx, "read the sessions", `SELECT session_id FROM sys.dm_exec_sessions
 WHERE original_security_id = @p1 AND is_user_process = 1 AND session_id <> @@SPID`, func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	}, sid)
	return ids, err
}

// allSessions lists the sessions of every login, by its identity.
func (s *session) allSessions(ctx context.Context) (map[string][]int64, error) {
	all := map[string][]int64{}
	err := s.query(ctx, "read the sessions", `SELECT original_security_id, session_id FROM sys.dm_exec_sessions
 WHERE is_user_process = 1 AND session_id <> @@SPID`, func(rows *sql.Rows) error {
		var sid []byte
		var id int64
		err := rows.Scan(&sid, &id)
		all[identity(sid)] = append(all[identity(sid)], id)
		return err
	})
	return all, err
}
