package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Run implements sdk.Runner: one SQL statement, in the database of the target's option. Its
// rows are printed as COPY writes them, under a line of the columns' names; a statement
// without rows prints what it did. An error of the statement is exit status 1, and the
// server's words about it are printed for whoever gave the statement.
func (connector) Run(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
	if words := strings.Fields(strings.ToUpper(command)); len(words) > 0 && words[0] == "COPY" &&
		(slices.Contains(words, "STDIN") || slices.Contains(words, "STDOUT")) {
		return 0, sdk.Errorf(sdk.ClassInvalid, "COPY has nobody to exchange data with here").WithFix("use INSERT or SELECT")
	}
	s, err := login(ctx, t, t.Management, t.Options[optionDatabase], plain)
	if err != nil {
		return 0, err
	}
	defer s.close()
	s.sent = true // whatever it is
	rows := s.conn.PgConn().ExecParams(ctx, command, nil, nil, nil, nil)
	if fields := rows.FieldDescriptions(); len(fields) > 0 {
		out.Stdout([]byte(header(fields)))
	}
	line := []byte{}
	for rows.NextRow() {
		line = row(line[:0], rows.Values())
		out.Stdout(line)
	}
	fields := rows.FieldDescriptions()
	tag, err := rows.Close()
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && !ended(err) {
		out.Stderr([]byte(e.SeverityUnlocalized + " " + e.Code + ": " + e.Message + "\n")) // without what it adds of data
		return 1, nil
	}
	if err != nil {
		return 0, s.failure(ctx, "run the statement", err)
	}
	if len(fields) == 0 {
		out.Stdout([]byte(tag.String() + "\n"))
	}
	return 0, nil
}

func header(fields []pgconn.FieldDescription) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = escapeText.Replace(f.Name)
	}
	return strings.Join(names, "\t") + "\n"
}

// escapeText writes text as COPY does, so that one row is one line.
// https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2
var escapeText = strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`, "\t", `\t`)

// row appends a row to line; NULL is \N.
func row(line []byte, values [][]byte) []byte {
	for i, v := range values {
		if i > 0 {
			line = append(line, '\t')
		}
		if v == nil {
			line = append(line, `\N`...)
			continue
		}
		line = append(line, escapeText.Replace(string(v))...)
	}
	return append(line, '\n')
}
