package oracle

import (
	"encoding/binary"
	"strings"
	"time"
)

// Types of columns.
const (
	typeText      = 1
	typeNumber    = 2
	typeDate      = 12
	typeTimestamp = 181 // with a time zone
)

// Column is a column of an answer.
type Column struct {
	Name string
	Type byte
}

// cursor is a query whose rows are not all fetched.
type cursor struct {
	columns []Column
	rows    [][]any
}

// request is what an execute call asks for.
type request struct {
	text     string
	cursor   uint64
	prefetch int
	binds    []string
}

// read reads an execute call; which fields there are depends on the field version.
func (q *request) read(r *reader, field byte, convLength bool) {
	*q = request{}
	r.skip(3)
	r.uint() // options
	q.cursor = r.uint()
	r.skip(1)
	length := r.count()
	r.skip(1)
	numbers := r.count()
	r.skip(2)
	r.uint() // prefetch buffer
	q.prefetch = r.count()
	r.uint() // long size
	r.skip(1)
	binds := r.count()
	r.skip(6)
	defines := r.count()
	for _, part := range []struct {
		since byte
		shape string // p: a pointer, u: a number
	}{{4, "upp"}, {5, "pupuu"}, {7, "pup"}, {8, "pupup"}, {9, "pu"}} {
		if field < part.since {
			continue
		}
		for _, f := range part.shape {
			if f == 'p' {
				r.skip(1)
			} else {
				r.uint()
			}
		}
	}
	switch {
	case length > 0 && convLength:
		q.text = string(r.clr())
	case length > 0:
		q.text = string(r.take(length))
	}
	for range numbers {
		r.uint()
		if r.short || r.wrong {
			return
		}
	}
	if defines > 0 {
		binds = 0
	}
	for range defines + binds {
		r.bindMetadata(field)
		if r.short || r.wrong {
			return
		}
	}
	if binds == 0 {
		return
	}
	if r.byte() != msgRow && !r.short {
		r.wrong = true
	}
	for range binds {
		if r.short || r.wrong {
			return
		}
		q.binds = append(q.binds, string(r.clr()))
	}
}

func (r *reader) bindMetadata(field byte) {
	r.skip(4) // type, flag, precision, scale
	for range 3 {
		r.uint() // sizes and flags
	}
	if r.uint() > 0 {
		r.clr() // a type of objects
	}
	r.uint()
	r.uint() // character set
	r.skip(1)
	r.uint()
	if field >= 8 {
		r.uint()
	}
}

func (s *session) execute() error {
	var q request
	if err := s.parse(func(r *reader) { q.read(r, s.field, s.convLength) }); err != nil {
		return err
	}
	if q.text == "" {
		return notEmulated("an execute call without a statement")
	}
	f := s.server.faultsNow()
	for prefix, code := range f.Fail {
		if begins(q.text, prefix) {
			s.server.DB.record(q.text)
			return s.fail(oraError(code, "as the test wants, in %s", q.text)) // real messages quote statements
		}
	}
	switch {
	case begins(q.text, f.DropBefore):
		return errHangUp
	case begins(q.text, f.HangIn):
		s.server.DB.record(q.text)
		return s.hang()
	}
	answer, e := s.answer(q)
	switch {
	case begins(q.text, f.DropAfter):
		return errHangUp
	case begins(q.text, f.HangInAnswer):
		half := binary.BigEndian.AppendUint32(nil, uint32(10+len(answer))) //nolint:gosec // far less than a packet's limit
		half = append(half, packetData, 0, 0, 0, 0, 0)
		half = append(half, answer[:len(answer)/2]...)
		if _, err := s.link.conn.Write(half); err != nil {
			return err
		}
		return s.link.stall()
	case begins(q.text, f.Oversize):
		if _, err := s.link.conn.Write([]byte{0x7F, 0xFF, 0xFF, 0xFF, packetData, 0, 0, 0, 0, 0}); err != nil {
			return err
		}
		return s.link.stall()
	case begins(q.text, f.Garbage):
		return s.link.send([]byte{0x10, 0xFE, 0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0xFF, 0x07, 0x07})
	case e != nil:
		return s.fail(e)
	}
	return s.link.send(answer)
}

// hang waits until the client breaks off, and answers that.
func (s *session) hang() error {
	for {
		err := s.more()
		if err == errBreak { //nolint:errorlint // it is not wrapped
			return s.brokenOff()
		}
		if err != nil {
			return err
		}
	}
}

