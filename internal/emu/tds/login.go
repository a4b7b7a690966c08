package tds

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Options of PRELOGIN, and values of the encryption option. [MS-TDS] 2.2.6.5
const (
	preVersion    = 0
	preEncryption = 1
	preInstance   = 2
	preThread     = 3
	preMARS       = 4
	preTraceID    = 5
	preFedAuth    = 6
	preNonce      = 7
	preEnd        = 0xFF

	encryptOff    = 0
	encryptOn     = 1
	encryptNotSup = 2
	encryptReq    = 3
	encryptStrict = 4
)

func parsePrelogin(d []byte) (map[byte][]byte, error) {
	options := map[byte][]byte{}
	for p := 0; p < len(d); p += 5 {
		if d[p] == preEnd {
			if len(options[preVersion]) != 6 || len(options[preEncryption]) != 1 {
				return nil, errors.New("PRELOGIN lacks version or encryption")
			}
			return options, nil
		}
		if p+5 > len(d) {
			break
		}
		at, n := int(binary.BigEndian.Uint16(d[p+1:])), int(binary.BigEndian.Uint16(d[p+3:]))
		if d[p] > preNonce || at+n > len(d) {
			return nil, fmt.Errorf("PRELOGIN has a wrong option %d", d[p])
		}
		options[d[p]] = d[at : at+n]
	}
	return nil, errors.New("PRELOGIN has no end")
}

func prelogin(version [4]byte, encryption byte) []byte {
	options := []struct {
		id    byte
		value []byte
	}{
		{preVersion, append(version[:], 0, 0)}, {preEncryption, []byte{encryption}}, {preInstance, []byte{0}},
		{preThread, nil}, {preMARS, []byte{0}},
	}
	var head, body []byte
	at := 5*len(options) + 1
	for _, o := range options {
		head = binary.BigEndian.AppendUint16(append(head, o.id), uint16(at+len(body)))
		head = binary.BigEndian.AppendUint16(head, uint16(len(o.value)))
		body = append(body, o.value...)
	}
	return append(append(head, preEnd), body...)
}

// loginRequest is a LOGIN7 message. [MS-TDS] 2.2.6.4
type loginRequest struct {
	version, packetSize       uint32
	user, password, newPasswd string
	database                  string
	features                  map[byte][]byte
}

// Bits of LOGIN7's flags, and its features.
const (
	flagIntegrated = 0x80 // OptionFlags2
	flagChange     = 0x01 // OptionFlags3
	flagExtension  = 0x10
	featureUTF8    = 0x0A
	fixedLogin     = 94
)

func parseLogin(d []byte) (*loginRequest, error) {
	le := binary.LittleEndian
	if len(d) < fixedLogin || int(le.Uint32(d)) != len(d) {
		return nil, errors.New("LOGIN7 has a wrong length")
	}
	l := &loginRequest{version: le.Uint32(d[4:]), packetSize: le.Uint32(d[8:]), features: map[byte][]byte{}}
	if d[25]&flagIntegrated != 0 {
		return nil, errors.New("LOGIN7 asks for integrated authentication")
	}
	if v := l.version; v != 0x74000004 && v != 0x08000000 && v != 0x730B0003 {
		return nil, fmt.Errorf("LOGIN7 asks for TDS version %08x", v)
	}
	var bad error
	field := func(at, width int) []byte {
		from, n := int(le.Uint16(d[at:])), int(le.Uint16(d[at+2:]))*width
		if n > 0 && (from < fixedLogin || from+n > len(d)) {
			bad = fmt.Errorf("LOGIN7's field at %d is out of bounds", at)
			return nil
		}
		if n == 0 {
			return nil
		}
		return d[from : from+n]
	}
	l.user, l.database = fromUCS2(field(40, 2)), fromUCS2(field(68, 2))
	l.password = fromUCS2(unmangled(field(44, 2)))
	if d[27]&flagChange != 0 {
		l.newPasswd = fromUCS2(unmangled(field(86, 2)))
	}
	if d[27]&flagExtension != 0 {
		if at := field(56, 1); len(at) >= 4 {
			if err := l.readFeatures(d, int(le.Uint32(at))); err != nil {
				return nil, err
			}
		}
	}
	return l, bad
}

func (l *loginRequest) readFeatures(d []byte, p int) error {
	for p >= fixedLogin && p < len(d) {
		if d[p] == preEnd {
			return nil
		}
		if p+5 > len(d) {
			break
		}
		n := int(binary.LittleEndian.Uint32(d[p+1:]))
		if n > len(d)-p-5 {
			break
		}
		l.features[d[p]] = d[p+5 : p+5+n]
		p += 5 + n
	}
	return errors.New("LOGIN7's features are out of bounds")
}

// unmangled undoes what hides a password from a casual look.
func unmangled(b []byte) []byte {
	out := make([]byte, len(b))
	for i, c := range b {
		c ^= 0xA5
		out[i] = c<<4 | c>>4
	}
	return out
}
