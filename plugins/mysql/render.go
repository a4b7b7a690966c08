package main

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/quote"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// rendered is a role's command, ready to be sent.
type rendered struct {
	sql    string
	tokens []template.Token
}

// forbidden are words a role's command must not hold: passwords do not belong there,
// and the mark must stay.
var forbidden = map[string]string{
	"IDENTIFIED":               "passwords do not belong into roles",
	"PASSWORD":                 "passwords do not belong into roles",
	"MAX_CONNECTIONS_PER_HOUR": "that limit holds the mark of ownership",
}

// render fills in a role's command. What a placeholder becomes depends on where it
// stands:
//
//	%Username%          the account, 'user'@'host'
//	%Database%.*        `database`, its wildcards _ and % escaped
//	%Anything%          `anything`, an identifier
//	'… %Anything% …'    text within the literal
//	`… %Anything% …`    text within the identifier; wildcards escaped before .*
//
// Everything else is refused: placeholders that touch other text, comments, double
// quotes (their meaning depends on sql_mode) and semicolons (one command is one
// statement).
func render(command, username, host string, params map[string]string) (rendered, error) {
	r, err := fill(command, username, host, params)
	if err != nil {
		return rendered{}, sdk.Errorf(sdk.ClassInvalid, "the role's command %q: %v", command, err).
			WithFix("correct the role")
	}
	return r, nil
}

func fill(command, username, host string, params map[string]string) (rendered, error) {
	known := append(slices.Collect(maps.Keys(params)), sdk.UsernamePlaceholder)
	if err := template.Check(template.MySQL.String(), command, known); err != nil {
		return rendered{}, err
	}
	c, err := template.MySQL.Parse(command)
	if err != nil {
		return rendered{}, err
	}
	for _, s := range c.Slots() {
		// An account is a pair: it may not have a host part of the role's own.
		if s.Kind == template.Word && (s.Before != "" && !strings.ContainsRune(" \t\n(,.=", rune(s.Before[len(s.Before)-1])) ||
			s.After != "" && !strings.ContainsRune(" \t\n),.", rune(s.After[0]))) {
			return rendered{}, errors.New("%" + s.Name + "% touches other text; put both into quotes or backticks")
		}
	}
	value := func(s template.Slot) (string, error) {
		if s.Name == sdk.UsernamePlaceholder {
			return username, nil
		}
		if params[s.Name] == "" {
			return "", errors.New("the parameter has no value")
		}
		return params[s.Name], nil
	}
	own := func(s template.Slot, v string) (string, error) {
		switch {
		case s.Kind == template.Word && s.Name == sdk.UsernamePlaceholder:
			return pair(v, host)
		case s.Kind == template.Text || !strings.HasPrefix(s.After, ".*"):
			return "", nil // the dialect's way
		}
		name, err := quote.MyGrantDB(v)
		if s.Kind == template.Name && err == nil {
			name = name[1 : len(name)-1]
		}
		return name, err
	}
	r := rendered{}
	if r.sql, err = c.Render(value, own); err != nil {
		return rendered{}, err
	}
	if r.tokens, err = template.MySQL.Tokens(r.sql); err != nil {
		return rendered{}, err
	}
	return r, r.plain()
}

// plain refuses what is no single, plain statement.
func (r rendered) plain() error {
	for _, t := range r.tokens {
		switch {
		case t.Kind == template.Comment:
			return errors.New("comments are not allowed")
		case t.Kind == template.Mark && t.Text == ";":
			return errors.New("a command is one statement without a semicolon")
		}
		if why := forbidden[strings.ToUpper(t.Text)]; why != "" && t.Kind == template.Word {
			return errors.New(t.Text + ": " + why)
		}
	}
	if r.verb() == "" {
		return errors.New("it is empty")
	}
	return nil
}

// verb is the first word of the statement, in upper case.
func (r rendered) verb() string {
	for _, t := range r.tokens {
		if t.Kind == template.Word {
			return strings.ToUpper(t.Text)
		}
	}
	return ""
}

// role is the first role of a "GRANT role TO …", quoted as it stands there; unlike a
// grant of privileges it has no ON. It is empty for other statements.
func (r rendered) role() string {
	if r.verb() != "GRANT" {
		return ""
	}
	var b strings.Builder
	first, whole := true, false
	for _, t := range r.tokens {
		word := ""
		if t.Kind == template.Word {
			word = strings.ToUpper(t.Text)
		}
		switch {
		case word == "GRANT" && !whole:
			whole = true
		case word == "ON":
			return ""
		case word == "TO":
			return strings.TrimSpace(b.String())
		case t.Kind == template.Mark && t.Text == ",":
			first = false
		case first:
			b.WriteString(t.Text)
		}
	}
	return ""
}

// jsonObject is a JSON document as an SQL literal.
func jsonObject(members map[string]string) (string, error) {
	doc, err := json.Marshal(members)
	if err != nil {
		return "", err
	}
	return quote.MyLit(string(doc))
}
