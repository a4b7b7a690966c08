package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// Role commands are lines of a language of their own, words with spaces between them:
//
//	add-to-group GROUP        remove-from-group GROUP
//	add-spn NAME              remove-spn NAME
//	set-flag FLAG             clear-flag FLAG
//
// GROUP is rid:512 (of the account's domain), sid:S-1-5-32-549, name NAME (its
// sAMAccountName), "CN=…" (its distinguished name) or "(…)" (a filter that one group
// matches). A NAME is a word, a placeholder, or text in double quotes. Within the quotes
// of a distinguished name or a filter placeholders may stand for values.
type command struct {
	verb string
	by   string            // how the object is named: "rid", "sid", "dn", "filter", "spn", "flag"
	text string            // of all but dn and filter
	tmpl *template.Command // of dn and filter
	slot string            // of spn: the placeholder that stands for text
}

// action is a command with its values.
type action struct {
	verb, by, value string
}

// String is the action as plans show it.
func (a action) String() string {
	switch a.by {
	case "rid", "sid":
		return a.verb + " " + a.by + ":" + a.value
	case "dn", "filter":
		return a.verb + ` "` + a.value + `"`
	default:
		return a.verb + " " + a.value
	}
}

// removes reports whether the action takes something away.
func (a action) removes() bool {
	return a.verb == "remove-from-group" || a.verb == "remove-spn" || a.verb == "clear-flag"
}

// flags are the bits of userAccountControl that a role may set.
// https://learn.microsoft.com/en-us/windows/win32/adschema/a-useraccountcontrol
var flags = map[string]int64{
	"password-never-expires": 0x10000,
	"smartcard-required":     0x40000,
	"not-delegated":          0x100000,
}

// What numbers and names look like.
const (
	ridPattern  = `[1-9][0-9]{2,9}`
	sidPattern  = `S-1-[0-9]{1,10}(-[0-9]{1,10}){1,15}`
	spnPattern  = `[A-Za-z0-9._-]{1,64}/[A-Za-z0-9._-]{1,128}(:[A-Za-z0-9._-]{1,64})?(/[A-Za-z0-9._-]{1,128})?`
	slotPattern = `%[A-Za-z][A-Za-z0-9_]*%`
)

var (
	ridText = regexp.MustCompile(`^` + ridPattern + `$`)
	sidText = regexp.MustCompile(`^` + sidPattern + `$`)
	spnText = regexp.MustCompile(`^` + spnPattern + `$`)
)

// commandPattern is what parse takes, but for what the dialect checks within quotes, so that a mistyped command is refused when a
// role is saved.
const commandPattern = `^ *((add-to-group|remove-from-group) +(rid:` + ridPattern + `|sid:` + sidPattern +
	`|"\([^"]*"|"[^"(][^"]*=[^"]*"|name +("[^"]*"|[^" ]+))` +
	`|(add-spn|remove-spn) +(` + slotPattern + `|` + spnPattern + `)` +
	`|(set-flag|clear-flag) +(not-delegated|password-never-expires|smartcard-required)) *$`

const commandHelp = `write add-to-group or remove-from-group and rid:512, sid:S-1-5-32-549, name NAME, "CN=…" or "(…)"; add-spn or remove-spn and ` +
	`a service principal name; set-flag or clear-flag and not-delegated, password-never-expires or smartcard-required`

// field is a word of a line.
type field struct {
	text   string // without quotes
	quoted bool
}

// fields cuts a line into words. A quoted one has no quote in it: \22 stands for one in names and filters.
func fields(line string) ([]field, error) {
	if !utf8.ValidString(line) || strings.ContainsFunc(line, unicode.IsControl) {
		return nil, errors.New("it is not one line of text")
	}
	var out []field
	for rest := strings.TrimLeft(line, " "); rest != ""; rest = strings.TrimLeft(rest, " ") {
		if text, ok := strings.CutPrefix(rest, `"`); ok {
			text, tail, closed := strings.Cut(text, `"`)
			if !closed {
				return nil, errors.New("a quote is not closed")
			}
			if tail != "" && tail[0] != ' ' {
				return nil, errors.New("a closing quote touches other text")
			}
			out, rest = append(out, field{text, true}), tail
			continue
		}
		word, tail, _ := strings.Cut(rest, " ")
		if strings.Contains(word, `"`) {
			return nil, errors.New("a quote stands within a word")
		}
		out, rest = append(out, field{word, false}), tail
	}
	return out, nil
}

