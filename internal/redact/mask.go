package redact

import (
	"slices"
	"strconv"
	"unicode/utf8"
)

// Mask overwrites every secret of at least MinLength bytes in b with asterisks, and
// reports whether there was one. It looks at b as it is and, since logs are lines of
// JSON, with the escapes of JSON strings undone, so that neither an escaped quote nor an
// escaped control character hides a part. The length of b and its line breaks stay.
func (r *Redactor) Mask(b []byte) bool {
	long := r.Long()
	spans := long.find(b)
	if slices.Contains(b, '\\') {
		text, at := unescape(b)
		for _, s := range long.find(text) {
			spans = append(spans, span{at[s.from], at[s.to]})
		}
		clear(text)
	}
	for _, s := range spans {
		for i := s.from; i < s.to; i++ {
			if b[i] != '\n' {
				b[i] = '*'
			}
		}
	}
	return len(spans) > 0
}

// unescape undoes the escapes of JSON strings, wherever they stand. at says where in b
// each byte came from, and ends with the length of b.
func unescape(b []byte) (out []byte, at []int) {
	out, at = make([]byte, 0, len(b)), make([]int, 0, len(b)+1)
	for i := 0; i < len(b); {
		text, n := b[i:i+1], 1
		if b[i] == '\\' && i+1 < len(b) {
			text, n = escape(b[i:])
		}
		for range text {
			at = append(at, i)
		}
		out, i = append(out, text...), i+n
	}
	return out, append(at, len(b))
}

// escape is what the escape that starts b stands for, and its length.
func escape(b []byte) (text []byte, n int) {
	const short, means = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	for i := range len(short) {
		if b[1] == short[i] {
			return []byte{means[i]}, 2
		}
	}
	if b[1] != 'u' || len(b) < 6 {
		return b[:1], 1
	}
	u, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return b[:1], 1
	}
	return utf8.AppendRune(nil, rune(u)), 6 // half a surrogate pair is no character: nothing is found there
}
