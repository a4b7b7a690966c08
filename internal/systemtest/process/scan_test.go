//go:build linux

package process

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf16"
)

// form is a way in which a secret may be written down.
type form struct {
	name string
	text []byte
}

// formsOf are all ways to write a secret down that are looked for: written here anew,
// not taken from the redactor, which is what they are to check.
func formsOf(secret []byte) (out []form) {
	seen := map[string]bool{}
	add := func(name string, text []byte) {
		if len(text) >= 8 && !seen[string(text)] {
			seen[string(text)] = true
			out = append(out, form{name, text})
		}
	}
	s := string(secret)
	add("raw", secret)
	var le, be []byte
	for _, u := range utf16.Encode([]rune(s)) {
		le, be = binary.LittleEndian.AppendUint16(le, u), binary.BigEndian.AppendUint16(be, u)
	}
	add("UTF-16LE", le)
	add("UTF-16BE", be)
	for name, b := range map[string][]byte{"": secret, " of UTF-16LE": le} {
		add("hex"+name, []byte(hex.EncodeToString(b)))
		add("HEX"+name, []byte(strings.ToUpper(hex.EncodeToString(b))))
		for shift := range 3 { // as part of something longer: only what no neighbour changes
			for kind, enc := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
				text := enc.EncodeToString(append(make([]byte, shift), b...))
				add(fmt.Sprint(kind, name, "+", shift), []byte(text[(shift*8+5)/6:(shift+len(b))*8/6]))
			}
		}
	}
	percent := ""
	for _, b := range secret {
		percent += fmt.Sprintf("%%%02x", b)
	}
	for _, q := range []string{percent, url.QueryEscape(s), url.PathEscape(s)} {
		add("URL", []byte(q))
		add("URL, lower", []byte(lowerHex(q)))
		add("URL, upper", []byte(strings.ToUpper(percent)))
	}
	add("sh '", []byte(strings.ReplaceAll(s, `'`, `'\''`)))
	add("sh '\"", []byte(strings.ReplaceAll(s, `'`, `'"'"'`)))
	add(`sh "`, []byte(strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`").Replace(s)))
	word := ""
	for _, r := range s {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=@%+,", r) {
			word += `\`
		}
		word += string(r)
	}
	add(`sh \`, []byte(word))
	add("SQL ''", []byte(strings.ReplaceAll(s, `'`, `''`)))
	add(`SQL \'`, []byte(strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s)))
	add(`SQL \' \"`, []byte(strings.NewReplacer(`\`, `\\`, `'`, `\'`, `"`, `\"`).Replace(s)))
	quoted, _ := json.Marshal(s) // a string always marshals
	add("JSON, HTML-safe", quoted[1:len(quoted)-1])
	add("JSON", []byte(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)))
	goQuoted := strconv.Quote(s)
	add("Go", []byte(goQuoted[1:len(goQuoted)-1]))
	add("HTML", []byte(html.EscapeString(s)))
	return out
}

func lowerHex(q string) string {
	b := []byte(q)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], bytes.ToLower(b[i+1:i+3]))
		}
	}
	return string(b)
}

// scanner looks for many texts at once; some are added while it looks.
type scanner struct {
	mu      sync.RWMutex
	texts   []needle
	byHead  map[uint32][]int // by their first four bytes
	maybe   [1 << 16]bool    // by their first two
	longest int
}

type needle struct {
	secret, form string
	text         []byte
}

func (s *scanner) add(secret string, value []byte, forms ...form) {
	if len(forms) == 0 {
		forms = formsOf(value)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byHead == nil {
		s.byHead = map[uint32][]int{}
	}
	for _, f := range forms {
		head := binary.LittleEndian.Uint32(f.text)
		s.byHead[head] = append(s.byHead[head], len(s.texts))
		s.maybe[uint16(head)] = true //nolint:gosec // the lower half
		s.texts = append(s.texts, needle{secret, f.name, f.text})
		s.longest = max(s.longest, len(f.text))
	}
}

// finds are how often each secret was seen, by "secret as form".
type finds map[string]int

// in looks through b.
func (s *scanner) in(b []byte, found finds) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := 0; i+4 <= len(b); i++ {
		if !s.maybe[binary.LittleEndian.Uint16(b[i:])] {
			continue
		}
		for _, n := range s.byHead[binary.LittleEndian.Uint32(b[i:])] {
			if t := s.texts[n]; bytes.HasPrefix(b[i:], t.text) {
				found[t.secret+" as "+t.form]++
			}
		}
	}
}

// block is how much is read at a time.
const block = 64 << 10

// read looks through a reader, across the borders of what it hands out. A text that lies
// across two blocks is counted in the second.
func (s *scanner) read(r io.Reader, found finds) error {
	s.mu.RLock()
	longest := s.longest
	s.mu.RUnlock()
	buf, kept := make([]byte, block+longest), 0
	for {
		n, err := io.ReadFull(r, buf[kept:])
		whole := buf[:kept+n]
		s.in(whole, found)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		kept = copy(buf, whole[len(whole)-longest+1:])
	}
}

func (s *scanner) file(path string, found finds) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return s.read(f, found)
}

// The scanner finds what is there, in every form, wherever it lies in a file, and nothing
// that is one byte off.
func TestTheScannerFindsEveryForm(t *testing.T) {
	t.Parallel()
	secret := []byte(newCanary("Self'\"$`\\ &%/+Ü€"))
	random := rand.NewChaCha8([32]byte{1})
	for _, f := range formsOf(secret) {
		var s scanner
		s.add("secret", secret, f)
		hay := make([]byte, 2*block+block/2)
		_, _ = random.Read(hay)
		clean := bytes.Clone(hay)
		for _, at := range []int{0, 1, block - 1, block + 1, block + len(f.text) - 1, 2*block - 3, len(hay) - len(f.text)} {
			copy(hay, clean)
			copy(hay[at:], f.text)
			found := finds{}
			if err := s.read(bytes.NewReader(hay), found); err != nil || len(found) != 1 { // perhaps counted twice at a border
				t.Errorf("%s at %d: %v, %v", f.name, at, found, err)
			}
			hay[at+len(f.text)/2] ^= 1
			found = finds{}
			if err := s.read(bytes.NewReader(hay), found); err != nil || len(found) != 0 {
				t.Errorf("%s at %d, one bit off: %v, %v", f.name, at, found, err)
			}
		}
	}
	// What an encoder makes of a longer text that holds the secret holds one of the forms.
	var s scanner
	s.add("secret", secret)
	for shift := range 9 {
		long := append(append(bytes.Repeat([]byte{'x'}, shift), secret...), "tail"...)
		quoted, err := json.Marshal(string(long))
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string][]byte{
			"base64": []byte(base64.StdEncoding.EncodeToString(long)), "base64url": []byte(base64.URLEncoding.EncodeToString(long)),
			"hex": []byte(hex.EncodeToString(long)), "json": quoted, "query": []byte(url.Values{"p": {string(long)}}.Encode()), "go": fmt.Appendf(nil, "%q", long),
		} {
			found := finds{}
			if s.in(text, found); len(found) == 0 {
				t.Errorf("%s of the secret after %d bytes is not found: %s", name, shift, text)
			}
		}
	}
}

// newCanary is a password that occurs nowhere else.
func newCanary(odd string) string {
	const letters = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
	out := "C7"
	for range 12 {
		out += string(letters[rand.IntN(len(letters))]) //nolint:gosec // it guards nothing
	}
	return out + odd + "z9"
}
