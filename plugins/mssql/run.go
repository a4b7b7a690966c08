package main

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	mssql "github.com/microsoft/go-mssqldb"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Run implements sdk.Runner: one batch of T-SQL, in the database master. Each result is a line of column names and a line for each
// row, with tabs between values; an empty line ends it. The exit status is 0, or 1 if the server answered with an error, of which
// only the number is told: its words quote the batch.
func (connector) Run(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
	s, err := manage(ctx, t)
	if err != nil {
		return 0, err
	}
	defer s.close()
	*s.sent = true
	err = s.results(ctx, command, out)
	if e, ok := errors.AsType[mssql.Error](err); ok && !interrupted(e) {
		out.Stderr(fmt.Appendf(nil, "error %d, severity %d, state %d, line %d\n", e.Number, e.Class, e.State, e.LineNo))
		return 1, nil
	}
	return 0, s.failure(ctx, "run the command", err)
}

func (s *session) results(ctx context.Context, command string, out sdk.Output) error {
	rows, err := s.conn.QueryContext(ctx, command)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for {
		types, err := rows.ColumnTypes()
		if err != nil {
			return err
		}
		if len(types) > 0 {
			if err := result(rows, types, out); err != nil {
				return err
			}
		}
		if !rows.NextResultSet() {
			return rows.Err()
		}
	}
}

// result prints one result set.
func result(rows *sql.Rows, types []*sql.ColumnType, out sdk.Output) error {
	line := make([]string, len(types))
	for i, c := range types {
		line[i] = escaped(c.Name())
	}
	out.Stdout([]byte(strings.Join(line, "\t") + "\n"))
	values, to := make([]any, len(types)), make([]any, len(types))
	for i := range values {
		to[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(to...); err != nil {
			return err
		}
		for i, v := range values {
			line[i] = printed(v, types[i].DatabaseTypeName())
		}
		out.Stdout([]byte(strings.Join(line, "\t") + "\n"))
	}
	out.Stdout([]byte("\n"))
	return rows.Err()
}

// printed is a value as text.
func printed(v any, kind string) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case time.Time:
		return v.Format(time.RFC3339Nano)
	case []byte:
		switch kind {
		case "DECIMAL", "MONEY", "SMALLMONEY": // the driver gives them as text
			return string(v)
		case "UNIQUEIDENTIFIER":
			var id mssql.UniqueIdentifier
			if id.Scan(v) == nil {
				return id.String()
			}
		}
		return "0x" + hex.EncodeToString(v)
	case string:
		return escaped(v)
	default:
		return fmt.Sprint(v)
	}
}

var escapes = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`)

// escaped keeps a value in its column.
func escaped(s string) string { return escapes.Replace(s) }
