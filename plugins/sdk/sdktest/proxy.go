package sdktest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// mode is how a network fails.
type mode int

const (
	whole    mode = iota // it does not
	silent               // connections are taken and nothing is answered
	cut                  // connections end after so many bytes from the target
	cutAsked             // … after so many bytes to the target, before they arrive
	stalled              // after so many bytes from the target nothing more comes
)

// proxy stands between connector and target and makes the network fail.
type proxy struct {
	listener net.Listener
	upstream string
	mode     mode
	accepted chan struct{} // one value per connection, at most as many as fit
	spent    chan struct{} // closed when the bytes allowed have passed

	bytes  atomic.Int64 // from the target, of all connections
	asked  atomic.Int64 // to the target
	left   atomic.Int64 // bytes that may still pass, of all connections together
	failed sync.Once
	wg     sync.WaitGroup
	mu     sync.Mutex
	conns  map[net.Conn]bool
	done   bool

	streams []*bytes.Buffer // what passed, by connection and direction; guarded by mu
	keeping bool
}

// record keeps what passes from now on.
func (p *proxy) record() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keeping = true
}

// recorded returns what passed, by connection and direction.
func (p *proxy) recorded() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all [][]byte
	for _, b := range p.streams {
		all = append(all, bytes.Clone(b.Bytes()))
	}
	return all
}

// copyOf keeps what is read from a connection, if that is asked for.
func (p *proxy) copyOf(from io.Reader) io.Reader {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.keeping {
		return from
	}
	b := &bytes.Buffer{}
	p.streams = append(p.streams, b)
	return io.TeeReader(from, writerFunc(func(data []byte) (int, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return b.Write(data)
	}))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// newProxy starts a proxy before t and returns t as reached through it. limit is how
// many bytes pass before the network fails.
func newProxy(ctx context.Context, t sdk.Target, m mode, limit int64) (*proxy, sdk.Target, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, t, err
	}
	p := &proxy{
		listener: listener,
		upstream: net.JoinHostPort(t.Address, strconv.Itoa(t.Port)),
		mode:     m,
		accepted: make(chan struct{}, 64),
		spent:    make(chan struct{}),
		conns:    map[net.Conn]bool{},
	}
	p.left.Store(limit)
	p.wg.Go(p.accept)
	return p, at(t, listener.Addr()), nil
}

// at returns t with another address. A certificate is still for the old one.
func at(t sdk.Target, addr net.Addr) sdk.Target {
	if t.Trust.CAPEM != "" && t.Trust.ServerName == "" {
		t.Trust.ServerName = t.Address
	}
	t.Address = "127.0.0.1"
	t.Port = addr.(*net.TCPAddr).Port
	return t
}

func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.done = true
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// idleWithin waits until no connection is open, or until limit fires.
func (p *proxy) idleWithin(limit <-chan time.Time) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		p.mu.Lock()
		open := len(p.conns)
		p.mu.Unlock()
		if open == 0 {
			return true
		}
		select {
		case <-tick.C:
		case <-limit:
			return false
		}
	}
}

// failing reports whether the network has begun to fail.
func (p *proxy) failing() bool {
	select {
	case <-p.spent:
		return true
	default:
		return false
	}
}

// keep registers c to be closed with the proxy.
func (p *proxy) keep(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	if p.done {
		_ = c.Close()
	}
}

func (p *proxy) drop(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.keep(client)
		select {
		case p.accepted <- struct{}{}:
		default:
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

func (p *proxy) serve(client net.Conn) {
	defer p.drop(client)
	if p.mode == silent {
		_, _ = io.Copy(io.Discard, client)
		return
	}
	var d net.Dialer
	server, err := d.DialContext(context.Background(), "tcp", p.upstream)
	if err != nil {
		return
	}
	p.keep(server)
	defer p.drop(server)
	gone := make(chan struct{}) // the client hung up
	p.wg.Go(func() {
		defer close(gone)
		if p.pass(server, client, &p.asked, p.mode == cutAsked) != nil {
			p.drop(client)
			p.drop(server)
			return
		}
		_ = server.(*net.TCPConn).CloseWrite()
	})
	err = p.pass(client, server, &p.bytes, p.mode == cut || p.mode == stalled)
	if err != nil && p.mode == stalled {
		<-gone
	}
}

var errSpent = errors.New("the bytes allowed have passed")

// pass copies until one side ends. If limited, it ends with errSpent when the bytes
// allowed have passed.
func (p *proxy) pass(to io.Writer, from io.Reader, count *atomic.Int64, limited bool) error {
	buf := make([]byte, 16<<10)
	from = p.copyOf(from)
	for {
		if limited && p.left.Load() <= 0 {
			p.failed.Do(func() { close(p.spent) })
			return errSpent
		}
		n, err := from.Read(buf)
		count.Add(int64(n))
		if limited {
			if over := -p.left.Add(-int64(n)); over > 0 {
				n = max(0, n-int(over))
			}
		}
		if n > 0 {
			if _, lost := to.Write(buf[:n]); lost != nil {
				return nil //nolint:nilerr // the end of a connection
			}
		}
		if err != nil {
			return nil //nolint:nilerr // the end of a connection
		}
	}
}

// closedPort returns t at an address where nobody listens.
func closedPort(ctx context.Context, t sdk.Target) (sdk.Target, error) {
	p, there, err := newProxy(ctx, t, silent, 0)
	if err != nil {
		return t, err
	}
	p.close()
	return there, nil
}

// stranger is a server of another kind than the target.
type stranger struct {
	listener net.Listener
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

// newStranger starts a server that does talk with every connection, and returns t at
// its address.
func newStranger(ctx context.Context, t sdk.Target, talk func(net.Conn)) (*stranger, sdk.Target, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, t, err
	}
	x := &stranger{listener: listener}
	x.wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			x.mu.Lock()
			x.conns = append(x.conns, conn)
			x.mu.Unlock()
			x.wg.Go(func() {
				defer func() { _ = conn.Close() }()
				talk(conn)
			})
		}
	})
	return x, at(t, listener.Addr()), nil
}

func (x *stranger) close() {
	_ = x.listener.Close()
	x.mu.Lock()
	for _, c := range x.conns {
		_ = c.Close()
	}
	x.mu.Unlock()
	x.wg.Wait()
}
