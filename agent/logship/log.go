package logship

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/reeve-pam/reeve/internal/redact"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Level is how much a line matters.
type Level string

// The levels.
const (
	Info  Level = "info"
	Warn  Level = "warn"
	Error Level = "error"
)

// Line is one line of a job's log, as JSON in the chunks.
type Line struct {
	Time    time.Time `json:"time"`
	Level   Level     `json:"level"`
	Step    string    `json:"step,omitempty"`
	State   string    `json:"state,omitempty"`
	Message string    `json:"message"`
}

// Attempt names the job attempt a log belongs to.
type Attempt struct {
	Job     reeve.JobID
	Attempt uint32
	Fence   uint64
}

// Bounds of a log.
const (
	defaultLimit = 1 << 20  // bytes, when the controller names none
	maxLine      = 16 << 10 // bytes of a message; the rest is cut off
	maxWord      = 256      // bytes of a step or state
	maxChunk     = 32 << 10 // bytes of a chunk, unless one line is longer; controllers take 64 KiB
	tailShare    = 4        // a quarter of the limit is kept for the end of the log
)

// Log is the log of one job attempt, being written. Methods may be called from
// several goroutines. Of a log that exceeds its limit the head and the tail are kept,
// with a gap between.
type Log struct {
	s     *Shipper
	redac *redact.Redactor
	now   func() time.Time

	mu      sync.Mutex
	pending []byte // whole lines, not yet in the spool
	head    int    // bytes still free for the head
	tail    [][]byte
	tailLen int
	tailMax int
	dropped uint64 // between head and tail
	closed  bool
}

// Write adds a line. Whatever secret the text holds is gone before Write returns;
// control sequences too.
func (l *Log) Write(level Level, step, state, message string) {
	var line bytes.Buffer
	enc := json.NewEncoder(&line) // ends with a line break
	enc.SetEscapeHTML(false)
	err := enc.Encode(Line{Time: l.now().UTC(), Level: level, Step: l.fit(step, maxWord), State: l.fit(state, maxWord),
		Message: l.fit(message, maxLine)})
	if err != nil {
		return // a struct of strings and a time of this millennium always marshals
	}
	l.append(line.Bytes())
}

// fit makes a text fit for a line: without secrets and control sequences, at most so
// many bytes.
func (l *Log) fit(text string, limit int) string {
	text = clean(l.redac.Redact(text))
	if len(text) <= limit {
		return text
	}
	for !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit] + "…"
}

func (l *Log) append(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return
	case l.dropped == 0 && l.tailLen == 0 && len(line) <= l.head && l.s.reserve(len(line)):
		l.head -= len(line)
		l.pending = append(l.pending, line...)
		l.s.wake()
		return
	}
	l.tail, l.tailLen = append(l.tail, line), l.tailLen+len(line) // beside the spool bound: a tail is small
	for l.tailLen > l.tailMax {
		l.dropped += uint64(len(l.tail[0]))
		l.tailLen -= len(l.tail[0])
		l.tail = l.tail[1:]
	}
}

// Close ends the log; what was written before is still shipped.
func (l *Log) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.s.wake()
}

// take hands over the lines that are not in the spool yet, and whether the log ends
// with them.
func (l *Log) take() (out []piece, last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out = piecesOf(l.pending)
	l.pending = nil
	if !l.closed {
		return out, false
	}
	if l.dropped > 0 {
		out = append(out, piece{gap: l.dropped})
	}
	l.s.used.Add(int64(l.tailLen))
	out = append(out, piecesOf(bytes.Join(l.tail, nil))...)
	l.tail, l.tailLen, l.dropped = nil, 0, 0
	return out, true
}

// piece is what becomes one chunk: data, or a gap of so many bytes.
type piece struct {
	data []byte
	gap  uint64
}

// piecesOf cuts whole lines into pieces of at most maxChunk bytes, between lines.
func piecesOf(lines []byte) []piece {
	var out []piece
	for len(lines) > 0 {
		n := len(lines)
		if n > maxChunk {
			n = bytes.LastIndexByte(lines[:maxChunk], '\n') + 1
			if n == 0 {
				n = bytes.IndexByte(lines, '\n') + 1
			}
		}
		out = append(out, piece{data: lines[:n:n]})
		lines = lines[n:]
	}
	return out
}

// spaces is built once: it costs more than what it does.
var spaces = strings.NewReplacer("\r\n", " ", "\n", " ", "\t", " ")

// clean removes control sequences and control characters, so that a log shown on a
// terminal says what it says; line breaks become spaces.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = spaces.Replace(s)
	return string(redact.Fold([]byte(s)))
}
