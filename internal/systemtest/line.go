package systemtest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Line is the way to a target over a port of its own, which can be cut in the middle of
// a conversation.
type Line struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	open  map[net.Conn]bool // both ends of what goes on
	cut   bool              // nothing comes through
	left  int64             // bytes towards the target until it is cut; -1: as many as you like
	going sync.WaitGroup
}

func newLine(t testing.TB, target string) *Line {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Line{listener: listener, target: target, open: map[net.Conn]bool{}, left: -1}
	l.going.Go(l.serve)
	t.Cleanup(func() {
		_ = listener.Close()
		l.Cut()
		l.going.Wait()
	})
	return l
}

// Addr is where the line begins.
func (l *Line) Addr() (address string, port *int) {
	a := l.listener.Addr().(*net.TCPAddr) //nolint:forcetypeassert // it is one of TCP
	return a.IP.String(), &a.Port
}

// CutAfter cuts the line after so many more bytes towards the target.
func (l *Line) CutAfter(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = bytes
}

// Cut ends everything that goes on, and lets nothing through until Mend.
func (l *Line) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cutLocked()
}

func (l *Line) cutLocked() {
	l.cut = true
	for conn := range l.open {
		_ = conn.Close()
	}
}

// IsCut reports whether the line is cut.
func (l *Line) IsCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// Mend undoes CutAfter and Cut.
func (l *Line) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut, l.left = false, -1
}

func (l *Line) serve() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.going.Go(func() { l.carry(client) })
	}
}

func (l *Line) carry(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", l.target) //nolint:noctx // ends with the line
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	l.mu.Lock()
	if l.cut {
		l.mu.Unlock()
		return
	}
	l.open[client], l.open[server] = true, true
	l.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(server, &counted{client, l})
		_ = server.Close() // no protocol here closes one half
	})
	_, _ = io.Copy(client, server)
	_ = client.Close()
	both.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, client)
	delete(l.open, server)
}

// counted is what goes towards the target, up to the cut.
type counted struct {
	from io.Reader
	line *Line
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	if c.line.left < 0 || err != nil {
		return n, err
	}
	if int64(n) < c.line.left {
		c.line.left -= int64(n)
		return n, nil
	}
	c.line.cutLocked()
	return 0, net.ErrClosed // what had come so far has been passed on, and this is lost
}
