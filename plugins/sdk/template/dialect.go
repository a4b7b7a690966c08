package template

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind is what a token is.
type Kind string

// The kinds of tokens.
const (
	Space   Kind = "space"
	Word    Kind = "word"    // a keyword, a plain name, a number
	Mark    Kind = "mark"    // an operator, a bracket, a separator
	Text    Kind = "text"    // a string, or a piece of one
	Name    Kind = "name"    // a quoted name
	Comment Kind = "comment" // what the target does not read
	Opaque  Kind = "opaque"  // what it reads by rules of its own: no placeholder is understood in it
)

// Token is a piece of a command as its language reads it.
type Token struct {
	Kind  Kind
	Text  string // as it stands in the command
	Value string // of Text and Name: what is meant, without quotes and escapes; else as Text
	form  string // how it is written, e.g. "'" or "N'"
	piece bool   // it is a part of something, and not there if empty
}

// Slot is a placeholder of a command and where it stands.
type Slot struct {
	Name string
	// Kind is Word if the placeholder stands alone, Text within a string, Name within a quoted name.
	Kind Kind
	// Before and After are the command's text on either side of the slot's token, up to the next
	// placeholder. "%Database%.*" has a slot with After ".*".
	Before, After string
	form          string
}

// Quote writes a value where a slot stands. What it returns for a slot of kind Word stands by itself; for the
// others it is a piece of the string or name around it.
type Quote func(s Slot, value string) (string, error)

// Dialect is a language that commands are written in.
type Dialect struct {
	name  string
	lex   func(s string) ([]Token, error)
	quote Quote
	// joins says that a placeholder may touch other text of a word and both are one word then.
	joins bool
	// misplaced says why a slot of kind Word must not stand where it does; "" if it may.
	misplaced func(before []Token, after string) string
}

// The dialects.
var (
	TSQL       = &Dialect{name: "tsql", lex: tsql.lex, quote: tsql.quote}
	PLSQL      = &Dialect{name: "plsql", lex: plsql.lex, quote: plsql.quote}
	MySQL      = &Dialect{name: "mysql", lex: mysql.lex, quote: mysql.quote}
	PostgreSQL = &Dialect{name: "postgresql", lex: postgresql.lex, quote: postgresql.quote}
	Shell      = &Dialect{name: "shell", lex: lexShell, quote: quoteShell, joins: true, misplaced: misplacedInShell}
	PowerShell = &Dialect{name: "powershell", lex: lexPowerShell, quote: quotePowerShell, misplaced: misplacedInPowerShell}
	// LDAPName is a distinguished name (RFC 4514), LDAPFilter a search filter (RFC 4515). Placeholders stand for
	// values in them, whole or in part.
	LDAPName   = &Dialect{name: "ldap-name", lex: lexName, quote: quoteName, joins: true}
	LDAPFilter = &Dialect{name: "ldap-filter", lex: lexFilter, quote: quoteFilter, joins: true}
	// LDAPCommand is words between spaces. In double quotes are distinguished names and filters, with placeholders as
	// above, or text without; elsewhere a placeholder is a whole word.
	LDAPCommand = &Dialect{name: "ldap-command", lex: lexLDAPCommand, quote: quoteLDAPCommand}
)

// Dialects are all there are.
var Dialects = []*Dialect{TSQL, PLSQL, MySQL, PostgreSQL, Shell, PowerShell, LDAPName, LDAPFilter, LDAPCommand}

// String returns the name of the dialect, as descriptions of connectors give it.
func (d *Dialect) String() string { return d.name }

// DialectOf returns the dialect with the name.
func DialectOf(name string) (*Dialect, bool) {
	i := slices.IndexFunc(Dialects, func(d *Dialect) bool { return d.name == name })
	if i < 0 {
		return nil, false
	}
	return Dialects[i], true
}

