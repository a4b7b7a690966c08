package template

import (
	"errors"
	"fmt"
	"strings"
)

// lexShell reads a command of the POSIX shell (XCU 2.2, 2.3). Words come in pieces: plain characters, '…', and within "…"
// the text apart from the expansions. Here-documents are refused: what ends them depends on what they hold.
func lexShell(s string) ([]Token, error) {
	l := shell{in: s}
	err := l.run(func() bool { return false })
	return l.out, err
}

type shell struct {
	in  string
	at  int
	out []Token
}

const (
	shellBlank = " \t"
	shellMarks = "\n;&|<>()"
)

func (l *shell) add(kind Kind, end int, value, form string) {
	t := Token{Kind: kind, Text: l.in[l.at:end], Value: value, form: form, piece: form == `"`}
	if kind != Text {
		t.Value = t.Text
	}
	l.out = append(l.out, t)
	l.at = end
}

// run reads until the end, or until stop says so.
func (l *shell) run(stop func() bool) error {
	for l.at < len(l.in) && !stop() {
		rest := l.in[l.at:]
		c := rest[0]
		switch {
		case strings.HasPrefix(rest, "<<"):
			return errors.New("here-documents are not understood here; use printf")
		case strings.IndexByte(shellBlank, c) >= 0:
			l.add(Space, l.at+1, "", "")
		case strings.IndexByte(shellMarks, c) >= 0:
			l.add(Mark, l.at+1, "", "")
		case c == '#' && l.wordBegins():
			n := strings.IndexByte(rest, '\n')
			if n < 0 {
				n = len(rest)
			}
			l.add(Comment, l.at+n, "", "")
		case c == '\'':
			n := strings.IndexByte(rest[1:], '\'')
			if n < 0 {
				return errors.New("a ' is not closed")
			}
			l.add(Text, l.at+n+2, rest[1:n+1], "'")
		case c == '"':
			if err := l.double(); err != nil {
				return err
			}
		case c == '\\':
			if len(rest) < 2 {
				return errors.New("it ends with a backslash")
			}
			l.add(Opaque, l.at+2, "", "")
		case c == '$' || c == '`':
			if err := l.expansion(); err != nil {
				return err
			}
		default:
			n := strings.IndexAny(rest, shellBlank+shellMarks+"'\"\\$`")
			if n < 0 {
				n = len(rest)
			}
			l.add(Word, l.at+n, "", "")
		}
	}
	return nil
}

func (l *shell) wordBegins() bool {
	return len(l.out) == 0 || l.out[len(l.out)-1].Kind == Space || l.out[len(l.out)-1].Kind == Mark
}

// double reads "…".
func (l *shell) double() error {
	l.add(Mark, l.at+1, "", "")
	for {
		if l.at >= len(l.in) {
			return errors.New(`a " is not closed`)
		}
		switch c := l.in[l.at]; c {
		case '"':
			l.add(Mark, l.at+1, "", "")
			return nil
		case '$', '`':
			if err := l.expansion(); err != nil {
				return err
			}
		default:
			value, end := l.inDouble()
			l.add(Text, end, value, `"`)
		}
	}
}

// inDouble reads text within double quotes, where a backslash is itself unless it stands before one of $ ` " \ and newline.
func (l *shell) inDouble() (value string, end int) {
	var b strings.Builder
	i := l.at
	for i < len(l.in) && strings.IndexByte("\"$`", l.in[i]) < 0 {
		if l.in[i] == '\\' && i+1 < len(l.in) && strings.IndexByte("$`\"\\\n", l.in[i+1]) >= 0 {
			i++
		}
		b.WriteByte(l.in[i])
		i++
	}
	return b.String(), i
}

// expansion reads $name, ${…}, $(…), $((…)) and `…` as one token.
func (l *shell) expansion() error {
	begin := l.at
	rest := l.in[l.at:]
	switch {
	case rest[0] == '`':
		n := 1
		for n < len(rest) && rest[n] != '`' {
			if rest[n] == '\\' {
				n++
			}
			n++
		}
		if n >= len(rest) {
			return errors.New("a ` is not closed")
		}
		l.add(Opaque, begin+n+1, "", "")
		return nil
	case strings.HasPrefix(rest, "$("), strings.HasPrefix(rest, "${"):
		end, err := l.matching(begin+1, rest[1], map[byte]byte{'(': ')', '{': '}'}[rest[1]])
		if err != nil {
			return err
		}
		l.add(Opaque, end, "", "")
		return nil
	default: // $name, $1, $?; what touches it may be a part of the name
		n := 1
		for n < len(rest) && (rest[n] == '_' || rest[n] >= '0' && rest[n] <= '9' || rest[n]|0x20 >= 'a' && rest[n]|0x20 <= 'z') {
			n++
		}
		if n == 1 && len(rest) > 1 && strings.IndexByte("?#@*!$-", rest[1]) >= 0 {
			n = 2
		}
		if n == 1 && len(rest) > 1 && (rest[1] == '\'' || rest[1] == '"') {
			return errors.New("$'…' and $\"…\" mean different things in different shells")
		}
		l.add(Opaque, begin+n, "", "")
		return nil
	}
}

// matching finds the end of what opens at from, quotes within it left alone.
func (l *shell) matching(from int, open, closing byte) (int, error) {
	inner := shell{in: l.in, at: from + 1}
	depth := 1
	for depth > 0 {
		if inner.at >= len(inner.in) {
			return 0, fmt.Errorf("a $%c is not closed", open)
		}
		switch c := inner.in[inner.at]; c {
		case open:
			depth++
			inner.at++
		case closing:
			depth--
			inner.at++
		case '\'', '"', '\\', '$', '`':
			first := true
			if err := inner.run(func() bool { was := first; first = false; return !was }); err != nil {
				return 0, err
			}
		default:
			inner.at++
		}
	}
	return inner.at, nil
}

func quoteShell(s Slot, v string) (string, error) {
	if s.Kind == Text && s.form == "'" {
		if strings.Contains(v, "'") {
			return "", errors.New(`the value has a single quote, which no string in single quotes can hold; use "…" in the role`)
		}
		return v, nil
	}
	v = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(v)
	if s.Kind == Word {
		return `"` + v + `"`, nil
	}
	return v, nil
}

// misplacedInShell refuses a placeholder that touches an expansion or an escape, and one as the program itself.
func misplacedInShell(before []Token, _ string) string {
	if len(before) > 0 && before[len(before)-1].Kind == Opaque {
		return "it touches an expansion; put both into double quotes"
	}
	for i := len(before) - 1; i >= 0; i-- {
		switch t := before[i]; {
		case t.Kind == Space:
		case t.Kind == Mark && t.Text != "<" && t.Text != ">" && t.Text != `"`:
			return "it would be the program that runs"
		default:
			return ""
		}
	}
	return "it would be the program that runs"
}
