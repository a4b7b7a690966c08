// Package template understands the placeholders in role commands: %Name% stands for a
// value, %% for one percent sign, and any other percent sign is an error, so that a
// forgotten one is found when a role is saved and not on a target.
//
// What a value must look like depends on where it stands. A [Dialect] reads a command as
// its target does, knows whether a placeholder stands in a string, in a quoted name or
// alone, writes values for it, and refuses commands in which no way of writing is safe:
//
//	c, err := template.TSQL.Parse("EXEC sp_addsrvrolemember @loginame = N'%Username%', @rolename = N'sysadmin'")
//	sql, err := c.Render(func(template.Slot) (string, error) { return "o'brien", nil }, nil)
//
// Connectors and the SDK import it.
package template

import (
	"fmt"
	"strings"
)

// maxName bounds the length of a placeholder's name.
const maxName = 64

// ValidName reports whether s can be the name of a placeholder: a letter, then letters,
// digits and underscores, 64 at most.
func ValidName(s string) bool {
	if s == "" || len(s) > maxName || !letter(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !letter(c) && c != '_' && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// Placeholders returns the names used in command, each once, in order of appearance.
func Placeholders(command string) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	_, err := Expand(command, func(name string) (string, error) {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
		return "", nil
	})
	return names, err
}

// Expand replaces every placeholder by what value returns for its name. Values are not
// looked at again. The first error of value ends it.
func Expand(command string, value func(name string) (string, error)) (string, error) {
	var b strings.Builder
	err := expand(command, func(text string, _ int) { b.WriteString(text) }, func(name string, _ int) error {
		v, err := value(name)
		if err != nil {
			return fmt.Errorf("%%%s%%: %w", name, err)
		}
		b.WriteString(v)
		return nil
	})
	if err != nil {
		return "", err
	}
	return b.String(), nil
}

// expand calls text for what stands as it is, and slot for each placeholder, in their order, with the byte at which
// it stands. An error of its own is a *Fault.
func expand(command string, text func(s string, at int), slot func(name string, at int) error) error {
	malformed := func(at int) error { // without what stands there: errors of commands are shown and logged
		return &Fault{Code: Malformed, At: at, Message: fmt.Sprintf("a percent sign at byte %d begins no placeholder; write %%%% for a plain one", at),
			Fix: "write %% for a plain percent sign"}
	}
	rest := command
	for {
		before, after, found := strings.Cut(rest, "%")
		at := len(command) - len(rest)
		text(before, at)
		if !found {
			return nil
		}
		at += len(before)
		name, after, found := strings.Cut(after, "%")
		switch {
		case found && name == "":
			text("%", at)
		case !found || !ValidName(name):
			return malformed(at)
		default:
			if err := slot(name, at); err != nil {
				return err
			}
		}
		rest = after
	}
}
