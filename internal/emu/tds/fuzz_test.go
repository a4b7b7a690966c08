package tds

import (
	"encoding/binary"
	"testing"
)

// FuzzRequests reads what a client could send before and after its login.
func FuzzRequests(f *testing.F) {
	f.Add(prelogin([4]byte{16, 0, 0, 0}, encryptOn))
	login := make([]byte, fixedLogin+8)
	binary.LittleEndian.PutUint32(login, uint32(len(login)))
	binary.LittleEndian.PutUint32(login[4:], 0x74000004)
	login[27] = flagChange | flagExtension
	binary.LittleEndian.PutUint16(login[56:], fixedLogin)
	binary.LittleEndian.PutUint16(login[58:], 4)
	binary.LittleEndian.PutUint32(login[fixedLogin:], fixedLogin+4)
	login[fixedLogin+4] = preEnd
	f.Add(login)
	f.Add([]byte{4, 0, 0, 0, 255, 255, 10, 0, 0, 0, 0, 0, 0x26, 8, 1, 0xFF})
	f.Add([]byte{4, 0, 0, 0, 255, 255, 10, 0, 0, 0, 0, 0, 0xE7, 0xFF, 0xFF, 9, 4, 0xD0, 0, 0x34, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 'a', 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, d []byte) {
		if options, err := parsePrelogin(d); err == nil && len(options[preVersion]) != 6 {
			t.Error("a PRELOGIN without version was taken")
		}
		if l, err := parseLogin(d); err == nil && len(l.user) > len(d) {
			t.Error("a user name out of nowhere")
		}
		if c, err := parseCall(d); err == nil && len(c.parameters) > len(d) {
			t.Error("more parameters than bytes")
		}
	})
}
