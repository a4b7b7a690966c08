package main

import (
	"context"
	"database/sql"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// maxLearnt bounds what one statement of a role may add to an account's facts, in bytes.
const maxLearnt = 1 << 10

// rows does a statement of the role that only reads, and returns its rows as lines, their
// columns separated by tabs.
func (w *work) rows(ctx context.Context, s sdk.Step) ([]string, error) {
	var lines []string
	err := w.query(ctx, s.ID, s.Command, func(rows *sql.Rows) error {
		names, err := rows.Columns()
		if err != nil {
			return err
		}
		values, into := make([]sql.NullString, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		line := ""
		for i, v := range values {
			if i > 0 {
				line += "\t"
			}
			line += v.String
		}
		lines = append(lines, line)
		return nil
	})
	return lines, err
}

// check does a statement of the phase verify: it must find a row.
func (w *work) check(ctx context.Context, s sdk.Step) (bool, error) {
	lines, err := w.rows(ctx, s)
	if err == nil && len(lines) == 0 {
		err = sdk.Errorf(sdk.ClassProtocol, "%s: the role's statement finds nothing, so the role is not what it should be", s.ID).
			WithFix("look at the account on the server, and at the role")
	}
	return false, err
}

// learn does a statement of the phase facts.
func (w *work) learn(ctx context.Context, s sdk.Step) (bool, error) {
	lines, err := w.rows(ctx, s)
	if err != nil {
		return false, err
	}
	if w.learnt == nil {
		w.learnt = map[string]string{}
	}
	text := strings.Join(lines, "\n")
	w.learnt[s.ID] = strings.ToValidUTF8(text[:min(len(text), maxLearnt)], "")
	return false, nil
}
