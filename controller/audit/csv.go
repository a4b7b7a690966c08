package audit

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/reeve-pam/reeve/controller/store"
)

var csvColumns = []string{"sequence", "time", "actor_kind", "actor_id", "actor_name", "from", "session", "node", "action", "object", "outcome",
	"details", "before", "after", "hash"}

// ExportCSV writes the entries after the one numbered after that the filter lets through,
// for a spreadsheet, under a line of names. Details and changed fields are JSON objects. It proves nothing: Export does.
func ExportCSV(ctx context.Context, st *store.Store, after uint64, f Filter, w io.Writer) error {
	out := csv.NewWriter(w)
	if err := out.Write(csvColumns); err != nil {
		return err
	}
	if err := walk(ctx, st, after, f, func(e *Entry) error { return out.Write(csvRow(e)) }); err != nil {
		return err
	}
	out.Flush()
	return out.Error()
}

func csvRow(e *Entry) []string {
	row := []string{strconv.FormatUint(e.Sequence, 10), e.Time.UTC().Format(time.RFC3339Nano), e.Actor.Kind, e.Actor.ID, e.Actor.Name, e.Actor.From, e.Actor.Session,
		e.Actor.Node, e.Action, e.Object, e.Outcome, object(e.Details), object(e.Before), object(e.After), e.Hash}
	for i := range row {
		row[i] = inert(row[i])
	}
	return row
}

// object is a map as JSON with its keys in order, "" for an empty one.
func object(m map[string]string) string {
	if len(m) == 0 {
		return ""
	}
	b, _ := json.Marshal(m) // of texts, which never fails
	return string(b)
}

// inert is a text that no spreadsheet takes for a formula (CWE-1236): one that begins like
// a formula, also behind space or in full width, gets an apostrophe before it. Line breaks
// within a cell become spaces, as some readers begin a new cell after them.
func inert(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == 0 {
			return ' '
		}
		return r
	}, s)
	first, size := utf8.DecodeRuneInString(strings.TrimLeft(s, " \t\v\f\u00a0\ufeff"))
	if size > 0 && strings.ContainsRune("=+-@\uff1d\uff0b\uff0d\uff20", first) || strings.HasPrefix(s, "\t") {
		return "'" + s
	}
	return s
}
