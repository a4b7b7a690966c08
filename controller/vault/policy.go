package vault

import (
	"crypto/rand"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/reeve-pam/reeve/internal/reeve"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// Policy is what passwords must look like. Lengths and minima count characters.
// Whatever the policy says, control characters (a newline starts a second record in
// chpasswd), a space at either end, and a leading '-' or '*' are never allowed.
type Policy struct {
	Length    int // of generated passwords
	MinLength int // of passwords chosen by people
	MaxLength int
	Lower     int // at least so many of each class
	Upper     int
	Digits    int
	Symbols   int
	Excluded  string // characters that must not occur
	ASCIIOnly bool   // no characters beyond ASCII; generated passwords never have any
}

// DefaultPolicy is used where a target asks for nothing else: 24 characters out of
// 77 are about 150 bits.
func DefaultPolicy() Policy {
	return Policy{Length: 24, MinLength: 12, MaxLength: 128, Lower: 1, Upper: 1, Digits: 1, Symbols: 1}
}

// minLength is the shortest password any policy may allow: shorter ones cannot be
// found reliably by log redaction (security.md §4).
const minLength = 8

// Within narrows p to what a connector's targets accept.
func (p Policy) Within(rule *connectorv1.PasswordRule) Policy {
	if n := int(rule.GetMinLength()); n > p.MinLength {
		p.MinLength = n
	}
	if n := int(rule.GetMaxLength()); n > 0 && n < p.MaxLength {
		p.MaxLength = n
	}
	p.Length = min(max(p.Length, p.MinLength), p.MaxLength)
	p.Excluded += rule.GetExcluded()
	p.ASCIIOnly = p.ASCIIOnly || rule.GetAsciiOnly()
	return p
}

// The alphabets generated passwords are drawn from: ASCII without the characters
// that people mistake for one another in print (I, l, O, 0, 1) or that terminals
// and shells treat specially when a person pastes them.
const (
	lowers  = "abcdefghijkmnopqrstuvwxyz"
	uppers  = "ABCDEFGHJKLMNPQRSTUVWXYZ"
	digits  = "23456789"
	symbols = "!#%+,-./:=?@^_~*()[]"
)

type class struct {
	name     string
	alphabet string
	minimum  int
	is       func(rune) bool
}

func (p Policy) classes() []class {
	return []class{
		{"lower-case letters", lowers, p.Lower, unicode.IsLower},
		{"upper-case letters", uppers, p.Upper, unicode.IsUpper},
		{"digits", digits, p.Digits, unicode.IsDigit},
		{"symbols", symbols, p.Symbols, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }},
	}
}

func (p Policy) valid() error {
	need := 0
	for _, c := range p.classes() {
		if c.minimum > 0 && strings.Trim(c.alphabet, p.Excluded) == "" {
			return reeve.Errorf(reeve.Invalid, "policy_invalid", "the policy asks for %s and excludes all of them", c.name)
		}
		need += c.minimum
	}
	switch {
	case p.MinLength < minLength, p.Length < p.MinLength, p.MaxLength < p.Length:
		return reeve.Errorf(reeve.Invalid, "policy_invalid",
			"lengths must satisfy %d <= minimum <= generated <= maximum, got %d, %d, %d", minLength, p.MinLength, p.Length, p.MaxLength)
	case need > p.Length:
		return reeve.Errorf(reeve.Invalid, "policy_invalid", "the policy asks for %d characters in a password of %d", need, p.Length)
	}
	return nil
}

// Generate makes a random password that p.Check accepts: characters are drawn
// uniformly and whole passwords that miss the policy are thrown away, so every
// acceptable password is equally likely.
func Generate(p Policy) (reeve.Secret, error) {
	if err := p.valid(); err != nil {
		return reeve.Secret{}, err
	}
	alphabet := strings.Map(func(r rune) rune {
		if strings.ContainsRune(p.Excluded, r) {
			return -1
		}
		return r
	}, lowers+uppers+digits+symbols)
	const tries = 10_000 // a policy that random passwords miss so often is refused rather than patched
	for range tries {
		s := reeve.NewSecret(draw(alphabet, p.Length))
		if p.Check(s) == nil {
			return s, nil
		}
		s.Wipe()
	}
	return reeve.Secret{}, reeve.Errorf(reeve.Invalid, "policy_invalid", "random passwords practically never satisfy the policy").
		WithFix("ask for fewer characters of each class, or for longer passwords")
}

// draw takes n characters from an ASCII alphabet, rejecting random bytes that would
// favour its first characters.
func draw(alphabet string, n int) []byte {
	limit := 256 - 256%len(alphabet)
	out := make([]byte, 0, n)
	var pool [64]byte
	defer clear(pool[:])
	for {
		_, _ = rand.Read(pool[:])
		for _, b := range pool {
			if int(b) >= limit {
				continue
			}
			if out = append(out, alphabet[int(b)%len(alphabet)]); len(out) == n {
				return out
			}
		}
	}
}

// Check says whether a password that a person chose is acceptable: nil, or Invalid
// "password_policy" with the rule it breaks. The error never quotes the password.
func (p Policy) Check(s reeve.Secret) error {
	refuse := func(format string, args ...any) error {
		return reeve.Errorf(reeve.Invalid, "password_policy", format, args...).WithFix(
			"choose %d to %d characters, without control characters, without a space at either end, not starting with - or *",
			p.MinLength, p.MaxLength)
	}
	b := s.Bytes()
	if !utf8.Valid(b) {
		return refuse("the password is not valid UTF-8")
	}
	length := 0
	var first, last rune
	counts := [4]int{}
	classes := p.classes()
	for rest := b; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		rest = rest[size:]
		if length == 0 {
			first = r
		}
		last = r
		length++
		switch {
		case unicode.IsControl(r) || r == '\u2028' || r == '\u2029':
			return refuse("the password holds a control character")
		case strings.ContainsRune(p.Excluded, r), p.ASCIIOnly && r > unicode.MaxASCII:
			return refuse("the password holds a character that this target does not take")
		}
		for i, c := range classes {
			if c.is(r) {
				counts[i]++
			}
		}
	}
	switch {
	case length < p.MinLength:
		return refuse("the password has fewer than %d characters", p.MinLength)
	case length > p.MaxLength:
		return refuse("the password has more than %d characters", p.MaxLength)
	case unicode.IsSpace(first) || unicode.IsSpace(last):
		return refuse("the password starts or ends with a space")
	case first == '-' || first == '*':
		return refuse("the password starts with - or *, which some programs take for something else")
	}
	for i, c := range classes {
		if counts[i] < c.minimum {
			return refuse("the password needs at least %d %s", c.minimum, c.name)
		}
	}
	return nil
}
