package main

import (
	"context"
	"database/sql"
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// CheckRights implements sdk.RightsChecker, by a fresh login. It understands commands that change who is in a role, make users, grant,
// revoke or read; what others need cannot be told, and it says so.
func (connector) CheckRights(ctx context.Context, t sdk.Target, r sdk.Role, params map[string]string) ([]sdk.Right, error) {
	s, err := manage(ctx, t)
	if err != nil {
		return nil, err
	}
	defer s.close()
	me, err := s.login(ctx, t.Management.Username)
	if err != nil {
		return nil, err
	}
	if me == nil {
		return nil, sdk.Errorf(sdk.ClassNotFound, "the management account does not see itself among the logins").
			WithFix("use a login of SQL Server that has a password")
	}
	k := rightsCheck{session: s}
	if k.who, err = ident(me.name); err != nil {
		return nil, err
	}
	held, err := s.held(ctx, me.sid)
	if err != nil {
		return nil, err
	}
	k.mine, k.sid = held.at(me.sid), me.sid
	if k.everything, err = s.holds(ctx, "CONTROL SERVER"); err != nil {
		return nil, err
	}
	for _, permission := range needed {
		held, err := s.holds(ctx, permission)
		if err != nil {
			return nil, err
		}
		k.add(sdk.Right{Name: permission, Reason: reasons[permission], Held: held, Grant: "GRANT " + permission + " TO " + k.who})
	}
	for _, phase := range allPhases {
		database := ""
		for _, command := range r.Phases[phase] {
			// The name of the account makes no difference to what is needed.
			c, err := render(command, t.Management.Username, params)
			if err != nil {
				return nil, err
			}
			if c.use != "" {
				database = c.use
				continue
			}
			if err := k.command(ctx, database, c); err != nil {
				return nil, err
			}
		}
	}
	return k.rights, nil
}

// reasons say what the rights are for that every role needs.
var reasons = map[string]string{
	"ALTER ANY LOGIN": "make, change, disable and drop logins", "VIEW ANY DEFINITION": "read what logins may do",
	"VIEW SERVER STATE": "see the sessions of a login", "ALTER ANY CONNECTION": "end the sessions of a login",
	"CONNECT ANY DATABASE": "look for a login's users in every database",
}

// rightsCheck is one CheckRights under way.
type rightsCheck struct {
	*session
	who        string // the management account, as statements name it
	sid        []byte
	mine       *rights
	everything bool // it has CONTROL SERVER
	rights     []sdk.Right
}

// add adds a right that is not there yet.
func (k *rightsCheck) add(r sdk.Right) {
	if r.Held {
		r.Grant = ""
	}
	if !slices.ContainsFunc(k.rights, func(other sdk.Right) bool { return other.Name == r.Name }) {
		k.rights = append(k.rights, r)
	}
}

// command adds what a role's command needs.
func (k *rightsCheck) command(ctx context.Context, database string, c rendered) error {
	if m := c.member; m != nil {
		if m.server {
			return k.memberOfServer(m.role)
		}
		return k.memberOfDatabase(ctx, database, m.role)
	}
	words, err := wordsOf(c.sql)
	if err != nil {
		return err
	}
	switch {
	case c.reads:
		return k.reading(ctx, database, c.sql)
	case len(words) > 2 && is(words[0], "CREATE") && is(words[1], "USER"):
		return k.inDatabase(ctx, database, "ALTER ANY USER", "make the account a user of "+database)
	case is(words[0], "GRANT"), is(words[0], "REVOKE"), is(words[0], "DENY"):
		if database != "" && !strings.EqualFold(database, "master") {
			return k.owner(ctx, database, "pass rights on there, and take them away")
		}
		if k.passedOn(words) {
			return nil
		}
	}
	return sdk.Errorf(sdk.ClassUnsupported, "which rights the role's command %s needs cannot be told", c.sql).
		WithFix("only memberships, CREATE USER, GRANT, REVOKE and SELECT are understood; try the role on a login of your own")
}

// reading tries a command that changes nothing: who may do it may do it now.
func (k *rightsCheck) reading(ctx context.Context, database, statement string) error {
	s, err := k.in(ctx, database)
	if err == nil {
		err = s.query(ctx, "the role's command", statement, func(*sql.Rows) error { return nil })
	}
	if class := sdk.ClassOf(err); class == sdk.ClassNotPermitted || class == sdk.ClassInvalid && database != "" {
		return sdk.Errorf(sdk.ClassNotPermitted, "the management account may not do the role's command %s", statement).
			WithFix("grant it what the command reads, or change the role").Wrap(err)
	}
	return err
}

// memberOfServer: a fixed server role is changed by its members, and by sysadmin.
// learn.microsoft.com/sql/t-sql/statements/alter-server-role-transact-sql#permissions
func (k *rightsCheck) memberOfServer(role string) error {
	name, err := ident(role)
	if err != nil {
		return err
	}
	held := slices.ContainsFunc(k.mine.roles, func(r string) bool { return strings.EqualFold(r, role) || r == "sysadmin" })
	k.add(sdk.Right{Name: "membership in the server role " + role, Reason: "change who is in that role", Held: held,
		Grant: "ALTER SERVER ROLE " + name + " ADD MEMBER " + k.who})
	return nil
}

// memberOfDatabase: a fixed database role is changed by db_owner, another one with ALTER ANY ROLE.
// learn.microsoft.com/sql/t-sql/statements/alter-role-transact-sql#permissions
func (k *rightsCheck) memberOfDatabase(ctx context.Context, database, role string) error {
	if database == "" {
		database = "master"
	}
	if !strings.HasPrefix(strings.ToLower(role), "db_") {
		return k.inDatabase(ctx, database, "ALTER ANY ROLE", "change who is in the role "+role)
	}
	return k.owner(ctx, database, "change who is in the role "+role)
}

// owner adds that the management account must be as good as the owner of a database.
func (k *rightsCheck) owner(ctx context.Context, database, reason string) error {
	name, owner, err := k.user(ctx, database)
	if err != nil {
		return err
	}
	held := owner || k.mine.in(placed{membership{role: "db_owner"}, database})
	k.add(sdk.Right{Name: ownership + database, Reason: reason, Held: held,
		Grant: "USE " + name + "; ALTER ROLE [db_owner] ADD MEMBER " + k.who})
	for _, less := range []string{"ALTER ANY USER", "ALTER ANY ROLE"} { // an owner has them
		k.rights = slices.DeleteFunc(k.rights, func(r sdk.Right) bool { return r.Name == less+inside+database })
	}
	return nil
}

// Parts of the names of rights.
const (
	ownership = "membership in the role db_owner of the database "
	inside    = " in the database "
)

// inDatabase adds a permission on a database as a whole.
func (k *rightsCheck) inDatabase(ctx context.Context, database, permission, reason string) error {
	if database == "" {
		database = "master"
	}
	if slices.ContainsFunc(k.rights, func(r sdk.Right) bool { return r.Name == ownership+database }) {
		return nil
	}
	name, owner, err := k.user(ctx, database)
	if err != nil {
		return err
	}
	where, err := literal(name)
	if err != nil {
		return err
	}
	held, err := k.strings(ctx, "read the management account's rights in "+database,
		"SELECT name FROM sys.databases WHERE name = @p1 AND HAS_PERMS_BY_NAME("+where+", N'DATABASE', N'"+permission+"') = 1", database)
	if err != nil {
		return err
	}
	k.add(sdk.Right{Name: permission + inside + database, Reason: reason, Held: owner || len(held) > 0,
		Grant: "USE " + name + "; GRANT " + permission + " TO " + k.who})
	return nil
}

// user adds that the management account must be a user of a database. owner says that it may do everything there, name is the
// database's as statements have it.
func (k *rightsCheck) user(ctx context.Context, database string) (name string, owner bool, err error) {
	if name, err = ident(database); err != nil {
		return "", false, err
	}
	owned, err := k.strings(ctx, "look who owns the database", "SELECT name FROM sys.databases WHERE name = @p1 AND owner_sid = @p2", database, k.sid)
	if err != nil {
		return "", false, err
	}
	owner = k.everything || len(owned) > 0
	user, err := k.userIn(ctx, database, k.sid)
	if class := sdk.ClassOf(err); class == sdk.ClassInvalid || class == sdk.ClassNotPermitted { // it may not even look
		user, err = nil, nil
	}
	k.add(sdk.Right{Name: "user of the database " + database, Reason: "have rights there", Held: owner || user != nil,
		Grant: "USE " + name + "; CREATE USER " + k.who + " FOR LOGIN " + k.who})
	return name, owner, err
}

// passedOn: a right on the server is granted and revoked by who has it WITH GRANT OPTION, or CONTROL SERVER. It reports false
// for rights ON something.
func (k *rightsCheck) passedOn(words []template.Token) bool {
	end := slices.IndexFunc(words, func(t template.Token) bool { return is(t, "TO") || is(t, "FROM") })
	if end < 0 || has(words, "ON") {
		return false
	}
	var list []string
	for _, w := range words[1:end] {
		list = append(list, strings.ToUpper(w.Text))
	}
	for permission := range strings.SplitSeq(strings.Join(list, " "), ",") {
		permission = strings.TrimSpace(permission)
		held := k.everything || slices.Contains(k.mine.grants, "GRANT WITH GRANT OPTION "+permission)
		k.add(sdk.Right{Name: permission + " WITH GRANT OPTION", Reason: "pass that right on, and take it away", Held: held,
			Grant: "GRANT " + permission + " TO " + k.who + " WITH GRANT OPTION"})
	}
	return true
}
