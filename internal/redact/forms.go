package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// formsOf returns every form in which a secret may turn up: as it is, in UTF-16, in
// base64 at each alignment, in hexadecimal, and as quoted for URLs, JSON, XML,
// shells, SQL and LDAP.
func formsOf(secret []byte) [][]byte {
	s := string(secret)
	le, be := utf16Forms(s)
	out := [][]byte{secret, le, be}
	for _, b := range [][]byte{secret, le} { // PowerShell and unicodePwd encode UTF-16LE
		out = append(out, base64Forms(b)...)
		lower := hex.EncodeToString(b)
		out = append(out, []byte(lower), []byte(strings.ToUpper(lower)))
	}
	spaced := fmt.Sprintf("% x", secret)
	for _, q := range []string{
		spaced, strings.ToUpper(spaced), strings.ReplaceAll(spaced, " ", ":"), strings.ReplaceAll(strings.ToUpper(spaced), " ", ":"),
	} {
		out = append(out, []byte(q))
	}
	out = append(out, percentForms(s)...)
	out = append(out, quotedForms(s)...)
	return out
}

func utf16Forms(s string) (le, be []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		le = append(le, byte(u), byte(u>>8)) //nolint:gosec // the two halves of a code unit
		be = append(be, byte(u>>8), byte(u)) //nolint:gosec // the two halves of a code unit
	}
	return le, be
}

// base64Forms returns the characters that stand for b wherever b lies in a longer
// encoded text: at each of the three alignments, without those that depend on the
// neighbours; and, for b encoded alone, all of them.
func base64Forms(b []byte) [][]byte {
	var out [][]byte
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		out = append(out, []byte(enc.EncodeToString(b)))
		for shift := range 3 {
			text := enc.EncodeToString(append(make([]byte, shift), b...))
			from := []int{0, 2, 3}[shift]
			to := (shift + len(b)) * 8 / 6
			if to > from {
				out = append(out, []byte(text[from:to]))
			}
		}
	}
	return out
}

func percentForms(s string) [][]byte {
	const digits = "0123456789ABCDEF"
	all := make([]byte, 0, 3*len(s))
	for i := range len(s) {
		all = append(all, '%', digits[s[i]>>4], digits[s[i]&15])
	}
	var out [][]byte
	for _, q := range []string{string(all), url.QueryEscape(s), url.PathEscape(s), url.UserPassword("", s).String()[1:]} {
		out = append(out, []byte(q), []byte(lowerPercent(q)))
	}
	return out
}

// lowerPercent turns %3A into %3a and leaves everything else.
func lowerPercent(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			b[i+1], b[i+2] = lower(b[i+1]), lower(b[i+2])
			i += 2
		}
	}
	return string(b)
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// Replacers are costly to make and safe to share.
var (
	xmlNamed       = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&apos;")
	xmlPlain       = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
	shDouble       = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`")
	bashDouble     = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`", "!", `\!`)
	powerShell     = strings.NewReplacer("`", "``", `"`, "`\"", "$", "`$")
	mysqlBackslash = strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	mysqlDoubled   = strings.NewReplacer(`\`, `\\`, `'`, `''`)
	mysqlEscaped   = strings.NewReplacer(`\`, `\\`, `'`, `\'`, `"`, `\"`)
	ldapFilter     = strings.NewReplacer(`\`, `\5c`, `*`, `\2a`, `(`, `\28`, `)`, `\29`)
)

func quotedForms(s string) [][]byte {
	var out [][]byte
	add := func(q string) { out = append(out, []byte(q)) }
	inner := func(q string) { add(q[1 : len(q)-1]) } // without the quotes around it

	if j, err := json.Marshal(s); err == nil { // with < > & escaped
		inner(string(j))
	}
	var plain bytes.Buffer
	enc := json.NewEncoder(&plain)
	enc.SetEscapeHTML(false)
	if enc.Encode(s) == nil {
		inner(strings.TrimSuffix(plain.String(), "\n"))
	}
	inner(strconv.Quote(s))
	inner(strconv.QuoteToASCII(s))
	add(strings.ReplaceAll(s, "/", `\/`))
	add(jsonASCII(s))

	var x bytes.Buffer
	if xml.EscapeText(&x, []byte(s)) == nil {
		add(x.String())
	}
	add(html.EscapeString(s))
	add(xmlNamed.Replace(s))
	add(xmlPlain.Replace(s))

	add(strings.ReplaceAll(s, `'`, `'\''`))  // sh, single quotes
	add(strings.ReplaceAll(s, `'`, `'"'"'`)) // sh, as Python's shlex does
	add(shDouble.Replace(s))                 // sh, double quotes
	add(bashDouble.Replace(s))               // bash, history
	add(backslashed(s))                      // printf %q
	add(powerShell.Replace(s))               // PowerShell

	add(strings.ReplaceAll(s, `'`, `''`)) // SQL; PowerShell, single quotes
	add(strings.ReplaceAll(s, `"`, `""`)) // SQL identifiers, CSV
	add(mysqlBackslash.Replace(s))        // MySQL
	add(mysqlDoubled.Replace(s))          // MySQL, PostgreSQL E''
	add(mysqlEscaped.Replace(s))          // MySQL, real_escape_string
	add(ldapFilter.Replace(s))            // LDAP filter
	return out
}

// jsonASCII is JSON as Python's json.dumps writes it: \u escapes for all but ASCII.
func jsonASCII(s string) string {
	q := strconv.QuoteToASCII(s)
	q = q[1 : len(q)-1]
	if utf8.ValidString(s) {
		var b strings.Builder
		for _, r := range s {
			switch {
			case r == '"' || r == '\\':
				b.WriteByte('\\')
				b.WriteRune(r)
			case r < 0x80:
				b.WriteRune(r)
			default:
				for _, u := range utf16.Encode([]rune{r}) {
					fmt.Fprintf(&b, `\u%04x`, u)
				}
			}
		}
		q = b.String()
	}
	return q
}

// backslashed is how bash's printf %q writes a word.
func backslashed(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c < 0x80 && !isWordByte(c) {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_-./:=@%+", c) >= 0
}
