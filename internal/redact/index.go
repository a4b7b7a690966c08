package redact

import (
	"bytes"
	"sync/atomic"
)

// headLength is how many bytes of a form say in which bucket it is.
const headLength = 3

const buckets = 1 << 11

// form is a way in which a secret may be written.
type form struct {
	text   []byte
	folded bool // matched also against text without control characters
	next   int  // the next form in the bucket, from 1
}

// forms finds many forms in one pass over a text: at each place only those are compared
// that are in the bucket of the bytes there, which is hardly ever any.
type forms struct {
	all     []form
	heads   [buckets]uint16 // the first form of each bucket, from 1
	tiny    []int           // those shorter than a head
	holders atomic.Int32    // Redactors that will be wiped
}

func newForms() *forms {
	f := &forms{}
	f.holders.Store(1)
	return f
}

// bucket is the one of a text that is at least a head long.
func bucket(b []byte) uint32 {
	return (uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16) * 0x9e3779b1 >> 21
}

// add takes a form, if it does not have it.
func (fs *forms) add(text []byte, folded bool) {
	if len(text) < headLength {
		for _, i := range fs.tiny {
			if bytes.Equal(fs.all[i].text, text) {
				return
			}
		}
		fs.tiny = append(fs.tiny, len(fs.all))
		fs.all = append(fs.all, form{text: text})
		return
	}
	head := &fs.heads[bucket(text)]
	for i := int(*head); i > 0; i = fs.all[i-1].next {
		if bytes.Equal(fs.all[i-1].text, text) {
			fs.all[i-1].folded = fs.all[i-1].folded || folded
			return
		}
	}
	if len(fs.all) == 1<<16-1 {
		fs.tiny = append(fs.tiny, len(fs.all)) // no number left for it: it is looked for by itself
		fs.all = append(fs.all, form{text: text, folded: folded})
		return
	}
	fs.all = append(fs.all, form{text: text, folded: folded, next: int(*head)})
	*head = uint16(len(fs.all)) //nolint:gosec // checked above
}

func (fs *forms) empty() bool { return fs == nil || len(fs.all) == 0 }

// find tells every match in b, in no order.
func (fs *forms) find(b []byte, found func(f *form, from, to int)) {
	if fs.empty() {
		return
	}
	for _, t := range fs.tiny {
		f := &fs.all[t]
		for from := 0; ; from++ {
			i := bytes.Index(b[from:], f.text)
			if i < 0 {
				break
			}
			from += i
			found(f, from, from+len(f.text))
		}
	}
	for at := 0; at+headLength <= len(b); at++ {
		for i := int(fs.heads[bucket(b[at:])]); i > 0; {
			f := &fs.all[i-1]
			if bytes.HasPrefix(b[at:], f.text) {
				found(f, at, at+len(f.text))
			}
			i = f.next
		}
	}
}

func (fs *forms) wipe() {
	for _, f := range fs.all {
		clear(f.text)
	}
}
