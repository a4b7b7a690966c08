package oracle

import "encoding/binary"

// fieldVersion is what the emulator offers: that of Oracle 19.1. Clients may offer less.
const fieldVersion = 12

const negotiateMagic = 0xDEADBEEF

// negotiate declines the services of the advanced negotiation: other ways to log in, native encryption, checksums.
func (s *session) negotiate() error {
	if err := s.parse(func(r *reader) {
		head := r.take(13)
		if r.short || r.wrong {
			return
		}
		if binary.BigEndian.Uint32(head) != negotiateMagic {
			r.wrong = true
			return
		}
		r.skip(int(binary.BigEndian.Uint16(head[4:])) - len(head))
	}); err != nil {
		return err
	}
	var b []byte
	be := binary.BigEndian
	service := func(kind, fields uint16) {
		b = be.AppendUint16(b, kind)
		b = be.AppendUint16(b, fields)
		b = be.AppendUint32(b, 0)
		b = be.AppendUint16(b, 4) // a version
		b = be.AppendUint16(b, 5)
		b = be.AppendUint32(b, 0x13000000)
	}
	status := func(v uint16) {
		b = be.AppendUint16(b, 2)
		b = be.AppendUint16(b, 6)
		b = be.AppendUint16(b, v)
	}
	none := func() {
		b = be.AppendUint16(b, 1)
		b = be.AppendUint16(b, 2)
		b = append(b, 0)
	}
	service(4, 3) // supervisor
	status(31)
	b = be.AppendUint16(b, 18)
	b = be.AppendUint16(b, 1)
	b = be.AppendUint32(b, negotiateMagic)
	b = be.AppendUint16(b, 3)
	b = be.AppendUint32(b, 4)
	for _, kind := range []uint16{4, 1, 2, 3} {
		b = be.AppendUint16(b, kind)
	}
	service(1, 2) // authentication
	status(0xFBFF)
	service(2, 2) // encryption
	none()
	service(3, 2) // integrity
	none()
	var out []byte
	out = be.AppendUint32(out, negotiateMagic)
	out = be.AppendUint16(out, uint16(13+len(b))) //nolint:gosec // 131 in all
	out = be.AppendUint32(out, 0x13000000)
	out = be.AppendUint16(out, 4)
	out = append(out, 0)
	return s.link.send(append(out, b...))
}

// compileCaps are the server's capabilities that clients look at.
func compileCaps() []byte {
	c := make([]byte, 53)
	for at, v := range map[int]byte{
		0: 6, 1: 1,
		4: 0x08 | 0x02 | 0x20 | 0x40, // O5LOGON, with the 12c verifier
		5: 1, 6: 1,
		7: fieldVersion,
		8: 1,
		// The status of a call and the sequence of its execution context are always sent: Oracle's clients always read them.
		15: 0x01 | 0x08 | 0x20,
		16: 0x10 | 0x80 | 0x01,
		17: 3, 18: 7, 19: 3, 21: 1, 23: 0xEB, 24: 1, 26: 5,
		27: 1, // data types have two bytes
		31: 0x18, 34: 7, 35: 0x20, 36: 2,
		37: 0x20 | 0x08 | 0x10 | 0x02, // long values come in big chunks; the version of time zones
	} {
		c[at] = v
	}
	return c
}

func (s *session) protocol() error {
	if err := s.parse(func(r *reader) {
		r.skip(3)
		for r.byte() != 0 && !r.short && !r.wrong { // the client's name
		}
	}); err != nil {
		return err
	}
	var w writer
	w.bytes(msgProtocol, 6, 0)
	w.bytes([]byte("x86_64/Linux 2.4.xx\x00")...)
	w.bytes(0x69, 0x03, 1, 0, 0) // character set 873, AL32UTF8; flags; no elements
	fdo := make([]byte, 12)
	fdo[9], fdo[10] = 0x07, 0xD0 // national character set 2000, AL16UTF16
	w.bytes(0, byte(len(fdo)))
	w.bytes(fdo...)
	caps := compileCaps()
	w.bytes(byte(len(caps)))
	w.bytes(caps...)
	runtime := []byte{2, 1, 0, 0, 0, 0, 0x04 | 0x02}
	w.bytes(byte(len(runtime)))
	w.bytes(runtime...)
	return s.link.send(w.b)
}

func (s *session) dataTypes() error {
	var compile, runtime []byte
	if err := s.parse(func(r *reader) {
		s.convLength = r.take(6)[5]&2 != 0
		compile = r.take(int(r.byte()))
		runtime = r.take(int(r.byte()))
		if timeZones(runtime) {
			r.skip(11)
			if zoneVersion(compile) {
				r.skip(4)
			}
		}
		// go-ora sends the national character set here, Oracle's own thin clients do not.
		if set := r.take(2); set[0] != 0xD0 || set[1] != 0x07 {
			r.at -= 2
		}
		for { // from type, to type, how, 0; ended by 0
			kind := r.dataType(compile)
			if kind == 0 || r.short {
				return
			}
			if r.dataType(compile) != 0 {
				r.dataType(compile)
				r.dataType(compile)
			}
		}
	}); err != nil {
		return err
	}
	if len(compile) <= 37 {
		return notEmulated("a client with few capabilities")
	}
	s.field = min(fieldVersion, compile[7])
	var w writer
	w.bytes(msgDataTypes)
	if timeZones(runtime) {
		w.bytes(128, 0, 0, 0, 60, 60, 60, 128, 0, 0, 0)
		if zoneVersion(compile) {
			w.bytes(0, 0, 0, 32)
		}
	}
	w.bytes(0)
	if wideTypes(compile) {
		w.bytes(0)
	}
	return s.link.send(w.b)
}

func timeZones(runtime []byte) bool   { return len(runtime) > 1 && runtime[1]&1 != 0 }
func zoneVersion(compile []byte) bool { return len(compile) > 37 && compile[37]&2 != 0 }
func wideTypes(compile []byte) bool   { return len(compile) > 27 && compile[27] != 0 }

func (r *reader) dataType(compile []byte) uint16 {
	if wideTypes(compile) {
		return binary.BigEndian.Uint16(r.take(2))
	}
	return uint16(r.byte())
}
