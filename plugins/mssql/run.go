package main

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-sql/sqlexp"
	mssql "github.com/microsoft/go-mssqldb"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Run implements sdk.Runner: one batch of T-SQL, in the database master. Each result is a line of column names and a line for each
// row, with tabs between values; an empty line ends it. Messages (PRINT, RAISERROR) are lines between results. The exit status is 0, or 1
// if a statement of the batch failed; of an error only numbers are told, on the second stream: its words quote the batch.
func (connector) Run(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
	s, err := manage(ctx, t)
	if err != nil {
		return 0, err
	}
	defer s.close()
	*s.sent = true
	status, err := s.results(ctx, command, out)
	return status, s.failure(ctx, "run the command", err)
}

// results sends a batch and prints what it answers, in the order in which it does.
func (s *session) results(ctx context.Context, command string, out sdk.Output) (status int, err error) {
	messages := &sqlexp.ReturnMessage{}
	rows, err := s.conn.QueryContext(ctx, command, messages)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }()
	for {
		switch m := messages.Message(ctx).(type) {
		case sqlexp.MsgNotice:
			out.Stdout([]byte(m.Message.String() + "\n"))
		case sqlexp.MsgError:
			e, ok := errors.AsType[mssql.Error](m.Error)
			if !ok || interrupted(e) {
				return 0, m.Error
			}
			out.Stderr(fmt.Appendf(nil, "error %d, severity %d, state %d, line %d\n", e.Number, e.Class, e.State, e.LineNo))
			status = 1
		case sqlexp.MsgNext: // not before: the driver waits for columns for ever
			types, err := rows.ColumnTypes()
			if err == nil {
				err = result(rows, types, out)
			}
			if err != nil {
				return 0, err
			}
		case sqlexp.MsgNextResultSet:
			if !rows.NextResultSet() {
				return status, errors.Join(rows.Err(), ctx.Err())
			}
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
	for rows.Next() {
		line, err := valuesOf(rows)
		if err != nil {
			return err
		}
		out.Stdout([]byte(strings.Join(line, "\t") + "\n"))
	}
	out.Stdout([]byte("\n"))
	return rows.Err()
}

// valuesOf reads a row as texts.
func valuesOf(rows *sql.Rows) ([]string, error) {
	types, err := rows.ColumnTypes()
	if err != nil {
		return nil, err
	}
	values, to, line := make([]any, len(types)), make([]any, len(types)), make([]string, len(types))
	for i := range values {
		to[i] = &values[i]
	}
	if err := rows.Scan(to...); err != nil {
		return nil, err
	}
	for i, v := range values {
		line[i] = printed(v, types[i].DatabaseTypeName())
	}
	return line, nil
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
