package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// The queries understood:
//
//	SELECT expression, … FROM view [WHERE expression = expression AND …] [ORDER BY column, …]
//
// with columns, texts, numbers, bound values and a few functions as expressions.

type row map[string]any

// expression computes a value from a row and the bound values.
type expression struct {
	name string
	kind byte
	of   func(r row) any
}

// query answers one query of a client.
func (s *Server) query(e *entry, text string, binds []string) ([]Column, [][]any, *Error) {
	s.DB.record(text)
	columns, rows, err := s.DB.query(e, text, binds)
	if err != nil && err.Code == errSyntax {
		s.unknown("a query that is not understood (%s): %s", err.Text, text)
	}
	return columns, rows, err
}

type selector struct {
	parser
	binds   []string
	columns map[string]byte // of the view
	counts  bool
}

func (d *DB) query(e *entry, text string, binds []string) (columns []Column, rows [][]any, failed *Error) {
	all, failed := tokens(text)
	if failed != nil {
		return nil, nil, failed
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *Error:
			failed = r
		default:
			panic(r)
		}
	}()
	q := &selector{parser: parser{db: d, who: e, rest: all}, binds: binds}
	from := slices.IndexFunc(all, func(t template.Token) bool { return t.Kind == template.Word && strings.EqualFold(t.Text, "FROM") })
	q.need(from > 0 && q.words("SELECT"), "SELECT … FROM")
	list := q.rest[:from-1]
	q.rest = all[from+1:]
	found := q.view()
	after := q.rest
	q.rest = list
	items := []expression{q.expression()}
	for q.mark(",") {
		items = append(items, q.expression())
	}
	q.end()
	q.rest = after
	if q.words("WHERE") {
		found = q.where(found)
	}
	if q.words("ORDER", "BY") {
		q.order(found)
	}
	q.end()
	if q.counts {
		found = []row{{"": len(found)}}
	}
	for _, item := range items {
		columns = append(columns, Column{item.name, item.kind})
	}
	for _, r := range found {
		var out []any
		for _, item := range items {
			out = append(out, item.of(r))
		}
		rows = append(rows, out)
	}
	return columns, rows, nil
}

func (q *selector) where(rows []row) []row {
	for {
		left := q.expression()
		not := false
		switch {
		case q.mark("="):
		case q.mark("<"):
			q.need(q.mark(">"), ">")
			not = true
		default:
			q.need(false, "a comparison")
		}
		right := q.expression()
		rows = slices.DeleteFunc(rows, func(r row) bool {
			a, b := left.of(r), right.of(r)
			return a == nil || b == nil || (fmt.Sprint(a) == fmt.Sprint(b)) == not
		})
		if !q.words("AND") {
			return rows
		}
	}
}

func (q *selector) order(rows []row) {
	by := []string{q.column()}
	for q.mark(",") {
		by = append(by, q.column())
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		for _, c := range by {
			if d := cmp.Compare(fmt.Sprint(a[c]), fmt.Sprint(b[c])); d != 0 {
				return d
			}
		}
		return 0
	})
}

func (q *selector) column() string {
	name := q.name()
	if _, ok := q.columns[name]; !ok {
		q.fail(904, "%q: invalid identifier", name)
	}
	return name
}

func (q *selector) expression() expression {
	q.need(len(q.rest) > 0, "an expression")
	t := q.rest[0]
	constant := func(kind byte, v any) expression {
		q.rest = q.rest[1:]
		return expression{t.Text, kind, func(row) any { return v }}
	}
	switch {
	case t.Kind == template.Text:
		return constant(typeText, t.Value)
	case t.Text == ":":
		q.rest = q.rest[1:]
		q.need(len(q.rest) > 0, "a bind")
		n, err := strconv.Atoi(q.rest[0].Text)
		if q.rest = q.rest[1:]; err != nil || n < 1 || n > len(q.binds) {
			q.fail(1008, "not all variables bound")
		}
		v := q.binds[n-1]
		return expression{":" + t.Text, typeText, func(row) any { return v }}
	case t.Kind != template.Word:
		q.need(false, "an expression")
	}
	if n, err := strconv.Atoi(t.Text); err == nil {
		return constant(typeNumber, n)
	}
	word := strings.ToUpper(t.Text)
	switch {
	case word == "NULL":
		return constant(typeText, nil)
	case word == "SYSTIMESTAMP":
		return constant(typeTimestamp, time.Now().UTC())
	case word == "USER":
		return constant(typeText, q.who.user.name)
	case len(q.rest) > 1 && q.rest[1].Text == "(":
		q.rest = q.rest[2:]
		return q.function(word)
	}
	name := q.column()
	return expression{name, q.columns[name], func(r row) any { return r[name] }}
}

// function is called behind the opening parenthesis.
func (q *selector) function(name string) expression {
	if name == "COUNT" {
		q.need(q.mark("*") && q.mark(")"), "(*)")
		q.counts = true
		return expression{"COUNT(*)", typeNumber, func(r row) any { return r[""] }}
	}
	args := []expression{q.expression()}
	for q.mark(",") {
		args = append(args, q.expression())
	}
	q.need(q.mark(")"), ")")
	e := expression{name: name, kind: typeText}
	switch {
	case name == "SYS_CONTEXT" && len(args) == 2 && args[0].of(nil) == "USERENV":
		v, ok := map[string]any{
			"SESSION_USER": q.who.user.name, "CON_NAME": q.container(), "DB_NAME": SID, "SERVICE_NAME": Service, "SID": strconv.Itoa(q.who.sid),
			"INSTANCE": "1",
		}[fmt.Sprint(args[1].of(nil))]
		q.need(ok, "a parameter of USERENV")
		e.of = func(row) any { return v }
	case name == "SYS_EXTRACT_UTC" && len(args) == 1:
		e.kind, e.of = typeTimestamp, args[0].of
	case name == "NVL" && len(args) == 2:
		e.kind, e.of = args[0].kind, func(r row) any { return cmp.Or(args[0].of(r), args[1].of(r)) }
	case name == "TO_CHAR" && len(args) == 1:
		e.of = func(r row) any { return toChar(args[0].of(r), "") }
	case name == "TO_CHAR" && len(args) == 2:
		layout, ok := map[string]string{"YYYYMMDDHH24MISS": "20060102150405", "TZH:TZM": "-07:00"}[fmt.Sprint(args[1].of(nil))]
		q.need(ok, "a known format")
		e.of = func(r row) any { return toChar(args[0].of(r), layout) }
	default:
		q.need(false, "a known function")
	}
	return e
}

func (q *selector) container() string {
	if q.db.options.Root {
		return "CDB$ROOT"
	}
	return Service
}

func toChar(v any, layout string) any {
	switch v := v.(type) {
	case nil:
		return nil
	case time.Time:
		return v.UTC().Format(layout)
	default:
		return fmt.Sprint(v)
	}
}
