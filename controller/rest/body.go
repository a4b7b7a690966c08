package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Limits of a request's body. The largest lawful JSON, an asset with its certificates or
// one account on a thousand assets, is far below all of them.
const (
	maxBody   = 1 << 20 // bytes of JSON
	maxDepth  = 16      // objects and arrays within each other
	maxTokens = 20_000  // names, values and brackets
)

// Pace: a body must come, and an answer must be taken, at least this fast. A connection
// on which nothing moves for so long is ended, and so is one that trickles.
const (
	paceBytes = 1 << 20
	paceTime  = 30 * time.Second
)

// readJSON reads a body and checks what the contract's schemas cannot see once it is
// decoded: it is one JSON value within the limits, no object has a name twice (which of
// the two would count?), and all text is Unicode (decoders replace what is not, and a
// password would silently become another).
func readJSON(body io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(body)
	if err != nil {
		return nil, unread(err)
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, reeve.Errorf(reeve.Invalid, "body_required", "this call needs a JSON body").WithFix("send one as the API description says")
	}
	malformed := func(what string) error {
		return reeve.Errorf(reeve.Invalid, "malformed_request", "%s", what).WithFix("send one JSON object in UTF-8")
	}
	if !utf8.Valid(raw) {
		return nil, malformed("the body is not UTF-8")
	}
	if depth(raw) > maxDepth {
		return nil, reeve.Errorf(reeve.Invalid, "body_too_complex", "the body is nested deeper than %d levels", maxDepth).WithFix("send it as the API description says")
	}
	if !json.Valid(raw) {
		return nil, malformed("the body is not JSON")
	}
	type level struct {
		names map[string]bool // nil: an array
		named bool            // a name was read, its value comes next
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var open []level
	for n := 0; ; n++ {
		token, err := dec.Token()
		switch {
		case errors.Is(err, io.EOF):
			return raw, nil
		case err != nil: // cannot be: it is valid
			return nil, malformed("the body is not JSON")
		}
		if n == maxTokens {
			return nil, reeve.Errorf(reeve.Invalid, "body_too_complex", "the body holds more than %d values", maxTokens).WithFix("send it in smaller parts")
		}
		text, isText := token.(string)
		if isText && strings.ContainsRune(text, utf8.RuneError) {
			return nil, malformed("the body holds text that is not Unicode")
		}
		if len(open) > 0 {
			if in := &open[len(open)-1]; in.names != nil && token != json.Delim('}') {
				if in.named = !in.named; in.named {
					if in.names[text] {
						return nil, reeve.Errorf(reeve.Invalid, "field_repeated", "an object in the body has a field twice").WithFix("send each field once")
					}
					in.names[text] = true
					continue
				}
			}
		}
		switch token {
		case json.Delim('{'):
			open = append(open, level{names: map[string]bool{}})
		case json.Delim('['):
			open = append(open, level{})
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		}
	}
}

// depth is how deep brackets are nested, for JSON; for anything else it is a number.
func depth(raw []byte) (deepest int) {
	now, quoted, escaped := 0, false, false
	for _, b := range raw {
		switch {
		case escaped:
			escaped = false
		case quoted && b == '\\':
			escaped = true
		case b == '"':
			quoted = !quoted
		case quoted:
		case b == '{' || b == '[':
			now++
			deepest = max(deepest, now)
		case b == '}' || b == ']':
			now--
		}
	}
	return deepest
}

// unread explains why a body could not be read to its end.
func unread(err error) error {
	if tooBig, ok := isTooLarge(err); ok {
		return tooBig
	}
	return reeve.Errorf(reeve.Invalid, "body_incomplete", "the body broke off or came too slowly").WithFix("send the request again")
}

// pacedBody ends the reading of a body that comes too slowly. The limit is on reading the
// body alone: at its end, or without one, net/http lifts it.
type pacedBody struct {
	io.ReadCloser
	conn *http.ResponseController
	left int // bytes until the time limit is set anew
}

func (b *pacedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		b.left = paceBytes
		_ = b.conn.SetReadDeadline(time.Now().Add(paceTime))
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= n
	return n, err
}

// pacedWriter ends the connection of a caller that does not take its answer. Between
// writes there is no limit: a live log may have nothing to say for long.
type pacedWriter struct {
	gin.ResponseWriter
	conn *http.ResponseController
}

// Unwrap lets http.ResponseController find the connection.
func (w *pacedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *pacedWriter) Write(p []byte) (n int, err error) {
	for err == nil && n < len(p) {
		var m int
		part := p[n:min(len(p), n+paceBytes)]
		_ = w.conn.SetWriteDeadline(time.Now().Add(paceTime))
		m, err = w.ResponseWriter.Write(part)
		n += m
	}
	_ = w.conn.SetWriteDeadline(time.Time{})
	return n, err
}

func (w *pacedWriter) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

func (w *pacedWriter) Flush() {
	_ = w.conn.SetWriteDeadline(time.Now().Add(paceTime))
	w.ResponseWriter.Flush()
	_ = w.conn.SetWriteDeadline(time.Time{})
}

// pace puts the limits on a request and its answer. The returned function is called when
// the answer is complete, for the part of it that is not sent yet.
func pace(c *gin.Context) (done func()) {
	conn := http.NewResponseController(c.Writer)
	_ = conn.SetWriteDeadline(time.Time{}) // of the request before, on the same connection
	if c.Request.Body != http.NoBody {
		c.Request.Body = &pacedBody{ReadCloser: c.Request.Body, conn: conn}
	}
	c.Writer = &pacedWriter{ResponseWriter: c.Writer, conn: conn}
	return func() { _ = conn.SetWriteDeadline(time.Now().Add(paceTime)) }
}
