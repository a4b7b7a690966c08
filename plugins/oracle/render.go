package main

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// sizePattern is how the size of a quota is written.
const sizePattern = `^[1-9][0-9]{0,11}[KMGT]?$`

var (
	size  = regexp.MustCompile(sizePattern)
	quota = regexp.MustCompile(`(?i)\bQUOTA\s*$`)
	// harmless is what the template writes to see how the command reads: one word.
	harmless = regexp.MustCompile(`^zq+[0-9]+z$`)
)

// rendered is a role's command as it is sent.
type rendered struct {
	sql    string
	words  []string // its bare words, in upper case
	grants bool     // it grants roles or system privileges, and no rights on an object
	reads  bool     // it is a SELECT that changes nothing
	as     string   // administrative privilege that a session must begin with to do it
}

// render fills in the placeholders of a role's command: %Username% and others become names in double quotes or pieces
// of texts, as they stand. A command is one statement, or one PL/SQL block. It may not set passwords: they would be in plans.
func render(command, username string, params map[string]string) (rendered, error) {
	out, err := renderSQL(command, username, params)
	if err != nil {
		return rendered{}, sdk.Errorf(sdk.ClassInvalid, "the role's command %q: %v", command, err).WithFix("correct the role")
	}
	return out, nil
}

func renderSQL(command, username string, params map[string]string) (rendered, error) {
	command, block := statement(command)
	c, err := template.PLSQL.Parse(command)
	if err != nil {
		return rendered{}, err
	}
	sql, err := c.Render(func(s template.Slot) (string, error) {
		if s.Name == sdk.UsernamePlaceholder {
			return username, nil
		}
		v := params[s.Name]
		if v == "" {
			return "", errors.New("the parameter has no value")
		}
		return v, nil
	}, asSize)
	if err != nil {
		return rendered{}, err
	}
	words, err := words(sql, block)
	if err != nil {
		return rendered{}, err
	}
	r := rendered{
		sql: sql, words: words, grants: words[0] == "GRANT" && !slices.Contains(words, "ON"),
		reads: words[0] == "SELECT" && !slices.Contains(words, "UPDATE"), // FOR UPDATE locks
	}
	if g, err := readGrant(sql); err == nil {
		r.as = g.as()
	}
	return r, nil
}

// statement takes the semicolon off the end of SQL, where the server does not want it. A block keeps its own.
func statement(command string) (text string, block bool) {
	text = strings.TrimSpace(command)
	first := ""
	if fields := strings.FieldsFunc(text, func(r rune) bool { return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') }); len(fields) > 0 {
		first = strings.ToUpper(fields[0])
	}
	if first == "BEGIN" || first == "DECLARE" {
		return text, true
	}
	return strings.TrimSpace(strings.TrimSuffix(text, ";")), false
}

// asSize writes what stands behind QUOTA as a size, which cannot be quoted.
func asSize(s template.Slot, value string) (string, error) {
	if s.Kind != template.Word || !quota.MatchString(s.Before) {
		return "", nil
	}
	if !size.MatchString(value) && !harmless.MatchString(value) {
		return "", errors.New("it is not a size such as 100M")
	}
	return value, nil
}

// words are the bare words of a command, in upper case. It refuses what a command must not hold.
func words(sql string, block bool) ([]string, error) {
	tokens, err := template.PLSQL.Tokens(sql)
	if err != nil {
		return nil, err
	}
	var words []string
	for _, t := range tokens {
		switch {
		case t.Kind == template.Word:
			words = append(words, strings.ToUpper(t.Text))
		case t.Kind == template.Mark && t.Text == ";" && !block:
			return nil, errors.New("a command is one statement without a semicolon in it")
		case t.Kind == template.Mark && t.Text == ":" && !block:
			return nil, errors.New("a command takes no bound values")
		}
	}
	switch {
	case len(words) == 0:
		return nil, errors.New("it is empty")
	case slices.Contains(words, "IDENTIFIED"):
		return nil, errors.New("IDENTIFIED: a role does not set passwords; the connector does")
	}
	return words, nil
}

// name writes a name as statements need it. Nothing can escape a double quote, so a name with one is refused.
func name(s string) (string, error) {
	c, err := template.PLSQL.Parse("%Name%")
	if err == nil {
		s, err = c.Render(func(template.Slot) (string, error) { return s, nil }, nil)
	}
	if err != nil {
		return "", sdk.Errorf(sdk.ClassInvalid, "a name cannot be written in SQL").WithFix("choose one without double quotes")
	}
	return s, nil
}

// literal writes a password, which stands in double quotes too.
func literal(password sdk.Secret) (string, error) {
	text := password.Reveal()
	if text == "" || strings.ContainsAny(text, "\"\x00\r\n") {
		return "", sdk.Errorf(sdk.ClassPolicyRejected, "the password cannot be written in SQL: it is empty or holds a double quote").
			WithFix("use another one")
	}
	return `"` + text + `"`, nil
}
