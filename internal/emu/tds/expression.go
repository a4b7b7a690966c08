package tds

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// scope is the rows an expression sees, by the names of their sources.
type scope map[string]map[string]any

// expression is a part of a query.
type expression struct {
	kind kind
	name string
	eval func(scope) any
}

func literal(k kind, v any) expression {
	return expression{kind: k, eval: func(scope) any { return v }}
}

// condition reads OR, AND, NOT and comparisons.
func (p *script) condition(sources []*source) func(scope) bool {
	left := p.conjunction(sources)
	for p.word("OR") {
		a, b := left, p.conjunction(sources)
		left = func(s scope) bool { return a(s) || b(s) }
	}
	return left
}

func (p *script) conjunction(sources []*source) func(scope) bool {
	left := p.comparison(sources)
	for p.word("AND") {
		a, b := left, p.comparison(sources)
		left = func(s scope) bool { return a(s) && b(s) }
	}
	return left
}

func (p *script) comparison(sources []*source) func(scope) bool {
	if p.mark("(") {
		c := p.condition(sources)
		p.needMark(")")
		return c
	}
	left := p.expression(sources)
	switch {
	case p.word("IS", "NOT", "NULL"):
		return func(s scope) bool { return left.eval(s) != nil }
	case p.word("IS", "NULL"):
		return func(s scope) bool { return left.eval(s) == nil }
	case p.word("IN"):
		p.needMark("(")
		var list []expression
		for {
			list = append(list, p.expression(sources))
			if !p.mark(",") {
				break
			}
		}
		p.needMark(")")
		return func(s scope) bool {
			return slices.ContainsFunc(list, func(e expression) bool { return equal(left.eval(s), e.eval(s)) })
		}
	case p.mark("<>"):
		right := p.expression(sources)
		return func(s scope) bool {
			a, b := left.eval(s), right.eval(s)
			return a != nil && b != nil && !equal(a, b)
		}
	case p.mark(">"):
		right := p.expression(sources)
		return func(s scope) bool { return integer(left.eval(s)) > integer(right.eval(s)) }
	case p.mark("="):
		right := p.expression(sources)
		return func(s scope) bool { return equal(left.eval(s), right.eval(s)) }
	}
	p.syntax()
	return nil
}

// equal compares as the server's collation does: without regard to case, and to spaces at the end.
func equal(a, b any) bool {
	switch a := a.(type) {
	case string:
		b, ok := b.(string)
		return ok && strings.EqualFold(strings.TrimRight(a, " "), strings.TrimRight(b, " "))
	case []byte:
		b, ok := b.([]byte)
		return ok && bytes.Equal(a, b)
	case int64, bool:
		return integer(a) == integer(b) && b != nil
	}
	return false
}

func integer(v any) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case bool:
		if v {
			return 1
		}
	}
	return 0
}

// expression reads a value: a literal, a variable, a column, a function.
func (p *script) expression(sources []*source) expression {
	if p.end() {
		p.syntax()
	}
	t := p.all[p.at]
	if t.Kind == template.Text {
		p.at++
		return literal(kindText, t.Value)
	}
	if n, ok := number(t); ok {
		p.at++
		return literal(kindInt, n)
	}
	if b, ok := binary16(t); ok {
		p.at++
		return literal(kindBinary, b)
	}
	if t.Kind == template.Word {
		if v, ok := p.variables[strings.ToLower(t.Text)]; ok {
			p.at++
			return literal(kindOf(v), v)
		}
		switch strings.ToUpper(t.Text) {
		case "NULL":
			p.at++
			return literal(kindText, nil)
		case "@@SPID":
			p.at++
			return literal(kindInt, int64(p.session.id))
		case "@@VERSION":
			p.at++
			return literal(kindText, "Microsoft SQL Server (emulator)")
		}
	}
	path := p.path()
	if len(path) == 1 && p.mark("(") {
		return p.function(strings.ToUpper(path[0]), sources)
	}
	return p.column(path, sources)
}

func kindOf(v any) kind {
	switch v.(type) {
	case int64:
		return kindInt
	case bool:
		return kindBit
	case []byte:
		return kindBinary
	case time.Time:
		return kindTime
	default:
		return kindText
	}
}

// column finds a column of the sources.
func (p *script) column(path []string, sources []*source) expression {
	column := strings.ToLower(path[len(path)-1])
	for _, s := range sources {
		if len(path) == 2 && !strings.EqualFold(path[0], s.alias) {
			continue
		}
		for _, c := range s.view.columns {
			if c.name == column {
				alias := s.alias
				return expression{c.kind, c.name, func(s scope) any { return s[alias][column] }}
			}
		}
	}
	p.server.unknown("no column "+strings.Join(path, "."), p.text)
	fail(207, 16, "Invalid column name '%s'.", path[len(path)-1])
	return expression{}
}

// arguments reads the rest of a call.
func (p *script) arguments(sources []*source, least, most int) []expression {
	var all []expression
	for !p.mark(")") {
		if len(all) > 0 {
			p.needMark(",")
		}
		all = append(all, p.expression(sources))
	}
	if len(all) < least || len(all) > most {
		p.syntax()
	}
	return all
}

