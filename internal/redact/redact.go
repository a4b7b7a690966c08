package redact

import (
	"bytes"
	"slices"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// MinLength is the length in bytes from which a secret is looked for in all its
// forms. A shorter one is looked for only as it is: its encodings would match
// ordinary text.
const MinLength = 8

// maxPending bounds what a Stream holds back, however much of it is control
// sequences between two letters.
const maxPending = 256 << 10

// minKeyLine is the length from which a single line of a multi-line secret, such as
// a PEM key, is itself a secret.
const minKeyLine = 16

// Redactor replaces secrets, in whatever form they appear, with reeve.Redacted. It
// finds them also when control sequences, line breaks or other control characters
// are scattered through them. A Redactor may be used from several goroutines until
// it is wiped.
type Redactor struct {
	forms *forms // nil once wiped
	short bool   // secrets shorter than MinLength are looked for too
	hold  int    // bytes a match may lack at the end of what has been seen: longest form − 1
}

// New makes a Redactor for the secrets. Empty ones are left out.
func New(secrets ...reeve.Secret) *Redactor {
	r := &Redactor{forms: newForms(), short: true}
	for _, s := range secrets {
		r.add(s.Bytes())
	}
	return r
}

func (r *Redactor) add(secret []byte) {
	switch {
	case len(secret) == 0:
		return
	case len(secret) < MinLength:
		r.addRaw(bytes.Clone(secret))
		return
	}
	secret = bytes.Clone(secret)
	for _, f := range formsOf(secret) {
		r.addRaw(f)
		r.addFolded(Fold(f))
	}
	lines := bytes.Split(secret, []byte("\n"))
	if len(lines) == 1 {
		return
	}
	for _, l := range lines {
		l = bytes.TrimSpace(l)
		if len(l) >= minKeyLine && !bytes.HasPrefix(l, []byte("-----")) {
			r.addRaw(bytes.Clone(l))
			r.addFolded(bytes.Clone(l))
		}
	}
}

func (r *Redactor) addRaw(f []byte) {
	r.forms.add(f, false)
	r.hold = max(r.hold, len(f)-1)
}

func (r *Redactor) addFolded(f []byte) {
	if len(f) >= MinLength {
		r.forms.add(f, true)
		r.hold = max(r.hold, len(f)-1)
	}
}

// Share returns a Redactor for the same secrets, for somebody who will wipe his own. The
// forms are overwritten when all have.
func (r *Redactor) Share() *Redactor {
	if r.forms != nil {
		r.forms.holders.Add(1)
	}
	c := *r
	return &c
}

// Wipe overwrites the forms; the Redactor finds nothing afterwards.
func (r *Redactor) Wipe() {
	if r.forms != nil && r.forms.holders.Add(-1) == 0 {
		r.forms.wipe()
	}
	r.forms, r.hold = nil, 0
}

// Redact returns s with every secret replaced. The text is taken to be complete; for
// text that comes in pieces, use Stream.
func (r *Redactor) Redact(s string) string {
	if s == "" || r.forms.empty() {
		return s
	}
	b := []byte(s)
	spans := r.find(b)
	if len(spans) == 0 {
		return s
	}
	return string(replace(b, spans, false))
}

// Long is the same Redactor without the secrets shorter than MinLength, for texts in
// which those would be found by chance. It is wiped with r.
func (r *Redactor) Long() *Redactor { return &Redactor{forms: r.forms, hold: r.hold} }

// Finds reports whether s holds a secret of at least MinLength bytes, in any form.
func (r *Redactor) Finds(s string) bool { return len(r.Long().find([]byte(s))) > 0 }

// span is a half-open range of bytes.
type span struct{ from, to int }

// find returns the matches in b, merged and in order.
func (r *Redactor) find(b []byte) []span {
	var spans []span
	r.forms.find(b, func(f *form, from, to int) {
		if r.short || len(f.text) >= MinLength {
			spans = append(spans, span{from, to})
		}
	})
	if hasControl(b) { // else the folded text is the same
		spans = r.findFolded(spans, b, sequence)
		if bytes.IndexByte(b, 0x1b) >= 0 { // a terminal may not agree about what a sequence is
			spans = r.findFolded(spans, b, nil)
		}
	}
	return merge(spans)
}

func (r *Redactor) findFolded(spans []span, b []byte, sequence func([]byte) int) []span {
	text, at := foldAt(b, sequence)
	r.forms.find(text, func(f *form, from, to int) {
		if f.folded {
			spans = append(spans, span{at[from], at[to-1] + 1})
		}
	})
	return spans
}

func merge(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return a.from - b.from })
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 && s.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, s.to)
			continue
		}
		out = append(out, s)
	}
	return out
}

// replace returns b with each span replaced by the marker; with marked, the marker of
// a span that starts at 0 has been written before.
func replace(b []byte, spans []span, marked bool) []byte {
	out := make([]byte, 0, len(b))
	pos := 0
	for _, s := range spans {
		if s.from >= len(b) {
			break
		}
		out = append(out, b[pos:s.from]...)
		if s.from > 0 || !marked {
			out = append(out, reeve.Redacted...)
		}
		pos = min(s.to, len(b))
	}
	return append(out, b[pos:]...)
}

// Stream redacts text that arrives in pieces, cut anywhere. It is used by one
// goroutine at a time.
type Stream struct {
	r       *Redactor
	buf     []byte
	covered int // leading bytes of buf that belong to a match whose marker is out
}

// Stream starts a new text.
func (r *Redactor) Stream() *Stream { return &Stream{r: r} }

// Next takes a piece and returns what can be said by now: all but the last bytes,
// which may be the beginning of a secret.
func (s *Stream) Next(p []byte) []byte {
	s.buf = append(s.buf, p...)
	return s.emit(s.cut())
}

// Flush returns what was held back; the text is complete.
func (s *Stream) Flush() []byte { return s.emit(len(s.buf)) }

// cut is the position up to which every match that starts before it is complete.
func (s *Stream) cut() int {
	n := len(s.buf)
	if s.r.hold == 0 {
		return n
	}
	raw := n - s.r.hold
	if raw <= 0 {
		return 0
	}
	_, at := foldAt(s.buf, sequence)
	folded := 0
	if i := len(at) - s.r.hold; i > 0 {
		folded = at[i]
	}
	return max(min(raw, folded), n-maxPending)
}

func (s *Stream) emit(cut int) []byte {
	if cut <= 0 {
		return nil
	}
	spans := s.r.find(s.buf)
	if s.covered > 0 {
		spans = merge(append(spans, span{0, s.covered}))
	}
	out := replace(s.buf[:cut], spans, s.covered > 0)
	covered := 0
	for _, sp := range spans {
		if sp.from < cut && sp.to > cut {
			covered = sp.to - cut
		}
	}
	rest := copy(s.buf, s.buf[cut:])
	clear(s.buf[rest:])
	s.buf, s.covered = s.buf[:rest], covered
	return out
}
