package main

import (
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"
)

// printable writes text so that a terminal shows what it says. What comes from targets,
// agents and other people is in most of what we print: control characters but line break
// and tab, characters that turn the direction of writing, and bytes that are not UTF-8 are written
// as \u001b or \xff, which inside JSON means the same character. Each Write is a text of
// its own.
type printable struct{ w io.Writer }

func (p printable) Write(b []byte) (int, error) {
	clean := make([]byte, 0, len(b))
	for rest := b; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && n == 1:
			clean = fmt.Appendf(clean, `\x%02x`, rest[0])
		case r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Bidi_Control, unicode.Zl, unicode.Zp):
			clean = fmt.Appendf(clean, `\u%04x`, r)
		default:
			clean = append(clean, rest[:n]...)
		}
		rest = rest[n:]
	}
	if _, err := p.w.Write(clean); err != nil {
		return 0, err
	}
	return len(b), nil
}
