package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Run implements sdk.Runner: one statement or PL/SQL block, as the management account. Rows are lines with tabs between
// the values. An error of the statement is exit status 1, and its number; the server's words are left out.
func (connector) Run(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
	text, block := statement(command)
	if text == "" {
		return 0, sdk.Errorf(sdk.ClassInvalid, "the command is empty").WithFix("give one SQL statement or PL/SQL block")
	}
	s, err := connect(ctx, t)
	if err != nil {
		return 0, err
	}
	defer s.close()
	if word := strings.ToUpper(strings.Fields(text)[0]); !block && (word == "SELECT" || word == "WITH") {
		err = s.rows(text, nil, func(row []driver.Value) error {
			out.Stdout([]byte(textOf(row)))
			return nil
		})
	} else {
		err = s.try(text)
	}
	if n := number(err); n != 0 && !interrupted[n] {
		message := fmt.Sprintf("ORA-%05d", n)
		if e, ok := errors.AsType[*sdk.Error](failure(ctx, message, err, false)); ok && e.Class != sdk.ClassProtocol {
			message = e.Message
		}
		out.Stderr([]byte(message + "\n"))
		return 1, nil
	}
	return 0, failure(ctx, "run the command", err, true) // a query may call what changes something
}

// textOf writes a row: values that would break the line are quoted.
func textOf(row []driver.Value) string {
	values := make([]string, len(row))
	for i, v := range row {
		switch v := v.(type) {
		case nil:
		case time.Time:
			values[i] = v.Format(time.RFC3339Nano)
		default:
			values[i] = fmt.Sprint(v)
		}
		if strings.ContainsAny(values[i], "\t\r\n") {
			values[i] = fmt.Sprintf("%q", values[i])
		}
	}
	return strings.Join(values, "\t") + "\n"
}
