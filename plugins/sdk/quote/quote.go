// Package quote writes values into the languages of targets so that they stay values.
// There is one function per language and context; each says what it refuses. Secrets
// do not go through this package: they travel by standard input, bound parameter or
// verifier, except where a server knows no other way than a literal.
// Connectors import it.
package quote

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

var (
	errNUL  = errors.New("quote: the value has a NUL byte")
	errUTF8 = errors.New("quote: the value is not UTF-8 text")
)

// ShArg returns s as one word of a POSIX shell command (XCU 2.2.2: within single
// quotes every character is literal). It refuses NUL, which no word can hold.
func ShArg(s string) (string, error) {
	if strings.IndexByte(s, 0) >= 0 {
		return "", errNUL
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'", nil
}

// MyLit returns s as a string literal of MySQL and MariaDB. It is right only on a
// connection whose sql_mode has NO_BACKSLASH_ESCAPES and whose character set is
// utf8mb4: then a quote is doubled and every other character is itself. It refuses NUL
// and text that is not UTF-8.
func MyLit(s string) (string, error) {
	if err := text(s); err != nil {
		return "", err
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'", nil
}

// MyIdent returns s as a quoted identifier of MySQL and MariaDB. It refuses what no
// identifier can be there: empty, longer than 64 characters, ending with a space, with
// NUL or with characters above U+FFFF.
// https://dev.mysql.com/doc/refman/8.0/en/identifiers.html
func MyIdent(s string) (string, error) {
	if err := text(s); err != nil {
		return "", err
	}
	switch {
	case s == "":
		return "", errors.New("quote: an identifier cannot be empty")
	case utf8.RuneCountInString(s) > 64:
		return "", errors.New("quote: an identifier has at most 64 characters")
	case strings.HasSuffix(s, " "):
		return "", errors.New("quote: an identifier cannot end with a space")
	}
	for _, r := range s {
		if r > 0xFFFF {
			return "", fmt.Errorf("quote: an identifier cannot hold %U", r)
		}
	}
	return "`" + strings.ReplaceAll(s, "`", "``") + "`", nil
}

// MyGrantDB returns s as the database of GRANT and REVOKE ON db.*, where '_' and '%'
// are wildcards unless a backslash stands before them. It refuses what MyIdent refuses,
// and backslashes.
func MyGrantDB(s string) (string, error) {
	if strings.Contains(s, `\`) {
		return "", errors.New("quote: a database in a grant cannot hold a backslash")
	}
	q, err := MyIdent(s)
	if err != nil {
		return "", err
	}
	return strings.NewReplacer("_", `\_`, "%", `\%`).Replace(q), nil
}

func text(s string) error {
	if strings.IndexByte(s, 0) >= 0 {
		return errNUL
	}
	if !utf8.ValidString(s) {
		return errUTF8
	}
	return nil
}