// Tokens reads a command as the target will, placeholders excepted. An error says what is not closed or not allowed, and
// comes with the tokens before it.
func (d *Dialect) Tokens(command string) ([]Token, error) {
	if !utf8.ValidString(command) {
		return nil, errors.New("it is not UTF-8 text")
	}
	if strings.IndexByte(command, 0) >= 0 {
		return nil, errors.New("it has a NUL byte")
	}
	return d.lex(command)
}

// Command is a command with placeholders that are understood.
type Command struct {
	dialect *Dialect
	parts   []string // around the slots
	slots   []Slot
	marks   []string // a harmless value for each slot, which stands nowhere else
}

// Bounds of a command.
const (
	maxCommand = 16 << 10 // bytes
	maxSlots   = 64
)

// probes are values with everything that ends a string, a name, a line or a word in some language.
var probes = []string{"a", `'`, `"`, "`", `]`, `'' OR 1=1 --`, `"; DROP`, `$(id)`, "`id`", `\`, `\'`, `*/`, `%0a`, `a b`, "’", "‛x", `)(cn=*`, `,dc=x`, `#`, `-x`, `$x`, `{}`, `@(`}

// Parse finds the placeholders of a command and where they stand. It refuses a command in which a value could be read as
// something else: in comments, touching other text, in strings with rules of their own. An error is a [*Fault].
func (d *Dialect) Parse(command string) (*Command, error) {
	if len(command) > maxCommand {
		return nil, &Fault{Code: Malformed, At: maxCommand, Message: fmt.Sprintf("it has more than %d bytes", maxCommand), Fix: "make several commands of it"}
	}
	c := &Command{dialect: d}
	mark := "zq"
	for strings.Contains(strings.ToLower(command), mark) {
		mark += "q"
	}
	var b strings.Builder
	var places where
	var ats []int // of the slots, in the command
	joined := 0
	err := expand(command, func(text string, at int) {
		places.add(joined, at)
		joined += len(text)
		b.WriteString(text)
	}, func(name string, at int) error {
		c.parts = append(c.parts, b.String())
		b.Reset()
		c.slots = append(c.slots, Slot{Name: name})
		c.marks = append(c.marks, mark+strconv.Itoa(len(c.slots))+"z")
		places.add(joined, at)
		joined += len(c.marks[len(c.marks)-1])
		ats = append(ats, at)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(c.slots) > maxSlots {
		return nil, &Fault{Code: Malformed, At: ats[maxSlots], Message: fmt.Sprintf("it has more than %d placeholders", maxSlots), Fix: "make several commands of it"}
	}
	c.parts = append(c.parts, b.String())
	tokens, err := d.Tokens(c.join(c.marks))
	if err != nil {
		at := 0
		for _, t := range tokens {
			at += len(t.Text)
		}
		return nil, faultOf(err, Malformed, places.of(at), "correct the command; it is read as "+d.name)
	}
	found := 0
	for i, t := range tokens {
		for k, m := range c.marks {
			if !strings.Contains(t.Text, m) {
				continue
			}
			found++
			if err := c.place(k, tokens, i); err != nil {
				return nil, faultOf(fmt.Errorf("%%%s%%: %w", c.slots[k].Name, err), UnsafePlaceholder, ats[k], fixOf(t.Kind))
			}
		}
	}
	if found != len(c.slots) {
		return nil, faultOf(errors.New("a placeholder is part of something that is not understood"), UnsafePlaceholder, ats[0], fixOf(Opaque))
	}
	for _, p := range probes {
		_, err := c.Render(func(Slot) (string, error) { return p, nil }, nil)
		if errors.Is(err, errAnother) {
			return nil, faultOf(fmt.Errorf("a value such as %s would make another command of it", strconv.Quote(p)), UnsafePlaceholder, ats[0], fixOf(Opaque))
		}
	}
	return c, nil
}

// place decides what slot k, which stands in tokens[i], is.
func (c *Command) place(k int, tokens []Token, i int) error {
	s, t := &c.slots[k], tokens[i]
	s.Kind, s.form = t.Kind, t.form
	s.Before, s.After = c.outside(tokens, i, -1), c.outside(tokens, i, 1)
	switch t.Kind {
	case Word:
		if t.Text != c.marks[k] && !c.dialect.joins {
			return errors.New("it touches other text; put both into quotes")
		}
		if why := c.dialect.misplaced; why != nil {
			if said := why(tokens[:i], s.After); said != "" {
				return errors.New(said)
			}
		}
		return nil
	case Text, Name:
		return nil
	case Comment:
		return errors.New("it stands in a comment")
	case Opaque:
		return errors.New("it stands where no way of writing a value is safe; use plain quotes")
	default:
		return errors.New("it cannot stand here")
	}
}

// outside is the text before or behind a token up to the next placeholder.
func (c *Command) outside(tokens []Token, i, step int) string {
	text := ""
	for i += step; i >= 0 && i < len(tokens); i += step {
		if slices.ContainsFunc(c.marks, func(m string) bool { return strings.Contains(tokens[i].Text, m) }) {
			break
		}
		if step < 0 {
			text = tokens[i].Text + text
		} else {
			text += tokens[i].Text
		}
	}
	return text
}

// Slots returns the placeholders in their order, each as often as it is used.
func (c *Command) Slots() []Slot { return slices.Clone(c.slots) }

var errAnother = errors.New("it would make another command of this one")

// Render fills in the values. quote may be nil, or write some slots in a way of its own; where it returns "" the dialect's is used.
//
// What comes out has the same tokens as with harmless values, and in the tokens of slots the values and nothing else: if it had
// not, Render fails. It also fails for a value that cannot be written there. Errors do not quote values.
func (c *Command) Render(value func(Slot) (string, error), quote Quote) (string, error) {
	values, own := make([]string, len(c.slots)), make([]bool, len(c.slots))
	harmless, real := make([]string, len(c.slots)), make([]string, len(c.slots))
	for i, s := range c.slots {
		fail := func(err error) (string, error) { return "", fmt.Errorf("%%%s%%: %w", s.Name, err) }
		v, err := value(s)
		if err == nil {
			err = plain(v)
		}
		if err != nil {
			return fail(err)
		}
		values[i] = v
		if quote != nil {
			if harmless[i], err = quote(s, c.marks[i]); err == nil {
				real[i], err = quote(s, v)
			}
			own[i] = harmless[i] != ""
		}
		if err == nil && !own[i] {
			if harmless[i], err = c.dialect.quote(s, c.marks[i]); err == nil {
				real[i], err = c.dialect.quote(s, v)
			}
		}
		if err != nil {
			return fail(err)
		}
	}
	out := c.join(real)
	if !c.same(c.join(harmless), out, values, own) {
		return "", errAnother
	}
	return out, nil
}

func (c *Command) join(values []string) string {
	var b strings.Builder
	for i, p := range c.parts {
		b.WriteString(p)
		if i < len(values) {
			b.WriteString(values[i])
		}
	}
	return b.String()
}

// same reports whether b is a with values instead of the marks, token by token.
func (c *Command) same(a, b string, values []string, own []bool) bool {
	as, err := c.dialect.Tokens(a)
	if err != nil {
		return false
	}
	bs, err := c.dialect.Tokens(b)
	if err != nil {
		return false
	}
	for _, t := range as {
		want, free := t.Value, false
		for k, m := range c.marks {
			if strings.Contains(t.Value, m) {
				want = strings.ReplaceAll(want, m, values[k])
				free = free || own[k] // its own way of writing a value may change it
			}
		}
		if t.piece && want == "" {
			continue
		}
		if len(bs) == 0 || t.Kind != bs[0].Kind || t.form != bs[0].form || !free && want != bs[0].Value {
			return false
		}
		bs = bs[1:]
	}
	return len(bs) == 0
}

// plain refuses what no command can hold.
func plain(v string) error {
	if !utf8.ValidString(v) {
		return errors.New("the value is not UTF-8 text")
	}
	if strings.IndexFunc(v, unicode.IsControl) >= 0 {
		return errors.New("the value has a control character")
	}
	return nil
}
