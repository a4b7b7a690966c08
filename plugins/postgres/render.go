package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// fill writes values into one of the connector's own statements.
func fill(statement string, values map[string]string) (string, error) {
	c, err := template.PostgreSQL.Parse(statement)
	if err != nil {
		return "", sdk.Errorf(sdk.ClassInternal, "a statement of the connector is not understood").Wrap(err)
	}
	text, err := c.Render(func(s template.Slot) (string, error) { return values[s.Name], nil }, nil)
	if err != nil {
		return "", sdk.Errorf(sdk.ClassInvalid, "a name or a comment cannot be written in SQL: %v", err)
	}
	return text, nil
}

// unfit begin commands that would leave the transaction or the account that a change is made in, or that wait for data.
var unfit = []string{
	"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE", "SET", "RESET", "DISCARD", "COPY",
}

// render fills in a role's command: %Username% and the role's parameters, in a string, in
// "a name", or alone, where they become a name. A command is one statement that may be part
// of a transaction, sets no password and leaves the mark alone.
func render(command, username string, params map[string]string) (string, error) {
	text, err := rendered(command, username, params)
	if err != nil {
		return "", sdk.Errorf(sdk.ClassInvalid, "the role's command %q: %v", command, err).WithFix("correct the role")
	}
	return text, nil
}

func rendered(command, username string, params map[string]string) (string, error) {
	c, err := template.PostgreSQL.Parse(command)
	if err != nil {
		return "", err
	}
	text, err := c.Render(func(s template.Slot) (string, error) {
		if s.Name == sdk.UsernamePlaceholder {
			return username, nil
		}
		v, ok := params[s.Name]
		if !ok || v == "" {
			return "", errors.New("it has no value")
		}
		return v, nil
	}, nil)
	if err != nil {
		return "", err
	}
	tokens, err := template.PostgreSQL.Tokens(text)
	if err != nil {
		return "", err
	}
	return text, fit(tokens)
}

// fit refuses statements that must not be part of a role.
func fit(tokens []template.Token) error {
	var words []string
	for _, t := range tokens {
		switch {
		case t.Kind == template.Comment:
			return errors.New("comments are not allowed")
		case t.Kind == template.Mark && t.Text == ";":
			return errors.New("a command is one statement without a semicolon")
		case t.Kind == template.Opaque && strings.Contains(strings.ToUpper(t.Text), "PASSWORD"):
			return errors.New("passwords do not belong into roles")
		case t.Kind == template.Word:
			words = append(words, strings.ToUpper(t.Text))
		}
	}
	switch {
	case len(words) == 0:
		return errors.New("it is empty")
	case slices.Contains(words, "PASSWORD"):
		return errors.New("passwords do not belong into roles")
	case slices.Contains(unfit, words[0]):
		return errors.New(words[0] + " cannot be part of a change, which is one transaction")
	case len(words) > 2 && slices.Equal(words[:3], []string{"COMMENT", "ON", "ROLE"}):
		return errors.New("the comment of a role holds the mark of ownership")
	default:
		return nil
	}
}