// parse reads a command of a role.
func parse(line string) (command, error) {
	words, err := fields(line)
	if err != nil {
		return command{}, err
	}
	if len(words) < 2 || words[0].quoted {
		return command{}, errors.New("a command is a verb and what it is about")
	}
	c := command{verb: words[0].text}
	switch args := words[1:]; c.verb {
	case "add-to-group", "remove-from-group":
		return c, c.group(args)
	case "add-spn", "remove-spn":
		return c, c.spn(args)
	case "set-flag", "clear-flag":
		c.by, c.text = "flag", args[0].text
		if _, known := flags[c.text]; !known || len(args) != 1 || args[0].quoted {
			return command{}, errors.New("the flag is one of not-delegated, password-never-expires, smartcard-required")
		}
		return c, nil
	default:
		return command{}, fmt.Errorf("there is no verb %q", c.verb)
	}
}

func (c *command) group(args []field) (err error) {
	first := args[0]
	switch {
	case len(args) == 2 && !first.quoted && first.text == "name":
		c.by = "filter"
		value := args[1].text
		if name, ok := placeholder(args[1]); ok {
			value = "%" + name + "%"
		} else {
			if value, err = template.Expand(value, noPlaceholder); err != nil {
				return err
			}
			value = strings.ReplaceAll(ldap.EscapeFilter(value), "%", "%%")
		}
		c.tmpl, err = template.LDAPFilter.Parse("(sAMAccountName=" + value + ")")
		return err
	case len(args) != 1:
		return errors.New("a group is one word, or name and a word")
	case first.quoted && strings.HasPrefix(first.text, "("):
		c.by = "filter"
		if c.tmpl, err = template.LDAPFilter.Parse(first.text); err != nil {
			return err
		}
		return c.compiles()
	case first.quoted:
		c.by = "dn"
		c.tmpl, err = template.LDAPName.Parse(first.text)
		if err == nil && !strings.Contains(first.text, "=") {
			err = errors.New("text in quotes is a distinguished name or a filter")
		}
		return err
	}
	by, value, _ := strings.Cut(first.text, ":")
	c.by, c.text = by, value
	if by == "rid" && ridText.MatchString(value) || by == "sid" && sidText.MatchString(value) {
		return nil
	}
	return errors.New(`a group is rid:512, sid:S-1-5-32-549, name NAME, "CN=…" or "(…)"`)
}

// compiles finds what the driver would refuse in a filter, before it has values.
func (c *command) compiles() error {
	text, err := c.tmpl.Render(func(template.Slot) (string, error) { return "a", nil }, nil)
	if err == nil {
		_, err = ldap.CompileFilter(text)
	}
	if err != nil {
		return errFilter
	}
	return nil
}

var errFilter = errors.New("the filter cannot be read")

func (c *command) spn(args []field) error {
	c.by = "spn"
	if len(args) != 1 || args[0].quoted {
		return errors.New("a service principal name is one word")
	}
	if name, ok := placeholder(args[0]); ok {
		c.slot = name
		return nil
	}
	c.text = args[0].text
	if !spnText.MatchString(c.text) {
		return errors.New("a service principal name is of the form class/host, class/host:port or class/host/name")
	}
	return nil
}

// placeholder is the name of the placeholder that a whole word is.
func placeholder(f field) (string, bool) {
	name, ok := strings.CutPrefix(f.text, "%")
	name, ok2 := strings.CutSuffix(name, "%")
	return name, ok && ok2 && !f.quoted && template.ValidName(name)
}

func noPlaceholder(string) (string, error) { return "", errors.New("it touches other text") }

// render fills in the values of a command.
func (c command) render(value func(name string) (string, error)) (action, error) {
	a := action{verb: c.verb, by: c.by, value: c.text}
	var err error
	switch {
	case c.tmpl != nil:
		a.value, err = c.tmpl.Render(func(s template.Slot) (string, error) {
			v, err := value(s.Name)
			if err == nil && v == "" {
				err = errors.New("the value is empty")
			}
			return v, err
		}, nil)
	case c.slot != "":
		a.value, err = value(c.slot)
		if err == nil && !spnText.MatchString(a.value) {
			err = errors.New("the value is no service principal name")
		}
	}
	return a, err
}

// actionOf is a role's command with the values of an intent.
func actionOf(line string, in sdk.Intent) (action, error) {
	c, err := parse(line)
	if err != nil {
		return action{}, err
	}
	return c.render(func(name string) (string, error) {
		if name == sdk.UsernamePlaceholder {
			return in.Account, nil
		}
		return in.Params[name], nil
	})
}
