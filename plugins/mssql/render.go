package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// rendered is a role's command, ready to be sent.
type rendered struct {
	sql string
	// use is the database that the command, a USE, chooses for those behind it.
	use string
	// member is the membership that the command changes; nil for other commands.
	member *membership
	// reads says that the command is one SELECT that changes nothing.
	reads bool
	// modern is another way to write an outdated command; "" if it is not outdated.
	modern string
}

// render fills in a role's command: T-SQL, understood by plugins/sdk/template, with three rules more.
//
//   - USE and a database is a command by itself. The commands of the phase behind it are sent over a
//     connection to that database.
//   - CALL, which T-SQL does not have, is EXEC.
//   - Passwords do not belong into roles.
func render(command, username string, params map[string]string) (rendered, error) {
	r, err := renderTSQL(command, username, params)
	if err != nil {
		return rendered{}, sdk.Errorf(sdk.ClassInvalid, "the role's command %q: %v", command, err).WithFix("correct the role")
	}
	return r, nil
}

func renderTSQL(command, username string, params map[string]string) (rendered, error) {
	command = executed(command)
	c, err := template.TSQL.Parse(command)
	if err != nil {
		return rendered{}, err
	}
	text, err := c.Render(func(s template.Slot) (string, error) {
		if s.Name == sdk.UsernamePlaceholder {
			return username, nil
		}
		if v := params[s.Name]; v != "" {
			return v, nil
		}
		return "", errors.New("the parameter has no value")
	}, nil)
	if err != nil {
		return rendered{}, err
	}
	words, err := wordsOf(text)
	switch {
	case err != nil:
		return rendered{}, err
	case len(words) == 0:
		return rendered{}, errors.New("it is empty")
	case has(words, "PASSWORD", "OLD_PASSWORD", "HASHED"):
		return rendered{}, errors.New("passwords do not belong into roles")
	case has(words, "GO"):
		return rendered{}, errors.New("GO is not T-SQL; write one command after the other")
	}
	r := rendered{sql: text, reads: reads(words)}
	if is(words[0], "USE") {
		if len(words) != 2 || words[1].Kind != template.Name && words[1].Kind != template.Word {
			return rendered{}, errors.New("USE and the name of a database is a command by itself")
		}
		r.use = words[1].Value
		return r, nil
	}
	if has(words, "USE") {
		return rendered{}, errors.New("USE is a command by itself, before those that it is for")
	}
	if m, outdated, ok := membershipOf(words); ok {
		r.member = &m
		if outdated {
			r.modern, _ = modern(command)
		}
	}
	return r, nil
}

// executed is a command with EXEC in place of CALL.
func executed(command string) string {
	trimmed := strings.TrimLeft(command, " \t\r\n")
	if len(trimmed) > 5 && strings.EqualFold(trimmed[:4], "CALL") && strings.ContainsRune(" \t\r\n", rune(trimmed[4])) {
		return "EXEC" + trimmed[4:]
	}
	return command
}

// wordsOf is what a server reads of a statement: no spaces, no comments, no semicolon at the end.
func wordsOf(statement string) ([]template.Token, error) {
	all, err := template.TSQL.Tokens(statement)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(t template.Token) bool { return t.Kind == template.Space || t.Kind == template.Comment })
	for len(all) > 0 && all[len(all)-1].Text == ";" {
		all = all[:len(all)-1]
	}
	return all, nil
}

// reads reports whether a batch is one SELECT that changes nothing. T-SQL needs no semicolon between statements, so no word may
// begin another one. Nearly all of these are reserved, and cannot be bare names.
// learn.microsoft.com/sql/t-sql/language-elements/reserved-keywords-transact-sql
func reads(words []template.Token) bool {
	return len(words) > 0 && is(words[0], "SELECT") && !slices.ContainsFunc(words, func(t template.Token) bool { return t.Text == ";" }) &&
		!has(words, "ALTER", "BACKUP", "BEGIN", "BREAK", "BULK", "CHECKPOINT", "CLOSE", "COMMIT", "CONTINUE", "CREATE", "DBCC", "DEALLOCATE",
			"DECLARE", "DELETE", "DENY", "DROP", "DUMP", "EXEC", "EXECUTE", "FETCH", "GOTO", "GRANT", "IF", "INSERT", "INTO", "KILL", "LOAD",
			"MERGE", "NEXT", "OPEN", "OPENQUERY", "OPENROWSET", "OPENDATASOURCE", "PRINT", "RAISERROR", "READTEXT", "RECONFIGURE",
			"RESTORE", "RETURN", "REVERT", "REVOKE", "ROLLBACK", "SAVE", "SET", "SETUSER", "SHUTDOWN", "TRUNCATE", "UPDATE",
			"UPDATETEXT", "WAITFOR", "WHILE", "WRITETEXT")
}

func is(t template.Token, word string) bool {
	return t.Kind == template.Word && strings.EqualFold(t.Text, word)
}

func has(all []template.Token, words ...string) bool {
	return slices.ContainsFunc(all, func(t template.Token) bool {
		return slices.ContainsFunc(words, func(w string) bool { return is(t, w) })
	})
}
