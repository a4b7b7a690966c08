package wire

import (
	"net"
	"sync"
)

// Conn is a connection whose options are negotiated while it is read. Reads are for one
// goroutine, writes for another.
type Conn struct {
	conn net.Conn

	mu      sync.Mutex
	decoder decoder
	raw     [4096]byte
}

// NewConn begins the client's side of a Telnet connection on c. With eightBit it asks for
// binary transmission in both directions.
func NewConn(c net.Conn, eightBit bool) (*Conn, error) {
	w := &Conn{conn: c}
	if eightBit {
		if _, err := c.Write(w.decoder.open()); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Read appends to data what the server sent, commands taken out, and answers them. It may
// append nothing.
func (c *Conn) Read(data []byte) ([]byte, error) {
	acknowledgeAtOnce(c.conn)
	n, err := c.conn.Read(c.raw[:])
	if err != nil {
		return data, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	data, err = c.decoder.feed(data, c.raw[:n])
	if err != nil {
		return data, err
	}
	if len(c.decoder.reply) > 0 {
		_, err = c.conn.Write(c.decoder.reply)
		c.decoder.reply = c.decoder.reply[:0]
	}
	return data, err
}

// Write sends text. A line feed is the end of a line.
func (c *Conn) Write(text []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	wire := c.decoder.encode(make([]byte, 0, 2*len(text)), text)
	_, err := c.conn.Write(wire)
	clear(wire)
	return err
}

// EightBit reports whether the server takes eight bits from us. Whether it sends them is
// another matter: telnetd turns that off and on as programs change their terminal.
func (c *Conn) EightBit() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.decoder.local[optBinary]
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }
