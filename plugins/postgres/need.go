package main

import (
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// need is what one of a role's commands changes, and so what the management account must have.
type need struct {
	command    string
	kind       string      // what the objects are, in GRANT's words, or one of the following
	privileges []privilege // or attributes
	objects    []object    // or roles
}

// Kinds of needs that are not about things that have owners.
const (
	attributes        = "attributes of the account"
	memberships       = "roles"
	defaultPrivileges = "roles whose later objects are meant"
)

// privilege is one word of GRANT, perhaps for columns.
type privilege struct {
	word    string
	columns []string
}

func (p privilege) text() string {
	if len(p.columns) == 0 {
		return p.word
	}
	names := make([]string, len(p.columns))
	for i, c := range p.columns {
		names[i] = quoted(c)
	}
	return p.word + " (" + strings.Join(names, ", ") + ")"
}

// everyPrivilege is what ALL means. https://www.postgresql.org/docs/current/ddl-priv.html
var everyPrivilege = map[string][]string{
	"TABLE":    {"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"},
	"SEQUENCE": {"USAGE", "SELECT", "UPDATE"},
	"DATABASE": {"CREATE", "CONNECT", "TEMPORARY"},
	"SCHEMA":   {"USAGE", "CREATE"},
	"FUNCTION": {"EXECUTE"}, "PROCEDURE": {"EXECUTE"}, "ROUTINE": {"EXECUTE"},
}

// meant are the privileges that a word stands for on things of a kind.
func (p privilege) meant(kind string, major int) []privilege {
	if p.word != "ALL" {
		return []privilege{p}
	}
	kind = strings.TrimSuffix(strings.TrimPrefix(kind, "ALL "), "S IN SCHEMA")
	words := everyPrivilege[kind]
	switch {
	case len(p.columns) > 0:
		words = []string{"SELECT", "INSERT", "UPDATE", "REFERENCES"}
	case kind == "TABLE" && major >= 17:
		words = append(slices.Clone(words), "MAINTAIN")
	}
	var all []privilege
	for _, w := range words {
		all = append(all, privilege{w, p.columns})
	}
	return all
}

// object is what privileges are on. All things of a schema have no name.
type object struct {
	schema, name string
	arguments    string // of a function, as they stand
}

func (o object) text() string {
	switch {
	case o.schema == "":
		return quoted(o.name)
	case o.name == "":
		return quoted(o.schema)
	default:
		return quoted(o.schema) + "." + quoted(o.name) + o.arguments
	}
}

// theAccount is no account's name.
const theAccount = "the account"

// needOf reads a role's command.
func needOf(command string, params map[string]string) (need, error) {
	text, err := render(command, theAccount, params)
	if err != nil {
		return need{}, err
	}
	tokens, err := template.PostgreSQL.Tokens(text)
	if err != nil {
		return need{}, err
	}
	r := reader(slices.DeleteFunc(tokens, func(t template.Token) bool { return t.Kind == template.Space }))
	if n, ok := r.need(); ok {
		n.command = command
		return n, nil
	}
	return need{}, sdk.Errorf(sdk.ClassUnsupported, "which rights the role's statement %s needs cannot be told", command).
		WithFix("GRANT and REVOKE on databases, schemas, tables, sequences and functions, ALTER DEFAULT PRIVILEGES and ALTER ROLE are understood; " +
			"try the role on an account of your own")
}

// reader is what is left of a statement.
type reader []template.Token

// word is the next token in upper case, if it is a word.
func (r *reader) word() string {
	if len(*r) == 0 || (*r)[0].Kind != template.Word {
		return ""
	}
	return strings.ToUpper((*r)[0].Text)
}

// skip takes words if they come next.
func (r *reader) skip(words ...string) bool {
	rest := *r
	for _, w := range words {
		if rest.word() != w {
			return false
		}
		rest = rest[1:]
	}
	*r = rest
	return true
}

// mark takes a sign if it comes next.
func (r *reader) mark(sign string) bool {
	if len(*r) == 0 || (*r)[0].Kind != template.Mark || (*r)[0].Text != sign {
		return false
	}
	*r = (*r)[1:]
	return true
}

// name takes a name; words without quotes are lower case to the server.
func (r *reader) name() (string, bool) {
	if len(*r) == 0 {
		return "", false
	}
	t := (*r)[0]
	*r = (*r)[1:]
	switch t.Kind {
	case template.Word:
		return strings.ToLower(t.Text), true
	case template.Name:
		return t.Value, true
	default:
		return "", false
	}
}

// names takes names between commas.
func (r *reader) names() (all []string, ok bool) {
	for {
		n, ok := r.name()
		if !ok {
			return nil, false
		}
		if all = append(all, n); !r.mark(",") {
			return all, true
		}
	}
}

func (r *reader) need() (need, bool) {
	switch {
	case r.skip("ALTER", "ROLE"), r.skip("ALTER", "USER"):
		return r.attributes()
	case r.skip("ALTER", "DEFAULT", "PRIVILEGES"):
		n := need{kind: defaultPrivileges}
		if r.skip("FOR", "ROLE") || r.skip("FOR", "USER") {
			owners, ok := r.names()
			n.objects = named(owners)
			return n, ok
		}
		return n, true // its own
	case r.skip("GRANT"), r.skip("REVOKE", "GRANT", "OPTION", "FOR"), r.skip("REVOKE", "ADMIN", "OPTION", "FOR"), r.skip("REVOKE"):
		return r.grant()
	default:
		return need{}, false
	}
}

func named(names []string) (all []object) {
	for _, n := range names {
		all = append(all, object{name: n})
	}
	return all
}

// attributes reads what follows ALTER ROLE.
func (r *reader) attributes() (need, bool) {
	n := need{kind: attributes}
	if who, _ := r.name(); who != theAccount {
		return n, false
	}
	r.skip("WITH")
	for len(*r) > 0 {
		switch w := r.word(); {
		case slices.Contains([]string{
			"SUPERUSER", "CREATEDB", "CREATEROLE", "INHERIT", "LOGIN", "REPLICATION", "BYPASSRLS",
		}, strings.TrimPrefix(w, "NO")):
			n.privileges = append(n.privileges, privilege{word: w})
			*r = (*r)[1:]
		case r.skip("CONNECTION", "LIMIT"):
			r.mark("-")
			_, _ = r.name()
		case r.skip("VALID", "UNTIL") && len(*r) > 0:
			*r = (*r)[1:]
		default:
			return n, false
		}
	}
	return n, true
}

// grant reads what follows GRANT, or REVOKE.
func (r *reader) grant() (need, bool) {
	var items []privilege
	for first := true; first || r.mark(","); first = false {
		p, ok := r.privilege()
		if !ok {
			return need{}, false
		}
		items = append(items, p)
	}
	switch {
	case r.skip("ON"):
		n, ok := r.objects()
		for _, p := range items {
			p.word = strings.ToUpper(p.word)
			n.privileges = append(n.privileges, p)
		}
		return n, ok && (r.word() == "TO" || r.word() == "FROM")
	case r.word() == "TO", r.word() == "FROM":
		n := need{kind: memberships}
		for _, p := range items {
			n.objects = append(n.objects, object{name: p.word})
		}
		return n, true
	default:
		return need{}, false
	}
}

// privilege reads a privilege with its columns, or the name of a role.
func (r *reader) privilege() (p privilege, ok bool) {
	if p.word, ok = r.name(); !ok {
		return p, false
	}
	if p.word == "all" {
		r.skip("PRIVILEGES")
	}
	if p.word == "temp" {
		p.word = "temporary"
	}
	if r.mark("(") {
		if p.columns, ok = r.names(); !ok || !r.mark(")") {
			return p, false
		}
	}
	return p, true
}

// objects reads what follows ON.
func (r *reader) objects() (need, bool) {
	n := need{kind: "TABLE"}
	if r.skip("ALL") {
		n.kind = "ALL " + r.word() + " IN SCHEMA"
		if !slices.Contains([]string{"TABLES", "SEQUENCES", "FUNCTIONS", "PROCEDURES", "ROUTINES"}, r.word()) {
			return n, false
		}
		*r = (*r)[1:]
		if !r.skip("IN", "SCHEMA") {
			return n, false
		}
		schemas, ok := r.names()
		for _, s := range schemas {
			n.objects = append(n.objects, object{schema: s})
		}
		return n, ok
	}
	switch w := r.word(); w {
	case "DATABASE", "SCHEMA":
		*r = (*r)[1:]
		names, ok := r.names()
		n.kind, n.objects = w, named(names)
		return n, ok
	case "TABLE", "SEQUENCE", "FUNCTION", "PROCEDURE", "ROUTINE":
		n.kind = w
		*r = (*r)[1:]
	case "DOMAIN", "FOREIGN", "LANGUAGE", "LARGE", "PARAMETER", "TABLESPACE", "TYPE":
		return n, false
	}
	for first := true; first || r.mark(","); first = false {
		o, ok := r.object()
		if !ok {
			return n, false
		}
		n.objects = append(n.objects, o)
	}
	return n, true
}

// object reads a name with its schema, and the arguments of a function.
func (r *reader) object() (o object, ok bool) {
	o.schema = "pg_catalog" // where the role's commands look, and nowhere else
	if o.name, ok = r.name(); !ok {
		return o, false
	}
	if r.mark(".") {
		o.schema = o.name
		if o.name, ok = r.name(); !ok {
			return o, false
		}
	}
	if !r.mark("(") {
		return o, true
	}
	o.arguments = "("
	for depth := 1; depth > 0; {
		if len(*r) == 0 {
			return o, false
		}
		t := (*r)[0]
		*r = (*r)[1:]
		switch {
		case t.Text == "(":
			depth++
		case t.Text == ")":
			depth--
		case len(o.arguments) > 1 && t.Kind != template.Mark:
			o.arguments += " "
		}
		o.arguments += t.Text
	}
	return o, true
}
