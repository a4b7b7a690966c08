package template

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// sql is what the SQL dialects differ in.
type sql struct {
	nested    bool   // comments nest
	hash      bool   // # begins a comment
	brackets  bool   // [name]
	backticks bool   // `name`
	double    bool   // "name"; otherwise double quotes are refused
	escapes   bool   // "" within "name" is a quote; otherwise no name holds one
	dollars   bool   // $tag$ text $tag$
	q         bool   // q'[text]'
	ascii     bool   // '…' holds ASCII alone, N'…' everything
	word      string // characters of words, beside letters, digits and _
	alone     string // how a name that stands alone is quoted: its opening character
	tooLong   func(name string) bool
}

// The lexical rules:
//   - T-SQL: learn.microsoft.com/sql/t-sql/language-elements (comments nest; QUOTED_IDENTIFIER is ON, as drivers set it),
//     names of at most 128 UTF-16 units.
//   - PL/SQL: Oracle SQL Language Reference, Literals and Database Object Names; 128 bytes from 12.2.
//   - MySQL and MariaDB under sql_mode NO_BACKSLASH_ESCAPES: dev.mysql.com/doc/refman/8.0/en/string-literals.html
//   - PostgreSQL with standard_conforming_strings: postgresql.org/docs/current/sql-syntax-lexical.html; 63 bytes.
var (
	tsql = sql{nested: true, brackets: true, double: true, escapes: true, ascii: true, word: "@#$", alone: "[",
		tooLong: func(n string) bool { return len(utf16.Encode([]rune(n))) > 128 }}
	plsql = sql{double: true, q: true, word: "$#", alone: `"`, tooLong: func(n string) bool { return len(n) > 128 }}
	mysql = sql{hash: true, backticks: true, word: "$", alone: "`",
		tooLong: func(n string) bool { return utf8.RuneCountInString(n) > 64 }}
	postgresql = sql{nested: true, double: true, escapes: true, dollars: true, word: "$", alone: `"`,
		tooLong: func(n string) bool { return len(n) > 63 }}
)

func (l sql) lex(s string) ([]Token, error) {
	var out []Token
	for s != "" {
		t, err := l.next(s)
		if err != nil {
			return out, err
		}
		if t.Value == "" && t.Kind != Text && t.Kind != Name {
			t.Value = t.Text
		}
		out = append(out, t)
		s = s[len(t.Text):]
	}
	return out, nil
}

func (l sql) next(s string) (Token, error) {
	c := s[0]
	switch {
	case strings.HasPrefix(s, "--") || l.hash && c == '#':
		n := strings.IndexAny(s, "\r\n")
		if n < 0 {
			n = len(s)
		}
		return Token{Kind: Comment, Text: s[:n]}, nil
	case strings.HasPrefix(s, "/*"):
		return l.comment(s)
	case c == '\'':
		return doubled(s, "", '\'', Text)
	case c == '[' && l.brackets:
		return doubled(s, "", ']', Name)
	case c == '`' && l.backticks:
		return doubled(s, "", '`', Name)
	case c == '"' && l.double:
		t, err := doubled(s, "", '"', Name)
		if err == nil && !l.escapes && strings.Contains(t.Value, `"`) {
			err = errors.New("a name cannot hold a double quote")
		}
		return t, err
	case c == '"':
		return Token{}, errors.New("double quotes mean a string or a name, depending on settings; use single quotes for text and backticks for names")
	case c == '$' && l.dollars:
		if t, ok, err := dollar(s); ok || err != nil {
			return t, err
		}
	}
	if n := run(s, unicode.IsSpace); n > 0 {
		return Token{Kind: Space, Text: s[:n]}, nil
	}
	n := run(s, func(r rune) bool {
		return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune(l.word, r)
	})
	if n == 0 {
		_, n = utf8.DecodeRuneInString(s)
		return Token{Kind: Mark, Text: s[:n]}, nil
	}
	if n < len(s) && s[n] == '\'' {
		return l.prefixed(s, n)
	}
	if strings.HasPrefix(s[n:], `&"`) || strings.HasPrefix(s[n:], `&'`) { // U&"…"
		if l.dollars && strings.EqualFold(s[:n], "u") {
			return Token{}, errors.New("escapes of Unicode are not understood here; write the characters themselves")
		}
	}
	return Token{Kind: Word, Text: s[:n]}, nil
}

