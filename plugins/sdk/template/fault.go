package template

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Code says what kind of fault a command has. Codes are stable: programs compare them.
type Code string

// The codes.
const (
	Malformed          Code = "command_malformed"   // the command cannot be read
	UnknownPlaceholder Code = "placeholder_unknown" // no value belongs to the name
	UnsafePlaceholder  Code = "placeholder_unsafe"  // no way of writing a value is safe where it stands
)

// Fault is what is wrong with a command. Every error of [Dialect.Parse] and of [Check] is one.
type Fault struct {
	Code    Code
	At      int    // byte of the command at which it shows, from 0
	Message string // what is wrong
	Fix     string // what to do
}

func (f *Fault) Error() string { return f.Message }

// At returns the character, from 1, at which byte stands in the command, for people.
func At(command string, byte int) int { return len([]rune(command[:min(byte, len(command))])) + 1 }

// Check says what is wrong with a command in the named dialect in which the known placeholders may stand; nil if
// nothing is. The dialect "" is a language that is not known here: placeholders stand for whole words in it. An
// error that is no *Fault means that there is no such dialect.
func Check(dialect, command string, known []string) error {
	if strings.TrimSpace(command) == "" {
		return &Fault{Code: Malformed, Message: "the command is empty", Fix: "write one, or leave it out"}
	}
	for i, r := range command {
		if r == unicode.ReplacementChar || unicode.IsControl(r) && r != '\n' && r != '\t' {
			return &Fault{Code: Malformed, At: i, Message: "a control character, or what is not UTF-8 text", Fix: "leave it out"}
		}
	}
	fault := expand(command, func(string, int) {}, func(name string, at int) error {
		if slices.Contains(known, name) {
			return nil
		}
		return &Fault{Code: UnknownPlaceholder, At: at, Message: fmt.Sprintf("there is no value for %%%s%%", name),
			Fix: "known are " + listed(known) + "; declare it as a parameter of the role, or write %% for a plain percent sign"}
	})
	switch {
	case fault != nil:
		return fault
	case dialect == "":
		return wholeWords(command)
	}
	d, ok := DialectOf(dialect)
	if !ok {
		return fmt.Errorf("there is no dialect %q", dialect)
	}
	_, err := d.Parse(command)
	return err
}

func listed(names []string) string {
	var out []string
	for _, n := range names {
		out = append(out, "%"+n+"%")
	}
	return strings.Join(out, ", ")
}

// wholeWords refuses placeholders that are not words of their own.
func wholeWords(command string) error {
	blank := func(c byte) bool { return strings.IndexByte(" \t\n", c) >= 0 }
	return expand(command, func(string, int) {}, func(name string, at int) error {
		end := at + len(name) + 2
		if at > 0 && !blank(command[at-1]) || end < len(command) && !blank(command[end]) {
			return &Fault{Code: UnsafePlaceholder, At: at, Message: fmt.Sprintf("%%%s%% touches other text", name),
				Fix: "put a space on either side: a placeholder is a word of its own here"}
		}
		return nil
	})
}

// where finds the place in a command of a place in what it was joined to.
type where []struct{ joined, command int }

func (w *where) add(joined, command int) {
	*w = append(*w, struct{ joined, command int }{joined, command})
}

func (w where) of(joined int) int {
	at := 0
	for _, s := range w {
		if s.joined <= joined {
			at = s.command + joined - s.joined
		}
	}
	return at
}

// fixOf is what to do about a placeholder of that kind.
func fixOf(k Kind) string {
	switch k {
	case Word:
		return "let it stand alone, or put it and what it touches into quotes"
	case Comment:
		return "take it out of the comment"
	default:
		return "put it where a plain value or name stands"
	}
}

func faultOf(err error, code Code, at int, fix string) *Fault {
	if f, ok := errors.AsType[*Fault](err); ok {
		return f
	}
	return &Fault{Code: code, At: at, Message: err.Error(), Fix: fix}
}