// function reads the arguments of a function and says what it is.
func (p *script) function(name string, sources []*source) expression {
	me := p.session
	text := func(e expression, s scope) string { t, _ := e.eval(s).(string); return t }
	switch name {
	case "CONVERT":
		return p.convert(sources)
	case "DATEDIFF":
		p.need("minute")
		p.needMark(",")
		a := p.arguments(sources, 2, 2)
		return expression{kindInt, "", func(s scope) any {
			from, _ := a[0].eval(s).(time.Time)
			to, _ := a[1].eval(s).(time.Time)
			return int64(to.Round(time.Minute).Sub(from.Round(time.Minute)) / time.Minute)
		}}
	case "GETUTCDATE":
		p.arguments(sources, 0, 0)
		return literal(kindTime, time.Now().UTC())
	case "GETDATE": // the server's clock is in a zone of its own
		p.arguments(sources, 0, 0)
		return literal(kindTime, local(time.Now()))
	case "ORIGINAL_LOGIN", "SUSER_SNAME":
		p.arguments(sources, 0, 0)
		return literal(kindText, me.login.name)
	case "DB_NAME":
		p.arguments(sources, 0, 0)
		return literal(kindText, me.database.name)
	case "SERVERPROPERTY":
		a := p.arguments(sources, 1, 1)
		return expression{kindText, "", func(s scope) any { return p.server.property(text(a[0], s)) }}
	case "LOGINPROPERTY":
		a := p.arguments(sources, 2, 2)
		return expression{kindText, "", func(s scope) any { return p.loginProperty(text(a[0], s), text(a[1], s)) }}
	case "HAS_DBACCESS":
		a := p.arguments(sources, 1, 1)
		return expression{kindInt, "", func(s scope) any {
			d := p.server.state.databases[strings.ToLower(text(a[0], s))]
			if d == nil {
				return nil
			}
			return integer(any(me.login.enters(d)))
		}}
	case "HAS_PERMS_BY_NAME":
		a := p.arguments(sources, 3, 3)
		return expression{kindInt, "", func(s scope) any { return p.hasPermission(a[0].eval(s), text(a[1], s), text(a[2], s)) }}
	case "IS_SRVROLEMEMBER":
		a := p.arguments(sources, 1, 1)
		return expression{kindInt, "", func(s scope) any {
			role := strings.ToLower(text(a[0], s))
			return integer(any(me.login.roles[role] || me.login.roles["sysadmin"]))
		}}
	}
	p.server.unknown("the function "+name, p.text)
	fail(195, 15, "'%s' is not a recognized built-in function name.", name)
	return expression{}
}

// convert reads the rest of CONVERT(type[(n)], value).
func (p *script) convert(sources []*source) expression {
	kinds := map[string]kind{"NVARCHAR": kindText, "INT": kindInt, "BIGINT": kindInt, "DATETIME": kindTime}
	k, ok := kinds[strings.ToUpper(p.name())]
	if !ok {
		p.at--
		p.syntax()
	}
	if p.mark("(") {
		p.next(template.Word)
		p.needMark(")")
	}
	p.needMark(",")
	a := p.arguments(sources, 1, 1)
	return expression{k, "", func(s scope) any {
		v := a[0].eval(s)
		if v != nil && kindOf(v) != k {
			fail(245, 16, "Conversion failed.")
		}
		return v
	}}
}

// hasPermission answers HAS_PERMS_BY_NAME for the server and for databases.
func (p *script) hasPermission(securable any, class, permission string) any {
	l := p.session.login
	switch {
	case securable == nil && class == "":
		return integer(any(l.has(strings.ToUpper(permission))))
	case strings.EqualFold(class, "DATABASE"):
		name, _ := securable.(string)
		if d := p.server.state.databases[strings.ToLower(strings.Trim(name, "[]"))]; d != nil {
			return integer(any(l.may(d, strings.ToUpper(permission))))
		}
	}
	return nil
}

// zone is how far the server's clock is from UTC.
const zone = 90 * time.Minute

func local(t time.Time) time.Time { return t.UTC().Add(zone) }

func (s *Server) property(name string) any {
	v := s.options.Version
	switch strings.ToLower(name) {
	case "productversion":
		return version(v)
	case "edition":
		return "Enterprise Edition (64-bit)"
	case "engineedition":
		return int64(s.options.Edition)
	}
	return nil
}

func (p *script) loginProperty(name, property string) any {
	l := p.server.state.logins[strings.ToLower(name)]
	if l == nil || l.kind != "S" || !p.sees(l) {
		return nil
	}
	switch strings.ToLower(property) {
	case "passwordlastsettime":
		return local(l.set)
	case "islocked":
		return integer(any(l.lockedOut))
	case "isexpired":
		return integer(any(l.expired))
	case "ismustchange":
		return integer(any(l.mustRenew))
	case "badpasswordcount":
		return int64(l.bad)
	}
	return nil
}
