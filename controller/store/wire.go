package store

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Log entries are CBOR (RFC 8949 §4.2, deterministic) of one fixed shape, written and read
// here by hand: the codec that serves records of any type takes several times as long and
// copies everything, and every entry is read on every node.

const (
	majorUint  = 0 << 5
	majorInt   = 1 << 5 // negative
	majorBytes = 2 << 5
	majorArray = 4 << 5
	null       = 0xf6
)

// appendHead appends the head of a value.
func appendHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= math.MaxUint8:
		return append(b, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, major|27), n)
	}
}

// maxHead is the length of the longest head.
const maxHead = 9

func appendBytes[S string | []byte](b []byte, s S) []byte {
	return append(appendHead(b, majorBytes, uint64(len(s))), s...)
}

// encodeWrites is the write set of a transaction, encoded.
func encodeWrites(writes layer) []byte {
	puts, deletes, size := uint64(0), uint64(0), 3*maxHead
	writes.m.Scan(func(key string, c cell) bool {
		size += len(key) + len(c.value) + 3*maxHead
		if c.gone {
			deletes++
		} else {
			puts++
		}
		return true
	})
	b := appendHead(make([]byte, 0, size), majorArray, 2)
	b = appendHead(b, majorArray, puts)
	writes.m.Scan(func(key string, c cell) bool {
		if !c.gone {
			b = appendHead(b, majorArray, 2)
			b = appendBytes(appendBytes(b, key), c.value)
		}
		return true
	})
	b = appendHead(b, majorArray, deletes)
	writes.m.Scan(func(key string, c cell) bool {
		if c.gone {
			b = appendBytes(b, key)
		}
		return true
	})
	return b
}

// encodeEntry encodes e with write sets that are encoded already.
func encodeEntry(e *entry, sets [][]byte) []byte {
	size := 8 * maxHead
	for _, set := range sets {
		size += len(set)
	}
	b := append(make([]byte, 0, size), entryVersion)
	b = appendHead(b, majorArray, 5)
	b = appendHead(b, majorUint, e.Term)
	b = appendHead(b, majorUint, e.Proposal)
	b = appendHead(b, majorUint, e.Base)
	if e.Time < 0 {
		b = appendHead(b, majorInt, uint64(^e.Time))
	} else {
		b = appendHead(b, majorUint, uint64(e.Time))
	}
	b = appendHead(b, majorArray, uint64(len(sets)))
	for _, set := range sets {
		b = append(b, set...)
	}
	return b
}

// reader reads CBOR. After an error it reads zeros.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.b, r.err = nil, fmt.Errorf(format, args...)
	}
}

// head reads the head of a value.
func (r *reader) head() (major byte, n uint64) {
	if len(r.b) == 0 {
		r.fail("ends early")
		return 0, 0
	}
	first := r.b[0]
	major, n = first&^31, uint64(first&31)
	r.b = r.b[1:]
	if n < 24 {
		return major, n
	}
	width := 1 << (n - 24)
	if width > 8 || len(r.b) < width {
		r.fail("malformed")
		return 0, 0
	}
	n = 0
	for _, x := range r.b[:width] {
		n = n<<8 | uint64(x)
	}
	r.b = r.b[width:]
	return major, n
}

// expect reads the head of a value of the kind.
func (r *reader) expect(kind byte) uint64 {
	major, n := r.head()
	if major != kind {
		r.fail("not of the shape of an entry")
		return 0
	}
	return n
}

// length reads the head of bytes or of an array, which has no more elements than there
// are bytes left. Null is as good as empty.
func (r *reader) length(kind byte) int {
	if len(r.b) > 0 && r.b[0] == null {
		r.b = r.b[1:]
		return 0
	}
	n := r.expect(kind)
	if n > uint64(len(r.b)) {
		r.fail("a length of %d with %d bytes left", n, len(r.b))
		return 0
	}
	return int(n) //nolint:gosec // it is at most len
}

// tuple reads the head of an array of n.
func (r *reader) tuple(n uint64) {
	if r.expect(majorArray) != n {
		r.fail("not of the shape of an entry")
	}
}

func (r *reader) bytes() []byte {
	n := r.length(majorBytes)
	s := r.b[:n:n]
	r.b = r.b[n:]
	return s
}

func (r *reader) time() int64 {
	major, n := r.head()
	if n > math.MaxInt64 || major != majorUint && major != majorInt {
		r.fail("not a time")
		return 0
	}
	if major == majorInt {
		return ^int64(n)
	}
	return int64(n)
}

func (r *reader) set() (w writeSet) {
	r.tuple(2)
	if n := r.length(majorArray); n > 0 {
		w.Puts = make([]put, 0, n)
		for range n {
			r.tuple(2)
			w.Puts = append(w.Puts, put{Key: r.bytes(), Value: r.bytes()})
		}
	}
	if n := r.length(majorArray); n > 0 {
		w.Deletes = make([][]byte, 0, n)
		for range n {
			w.Deletes = append(w.Deletes, r.bytes())
		}
	}
	return w
}

// readEntry decodes what encodeEntry wrote after the version.
func readEntry(b []byte) (*entry, error) {
	r := &reader{b: b}
	r.tuple(5)
	e := &entry{Term: r.expect(majorUint), Proposal: r.expect(majorUint), Base: r.expect(majorUint), Time: r.time()}
	for range r.length(majorArray) {
		e.Sets = append(e.Sets, r.set())
	}
	if len(r.b) > 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	if r.err != nil {
		return nil, r.err
	}
	return e, nil
}
