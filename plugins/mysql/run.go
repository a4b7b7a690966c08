package main

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Run implements sdk.Runner: one SQL statement, by a fresh login, with the server's own settings and no database chosen. Rows are
// printed as mysql --batch prints them, under a line of the columns' names, with \N for NULL; a statement without rows prints how
// many it changed. An error of the statement is exit status 1, and the server's words about it are printed for whoever gave it.
func (connector) Run(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
	if words := strings.Fields(strings.ToUpper(command)); len(words) > 2 && words[0] == "LOAD" && slices.Contains(words, "LOCAL") {
		return 0, sdk.Errorf(sdk.ClassInvalid, "LOAD … LOCAL has nobody to read a file of here").WithFix("use INSERT")
	}
	s, err := login(ctx, t, t.Management, false)
	if err != nil {
		return 0, err
	}
	defer s.close()
	var id string
	if err := s.conn.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&id); err != nil {
		return 0, failure(ctx, "begin", err, false)
	}
	err = s.print(ctx, command, out)
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok && !interrupted[e.Number] {
		out.Stderr([]byte("ERROR " + strconv.Itoa(int(e.Number)) + " (" + string(e.SQLState[:]) + "): " + e.Message + "\n"))
		return 1, nil
	}
	if ctx.Err() != nil {
		stop(context.WithoutCancel(ctx), t, id)
	}
	return 0, failure(ctx, "run the statement", err, true)
}

// stopTime is how long it may take to end a statement that was given up.
const stopTime = time.Second

// stop ends a session on the server, which would go on with its statement after the connection is gone. What cannot be stopped
// in time ends by itself.
func stop(ctx context.Context, t sdk.Target, id string) {
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	if s, err := login(ctx, t, t.Management, false); err == nil {
		_ = s.try(ctx, "KILL CONNECTION "+id)
		s.close()
	}
}

// print sends a statement and prints all it answers.
func (s *session) print(ctx context.Context, command string, out sdk.Output) error {
	rows, err := s.conn.QueryContext(ctx, command)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	silent := true
	for more := true; more; more = rows.NextResultSet() {
		names, err := rows.Columns()
		if err != nil {
			return err
		}
		if len(names) == 0 {
			continue
		}
		silent = false
		if err := table(rows, names, out); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil || !silent {
		return err
	}
	_ = rows.Close()
	var n string
	if err := s.conn.QueryRowContext(ctx, "SELECT ROW_COUNT()").Scan(&n); err != nil {
		return err
	}
	out.Stdout([]byte("Query OK, " + n + " rows affected\n"))
	return nil
}

// table prints one result.
func table(rows *sql.Rows, names []string, out sdk.Output) error {
	values, into := make([]sql.RawBytes, len(names)), make([]any, len(names))
	line := []byte{}
	for i, name := range names {
		into[i], values[i] = &values[i], sql.RawBytes(name)
	}
	for {
		line = line[:0]
		for i, v := range values {
			if i > 0 {
				line = append(line, '\t')
			}
			if v == nil {
				line = append(line, `\N`...)
			} else {
				line = append(line, escapeText.Replace(string(v))...)
			}
		}
		out.Stdout(append(line, '\n'))
		if !rows.Next() {
			return rows.Err()
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
	}
}

// escapeText keeps a value in its column, as mysql --batch does.
// https://dev.mysql.com/doc/refman/8.0/en/mysql-command-options.html#option_mysql_raw
var escapeText = strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\t", `\t`, "\x00", `\0`)
