package tds

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// reader reads little-endian values; the first that is missing makes err.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err == nil && (n < 0 || n > len(r.b)) {
		r.err = errors.New("a request ends too early")
	}
	if r.err != nil {
		return make([]byte, max(0, min(n, 8)))
	}
	part := r.b[:n]
	r.b = r.b[n:]
	return part
}

func (r *reader) u8() int     { return int(r.take(1)[0]) }
func (r *reader) u16() int    { return int(binary.LittleEndian.Uint16(r.take(2))) }
func (r *reader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

// withoutHeaders skips ALL_HEADERS. [MS-TDS] 2.2.5.3
func withoutHeaders(d []byte) ([]byte, error) {
	if len(d) < 4 {
		return nil, errors.New("a request has no headers")
	}
	n := binary.LittleEndian.Uint32(d)
	if n < 4 || int64(n) > int64(len(d)) {
		return nil, errors.New("a request's headers are out of bounds")
	}
	return d[n:], nil
}

// parameter is one of an RPC.
type parameter struct {
	name  string
	value any // nil, string, int64, bool or []byte
}

// call is an RPC request. [MS-TDS] 2.2.6.6
type call struct {
	procedure  string
	parameters []parameter
}

const executeSQL = 10 // the number of sp_executesql

func parseCall(d []byte) (call, error) {
	d, err := withoutHeaders(d)
	if err != nil {
		return call{}, err
	}
	r := &reader{b: d}
	var c call
	if n := r.u16(); n == 0xFFFF {
		if id := r.u16(); r.err == nil && id != executeSQL {
			return call{}, fmt.Errorf("an RPC of number %d", id)
		}
		c.procedure = "sp_executesql"
	} else {
		c.procedure = fromUCS2(r.take(2 * n))
	}
	r.u16() // flags
	for r.err == nil && len(r.b) > 0 {
		c.parameters = append(c.parameters, r.parameter())
	}
	return c, r.err
}

func (r *reader) parameter() parameter {
	p := parameter{name: fromUCS2(r.take(2 * r.u8()))}
	r.u8() // status
	kind := r.u8()
	switch kind {
	case 0x26, 0x68: // intn, bitn
		r.u8()
		b := r.take(r.u8())
		switch {
		case len(b) == 0:
		case kind == 0x68:
			p.value = b[0] != 0
		default:
			wide := make([]byte, 8)
			if b[len(b)-1]&0x80 != 0 {
				wide = []byte{255, 255, 255, 255, 255, 255, 255, 255}
			}
			copy(wide, b)
			p.value = int64(binary.LittleEndian.Uint64(wide))
		}
	case 0xE7, 0xA7: // nvarchar, varchar
		limit := r.u16()
		r.take(len(collation))
		b, null := r.varying(limit)
		switch {
		case null:
		case kind == 0xE7:
			p.value = fromUCS2(b)
		default:
			p.value = string(b)
		}
	case 0xA5: // varbinary
		if b, null := r.varying(r.u16()); !null {
			p.value = b
		}
	default:
		if r.err == nil {
			r.err = fmt.Errorf("a parameter of type 0x%02x", kind)
		}
	}
	return p
}

// varying reads a value of a type with the limit: in chunks if that is "max".
func (r *reader) varying(limit int) (b []byte, null bool) {
	if limit != 0xFFFF {
		n := r.u16()
		if n == 0xFFFF {
			return nil, true
		}
		return r.take(n), false
	}
	if r.u64() == 0xFFFFFFFFFFFFFFFF {
		return nil, true
	}
	b = []byte{}
	for r.err == nil {
		n := r.u32()
		if n == 0 {
			break
		}
		b = append(b, r.take(int(n))...)
	}
	return b, false
}
