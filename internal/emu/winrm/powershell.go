package winrm

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// errParse is that a command is not of the kind that is modelled: one cmdlet with named parameters and plain values.
var errParse = errors.New("not a plain command")

// quotes are all that PowerShell takes for single quotes (language specification 2.3.5.2).
const quotes = "'‘’‚‛"

// parseCommand reads "Verb-Noun -Name value -Name 'value'" by PowerShell's rules of quoting. A value that gets out of its quotes makes
// something else of it, which is an error.
func parseCommand(s string) (cmdlet string, parameters map[string]string, err error) {
	words, err := split(s)
	if err != nil || startsQuoted(s) || len(words)%2 != 1 || !strings.Contains(words[0], "-") {
		return "", nil, errParse
	}
	parameters = map[string]string{}
	for i := 1; i < len(words); i += 2 {
		name, ok := strings.CutPrefix(words[i], "-")
		if !ok || name == "" || parameters[name] != "" {
			return "", nil, errParse
		}
		parameters[name] = words[i+1]
	}
	return words[0], parameters, nil
}

func split(s string) ([]string, error) {
	var words []string
	for s = strings.TrimLeft(s, " "); s != ""; s = strings.TrimLeft(s, " ") {
		r, n := utf8.DecodeRuneInString(s)
		if strings.ContainsRune(quotes, r) {
			value, rest, err := quoted(s[n:])
			if err != nil || rest != "" && rest[0] != ' ' {
				return nil, errParse
			}
			words, s = append(words, value), rest
			continue
		}
		end := strings.IndexByte(s, ' ')
		if end < 0 {
			end = len(s)
		}
		if strings.ContainsAny(s[:end], "\r\n\t;,|&(){}[]<>=@!+*/%\"`$#“”„"+quotes) {
			return nil, errParse
		}
		words, s = append(words, s[:end]), s[end:]
	}
	if len(words) == 0 {
		return nil, errParse
	}
	return words, nil
}

// quoted reads up to the closing quote. Any of the quotes closes, and two of them are one.
func quoted(s string) (value, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		i += n
		if !strings.ContainsRune(quotes, r) {
			b.WriteRune(r)
			continue
		}
		next, m := utf8.DecodeRuneInString(s[i:])
		if m == 0 || !strings.ContainsRune(quotes, next) {
			return b.String(), s[i:], nil
		}
		b.WriteRune(r)
		i += m
	}
	return "", "", errParse
}

// startsQuoted tells a string, which is no command.
func startsQuoted(s string) bool {
	r, _ := utf8.DecodeRuneInString(strings.TrimLeft(s, " "))
	return strings.ContainsRune(quotes, r)
}
