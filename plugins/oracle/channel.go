package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// What the channel looks at in packets of the transparent network substrate (TNS).
const (
	packetHead   = 8
	packetAccept = 2
	packetData   = 6
	packetResend = 11
	lastKind     = 15

	resendTLS = 0x08   // flag: handshake anew
	dataTLS   = 0x80   // flag of a data packet: the same
	moreTLS   = 0x8000 // in the data flags: the same

	wideVersion = 315     // from here on lengths have four bytes, behind the accept packet
	maxPacket   = 4 << 20 // the driver asks for 2 MB at most
)

var (
	errPacket    = errors.New("the head of a packet cannot be")
	errHandshake = errors.New("the TLS handshake failed")
	errRedirect  = errors.New("the listener redirects to another address")
)

// channel is the connection as the driver sees it: what stands in the packets, without TLS. DESIGN.md says why the driver
// does not do TLS itself.
type channel struct {
	net.Conn               // the network's: deadlines, Close
	inner    io.ReadWriter // TLS over it, or itself
	config   *tls.Config   // nil: no TLS

	head  []byte // of the present packet, not yet read
	left  int    // bytes of it behind the head
	wide  bool
	again bool // a new handshake follows the packet
}

// Read implements net.Conn. It refuses packets longer than any can be, which the driver would make room for, and what is no
// packet at all.
func (c *channel) Read(p []byte) (n int, err error) {
	if len(c.head) == 0 && c.left == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if len(c.head) > 0 {
		n = copy(p, c.head)
		c.head = c.head[n:]
	} else {
		n, err = c.inner.Read(p[:min(len(p), c.left)])
		c.left -= n
	}
	if c.again && len(c.head) == 0 && c.left == 0 {
		c.again = false
		c.inner = tls.Client(c.Conn, c.config)
	}
	return n, err
}

// Write implements net.Conn.
func (c *channel) Write(p []byte) (int, error) { return c.inner.Write(p) }

// next reads the head of a packet, with two bytes of its body where they matter.
func (c *channel) next() error {
	head := make([]byte, packetHead)
	if _, err := io.ReadFull(c.inner, head); err != nil {
		return err
	}
	length := int(binary.BigEndian.Uint16(head))
	if c.wide {
		length = int(binary.BigEndian.Uint32(head))
	}
	kind, flags := head[4], head[5]
	if length < packetHead || length > maxPacket || kind == 0 || kind > lastKind {
		return errPacket
	}
	if (kind == packetAccept || kind == packetData) && length >= packetHead+2 {
		var body [2]byte
		if _, err := io.ReadFull(c.inner, body[:]); errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		} else if err != nil {
			return err
		}
		head = append(head, body[:]...)
	}
	c.head, c.left = head, length-len(head)
	var word uint16
	if len(head) > packetHead {
		word = binary.BigEndian.Uint16(head[packetHead:])
	}
	switch kind {
	case packetAccept:
		c.wide = word >= wideVersion
	case packetResend:
		c.again = flags&resendTLS != 0
	case packetData:
		c.again = flags&dataTLS != 0 || word&moreTLS != 0
	}
	c.again = c.again && c.config != nil
	return nil
}

// line dials for the driver, once. What the driver is told to connect to, by a redirect of the listener for instance, is
// not followed: it would take the login to a machine that nobody approved.
type line struct {
	ctx     context.Context //nolint:containedctx // of the one dial
	address string
	config  *tls.Config // nil: no TLS

	mu     sync.Mutex
	conn   net.Conn
	dialed bool
	hung   bool
}

// DialContext implements the driver's interface.
func (l *line) DialContext(context.Context, string, string) (net.Conn, error) {
	l.mu.Lock()
	again := l.dialed
	l.dialed = true
	l.mu.Unlock()
	if again {
		return nil, errRedirect
	}
	var d net.Dialer
	conn, err := d.DialContext(l.ctx, "tcp", l.address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.conn = conn
	if l.hung {
		_ = conn.Close()
	}
	l.mu.Unlock()
	if l.config == nil {
		return &channel{Conn: conn, inner: conn}, nil
	}
	secure := tls.Client(conn, l.config)
	if err := secure.HandshakeContext(l.ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	return &channel{Conn: conn, inner: secure, config: l.config}, nil
}

// hangUp ends whatever the driver waits for.
func (l *line) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hung = true
	if l.conn != nil {
		_ = l.conn.Close()
	}
}
