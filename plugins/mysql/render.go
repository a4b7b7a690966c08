package main

import (
	"encoding/json"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/quote"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// rendered is a role's command, ready to be sent.
type rendered struct {
	sql string
	// role is the server's role the command grants, quoted; empty for other commands.
	role string
}

// forbidden are words a role's command must not hold: passwords do not belong there,
// and the mark must stay.
var forbidden = map[string]string{
	"IDENTIFIED":               "passwords do not belong into roles",
	"PASSWORD":                 "passwords do not belong into roles",
	"MAX_CONNECTIONS_PER_HOUR": "that limit holds the mark of ownership",
}

// render fills in a role's command. What a placeholder becomes depends on where it
// stands:
//
//	%Username%          the account, 'user'@'host'
//	%Database%.*        `database`, its wildcards _ and % escaped
//	%Anything%          `anything`, an identifier
//	'… %Anything% …'    text within the literal
//	`… %Anything% …`    text within the identifier; wildcards escaped before .*
//
// Everything else is refused: placeholders that touch other text, comments, double
// quotes (their meaning depends on sql_mode) and semicolons (one command is one
// statement).
func render(command, username, host string, params map[string]string) (rendered, error) {
	r := renderer{in: command, username: username, host: host, params: params}
	if err := r.run(); err != nil {
		return rendered{}, sdk.Errorf(sdk.ClassInvalid, "the role's command %q: %v", command, err).
			WithFix("correct the role")
	}
	return rendered{sql: r.out.String(), role: r.grantedRole()}, nil
}

type renderer struct {
	in       string
	username string
	host     string
	params   map[string]string

	at    int
	out   strings.Builder
	words []word // outside quotes
}

// word is a bare word of the command.
type word struct {
	text       string // upper case
	start, end int    // in out
}

type renderError string

func (e renderError) Error() string { return string(e) }

func (r *renderer) run() error {
	for r.at < len(r.in) {
		c := r.in[r.at]
		rest := r.in[r.at:]
		switch {
		case c == '\'' || c == '`':
			if err := r.quoted(c); err != nil {
				return err
			}
		case c == '%':
			if err := r.bare(); err != nil {
				return err
			}
		case c == '"':
			return renderError("use single quotes for text and backticks for names")
		case c == ';':
			return renderError("a command is one statement without a semicolon")
		case c == '#' || strings.HasPrefix(rest, "--") || strings.HasPrefix(rest, "/*"):
			return renderError("comments are not allowed")
		case wordByte(c):
			n := 1
			for n < len(rest) && wordByte(rest[n]) {
				n++
			}
			w := word{strings.ToUpper(rest[:n]), r.out.Len(), r.out.Len() + n}
			if why, bad := forbidden[w.text]; bad {
				return renderError(w.text + ": " + why)
			}
			r.words = append(r.words, w)
			r.out.WriteString(rest[:n])
			r.at += n
		case c < ' ' && c != '\t' && c != '\n':
			return renderError("control characters are not allowed")
		default:
			r.out.WriteByte(c)
			r.at++
		}
	}
	if len(r.words) == 0 {
		return renderError("it is empty")
	}
	return nil
}

func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

// placeholder reads %Name% at the current place; name is empty for %%.
func (r *renderer) placeholder() (name string, err error) {
	name, _, ok := strings.Cut(r.in[r.at+1:], "%")
	if !ok || (name != "" && !template.ValidName(name)) {
		return "", renderError("a percent sign begins no placeholder; write %% for a plain one")
	}
	r.at += len(name) + 2
	return name, nil
}

func (r *renderer) value(name string) (string, error) {
	if name == sdk.UsernamePlaceholder {
		return r.username, nil
	}
	v, ok := r.params[name]
	if !ok || v == "" {
		return "", renderError("the parameter " + name + " has no value")
	}
	return v, nil
}

// bare fills in a placeholder outside quotes.
func (r *renderer) bare() error {
	before := byte(' ')
	if r.at > 0 {
		before = r.in[r.at-1]
	}
	name, err := r.placeholder()
	if err != nil {
		return err
	}
	if name == "" {
		r.out.WriteByte('%')
		return nil
	}
	rest := r.in[r.at:]
	if !strings.ContainsRune(" \t\n(,.=", rune(before)) || (rest != "" && !strings.ContainsRune(" \t\n),.", rune(rest[0]))) {
		return renderError("%" + name + "% touches other text; put both into quotes or backticks")
	}
	v, err := r.value(name)
	if err != nil {
		return err
	}
	switch {
	case name == sdk.UsernamePlaceholder:
		v, err = pair(v, r.host)
	case strings.HasPrefix(rest, ".*"):
		v, err = quote.MyGrantDB(v)
	default:
		v, err = quote.MyIdent(v)
	}
	r.out.WriteString(v)
	return err
}

// quoted copies a literal or a quoted identifier and fills in its placeholders.
func (r *renderer) quoted(q byte) error {
	end := r.at + 1 // behind the closing quote
	for {
		n := strings.IndexByte(r.in[end:], q)
		if n < 0 {
			return renderError("a quote is not closed")
		}
		end += n + 1
		if end == len(r.in) || r.in[end] != q {
			break
		}
		end++ // a doubled quote
	}
	wildcards := q == '`' && strings.HasPrefix(r.in[end:], ".*")
	r.out.WriteByte(q)
	r.at++
	for r.at < end-1 {
		if r.in[r.at] != '%' {
			r.out.WriteByte(r.in[r.at])
			r.at++
			continue
		}
		name, err := r.placeholder()
		switch {
		case err != nil:
			return err
		case r.at > end-1:
			return renderError("a percent sign begins no placeholder; write %% for a plain one")
		case name == "":
			r.out.WriteByte('%')
			continue
		}
		v, err := r.value(name)
		if err != nil {
			return err
		}
		switch {
		case q == '\'':
			v, err = quote.MyLit(v)
		case wildcards:
			v, err = quote.MyGrantDB(v)
		default:
			v, err = quote.MyIdent(v)
		}
		if err != nil {
			return err
		}
		r.out.WriteString(v[1 : len(v)-1])
	}
	r.out.WriteByte(q)
	r.at = end
	return nil
}

// grantedRole finds the first role of a "GRANT role TO …", which unlike a grant of
// privileges has no ON.
func (r *renderer) grantedRole() string {
	if r.words[0].text != "GRANT" {
		return ""
	}
	sql := r.out.String()
	for _, w := range r.words {
		switch w.text {
		case "ON":
			return ""
		case "TO":
			first, _, _ := strings.Cut(sql[r.words[0].end:w.start], ",")
			return strings.TrimSpace(first)
		}
	}
	return ""
}

// jsonObject is a JSON document as an SQL literal.
func jsonObject(members map[string]string) (string, error) {
	doc, err := json.Marshal(members)
	if err != nil {
		return "", err
	}
	return quote.MyLit(string(doc))
}
