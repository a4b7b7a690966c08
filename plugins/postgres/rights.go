package main

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// CheckRights implements sdk.RightsChecker, by a fresh login. It understands commands that grant, revoke, change default
// privileges or the account's own attributes; what others need cannot be told.
func (connector) CheckRights(ctx context.Context, t sdk.Target, r sdk.Role, params map[string]string) ([]sdk.Right, error) {
	in := sdk.Intent{Role: r, Params: params}
	s, err := connect(ctx, t, database(t, in))
	if err != nil {
		return nil, err
	}
	defer s.close()
	k := rightsCheck{session: s}
	if err := k.look(ctx); err != nil {
		return nil, err
	}
	k.attribute("CREATEROLE", "make, change and remove accounts")
	var first, then []need // whoever is a member of an owner needs no more for what that owner has
	for _, phase := range []sdk.Phase{
		sdk.PhaseCreate, sdk.PhaseGrant, sdk.PhaseRotate, sdk.PhaseEnable, sdk.PhaseDisable, sdk.PhaseRevoke, sdk.PhaseRemove,
	} {
		for _, command := range r.Phases[phase] {
			n, err := needOf(command, params)
			if err != nil {
				return nil, err
			}
			if n.kind == defaultPrivileges || n.kind == memberships {
				first = append(first, n)
			} else {
				then = append(then, n)
			}
		}
	}
	for _, n := range first {
		if err := k.command(ctx, n); err != nil {
			return nil, err
		}
	}
	if err := k.member(ctx, "pg_signal_backend", "end the sessions of an account"); err != nil {
		return nil, err
	}
	if c := custodian(t, in); c != "" {
		if err := k.member(ctx, c, "give away what a removed account owned"); err != nil {
			return nil, err
		}
	}
	for _, n := range then {
		if err := k.command(ctx, n); err != nil {
			return nil, err
		}
	}
	return k.rights, nil
}

// rightsCheck collects what is needed.
type rightsCheck struct {
	*session
	who        string // the management account, as statements name it
	inherits   bool
	attributes map[string]bool
	asked      []string // itself, and the roles whose rights it shall have by what was found so far
	rights     []sdk.Right
}

func (k *rightsCheck) look(ctx context.Context) error {
	var me string
	var createRole, createDB, replication, bypass bool
	err := k.query(ctx, "read the management account's rights", `SELECT quote_ident(rolname), rolname::text, rolinherit,
 rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = current_user`, func(r pgx.Rows) error {
		return r.Scan(&k.who, &me, &k.inherits, &createRole, &createDB, &replication, &bypass)
	})
	k.attributes = map[string]bool{"CREATEROLE": createRole, "CREATEDB": createDB, "REPLICATION": replication, "BYPASSRLS": bypass}
	k.asked = []string{me}
	return err
}

