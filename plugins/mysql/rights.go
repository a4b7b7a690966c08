package main

import (
	"context"
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// CheckRights implements sdk.RightsChecker, by a fresh login. It understands statements
// that grant, revoke or read; what others need cannot be told.
func (c connector) CheckRights(ctx context.Context, t sdk.Target, r sdk.Role, params map[string]string) ([]sdk.Right, error) {
	host, err := accountHost(t)
	if err != nil {
		return nil, err
	}
	s, err := connect(ctx, t, t.Management)
	if err != nil {
		return nil, err
	}
	defer s.close()
	lines, err := s.strings(ctx, "read the management account's rights", "SHOW GRANTS")
	if err != nil {
		return nil, err
	}
	me, err := s.strings(ctx, "ask who we are", "SELECT CURRENT_USER()")
	if err != nil {
		return nil, err
	}
	k := rightsCheck{session: s, held: grantsOf(lines, s.server)}
	user, from, _ := cutLast(me[0], "@")
	if k.who, err = pair(user, from); err != nil {
		return nil, err
	}
	k.need("CREATE USER", everything, false, "make, change, lock and remove accounts")
	k.need("PROCESS", everything, false, "see the sessions of an account")
	k.need(s.server.killRight(), everything, false, "end the sessions of an account")
	k.need("SELECT", scope{database: "mysql"}, false, "read what accounts there are")
	for _, phase := range []sdk.Phase{
		sdk.PhaseCreate, sdk.PhaseGrant, sdk.PhaseRotate, sdk.PhaseEnable, sdk.PhaseDisable, sdk.PhaseRevoke, sdk.PhaseRemove,
		sdk.PhaseVerify, sdk.PhaseFacts,
	} {
		for _, command := range r.Phases[phase] {
			// The name of the account makes no difference to what is needed.
			statement, err := render(command, t.Management.Username, host, params)
			if err == nil {
				err = k.command(ctx, command, statement)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return k.rights, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// scope is what rights are on: everything, a database, or a table or routine in one.
// Names are as they stand in statements, without quotes: a database's may hold wildcards.
type scope struct{ kind, database, table string }

var everything = scope{}

func (o scope) String() string {
	name := func(s string) string {
		if s == "" {
			return "*"
		}
		return "`" + strings.ReplaceAll(s, "`", "``") + "`"
	}
	out := name(o.database) + "." + name(o.table)
	if o.kind != "" {
		out = o.kind + " " + out
	}
	return out
}

// covers reports whether what is held on o counts on p.
func (o scope) covers(p scope) bool {
	switch {
	case o.database == "":
		return true
	case o.table != "":
		return o == p
	default:
		return o.database == p.database || !wild(p.database) && like(o.database, plainName(p.database))
	}
}

// wild reports whether the name of a database in a statement stands for several.
func wild(name string) bool {
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '\\':
			i++
		case '%', '_':
			return true
		}
	}
	return false
}

func plainName(name string) string {
	return strings.NewReplacer(`\_`, "_", `\%`, "%", `\\`, `\`).Replace(name)
}

// like matches a name against a pattern as LIKE does.
func like(pattern, name string) bool {
	// The last % seen, and how far it reaches now: it is enough to try that one again.
	star, reach := -1, 0
	i, k := 0, 0
	for k < len(name) {
		c, size := byte(0), 1
		if i < len(pattern) {
			if c = pattern[i]; c == '\\' && i+1 < len(pattern) {
				c, size = pattern[i+1], 2
			}
		}
		switch {
		case i < len(pattern) && size == 1 && c == '%':
			star, reach = i, k
			i++
		case i < len(pattern) && (size == 1 && c == '_' || c == name[k]):
			i += size
			k++
		case star >= 0:
			reach++
			i, k = star+1, reach
		default:
			return false
		}
	}
	return strings.Trim(pattern[i:], "%") == ""
}

// grant is what one GRANT or REVOKE says.
type grant struct {
	privileges []string // in upper case; empty: a role is granted
	roles      []string // as they stand
	on         scope
	option     bool // to pass it on
}

// grantsOf reads what SHOW GRANTS prints; the rights of a role in force are among it.
func grantsOf(lines []string, srv server) []grant {
	var all []grant
	for _, line := range lines {
		if tokens, err := template.MySQL.Tokens(line); err == nil {
			if g, ok := readGrant(tokens, srv); ok {
				all = append(all, g)
			}
		}
	}
	return all
}

// readGrant reads GRANT … [ON …] TO …, and REVOKE … FROM …; ok is false for anything else.
func readGrant(tokens []template.Token, srv server) (g grant, ok bool) {
	tokens = slices.DeleteFunc(slices.Clone(tokens), func(t template.Token) bool { return t.Kind == template.Space })
	word := func(i int) string {
		if i < len(tokens) && tokens[i].Kind == template.Word {
			return strings.ToUpper(tokens[i].Text)
		}
		return ""
	}
	if word(0) != "GRANT" && word(0) != "REVOKE" {
		return g, false
	}
	var items []string
	item, depth, i := "", 0, 1
	for ; i < len(tokens); i++ {
		text := tokens[i].Text
		if tokens[i].Kind == template.Mark && text == "(" {
			depth++
		}
		if tokens[i].Kind == template.Mark && text == ")" {
			depth--
		}
		if depth == 0 && (text == "," || word(i) == "ON" || word(i) == "TO" || word(i) == "FROM") {
			items = append(items, item)
			if item = ""; text != "," {
				break
			}
			continue
		}
		if item != "" {
			item += " "
		}
		item += text
	}
	if i >= len(tokens) {
		return g, false
	}
	if word(i) == "ON" {
		for _, p := range items {
			g.privileges = append(g.privileges, privilege(p, srv))
		}
		if g.on, i = readScope(tokens, i+1); i < 0 {
			return g, false
		}
	} else {
		g.roles = items
	}
	for ; i+2 < len(tokens); i++ {
		g.option = g.option || word(i) == "WITH" && (word(i+1) == "GRANT" || word(i+1) == "ADMIN")
	}
	return g, true
}

// readScope reads [TABLE | FUNCTION | PROCEDURE] name.name; end is -1 if there is none.
func readScope(tokens []template.Token, i int) (o scope, end int) {
	if i < len(tokens) && tokens[i].Kind == template.Word {
		switch kind := strings.ToUpper(tokens[i].Text); kind {
		case "TABLE":
			i++
		case "FUNCTION", "PROCEDURE":
			o.kind = kind
			i++
		}
	}
	if i+2 >= len(tokens) || tokens[i+1].Text != "." {
		return o, -1
	}
	for n, part := range []*string{&o.database, &o.table} {
		if t := tokens[i+2*n]; t.Text != "*" {
			*part = t.Value
		}
	}
	return o, i + 3
}

// privilege is the name under which the server shows a right.
// https://mariadb.com/kb/en/grant/#binlog-monitor
func privilege(name string, srv server) string {
	name = strings.ToUpper(strings.Join(strings.Fields(name), " "))
	switch {
	case name == "ALL":
		return "ALL PRIVILEGES"
	case name == "REPLICATION CLIENT" && srv.product == mariaDB && srv.atLeast([3]int{10, 5, 2}):
		return "BINLOG MONITOR"
	case name == "DELETE VERSIONING ROWS":
		return "DELETE HISTORY"
	}
	return name
}

// rightsCheck collects what is needed.
type rightsCheck struct {
	*session
	who    string // the management account, as statements name it
	held   []grant
	rights []sdk.Right
}

func (k *rightsCheck) command(ctx context.Context, command string, r rendered) error {
	reason := "the role's statement " + command
	switch r.verb() {
	case "SELECT", "SHOW":
		// Whoever may do it may do it now: it changes nothing.
		_, err := (&work{session: k.session}).rows(ctx, sdk.Step{ID: "the role's statement", Command: r.sql})
		if sdk.ClassOf(err) == sdk.ClassNotPermitted {
			return sdk.Errorf(sdk.ClassNotPermitted, "the management account may not do %s", reason).
				WithFix("grant it what the statement reads, or change the role")
		}
		return err
	}
	g, ok := readGrant(r.tokens, k.server)
	if !ok {
		return sdk.Errorf(sdk.ClassUnsupported, "which rights %s needs cannot be told", reason).
			WithFix("only GRANT, REVOKE, SELECT and SHOW are understood; try the role on an account of your own")
	}
	for _, p := range g.privileges {
		if p != "GRANT OPTION" && p != "USAGE" {
			k.need(p, g.on, true, reason)
		}
	}
	for _, role := range g.roles {
		k.needRole(role, reason)
	}
	if len(g.roles) > 0 && k.server.product == mariaDB {
		k.need("UPDATE", scope{database: "mysql"}, false, "make a role active at login")
	}
	return nil
}

// need adds a right, once.
func (k *rightsCheck) need(p string, on scope, passOn bool, reason string) {
	has, option := false, !passOn
	for _, g := range k.held {
		if !g.on.covers(on) || len(g.privileges) == 0 {
			continue
		}
		has = has || slices.Contains(g.privileges, p) || slices.Contains(g.privileges, "ALL PRIVILEGES")
		option = option || g.option
	}
	name, tail := p+" ON "+on.String(), ""
	if passOn {
		tail = " WITH GRANT OPTION"
	}
	k.add(sdk.Right{Name: name + tail, Reason: reason, Held: has && option, Grant: "GRANT " + name + " TO " + k.who + tail + ";"})
}

func (k *rightsCheck) needRole(role, reason string) {
	held := slices.ContainsFunc(k.held, func(g grant) bool {
		return g.option && slices.ContainsFunc(g.roles, func(r string) bool { return bareName(r) == bareName(role) })
	})
	k.add(sdk.Right{Name: role + " WITH ADMIN OPTION", Reason: reason, Held: held,
		Grant: "GRANT " + role + " TO " + k.who + " WITH ADMIN OPTION;"})
}

// bareName is the name of a role without its quotes.
func bareName(s string) string {
	tokens, err := template.MySQL.Tokens(s)
	if err != nil || len(tokens) == 0 {
		return s
	}
	return tokens[0].Value
}

func (k *rightsCheck) add(r sdk.Right) {
	if r.Held {
		r.Grant = ""
	}
	if !slices.ContainsFunc(k.rights, func(o sdk.Right) bool { return o.Name == r.Name }) {
		k.rights = append(k.rights, r)
	}
}
