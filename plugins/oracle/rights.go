package main

import (
	"context"
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// CheckRights implements sdk.RightsChecker, by a fresh login. It understands statements that grant, revoke, alter users or read; what
// others need cannot be told. A right held WITH ADMIN OPTION by a role alone is not found.
func (connector) CheckRights(ctx context.Context, t sdk.Target, r sdk.Role, params map[string]string) ([]sdk.Right, error) {
	s, err := connect(ctx, t)
	if err != nil {
		return nil, err
	}
	defer s.close()
	k, err := s.basics(ctx, t)
	if err != nil {
		return nil, err
	}
	for _, phase := range allPhases {
		for _, command := range r.Phases[phase] {
			// The name of the account makes no difference to what is needed.
			c, err := render(command, strings.Trim(k.who, `"`), params)
			if err == nil {
				err = k.command(ctx, command, c)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return k.rights, nil
}

// rightsCheck collects what is needed.
type rightsCheck struct {
	*session
	who     string          // the management account, as statements name it
	may     map[string]bool // system privileges, however they were come by
	passOn  map[string]bool // privileges and roles WITH ADMIN OPTION
	objects map[string]bool // privileges on objects WITH GRANT OPTION: READ ON "HR"."T"
	rights  []sdk.Right
}

// views are those that the connector reads.
var views = []string{
	"dba_users", "dba_sys_privs", "dba_role_privs", "dba_tab_privs", "dba_ts_quotas", "dba_synonyms", "dba_objects", "gv$session", "v$pwfile_users",
	"dba_profiles",
}

// basics checks what every role needs.
func (s *session) basics(ctx context.Context, t sdk.Target) (*rightsCheck, error) {
	who, err := managementName(t.Management.Username)
	if err != nil {
		return nil, err
	}
	k := &rightsCheck{session: s, who: who, may: map[string]bool{}, passOn: map[string]bool{}, objects: map[string]bool{}}
	for _, list := range []struct {
		into      map[string]bool
		statement string
	}{
		{k.may, "SELECT privilege FROM session_privs"},
		{k.passOn, "SELECT privilege FROM user_sys_privs WHERE admin_option = 'YES'"},
		{k.passOn, "SELECT granted_role FROM user_role_privs WHERE admin_option = 'YES'"},
		{k.objects, "SELECT privilege, owner, table_name FROM user_tab_privs WHERE grantee = USER AND grantable = 'YES'"},
	} {
		rows, err := s.query(ctx, "read the management account's rights", list.statement)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			if len(r) > 1 {
				r[0] += ` ON "` + r[1] + `"."` + r[2] + `"`
			}
			list.into[r[0]] = true
		}
	}
	k.passedOn("CREATE SESSION", "let accounts log in")
	k.need("CREATE USER", "make accounts")
	k.need("ALTER USER", "set passwords, lock and unlock accounts")
	k.need("DROP USER", "remove accounts")
	k.need("CREATE SYNONYM", "write down which accounts are Reeve's")
	if t.Options[optionKill] != rds {
		k.need("ALTER SYSTEM", "end the sessions of an account")
	}
	readable := true
	for _, v := range views {
		_, err := s.query(ctx, "look into the data dictionary", "SELECT COUNT(*) FROM "+v)
		if class := sdk.ClassOf(err); class == sdk.ClassNotPermitted {
			readable = false
		} else if err != nil {
			return nil, err
		}
	}
	k.add("SELECT_CATALOG_ROLE", "read what accounts there are, what they may do, and their sessions", readable, "SELECT_CATALOG_ROLE", "")
	err = s.try(lockBlock("a probe"))
	s.sent = false // it changes nothing
	n := number(err)
	if err != nil && n != errBlock && n != errLockHeld {
		return nil, failure(ctx, "try a lock", err, false)
	}
	k.add("EXECUTE ON SYS.DBMS_LOCK", "keep two agents from working on one account", n != errBlock, "EXECUTE ON SYS.DBMS_LOCK", "")
	return k, nil
}

// missing lists what the management account lacks for every role.
func (s *session) missing(ctx context.Context, t sdk.Target) (names []string, err error) {
	k, err := s.basics(ctx, t)
	if err != nil {
		return nil, err
	}
	for _, r := range k.rights {
		if !r.Held {
			names = append(names, r.Name)
		}
	}
	return names, nil
}

// add adds a right, once. grant is what has to be granted.
func (k *rightsCheck) add(name, reason string, held bool, grant, option string) {
	r := sdk.Right{Name: name, Reason: reason, Held: held}
	if !held {
		r.Grant = "GRANT " + grant + " TO " + k.who + option
	}
	if !slices.ContainsFunc(k.rights, func(o sdk.Right) bool { return o.Name == name }) {
		k.rights = append(k.rights, r)
	}
}

func (k *rightsCheck) need(privilege, reason string) {
	k.add(privilege, reason, k.may[privilege], privilege, "")
}

const withAdmin = " WITH ADMIN OPTION"

// passedOn: a system privilege is granted and revoked by who has it WITH ADMIN OPTION, or GRANT ANY PRIVILEGE.
// https://docs.oracle.com/en/database/oracle/oracle-database/19/sqlrf/GRANT.html
func (k *rightsCheck) passedOn(privilege, reason string) {
	if privilege == "ALL PRIVILEGES" {
		k.need("GRANT ANY PRIVILEGE", reason)
		return
	}
	k.add(privilege+withAdmin, reason, k.passOn[privilege] || k.may["GRANT ANY PRIVILEGE"], privilege, withAdmin)
}

// command adds what a role's command needs.
func (k *rightsCheck) command(ctx context.Context, command string, c rendered) error {
	reason := "the role's command " + command
	switch {
	case c.reads:
		// Whoever may do it may do it now: it changes nothing.
		_, err := k.query(ctx, "the role's command", c.sql)
		if sdk.ClassOf(err) == sdk.ClassNotPermitted {
			return sdk.Errorf(sdk.ClassNotPermitted, "the management account may not do %s", reason).
				WithFix("grant it what the command reads, or change the role")
		}
		return err
	case len(c.words) > 1 && c.words[1] == "USER" && slices.Contains([]string{"CREATE", "ALTER", "DROP"}, c.words[0]):
		return nil // every role needs that
	}
	g, err := readGrant(c.sql)
	if err != nil {
		return sdk.Errorf(sdk.ClassUnsupported, "which rights %s needs cannot be told", reason).
			WithFix("only GRANT, REVOKE, ALTER USER and SELECT are understood; try the role on an account of your own")
	}
	for _, it := range g.items {
		item := it.name
		switch {
		case g.object != "":
			if k.objects[item+" ON "+g.object] || g.owner == "" || g.owner == strings.Trim(k.who, `"`) {
				k.add(item+" ON "+g.object+" WITH GRANT OPTION", reason, true, "", "")
			} else {
				k.add(item+" ON "+g.object+" WITH GRANT OPTION", reason, k.may["GRANT ANY OBJECT PRIVILEGE"], item+" ON "+g.object, " WITH GRANT OPTION")
			}
		case administrative[item] != "":
			if err := k.administrative(ctx, administrative[item]); err != nil {
				return err
			}
		case !it.role:
			k.passedOn(item, reason)
		default:
			quoted, err := name(item)
			if err != nil {
				return err
			}
			k.rights = slices.DeleteFunc(k.rights, func(r sdk.Right) bool { return r.Name == item }) // it is in this one
			k.add(item+withAdmin, reason, k.passOn[item] || k.may["GRANT ANY ROLE"], quoted, withAdmin)
		}
	}
	return nil
}

// administrative adds an administrative privilege, with which a session must begin to hand it on.
func (k *rightsCheck) administrative(ctx context.Context, privilege string) error {
	held, err := k.query(ctx, "read the password file", "SELECT "+privilege+" FROM v$pwfile_users WHERE username = USER AND "+privilege+" = 'TRUE'")
	if err != nil && sdk.ClassOf(err) != sdk.ClassNotPermitted { // it may not look, which another right is about
		return err
	}
	k.add(privilege+" in the server's password file", "log in AS "+privilege+", which is how it is handed on", len(held) > 0, privilege, "")
	return nil
}

// administrative says with which administrative privilege a session must begin to grant or revoke one.
// "Granting and Revoking Administrative Privileges" in the Database Administrator's Guide
var administrative = map[string]string{
	"SYSDBA": "SYSDBA", "SYSOPER": "SYSDBA", "SYSBACKUP": "SYSBACKUP", "SYSDG": "SYSDG", "SYSKM": "SYSKM",
}

// granted is what a GRANT or REVOKE names.
type granted struct {
	items         []item
	owner, object string // of what they are on; "" for none
}

// item is a privilege or, if it is a single word, a role.
type item struct {
	name string
	role bool
}

// as is the administrative privilege that a session must begin with to do it; "" for none.
func (g granted) as() string {
	for _, it := range g.items {
		if as := administrative[it.name]; as != "" && g.object == "" {
			return as
		}
	}
	return ""
}

// readGrant reads GRANT … [ON …] TO …, and REVOKE … FROM ….
func readGrant(sql string) (g granted, err error) {
	tokens, err := template.PLSQL.Tokens(sql)
	if err != nil {
		return g, err
	}
	tokens = slices.DeleteFunc(tokens, func(t template.Token) bool { return t.Kind == template.Space || t.Kind == template.Comment })
	word := func(i int) string {
		if i < len(tokens) && tokens[i].Kind == template.Word {
			return strings.ToUpper(tokens[i].Text)
		}
		return ""
	}
	none := sdk.Errorf(sdk.ClassInvalid, "it is no GRANT or REVOKE")
	if word(0) != "GRANT" && word(0) != "REVOKE" {
		return g, none
	}
	var parts []string
	i, end := 1, false
	for ; i < len(tokens) && !end; i++ {
		switch end = word(i) == "ON" || word(i) == "TO" || word(i) == "FROM"; {
		case end, tokens[i].Text == ",":
			if len(parts) == 0 {
				return g, none
			}
			// LOGMINING is the one system privilege of a single word.
			it := item{strings.Join(parts, " "), len(parts) == 1 && parts[0] != "LOGMINING"}
			g.items, parts = append(g.items, it), nil
		case tokens[i].Kind == template.Name:
			parts = append(parts, tokens[i].Value)
		case word(i) != "":
			parts = append(parts, word(i))
		default: // such as columns
			return g, none
		}
	}
	if !end {
		return g, none
	}
	if word(i-1) != "ON" {
		return g, nil
	}
	var names []string
	for ; i < len(tokens) && word(i) != "TO" && word(i) != "FROM"; i += 2 {
		n := tokens[i].Value
		if word(i) != "" {
			n = word(i)
		} else if tokens[i].Kind != template.Name {
			return g, none
		}
		names = append(names, n)
		if i+1 >= len(tokens) || tokens[i+1].Text != "." {
			i++
			break
		}
	}
	if i >= len(tokens) || word(i) != "TO" && word(i) != "FROM" || len(names) == 0 || len(names) > 2 {
		return g, none // such as DIRECTORY and its name
	}
	if len(names) == 2 {
		g.owner = names[0]
	}
	g.object = `"` + strings.Join(names, `"."`) + `"`
	return g, nil
}
