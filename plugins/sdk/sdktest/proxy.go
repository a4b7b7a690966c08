package sdktest

import (
	"context"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// proxy stands between connector and target and makes the network fail.
type proxy struct {
	listener net.Listener
	upstream string
	limit    int64         // bytes from the target after which a connection is cut; <0: none
	silent   bool          // take connections and never answer
	accepted chan struct{} // one value per connection, at most as many as fit

	bytes atomic.Int64 // from the target, of all connections
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns map[net.Conn]bool
	done  bool
}

// newProxy starts a proxy before t and returns t as reached through it.
func newProxy(ctx context.Context, t sdk.Target, limit int64, silent bool) (*proxy, sdk.Target, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, t, err
	}
	p := &proxy{
		listener: listener,
		upstream: net.JoinHostPort(t.Address, strconv.Itoa(t.Port)),
		limit:    limit,
		silent:   silent,
		accepted: make(chan struct{}, 64),
		conns:    map[net.Conn]bool{},
	}
	p.wg.Go(p.accept)
	if t.Trust.CAPEM != "" && t.Trust.ServerName == "" {
		t.Trust.ServerName = t.Address
	}
	t.Address = "127.0.0.1"
	t.Port = listener.Addr().(*net.TCPAddr).Port
	return p, t, nil
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

// settled waits for open connections to end, and returns how many bytes came from the
// target on all of them.
func (p *proxy) settled() int64 {
	p.idleWithin(time.After(obeyWithin))
	return p.bytes.Load()
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
	if p.silent {
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
	p.wg.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.(*net.TCPConn).CloseWrite()
	})
	from := io.Reader(server)
	if p.limit >= 0 {
		from = io.LimitReader(server, p.limit)
	}
	n, _ := io.Copy(client, from)
	p.bytes.Add(n) // before the connection is dropped
}

// closedPort returns t at an address where nobody listens.
func closedPort(ctx context.Context, t sdk.Target) (sdk.Target, error) {
	p, at, err := newProxy(ctx, t, -1, true)
	if err != nil {
		return t, err
	}
	p.close()
	return at, nil
}
