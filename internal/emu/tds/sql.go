package tds

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// token is one of a statement: template's, without spaces and comments.
type token struct {
	template.Token
}

// script reads the statements of a batch. Errors are panics of *Error, caught by batch.
type script struct {
	*work
	all       []token
	at        int
	text      string
	variables map[string]any
}

// batch does every statement of a text; the first error ends it, as with XACT_ABORT.
func (w *work) batch(text string, variables map[string]any) (err *Error) {
	p := &script{work: w, text: text, variables: variables}
	if p.variables == nil {
		p.variables = map[string]any{}
	}
	all, lexErr := template.TSQL.Tokens(text)
	if lexErr != nil {
		w.server.unknown("not T-SQL ("+lexErr.Error()+")", text)
		return &Error{105, 1, 15, "Unclosed quotation mark."}
	}
	for _, t := range all {
		if t.Kind == template.Space || t.Kind == template.Comment {
			continue
		}
		if t.Kind == template.Text && !strings.HasPrefix(strings.ToUpper(t.Text), "N") { // varchar: the code page's characters
			t.Value = strings.Map(func(r rune) rune {
				if r > 0xFF {
					return '?'
				}
				return r
			}, t.Value)
		}
		p.all = append(p.all, token{t})
	}
	state := w.server.state
	state.mu.Lock()
	defer state.mu.Unlock()
	defer func() {
		switch v := recover().(type) {
		case nil:
		case *Error:
			err = v
		default:
			panic(v)
		}
	}()
	for !p.end() {
		if p.mark(";") {
			continue
		}
		declaration, query := p.is("DECLARE"), p.is("SELECT")
		p.statement()
		if !declaration && !query { // a query ends with its count, a declaration with nothing
			p.reply.done(p.between, doneMore, 0, 0)
		}
	}
	return nil
}

func fail(number int, class byte, format string, args ...any) {
	panic(&Error{number, 1, class, fmt.Sprintf(format, args...)})
}

// syntax reports what is not understood at the current place.
func (p *script) syntax() {
	near := "end"
	if !p.end() {
		near = p.all[p.at].Text
	}
	p.server.unknown("not understood near "+strconv.Quote(near), p.text)
	fail(102, 15, "Incorrect syntax near '%s'.", near)
}

func (p *script) end() bool { return p.at >= len(p.all) }

// word takes words, whatever their case, if they stand here.
func (p *script) word(words ...string) bool {
	if p.at+len(words) > len(p.all) {
		return false
	}
	for i, w := range words {
		if t := p.all[p.at+i]; t.Kind != template.Word || !strings.EqualFold(t.Text, w) {
			return false
		}
	}
	p.at += len(words)
	return true
}

// is reports whether a word stands here, and takes nothing.
func (p *script) is(word string) bool {
	return !p.end() && p.all[p.at].Kind == template.Word && strings.EqualFold(p.all[p.at].Text, word)
}

// mark takes operators if they stand here, one character each.
func (p *script) mark(marks string) bool {
	for i := range len(marks) {
		if p.at+i >= len(p.all) || p.all[p.at+i].Kind != template.Mark || p.all[p.at+i].Text != marks[i:i+1] {
			return false
		}
	}
	p.at += len(marks)
	return true
}

func (p *script) need(words ...string) {
	if !p.word(words...) {
		p.syntax()
	}
}

func (p *script) needMark(marks string) {
	if !p.mark(marks) {
		p.syntax()
	}
}

// next takes a token of one of the kinds.
func (p *script) next(kinds ...template.Kind) token {
	if !p.end() {
		for _, k := range kinds {
			if t := p.all[p.at]; t.Kind == k {
				p.at++
				return t
			}
		}
	}
	p.syntax()
	return token{}
}

// name takes a name, plain or in brackets.
func (p *script) name() string {
	t := p.next(template.Word, template.Name)
	if t.Kind == template.Word && strings.ContainsAny(t.Text[:1], "@0123456789") {
		p.at--
		p.syntax()
	}
	if n := len(utf16.Encode([]rune(t.Value))); n > 128 || n == 0 {
		fail(103, 15, "The identifier is too long or empty.")
	}
	return t.Value
}

// path takes a name of up to three parts; empty ones, as in master..x, are "".
func (p *script) path() []string {
	parts := []string{p.name()}
	for p.mark(".") {
		if p.mark(".") {
			parts = append(parts, "")
		}
		parts = append(parts, p.name())
	}
	return parts
}

// number reports the value of a word that is a decimal number.
func number(t token) (int64, bool) {
	n, err := strconv.ParseInt(t.Text, 10, 64)
	return n, err == nil && t.Kind == template.Word
}

// binary reports the value of a word such as 0x0A.
func binary16(t token) ([]byte, bool) {
	digits, ok := strings.CutPrefix(strings.ToLower(t.Text), "0x")
	if !ok || t.Kind != template.Word {
		return nil, false
	}
	b, err := hex.DecodeString(digits)
	return b, err == nil
}

// constant takes a literal or a variable.
func (p *script) constant() any {
	t := p.next(template.Word, template.Text)
	if t.Kind == template.Text {
		return t.Value
	}
	if n, ok := number(t); ok {
		return n
	}
	if b, ok := binary16(t); ok {
		return b
	}
	if strings.EqualFold(t.Text, "NULL") {
		return nil
	}
	if v, ok := p.variables[strings.ToLower(t.Text)]; ok {
		return v
	}
	p.at--
	p.syntax()
	return nil
}