// prefixed reads N'…' and its like; s[:n] is the prefix.
func (l sql) prefixed(s string, n int) (Token, error) {
	prefix := strings.ToUpper(s[:n])
	if l.q && (prefix == "Q" || prefix == "NQ") {
		return qQuoted(s, n)
	}
	t, err := doubled(s[n:], prefix, '\'', Text)
	t.Text = s[:n] + t.Text
	switch {
	case err != nil || prefix == "N":
		return t, err
	case l.dollars && prefix == "E":
		return Token{}, errors.New("strings with backslash escapes are not understood here; use plain quotes")
	default: // X'…', _latin1'…', DATE'…'
		t.Kind, t.Value = Opaque, t.Text
		return t, nil
	}
}

func (l sql) comment(s string) (Token, error) {
	depth := 0
	for i := 0; i < len(s)-1; i++ {
		switch {
		case s[i:i+2] == "/*" && (l.nested || depth == 0):
			depth++
			i++
		case s[i:i+2] == "*/":
			depth--
			i++
		default:
			continue
		}
		if depth == 0 {
			return Token{Kind: Comment, Text: s[:i+1]}, nil
		}
	}
	return Token{}, errors.New("a comment is not closed")
}

// doubled reads what begins with one character and ends with q, which stands for itself where it is doubled.
func doubled(s, prefix string, q byte, kind Kind) (Token, error) {
	for i := 1; i < len(s); i++ {
		if s[i] != q {
			continue
		}
		if i+1 < len(s) && s[i+1] == q {
			i++
			continue
		}
		return Token{Kind: kind, Text: s[:i+1], form: prefix + s[:1],
			Value: strings.ReplaceAll(s[1:i], string([]byte{q, q}), string(q))}, nil
	}
	return Token{}, fmt.Errorf("a %q is not closed", s[:1])
}

// dollar reads $tag$ text $tag$; ok is false if s begins none.
func dollar(s string) (t Token, ok bool, err error) {
	n := 1 + run(s[1:], func(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) })
	if n >= len(s) || s[n] != '$' || n > 1 && unicode.IsDigit(rune(s[1])) {
		return Token{}, false, nil
	}
	tag := s[:n+1]
	end := strings.Index(s[n+1:], tag)
	if end < 0 {
		return Token{}, false, fmt.Errorf("a %s is not closed", tag)
	}
	return Token{Kind: Opaque, Text: s[:n+1+end+len(tag)]}, true, nil
}

// qQuoted reads q'[text]'; s[n] is the quote.
func qQuoted(s string, n int) (Token, error) {
	open, size := utf8.DecodeRuneInString(s[n+1:])
	closing := open
	if i := strings.IndexRune("[{(<", open); i >= 0 {
		closing = rune("]})>"[i])
	}
	end := -1
	if size > 0 {
		end = strings.Index(s[n+1+size:], string(closing)+"'")
	}
	if end < 0 {
		return Token{}, errors.New("a q'…' is not closed")
	}
	return Token{Kind: Opaque, Text: s[:n+1+size+end+utf8.RuneLen(closing)+1]}, nil
}

// run counts the bytes of s whose characters are of a kind.
func run(s string, of func(rune) bool) int {
	n := strings.IndexFunc(s, func(r rune) bool { return !of(r) })
	if n < 0 {
		return len(s)
	}
	return n
}

func (l sql) quote(s Slot, v string) (string, error) {
	form := s.form
	if s.Kind == Word {
		form = l.alone
	}
	if s.Kind != Text {
		switch {
		case v == "":
			return "", errors.New("a name cannot be empty")
		case l.tooLong(v):
			return "", errors.New("the name is too long")
		}
	}
	var text string
	switch form {
	case "'", "N'":
		if form == "'" && l.ascii && strings.IndexFunc(v, func(r rune) bool { return r > unicode.MaxASCII }) >= 0 {
			return "", errors.New("the value has characters that this kind of string cannot hold; write N'…' in the role")
		}
		text = strings.ReplaceAll(v, "'", "''")
	case "[":
		text = strings.ReplaceAll(v, "]", "]]")
	case "`":
		text = strings.ReplaceAll(v, "`", "``")
	case `"`:
		if !l.escapes && strings.Contains(v, `"`) {
			return "", errors.New("a name cannot hold a double quote")
		}
		text = strings.ReplaceAll(v, `"`, `""`)
	default:
		return "", errors.New("no way of writing a value is known here")
	}
	if s.Kind == Word {
		closing := map[string]string{"[": "]", "`": "`", `"`: `"`}[form]
		return form + text + closing, nil
	}
	return text, nil
}
