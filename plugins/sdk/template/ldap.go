package template

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// lexName reads a distinguished name (RFC 4514 section 3): types, and values as Text.
func lexName(s string) ([]Token, error) {
	var out []Token
	for s != "" {
		n := strings.IndexByte(s, '=')
		if n < 0 {
			return out, errors.New("a name is made of type=value, separated by commas")
		}
		out = append(out, asWritten(s[:n]), Token{Kind: Mark, Text: "=", Value: "="})
		s = s[n+1:]
		var value []byte
		i := 0
		for i < len(s) && strings.IndexByte(",+;", s[i]) < 0 {
			switch {
			case s[i] == '"' || s[i] == '<' || s[i] == '>':
				return out, fmt.Errorf("a value holds a %q; write it as \\%02X", s[i], s[i])
			case s[i] == '#' && i == 0:
				return out, errors.New("values in hexadecimal are not understood here")
			case s[i] == '\\':
				b, n, err := unescaped(s[i:], true)
				if err != nil {
					return out, err
				}
				value = append(value, b)
				i += n
			default:
				value = append(value, s[i])
				i++
			}
		}
		if i > 0 {
			out = append(out, Token{Kind: Text, Text: s[:i], Value: string(value), form: "name", piece: true})
		}
		if s = s[i:]; s != "" {
			out = append(out, Token{Kind: Mark, Text: s[:1], Value: s[:1]})
			if s = s[1:]; s == "" {
				return out, errors.New("it ends with a separator")
			}
		}
	}
	return out, nil
}

func asWritten(s string) Token { return Token{Kind: Opaque, Text: s, Value: s} }

// unescaped reads \HH, and \c for a character that needs it if short is true.
func unescaped(s string, short bool) (b byte, n int, err error) {
	if len(s) >= 3 {
		if h, err := hex.DecodeString(s[1:3]); err == nil {
			return h[0], 3, nil
		}
	}
	if short && len(s) >= 2 && strings.IndexByte(` "#+,;<=>\`, s[1]) >= 0 {
		return s[1], 2, nil
	}
	return 0, 0, errors.New("a backslash begins no escape")
}

// quoteName writes every byte but letters, digits, - and _ as \HH, which all servers understand.
func quoteName(_ Slot, v string) (string, error) {
	var b strings.Builder
	for i := range len(v) {
		c := v[i]
		if c == '-' || c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c == ' ' && i > 0 && i < len(v)-1 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, `\%02X`, c)
	}
	return b.String(), nil
}

// lexFilter reads a search filter (RFC 4515 section 3): operators, attributes, and values as Text.
func lexFilter(s string) ([]Token, error) {
	var out []Token
	mark := func(n int) {
		out = append(out, Token{Kind: Mark, Text: s[:n], Value: s[:n]})
		s = s[n:]
	}
	depth := 0
	for s != "" {
		switch s[0] {
		case '(':
			depth++
			mark(1)
			continue
		case ')':
			depth--
			mark(1)
			continue
		case '&', '|', '!':
			mark(1)
			continue
		}
		n := strings.IndexAny(s, "=()")
		if n <= 0 || s[n] != '=' || depth == 0 {
			return out, errors.New("a filter is made of (attribute=value)")
		}
		out = append(out, asWritten(s[:n]))
		s = s[n:]
		mark(1)
		for s != "" && s[0] != ')' {
			if s[0] == '*' {
				mark(1)
				continue
			}
			var value []byte
			i := 0
			for i < len(s) && strings.IndexByte("()*", s[i]) < 0 {
				if s[i] != '\\' {
					value = append(value, s[i])
					i++
					continue
				}
				b, n, err := unescaped(s[i:], false)
				if err != nil {
					return out, err
				}
				value = append(value, b)
				i += n
			}
			if i == 0 {
				return out, errors.New(`a value holds a "("; write it as \28`)
			}
			out = append(out, Token{Kind: Text, Text: s[:i], Value: string(value), form: "filter", piece: true})
			s = s[i:]
		}
	}
	if depth != 0 {
		return out, errors.New("its brackets do not match")
	}
	return out, nil
}

func quoteFilter(_ Slot, v string) (string, error) {
	var b strings.Builder
	for i := range len(v) {
		if strings.IndexByte("\\*()", v[i]) >= 0 {
			fmt.Fprintf(&b, `\%02x`, v[i])
			continue
		}
		b.WriteByte(v[i])
	}
	return b.String(), nil
}

// lexLDAPCommand reads a verb and words. A quoted one is a filter if it begins with a bracket, a name if it holds a "=" and does not
// stand behind the word name, else text that is taken as it is.
func lexLDAPCommand(s string) ([]Token, error) {
	var out []Token
	last := ""
	for s != "" {
		text, quoted := strings.CutPrefix(s, `"`)
		switch n := len(s) - len(strings.TrimLeft(s, " ")); {
		case n > 0:
			out = append(out, Token{Kind: Space, Text: s[:n], Value: s[:n]})
			s = s[n:]
		case !quoted:
			word, _, _ := strings.Cut(s, " ")
			if strings.ContainsAny(word, "\"\n\t") {
				return out, errors.New("a quote, a tab or the end of a line stands within a word")
			}
			out = append(out, Token{Kind: Word, Text: word, Value: word})
			s, last = s[len(word):], word
		default:
			text, tail, closed := strings.Cut(text, `"`)
			if !closed {
				return out, errors.New("a quote is not closed")
			}
			if tail != "" && tail[0] != ' ' {
				return out, errors.New("a closing quote touches other text")
			}
			inner, err := []Token{asWritten(text)}, error(nil)
			switch {
			case last == "name":
			case strings.HasPrefix(text, "("):
				inner, err = lexFilter(text)
			case strings.Contains(text, "="):
				inner, err = lexName(text)
			}
			quote := Token{Kind: Mark, Text: `"`, Value: `"`}
			out = append(append(out, quote), inner...)
			if err != nil {
				return out, err
			}
			out, s, last = append(out, quote), tail, ""
		}
	}
	return out, nil
}

func quoteLDAPCommand(s Slot, v string) (string, error) {
	switch s.form {
	case "name":
		return quoteName(s, v)
	case "filter":
		text, err := quoteFilter(s, v)
		return strings.ReplaceAll(text, `"`, `\22`), err
	}
	if v == "" || strings.ContainsAny(v, " \"") {
		return "", errors.New("the value is no word")
	}
	return v, nil
}
