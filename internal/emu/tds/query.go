package tds

import (
	"fmt"
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// source is a view in a FROM.
type source struct {
	alias string
	view  view
	left  bool             // LEFT JOIN
	on    func(scope) bool // nil: the first
}

// query reads and does a SELECT, behind that word.
func (p *script) query() {
	start := p.at
	// The sources come behind the columns that need them.
	depth := 0
	for !p.end() && !p.mark(";") {
		if p.mark("(") {
			depth++
			continue
		}
		if p.mark(")") {
			depth--
			continue
		}
		if depth == 0 && p.word("FROM") {
			break
		}
		p.at++
	}
	var sources []*source
	if p.at > start && strings.EqualFold(p.all[p.at-1].Text, "FROM") {
		sources = p.from()
	} else if p.all[p.at-1].Text == ";" {
		p.at--
	}
	tail := p.at
	p.at = start
	var columns []column
	var list []expression
	for {
		e := p.expression(sources)
		if p.word("AS") {
			e.name = p.name()
		}
		list, columns = append(list, e), append(columns, column{e.name, e.kind})
		if !p.mark(",") {
			break
		}
	}
	if p.at != tail && !p.word("FROM") {
		p.syntax()
	}
	p.at = tail
	rows := product(sources)
	if sources != nil && p.word("WHERE") {
		where := p.condition(sources)
		rows = slices.DeleteFunc(rows, func(s scope) bool { return !where(s) })
	}
	if sources != nil && p.word("ORDER", "BY") {
		p.order(rows, sources)
	}
	p.reply.columns(columns)
	for _, s := range rows {
		values := make([]any, len(list))
		for i, e := range list {
			values[i] = e.eval(s)
		}
		p.reply.row(columns, values)
	}
	p.reply.done(p.between, doneCount|doneMore, 0xC1, len(rows))
}

func (p *script) from() []*source {
	all := []*source{p.source()}
	for {
		left := p.word("LEFT", "JOIN")
		if !left && !p.word("JOIN") {
			return all
		}
		s := p.source()
		s.left = left
		all = append(all, s)
		p.need("ON")
		s.on = p.condition(all)
	}
}

func (p *script) source() *source {
	path := p.path()
	s := &source{view: p.view(path), alias: strings.ToLower(path[len(path)-1])}
	if p.word("AS") {
		s.alias = strings.ToLower(p.name())
	}
	return s
}

// product joins the sources.
func product(sources []*source) []scope {
	all := []scope{{}}
	for _, src := range sources {
		var next []scope
		for _, s := range all {
			matched := false
			for _, row := range src.view.rows {
				joined := scope{src.alias: row}
				for k, v := range s {
					joined[k] = v
				}
				if src.on == nil || src.on(joined) {
					next, matched = append(next, joined), true
				}
			}
			if src.left && !matched {
				next = append(next, s)
			}
		}
		all = next
	}
	return all
}

func (p *script) order(rows []scope, sources []*source) {
	var keys []expression
	for {
		keys = append(keys, p.column(p.path(), sources))
		if !p.mark(",") {
			break
		}
	}
	slices.SortStableFunc(rows, func(a, b scope) int {
		for _, k := range keys {
			x, y := k.eval(a), k.eval(b)
			if k.kind == kindInt {
				if d := integer(x) - integer(y); d != 0 {
					return int(d)
				}
				continue
			}
			if d := strings.Compare(strings.ToLower(fmt.Sprint(x)), strings.ToLower(fmt.Sprint(y))); d != 0 {
				return d
			}
		}
		return 0
	})
}

// declare reads DECLARE @x type[(n)] [= value], …
func (p *script) declare() {
	for {
		t := p.next(template.Word)
		p.name()
		if p.mark("(") {
			p.next(template.Word)
			p.needMark(")")
		}
		p.variables[strings.ToLower(t.Text)] = nil
		if p.mark("=") {
			p.variables[strings.ToLower(t.Text)] = p.constant()
		}
		if !p.mark(",") {
			return
		}
	}
}