// answer does a statement or query and writes what there is to say.
func (s *session) answer(q request) ([]byte, *Error) {
	if q.cursor == 0 {
		s.lastCursor++
		q.cursor = s.lastCursor
	}
	var w writer
	if word := firstWord(q.text); word != "SELECT" && word != "WITH" {
		if e := s.server.statement(s.entry, q.text, q.binds); e != nil {
			return nil, e
		}
		w.bytes(msgParameter)
		w.uint(2)
		w.zeros(5)
		w.summary(nil, q.cursor, 0)
		return w.b, nil
	}
	columns, rows, e := s.server.query(s.entry, q.text, q.binds)
	if e != nil {
		return nil, e
	}
	c := &cursor{columns: columns, rows: rows}
	s.cursors[q.cursor] = c
	w.describe(columns, s.field)
	c.next(&w, q.prefetch, q.cursor)
	return w.b, nil
}

// fetch sends more rows of a query.
func (s *session) fetch() error {
	var id uint64
	var n int
	if err := s.parse(func(r *reader) {
		r.skip(3)
		id, n = r.uint(), r.count()
	}); err != nil {
		return err
	}
	c := s.cursors[id]
	if c == nil {
		return s.fail(oraError(1001, "invalid cursor"))
	}
	var w writer
	c.next(&w, n, id)
	return s.link.send(w.b)
}

// next writes the next n rows, and whether they are the last.
func (c *cursor) next(w *writer, n int, id uint64) {
	n = min(max(n, 1), len(c.rows))
	w.rows(c.columns, c.rows[:n])
	c.rows = c.rows[n:]
	if len(c.rows) == 0 {
		w.summary(oraError(1403, "no data found"), id, uint64(n))
		return
	}
	w.summary(nil, id, uint64(n))
}

func firstWord(text string) string {
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return ""
	}
	return strings.ToUpper(fields[0])
}

// describe writes what the columns are.
func (w *writer) describe(columns []Column, field byte) {
	w.bytes(msgDescribe, 0)
	w.uint(100)
	w.uint(uint64(len(columns)))
	w.bytes(1)
	for i, c := range columns {
		size, set, form := uint64(22), uint64(0), byte(0)
		if c.Type == typeText {
			size, set, form = 4000, 873, 1
		}
		w.bytes(c.Type, 0, 0, 0) // flag, precision, scale
		w.uint(size)
		w.zeros(4)
		w.uint(set)
		w.bytes(form)
		w.uint(size)
		if field >= 8 {
			w.uint(0)
		}
		w.bytes(1, byte(len(c.Name)))
		w.dlc([]byte(c.Name))
		w.zeros(2)
		w.uint(uint64(i + 1)) //nolint:gosec // small
		if field >= 6 {
			w.uint(0)
		}
	}
	w.dlc(encodeDate(time.Now()))
	w.zeros(5)
}

func (w *writer) rows(columns []Column, rows [][]any) {
	if len(rows) == 0 {
		return
	}
	w.bytes(msgRowHeader, 0)
	w.uint(uint64(len(columns)))
	w.uint(0)
	w.uint(uint64(len(rows)))
	w.zeros(3)
	for _, row := range rows {
		w.bytes(msgRow)
		for i, v := range row {
			switch v := v.(type) {
			case string:
				w.clr([]byte(v))
			case int:
				w.clr(encodeNumber(v))
			case time.Time:
				b := encodeDate(v.UTC())
				if columns[i].Type == typeTimestamp {
					b = append(b, 0, 0, 0, 0, 20, 60) // no fraction, UTC
				}
				w.clr(b)
			default: // NULL
				w.bytes(0)
			}
		}
	}
}

// encodeNumber writes a number that is not negative: an exponent of base 100, and its digits plus one.
func encodeNumber(n int) []byte {
	if n == 0 {
		return []byte{0x80}
	}
	var digits []byte
	for ; n > 0; n /= 100 {
		digits = append([]byte{byte(n%100) + 1}, digits...)
	}
	exponent := len(digits)
	for digits[len(digits)-1] == 1 {
		digits = digits[:len(digits)-1]
	}
	return append([]byte{byte(0xC0 + exponent)}, digits...)
}

func encodeDate(t time.Time) []byte {
	return []byte{
		byte(t.Year()/100 + 100), byte(t.Year()%100 + 100), byte(t.Month()), byte(t.Day()), //nolint:gosec // they fit
		byte(t.Hour() + 1), byte(t.Minute() + 1), byte(t.Second() + 1), //nolint:gosec // they fit
	}
}
