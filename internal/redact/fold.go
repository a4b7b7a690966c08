package redact

import "slices"

// maxSequence is the longest control sequence that is recognised as one; longer ones
// are text.
const maxSequence = 128

// Fold returns b without terminal control sequences and control characters; b itself if
// it has none.
func Fold(b []byte) []byte {
	if !hasControl(b) {
		return b
	}
	out, _ := foldAt(b, sequence)
	return out
}

func hasControl(b []byte) bool {
	return slices.ContainsFunc(b, func(c byte) bool { return c < 0x20 || c == 0x7f })
}

// foldAt also returns where in b each byte that is left stood. sequence says how long
// the control sequence at an escape character is; nil keeps what follows as text.
func foldAt(b []byte, sequence func([]byte) int) (out []byte, at []int) {
	out, at = make([]byte, 0, len(b)), make([]int, 0, len(b))
	for i := 0; i < len(b); {
		if b[i] == 0x1b && sequence != nil {
			i += sequence(b[i:])
			continue
		}
		if b[i] >= 0x20 && b[i] != 0x7f {
			out, at = append(out, b[i]), append(at, i)
		}
		i++
	}
	return out, at
}

// sequence is the length of the control sequence at the escape character that starts
// b, at least 1: ECMA-48 CSI (ESC [ … final byte) and OSC (ESC ] … BEL or ESC \), and
// two-character escapes. A sequence that is cut short counts up to the end of b.
func sequence(b []byte) int {
	if len(b) == 1 {
		return 1
	}
	limit := min(len(b), maxSequence)
	switch b[1] {
	case '[':
		for i := 2; i < limit; i++ {
			switch {
			case b[i] >= 0x40 && b[i] <= 0x7e:
				return i + 1
			case b[i] < 0x20 || b[i] > 0x3f:
				return i // not a sequence after all: what follows is text
			}
		}
	case ']':
		for i := 2; i < limit; i++ {
			if b[i] == 0x07 {
				return i + 1
			}
			if b[i] == 0x1b && i+1 < len(b) && b[i+1] == '\\' {
				return i + 2
			}
		}
	default:
		if b[1] >= 0x20 && b[1] <= 0x7e {
			return 2
		}
		return 1
	}
	if len(b) < maxSequence {
		return len(b)
	}
	return 1
}
