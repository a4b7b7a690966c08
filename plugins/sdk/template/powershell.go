package template

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// PowerShell takes several characters for quotes (PowerShell language specification 2.3.5.2; CharTraits of its source).
const (
	psSingle = "'‘’‚‛"
	psDouble = "\"“”„"
	psMarks  = "\r\n;,|&(){}[]<>=@!+*/%"
)

// lexPowerShell reads a command of PowerShell. Here-strings and --% are refused.
func lexPowerShell(s string) ([]Token, error) {
	l := powerShell{in: s}
	for l.at < len(s) {
		if err := l.next(); err != nil {
			return l.out, err
		}
	}
	return l.out, nil
}

type powerShell struct {
	in  string
	at  int
	out []Token
}

func (l *powerShell) add(kind Kind, end int, value, form string) {
	t := Token{Kind: kind, Text: l.in[l.at:end], Value: value, form: form, piece: form == `"`}
	if kind != Text {
		t.Value = t.Text
	}
	l.out = append(l.out, t)
	l.at = end
}

func (l *powerShell) next() error {
	rest := l.in[l.at:]
	r, size := utf8.DecodeRuneInString(rest)
	switch {
	case strings.HasPrefix(rest, "<#"):
		n := strings.Index(rest, "#>")
		if n < 0 {
			return errors.New("a comment is not closed")
		}
		l.add(Comment, l.at+n+2, "", "")
	case r == '#':
		n := strings.IndexAny(rest, "\r\n")
		if n < 0 {
			n = len(rest)
		}
		l.add(Comment, l.at+n, "", "")
	case r == '@' && len(rest) > 1 && strings.ContainsRune(psSingle+psDouble, first(rest[1:])):
		return errors.New("here-strings are not understood here; use plain quotes")
	case strings.HasPrefix(rest, "--%"):
		return errors.New("--% makes the shell read the rest in another way")
	case strings.ContainsRune(psSingle, r):
		return l.single(size)
	case strings.ContainsRune(psDouble, r):
		return l.double(size)
	case r == '`':
		if len(rest) < 2 {
			return errors.New("it ends with a backtick")
		}
		_, n := utf8.DecodeRuneInString(rest[1:])
		l.add(Opaque, l.at+1+n, "", "")
	case strings.HasPrefix(rest, "$("):
		l.add(Mark, l.at+1, "", "")
	case r == '$':
		return l.variable()
	case strings.ContainsRune(psMarks, r):
		l.add(Mark, l.at+size, "", "")
	case unicode.IsSpace(r):
		l.add(Space, l.at+size, "", "")
	default:
		l.add(Word, l.at+run(rest, func(r rune) bool {
			return !unicode.IsSpace(r) && !strings.ContainsRune(psMarks+psSingle+psDouble+"`$", r)
		}), "", "")
	}
	return nil
}

func first(s string) rune {
	r, _ := utf8.DecodeRuneInString(s)
	return r
}

// single reads '…'. Any of the single quotes ends it, and two of them are one.
func (l *powerShell) single(open int) error {
	var value strings.Builder
	for i := l.at + open; i < len(l.in); {
		r, n := utf8.DecodeRuneInString(l.in[i:])
		i += n
		if !strings.ContainsRune(psSingle, r) {
			value.WriteRune(r)
			continue
		}
		second, m := utf8.DecodeRuneInString(l.in[i:])
		if m == 0 || !strings.ContainsRune(psSingle, second) {
			l.add(Text, i, value.String(), "'")
			return nil
		}
		value.WriteRune(r)
		i += m
	}
	return errors.New("a single quote is not closed")
}

// double reads "…": its text, and what is expanded in it.
func (l *powerShell) double(open int) error {
	l.add(Mark, l.at+open, "", "")
	for l.at < len(l.in) {
		var value strings.Builder
		i := l.at
		for i < len(l.in) && l.in[i] != '$' {
			r, n := utf8.DecodeRuneInString(l.in[i:])
			if r == '`' {
				r, n = utf8.DecodeRuneInString(l.in[i+1:])
				if n == 0 {
					return errors.New("a double quote is not closed")
				}
				n++
			} else if strings.ContainsRune(psDouble, r) {
				second, m := utf8.DecodeRuneInString(l.in[i+n:])
				if m == 0 || !strings.ContainsRune(psDouble, second) {
					break
				}
				n += m
			}
			value.WriteRune(r)
			i += n
		}
		if i > l.at {
			l.add(Text, i, value.String(), `"`)
		}
		switch {
		case i >= len(l.in):
		case l.in[i] == '$':
			if err := l.variable(); err != nil {
				return err
			}
		default:
			_, n := utf8.DecodeRuneInString(l.in[i:])
			l.add(Mark, i+n, "", "")
			return nil
		}
	}
	return errors.New("a double quote is not closed")
}

// variable reads $name, ${name}, and within strings $(…).
func (l *powerShell) variable() error {
	rest := l.in[l.at:]
	switch {
	case strings.HasPrefix(rest, "${"):
		n := strings.IndexByte(rest, '}')
		if n < 0 {
			return errors.New("a ${ is not closed")
		}
		l.add(Opaque, l.at+n+1, "", "")
	case strings.HasPrefix(rest, "$("):
		inner := powerShell{in: l.in, at: l.at + 1}
		for depth := 0; ; {
			if inner.at >= len(inner.in) {
				return errors.New("a $( is not closed")
			}
			if err := inner.next(); err != nil {
				return err
			}
			switch t := inner.out[len(inner.out)-1]; {
			case t.Kind == Mark && t.Text == "(":
				depth++
			case t.Kind == Mark && t.Text == ")":
				depth--
			}
			if depth == 0 {
				l.add(Opaque, inner.at, "", "")
				return nil
			}
		}
	default:
		n := 1 + run(rest[1:], func(r rune) bool {
			return r == '_' || r == ':' || r == '?' || unicode.IsLetter(r) || unicode.IsDigit(r)
		})
		if n == 1 && len(rest) > 1 && (rest[1] == '$' || rest[1] == '^') {
			n = 2
		}
		l.add(Opaque, l.at+n, "", "")
	}
	return nil
}

func quotePowerShell(s Slot, v string) (string, error) {
	var b strings.Builder
	for _, r := range v {
		switch {
		case s.form != `"` && strings.ContainsRune(psSingle, r):
			b.WriteRune(r)
		case s.form == `"` && (r == '`' || r == '$' || strings.ContainsRune(psDouble, r)):
			b.WriteRune('`')
		}
		b.WriteRune(r)
	}
	if s.Kind == Word {
		return "'" + b.String() + "'", nil
	}
	return b.String(), nil
}

// misplacedInPowerShell refuses a placeholder that a quoted string could not replace, and one as the program itself.
func misplacedInPowerShell(before []Token, after string) string {
	if after != "" && !strings.ContainsRune(" \t\r\n),;}|", first(after)) {
		return "it touches other text; put both into quotes"
	}
	if n := len(before); n > 0 && before[n-1].Kind != Space && !strings.Contains("(,={;\n", before[n-1].Text) {
		return "it touches other text; put both into quotes"
	}
	for i := len(before) - 1; i >= 0; i-- {
		if before[i].Kind == Space {
			continue
		}
		if before[i].Text == "&" || before[i].Text == "." {
			return "it would be the program that runs"
		}
		break
	}
	return ""
}
