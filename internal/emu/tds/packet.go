package tds

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf16"
)

// Types of packets. [MS-TDS] 2.2.3.1.1
const (
	packetBatch       = 1
	packetRPC         = 3
	packetReply       = 4
	packetAttention   = 6
	packetTransaction = 14
	packetLogin       = 16
	packetPrelogin    = 18
)

// Bits of a packet's status. [MS-TDS] 2.2.3.1.2
const (
	statusLast  = 0x01
	statusReset = 0x08
)

const (
	headerLength = 8
	// longestMessage bounds what a client may send as one message.
	longestMessage = 1 << 22
)

// message is what a client sends: one or more packets.
type message struct {
	kind  byte
	reset bool
	data  []byte
}

// framed reads and writes messages as packets.
type framed struct {
	rw   io.ReadWriter
	size int // of packets that are written
}

func (f *framed) read() (message, error) {
	var m message
	for first := true; ; first = false {
		var h [headerLength]byte
		if _, err := io.ReadFull(f.rw, h[:]); err != nil {
			return m, err
		}
		n := int(binary.BigEndian.Uint16(h[2:])) - headerLength
		switch {
		case n < 0 || len(m.data)+n > longestMessage:
			return m, errors.New("a packet has a wrong length")
		case first:
			m.kind, m.reset = h[0], h[1]&statusReset != 0
		case h[0] != m.kind:
			return m, fmt.Errorf("packets of types %d and %d in one message", m.kind, h[0])
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(f.rw, data); err != nil {
			return m, err
		}
		m.data = append(m.data, data...)
		if h[1]&statusLast != 0 {
			return m, nil
		}
	}
}

// write sends the rest of a message of the type that servers send.
func (f *framed) write(data []byte) error { return f.send(data, true) }

// begin sends a part of a message.
func (f *framed) begin(data []byte) error { return f.send(data, false) }

func (f *framed) send(data []byte, last bool) error {
	for n := byte(1); ; n++ {
		part := data[:min(len(data), f.size-headerLength)]
		data = data[len(part):]
		p := make([]byte, headerLength, headerLength+len(part))
		p[0], p[6] = packetReply, n
		if len(data) == 0 && last {
			p[1] = statusLast
		}
		binary.BigEndian.PutUint16(p[2:], uint16(headerLength+len(part)))
		if _, err := f.rw.Write(append(p, part...)); err != nil || len(data) == 0 {
			return err
		}
	}
}

// toUCS2 and fromUCS2 convert to and from UTF-16, little endian.
func toUCS2(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

func fromUCS2(b []byte) string {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(u))
}
