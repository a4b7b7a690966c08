package oracle

import (
	"encoding/binary"
	"slices"
)

// writer builds a TTC message.
type writer struct{ b []byte }

func (w *writer) bytes(b ...byte) { w.b = append(w.b, b...) }

// uint writes a number as all of ub2, ub4 and ub8 are: its length, then big-endian without leading zeros.
func (w *writer) uint(n uint64) {
	var t [8]byte
	binary.BigEndian.PutUint64(t[:], n)
	i := 0
	for i < 8 && t[i] == 0 {
		i++
	}
	w.bytes(byte(8 - i))
	w.bytes(t[i:]...)
}

func (w *writer) zeros(n int) {
	for range n {
		w.uint(0)
	}
}

// clr writes bytes with their length, in chunks if they are long.
func (w *writer) clr(b []byte) {
	if len(b) <= 252 {
		w.bytes(byte(len(b)))
		w.bytes(b...)
		return
	}
	w.bytes(0xFE)
	for chunk := range slices.Chunk(b, 0x7FFF) {
		w.uint(uint64(len(chunk)))
		w.bytes(chunk...)
	}
	w.bytes(0)
}

// dlc is clr with the length once more in front.
func (w *writer) dlc(b []byte) {
	w.uint(uint64(len(b)))
	if len(b) > 0 {
		w.clr(b)
	}
}

func (w *writer) pair(key, value string, flag uint64) {
	w.dlc([]byte(key))
	w.dlc([]byte(value))
	w.uint(flag)
}

// reader reads a TTC message. It reads zeros once the message is too short.
type reader struct {
	b     []byte
	at    int
	short bool
	wrong bool // something no client sends
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > maxPacket {
		r.wrong = true
		return nil
	}
	if r.at+n > len(r.b) || r.short {
		r.short = true
		return make([]byte, n)
	}
	r.at += n
	return r.b[r.at-n : r.at]
}

func (r *reader) byte() byte {
	if b := r.take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (r *reader) skip(n int) { r.take(n) }

func (r *reader) uint() uint64 {
	n := r.byte()
	if n&0x7F > 8 {
		r.wrong = true
		return 0
	}
	var v uint64
	for _, b := range r.take(int(n & 0x7F)) {
		v = v<<8 | uint64(b)
	}
	if n&0x80 != 0 {
		return -v
	}
	return v
}

func (r *reader) count() int { return int(min(r.uint(), maxPacket+1)) }

func (r *reader) clr() []byte {
	n := r.byte()
	switch n {
	case 0, 0xFF, 0xFD:
		return nil
	case 0xFE:
		var all []byte
		for {
			n := r.count()
			if n == 0 || r.short || r.wrong {
				return all
			}
			all = append(all, r.take(n)...)
		}
	}
	return slices.Clone(r.take(int(n)))
}

func (r *reader) pair() (key, value string) {
	if r.uint() > 0 {
		key = string(r.clr())
	}
	if r.uint() > 0 {
		value = string(r.clr())
	}
	r.uint()
	return key, value
}
