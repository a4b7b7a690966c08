package dialogue

import "strings"

// show is what a terminal shows of one line: carriage returns and backspaces move the
// cursor, characters overwrite, escape sequences (ECMA-48) and other control characters
// show nothing. Devices wipe out their "--More--" that way.
func show(raw []byte) string {
	text := strings.ToValidUTF8(string(raw), "\uFFFD")
	var line []rune
	at := 0
	escape := plain
	for _, r := range text {
		if escape != plain {
			escape = escape.next(r)
			continue
		}
		switch {
		case r == 0x1b:
			escape = begun
		case r == '\r':
			at = 0
		case r == '\b':
			at = max(0, at-1)
		case r == '\t' && at == len(line):
			line = append(line, r)
			at++
		case r < ' ' || r == 0x7f:
		case at < len(line):
			line[at] = r
			at++
		default:
			line = append(line, r)
			at++
		}
	}
	return string(line)
}

// escape is where in an escape sequence a terminal is.
type escape int

const (
	plain   escape = iota
	begun          // ESC
	control        // ESC [ …
	command        // ESC ] … or ESC P …, up to BEL or ESC \
	ending         // ESC within a command
)

func (e escape) next(r rune) escape {
	switch e {
	case begun:
		switch {
		case r == '[':
			return control
		case r == ']' || r == 'P' || r == '^' || r == '_':
			return command
		case r >= ' ' && r <= '/': // intermediate bytes, e.g. ESC ( B
			return begun
		default:
			return plain
		}
	case control:
		if r >= '@' && r <= '~' {
			return plain
		}
		return control
	case command:
		switch r {
		case 7:
			return plain
		case 0x1b:
			return ending
		default:
			return command
		}
	case ending:
		if r == '\\' {
			return plain
		}
		return command
	default:
		return plain
	}
}
