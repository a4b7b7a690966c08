package auditchain

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// MaxLine is the longest record line in bytes that Verify reads.
const MaxLine = 1 << 20

// Options say what Verify may assume.
type Options struct {
	// Partial accepts a stream that begins after record 1, as exports of a range
	// do. What stood before its first record is then taken on trust.
	Partial bool
	// Expect is a head noted earlier. The stream must reach it and have its hash
	// there; without it a cut-off end goes unseen.
	Expect *Head
	// Each, if given, is called with each record that is right so far. Its error ends Verify.
	Each func(*Record) error
}

// Report says what was verified: on failure, everything before the first wrong record.
type Report struct {
	Records     uint64    `json:"records"`
	First       uint64    `json:"first"` // sequence numbers; 0: no record
	Head        Head      `json:"head"`
	Begin       time.Time `json:"begin,omitzero"`
	End         time.Time `json:"end,omitzero"`
	MatchedHead bool      `json:"matched_head"` // Options.Expect was given and found
}

// Reason is why a record is wrong; stable text.
type Reason string

// The reasons.
const (
	Malformed Reason = "malformed"  // the line is not a record in canonical form
	Edited    Reason = "edited"     // its content does not give its hash
	Missing   Reason = "missing"    // records before it are not there
	Reordered Reason = "reordered"  // its number is not higher than the one before
	Unlinked  Reason = "unlinked"   // it does not follow the record before it
	ClockBack Reason = "clock_back" // its time is before that of the record before
	Truncated Reason = "truncated"  // the stream ends before the expected head
	OtherHead Reason = "other_head" // the expected head has another hash: history was rewritten
)

// BrokenError names the first wrong record.
type BrokenError struct {
	Line     int    // in the stream, from 1; 0 if no single line is meant
	Sequence uint64 // of the record; 0 if it has none
	Reason   Reason
	Message  string
}

// Error implements error.
func (e *BrokenError) Error() string {
	where := ""
	if e.Line > 0 {
		where = fmt.Sprintf(" (line %d)", e.Line)
	}
	return fmt.Sprintf("audit chain broken at record %d%s: %s: %s", e.Sequence, where, e.Reason, e.Message)
}

// Verify reads records as JSON lines, as Encode writes them, and checks form,
// hashes, links, numbers and clock. The error is a *BrokenError for a chain that is
// broken, naming the first wrong record, and any other error for a reader that failed.
func Verify(in io.Reader, opt Options) (Report, error) {
	v := verifier{opt: opt}
	lines := bufio.NewReaderSize(in, 64<<10)
	for {
		line, err := readLine(lines)
		if errors.Is(err, io.EOF) {
			return v.finish()
		}
		v.line++
		if errors.Is(err, errLineTooLong) {
			return v.report, v.broken(v.next(), Malformed, "the line is longer than %d bytes", MaxLine)
		}
		if err != nil {
			return v.report, fmt.Errorf("auditchain: line %d: %w", v.line, err)
		}
		if err := v.check(line); err != nil {
			return v.report, err
		}
	}
}

type verifier struct {
	opt    Options
	report Report
	line   int
}

// next is the number the next record must have.
func (v *verifier) next() uint64 {
	if v.report.Records == 0 && v.opt.Partial {
		return 0 // any
	}
	return v.report.Head.Sequence + 1
}

func (v *verifier) broken(sequence uint64, why Reason, format string, args ...any) error {
	return &BrokenError{Line: v.line, Sequence: sequence, Reason: why, Message: fmt.Sprintf(format, args...)}
}

func (v *verifier) check(line []byte) error {
	r, err := decode(line)
	if err != nil {
		return v.broken(v.next(), Malformed, "%s", err)
	}
	want := v.next()
	switch {
	case r.Sequence == 0:
		return v.broken(0, Malformed, "records are numbered from 1")
	case want == 0: // a partial stream may start anywhere
	case r.Sequence > want:
		return v.broken(r.Sequence, Missing, "record %d is expected here", want)
	case r.Sequence < want:
		return v.broken(r.Sequence, Reordered, "record %d is expected here", want)
	}
	if got := hash(r); got != r.Hash {
		return v.broken(r.Sequence, Edited, "the content gives the hash %.16s…, the record says %.16s…", got, r.Hash)
	}
	head := v.report.Head
	if r.Sequence == 1 {
		head.Hash = Genesis
	}
	if (v.report.Records > 0 || r.Sequence == 1) && r.Prev != head.Hash {
		return v.broken(r.Sequence, Unlinked, "it follows a record with the hash %.16s…, not %.16s…", r.Prev, head.Hash)
	}
	if at := r.Time; v.report.Records > 0 && at.Before(v.report.End) {
		return v.broken(r.Sequence, ClockBack, "its time %s is before %s", at.Format(time.RFC3339Nano), v.report.End.Format(time.RFC3339Nano))
	}
	if x := v.opt.Expect; x != nil && x.Sequence == r.Sequence {
		if !strings.EqualFold(x.Hash, r.Hash) {
			return v.broken(r.Sequence, OtherHead, "the noted head has the hash %.16s…, this record %.16s…", x.Hash, r.Hash)
		}
		v.report.MatchedHead = true
	}
	if v.opt.Each != nil {
		if err := v.opt.Each(r); err != nil {
			if broken, ok := errors.AsType[*BrokenError](err); ok && broken.Sequence == r.Sequence {
				broken.Line = v.line
			}
			return err
		}
	}
	if v.report.Records == 0 {
		v.report.First, v.report.Begin = r.Sequence, r.Time
	}
	v.report.Records++
	v.report.Head, v.report.End = Head{Sequence: r.Sequence, Hash: r.Hash}, r.Time
	return nil
}

func (v *verifier) finish() (Report, error) {
	x := v.opt.Expect
	if x == nil || x.Sequence == 0 || v.report.MatchedHead {
		return v.report, nil
	}
	if v.report.Records > 0 && x.Sequence < v.report.First {
		return v.report, v.broken(x.Sequence, Missing, "the stream begins with record %d, after the noted head", v.report.First)
	}
	return v.report, v.broken(v.report.Head.Sequence+1, Truncated, "the stream ends, but the noted head is record %d", x.Sequence)
}

// decode reads one line and insists on its canonical form, so that nothing unread,
// such as a second value for a field, can hide in it.
func decode(line []byte) (*Record, error) {
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, errors.New("not a JSON record")
	}
	canon, err := Encode(&r)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(line, bytes.TrimSuffix(canon, []byte("\n"))) {
		return nil, errors.New("not in the form in which records are exported")
	}
	return &r, nil
}

var errLineTooLong = errors.New("line too long")

// readLine returns the next line without its newline; io.EOF at the end.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > MaxLine+1 {
			return nil, errLineTooLong
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, nil
		case err != nil:
			return nil, err
		default:
			return line[:len(line)-1], nil
		}
	}
}
