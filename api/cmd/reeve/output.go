package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
)

// show prints v as JSON, or calls asTable.
func (a *app) show(v any, asTable func()) error {
	if a.output == "json" {
		enc := json.NewEncoder(a.out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	asTable()
	return nil
}

// table prints rows under a header; an empty table says so.
func (a *app) table(header []any, rows [][]any) {
	if len(rows) == 0 {
		_, _ = fmt.Fprintln(a.err, "none")
		return
	}
	t := table.NewWriter()
	t.SetOutputMirror(a.out)
	t.SetStyle(table.StyleLight)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	t.Style().Box.PaddingLeft, t.Style().Box.PaddingRight = "", "  "
	t.SuppressTrailingSpaces()
	t.AppendHeader(header)
	for _, r := range rows {
		t.AppendRow(r)
	}
	t.Render()
}

// listed reads all pages of a list and shows them as a table, with a row for each item.
func listed[T any](a *app, header []any, page func(cursor *string) ([]T, *string, error), row func(T) []any) error {
	items := []T{}
	err := pages(func(cursor *string) (*string, error) {
		more, next, err := page(cursor)
		items = append(items, more...)
		return next, err
	})
	if err != nil {
		return err
	}
	return a.show(items, func() {
		var rows [][]any
		for _, item := range items {
			rows = append(rows, row(item))
		}
		a.table(header, rows)
	})
}

// pairs prints a thing as names and values, leaving out what is empty.
func (a *app) pairs(kv ...string) {
	width := 0
	for pair := range slices.Chunk(kv, 2) {
		if pair[1] != "" {
			width = max(width, len(pair[0]))
		}
	}
	for pair := range slices.Chunk(kv, 2) {
		if pair[1] != "" {
			_, _ = fmt.Fprintf(a.out, "%-*s  %s\n", width, pair[0], strings.ReplaceAll(pair[1], "\n", "\n"+strings.Repeat(" ", width+2)))
		}
	}
}

func (a *app) say(format string, args ...any) { _, _ = fmt.Fprintf(a.err, format+"\n", args...) }

// str, and when, show optional values: empty if absent.
func str[T ~string](p *T) string {
	if p == nil {
		return ""
	}
	return string(*p)
}

func when(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func yes(b *bool) string {
	if b != nil && *b {
		return "yes"
	}
	return "no"
}
