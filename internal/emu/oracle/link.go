package oracle

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
)

// The packets of the transparent network substrate (TNS).
const (
	packetConnect  = 1
	packetAccept   = 2
	packetRefuse   = 4
	packetRedirect = 5
	packetData     = 6
	packetMarker   = 12
)

// What a marker says in its third byte.
const (
	markerBreak     = 1
	markerReset     = 2
	markerInterrupt = 3
)

// dataEOF is the flag of a data packet that ends the connection.
const dataEOF = 0x40

// The newest version of TNS served. From 318 on clients expect a check of out-of-band data.
const tnsVersion = 317

// sdu is the size of the packets sent.
const sdu = 8192

// maxPacket bounds what a client may send.
const maxPacket = 1 << 22

// link is a connection that carries TNS packets.
type link struct {
	conn  net.Conn
	large bool // lengths have four bytes, from version 315 on
}

func (l *link) read() (kind byte, body []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(l.conn, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if l.large {
		n = int(binary.BigEndian.Uint32(head[:]))
	}
	if n < len(head) || n > maxPacket {
		return 0, nil, fmt.Errorf("a packet of %d bytes", n)
	}
	body = make([]byte, n-len(head))
	_, err = io.ReadFull(l.conn, body)
	return head[4], body, err
}

func (l *link) write(kind byte, body []byte) error {
	p := make([]byte, 8, 8+len(body))
	if l.large {
		binary.BigEndian.PutUint32(p, uint32(8+len(body)))
	} else {
		binary.BigEndian.PutUint16(p, uint16(8+len(body)))
	}
	p[4] = kind
	_, err := l.conn.Write(append(p, body...))
	return err
}

// send writes a TTC message in as many data packets as it takes.
func (l *link) send(message []byte) error {
	for {
		n := min(len(message), sdu-64)
		if err := l.write(packetData, append([]byte{0, 0}, message[:n]...)); err != nil {
			return err
		}
		if message = message[n:]; len(message) == 0 {
			return nil
		}
	}
}

var connectName = regexp.MustCompile(`(?i)\((SERVICE_NAME|SID)=([^)]*)\)`)

// handshake accepts or refuses a connection, by the service or SID it asks for.
func (s *Server) handshake(l *link) error {
	kind, body, err := l.read()
	if err != nil {
		return err
	}
	if kind != packetConnect || len(body) < 50 {
		return fmt.Errorf("a packet of kind %d instead of a connect", kind)
	}
	length, at := int(binary.BigEndian.Uint16(body[16:])), int(binary.BigEndian.Uint16(body[18:]))-8
	descriptor := ""
	if at >= 0 && at+length <= len(body) {
		descriptor = string(body[at : at+length])
	} else { // too long for the packet: it follows
		_, more, err := l.read()
		if err != nil || len(more) < 2 {
			return fmt.Errorf("no connect data: %w", err)
		}
		descriptor = string(more[2:])
	}
	if code := refusal(descriptor); code != 0 {
		text := fmt.Sprintf("(DESCRIPTION=(TMP=)(VSNNUM=318767104)(ERR=%d)(ERROR_STACK=(ERROR=(CODE=%d)(EMFI=4))))", code, code)
		head := []byte{4, 4, 0, 0}
		binary.BigEndian.PutUint16(head[2:], uint16(len(text)))
		return l.last(packetRefuse, append(head, text...))
	}
	if to := s.faultsNow().Redirect; to != "" {
		return l.last(packetRedirect, append(binary.BigEndian.AppendUint16(nil, uint16(len(to))), to...)) //nolint:gosec // short
	}
	version := min(binary.BigEndian.Uint16(body), tnsVersion)
	negotiate := body[24]&1 != 0 && body[24]&4 == 0
	if err := l.write(packetAccept, acceptance(version, negotiate)); err != nil {
		return err
	}
	l.large = version >= 315
	if s.faultsNow().HangAfterAccept {
		return l.stall()
	}
	return nil
}

// last writes a packet behind which nothing comes.
func (l *link) last(kind byte, body []byte) error {
	if err := l.write(kind, body); err != nil {
		return err
	}
	return errHangUp
}

// refusal is the listener's error number for what a client asks for, or 0.
func refusal(descriptor string) int {
	m := connectName.FindStringSubmatch(descriptor)
	switch {
	case m == nil:
		return 12514
	case strings.EqualFold(m[1], "SID") && !strings.EqualFold(m[2], SID):
		return 12505
	case strings.EqualFold(m[1], "SERVICE_NAME") && !strings.EqualFold(m[2], Service):
		return 12514
	default:
		return 0
	}
}

// acceptance is the body of an accept packet. Clients take its data length at its word.
func acceptance(version uint16, negotiate bool) []byte {
	b := make([]byte, 45-8)
	be := binary.BigEndian
	be.PutUint16(b, version)
	be.PutUint16(b[2:], 0x0801) // options
	be.PutUint16(b[4:], sdu)
	be.PutUint16(b[6:], 65535)
	be.PutUint16(b[8:], 0x0100) // byte order
	be.PutUint16(b[12:], 45)    // data offset; data length is 0
	b[14], b[15] = 4, 4         // no advanced negotiation
	if negotiate {
		b[14], b[15] = 1, 1
	}
	be.PutUint32(b[24:], sdu)
	be.PutUint32(b[28:], 65535)
	return b
}