// add adds a right, once.
func (k *rightsCheck) add(r sdk.Right) {
	if r.Held {
		r.Grant = ""
	}
	if !slices.ContainsFunc(k.rights, func(o sdk.Right) bool { return o.Name == r.Name }) {
		k.rights = append(k.rights, r)
	}
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

// attribute adds an attribute of the management account.
func (k *rightsCheck) attribute(name, reason string) {
	k.add(sdk.Right{Name: name, Reason: reason, Held: k.super || k.attributes[name], Grant: "ALTER ROLE " + k.who + " " + name + ";"})
}

// member adds that the management account has the rights of a role.
func (k *rightsCheck) member(ctx context.Context, role, reason string) error {
	if slices.Contains(k.asked, role) {
		return nil
	}
	rights, member, err := k.belongs(ctx, role, "USAGE")
	if err != nil {
		return err
	}
	k.asked = append(k.asked, role)
	right := sdk.Right{Name: "membership in " + quoted(role), Reason: reason, Held: rights, Grant: "GRANT " + quoted(role) + " TO " + k.who}
	switch {
	case k.major >= createRoleIsBounded && (member || !k.inherits):
		right.Grant += " WITH INHERIT TRUE"
	case !k.inherits: // membership alone gives no rights
		right.Name += " with INHERIT"
		if right.Grant += "; ALTER ROLE " + k.who + " INHERIT"; member {
			right.Grant = "ALTER ROLE " + k.who + " INHERIT"
		}
	}
	right.Grant += ";"
	k.add(right)
	return nil
}

// belongs says whether the management account has a right to a role, as pg_has_role calls it, and whether it is a member of it.
func (k *rightsCheck) belongs(ctx context.Context, role, right string) (has, member bool, err error) {
	found := false
	err = k.query(ctx, "look at the role "+role, `SELECT pg_has_role(oid, $2), pg_has_role(oid, 'MEMBER') FROM pg_roles WHERE rolname = $1`,
		func(r pgx.Rows) error { found = true; return r.Scan(&has, &member) }, role, right)
	if err == nil && !found {
		err = sdk.Errorf(sdk.ClassInvalid, "there is no role %s on the server", role).WithFix("make it, or check the role's parameters and the server's version")
	}
	return has, member, err
}

// createRoleIsBounded is the version from which CREATEROLE no longer covers every role and attribute.
// https://www.postgresql.org/docs/16/release-16.html#RELEASE-16-PRIVILEGES
const createRoleIsBounded = 16

// command adds what one of the role's commands needs.
func (k *rightsCheck) command(ctx context.Context, n need) error {
	reason := "the role's statement " + n.command
	switch n.kind {
	case attributes:
		for _, a := range n.privileges {
			k.attributeGiven(a.word, reason)
		}
		return nil
	case memberships:
		for _, role := range n.objects {
			if role.name == theAccount { // who makes it may
				continue
			}
			if err := k.passed(ctx, role.name, reason); err != nil {
				return err
			}
		}
		return nil
	case defaultPrivileges:
		for _, role := range n.objects {
			if err := k.member(ctx, role.name, reason); err != nil {
				return err
			}
		}
		return nil
	}
	for _, o := range n.objects {
		if o.schema != "" {
			if err := k.privilege(ctx, "SCHEMA", privilege{word: "USAGE"}, object{name: o.schema}, "", reason); err != nil {
				return err
			}
		}
		for _, p := range n.privileges {
			for _, p := range p.meant(n.kind, k.major) {
				if err := k.privilege(ctx, n.kind, p, o, passOn, reason); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// attributeGiven: who may give an attribute, or take it. https://www.postgresql.org/docs/current/sql-createrole.html
func (k *rightsCheck) attributeGiven(name, reason string) {
	bounded := k.major >= createRoleIsBounded
	switch name = strings.TrimPrefix(name, "NO"); {
	case name == "SUPERUSER", !bounded && (name == "REPLICATION" || name == "BYPASSRLS"):
		k.attribute("SUPERUSER", reason)
	case bounded && (name == "REPLICATION" || name == "BYPASSRLS" || name == "CREATEDB"):
		k.attribute(name, reason)
	}
}

// passed: who may grant membership in a role.
func (k *rightsCheck) passed(ctx context.Context, role, reason string) error {
	admin, _, err := k.belongs(ctx, role, "MEMBER WITH ADMIN OPTION")
	if err != nil {
		return err
	}
	super, err := k.strings(ctx, "look at the role "+role, "SELECT rolname::text FROM pg_roles WHERE rolname = $1 AND rolsuper", role)
	switch {
	case err != nil:
		return err
	case len(super) > 0:
		k.attribute("SUPERUSER", reason)
	case k.major >= createRoleIsBounded:
		if k.inherits {
			k.asked = append(k.asked, role)
		}
		k.add(sdk.Right{Name: quoted(role) + " WITH ADMIN OPTION", Reason: reason, Held: admin || k.super,
			Grant: "GRANT " + quoted(role) + " TO " + k.who + " WITH ADMIN OPTION;"})
	}
	return nil
}

// passOn makes a privilege one that may be granted. Owners always have it.
const passOn = " WITH GRANT OPTION" //nolint:gosec // words

// privilege adds a privilege on something, passOn or "".
func (k *rightsCheck) privilege(ctx context.Context, kind string, p privilege, o object, option, reason string) error {
	held, will := false, false
	for i, who := range k.asked {
		has, err := k.has(ctx, who, kind, p, o, option)
		if err != nil {
			return err
		}
		if will = will || has; i == 0 {
			held = has
		}
	}
	if will && !held {
		return nil // by a membership that is asked for already
	}
	name := p.text() + " ON " + kind + " " + o.text()
	grant := "GRANT " + name + " TO " + k.who + option + ";"
	if kind != "DATABASE" { // psql goes there first
		name += " in the database " + quoted(k.database)
		grant = `\connect ` + quoted(k.database) + ` \\ ` + grant
	}
	k.add(sdk.Right{Name: name + option, Reason: reason, Held: held, Grant: grant})
	return nil
}

// place is where the server keeps things of a kind: rows x for which $3 is the schema and $4 the name, or "" for all names; has
// tells whether $1 has the privilege $2.
type place struct{ from, has, where string }

func placeOf(kind string, columns bool, major int) place {
	kinds := map[string]string{"TABLE": "'r','v','m','f','p'", "SEQUENCE": "'S'", "FUNCTION": "'f','a','w'", "PROCEDURE": "'p'", "ROUTINE": "'f','a','w','p'"}
	relation := place{"pg_class x JOIN pg_namespace n ON n.oid = x.relnamespace", "has_table_privilege($1::name, x.oid, $2)",
		"n.nspname = $3 AND ($4 = '' OR x.relname = $4) AND x.relkind IN (" + kinds[kind] + ")"}
	switch kind {
	case "DATABASE":
		return place{"pg_database x", "has_database_privilege($1::name, x.oid, $2)", "$3 = '' AND x.datname = $4"}
	case "SCHEMA":
		return place{"pg_namespace x", "has_schema_privilege($1::name, x.oid, $2)", "$3 = '' AND x.nspname = $4"}
	case "SEQUENCE":
		relation.has = "has_sequence_privilege($1::name, x.oid, $2)"
		return relation
	case "TABLE":
		if columns {
			relation.has = `(SELECT bool_and(has_column_privilege($1::name, x.oid, a.attnum, $2)) FROM pg_attribute a
 WHERE a.attrelid = x.oid AND a.attname = ANY($5::text[]))`
		}
		return relation
	}
	routine := place{"pg_proc x JOIN pg_namespace n ON n.oid = x.pronamespace", "has_function_privilege($1::name, x.oid, $2)",
		"n.nspname = $3 AND ($4 = '' OR x.proname = $4)"} // whichever arguments it has
	if major >= 11 { // before, there are functions alone
		routine.where += " AND x.prokind IN (" + kinds[kind] + ")"
	}
	return routine
}

// has asks the server whether an account has a privilege, on all things if several are meant.
func (k *rightsCheck) has(ctx context.Context, who, kind string, p privilege, o object, option string) (bool, error) {
	single, all := strings.CutPrefix(kind, "ALL ")
	if all {
		single = strings.TrimSuffix(single, "S IN SCHEMA")
	}
	at := placeOf(single, len(p.columns) > 0, k.major)
	args := []any{who, p.word + option, o.schema, o.name}
	if len(p.columns) > 0 {
		args = append(args, p.columns)
	}
	var found, lacking int
	err := k.query(ctx, "read the management account's rights",
		"SELECT count(*), count(*) FILTER (WHERE "+at.has+" IS NOT TRUE) FROM "+at.from+" WHERE "+at.where,
		func(r pgx.Rows) error { return r.Scan(&found, &lacking) }, args...)
	if err == nil && found == 0 && !all {
		err = sdk.Errorf(sdk.ClassInvalid, "there is no %s %s in the database %s", strings.ToLower(single), o.text(), k.database).
			WithFix("make it, or check the role's commands and parameters")
	}
	return lacking == 0, err
}
