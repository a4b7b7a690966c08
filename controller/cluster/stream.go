package cluster

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Application protocols on the one port, told apart by ALPN. A peer that names none
// is refused.
const (
	protocolRaft   = "reeve-raft/1"
	protocolStatus = "reeve-status/1"
)

const (
	handshakeTimeout = 5 * time.Second
	statusTimeout    = 2 * time.Second
	// maxHandshakes bounds connections that have not shown a certificate yet. When one
	// more comes, the oldest is closed: an honest handshake takes milliseconds, so who
	// wants to keep nodes apart must open a hundred connections in that time.
	maxHandshakes = 100
)

// stream carries Raft over mutual TLS. It implements raft.StreamLayer.
type stream struct {
	node     *Node
	listener net.Listener
	addr     net.Addr
	tls      tlsPolicy
	log      *slog.Logger
	refusals repeats

	accepted chan net.Conn
	life     context.Context // ends with Close, and every dial and handshake with it
	end      context.CancelFunc
	running  sync.WaitGroup

	mu      sync.Mutex                // also held when life ends
	pending []net.Conn                // in handshake, oldest first
	open    map[*trackedConn]struct{} // all others, both directions
}

// advertised is an address that is shown to peers as it was written.
type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }

// listen binds the address. Connections wait until serve.
func listen(n *Node) (*stream, error) {
	life, end := context.WithCancel(context.Background())
	s := &stream{
		life:     life,
		end:      end,
		node:     n,
		log:      n.log,
		tls:      tlsPolicy{cluster: n.cfg.Cluster, self: n.cfg.ID, base: n.cfg.TLS},
		accepted: make(chan net.Conn),
		open:     map[*trackedConn]struct{}{},
	}
	if _, err := s.tls.config(protocolRaft); err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", n.cfg.Bind)
	if err != nil {
		return nil, reeve.Errorf(reeve.Invalid, "bind_failed", "cannot listen on %q", n.cfg.Bind).Wrap(err)
	}
	s.listener, s.addr = l, l.Addr()
	if n.cfg.Advertise != "" {
		s.addr = advertised(n.cfg.Advertise)
	}
	if err := checkAddr(s.addr.String()); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return s, nil
}

// checkAddr refuses addresses that peers could not dial.
func checkAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	if err != nil || host == "" || port == "" || port == "0" || (ip != nil && ip.IsUnspecified()) {
		return reeve.Errorf(reeve.Invalid, "raft_address_invalid", "%q is not an address other controllers can dial", addr).
			WithFix("give host:port, with a host name or address of this machine")
	}
	return nil
}

// serve starts accepting connections, and closing those of nodes that were removed.
func (s *stream) serve() {
	s.running.Go(func() {
		t := time.NewTicker(recheck)
		defer t.Stop()
		for {
			select {
			case <-s.life.Done():
				return
			case <-t.C:
				s.sweep()
			}
		}
	})
	s.running.Go(func() {
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				if s.isClosing() {
					return
				}
				s.log.Warn("raft: cannot accept a connection", "error", err)
				select {
				case <-s.life.Done():
					return
				case <-time.After(100 * time.Millisecond): // out of file descriptors, most likely
				}
				continue
			}
			if !s.begin(conn) {
				_ = conn.Close()
				return
			}
			s.running.Go(func() { s.handshake(conn) })
		}
	})
}

// recheck is how often open connections are held against who may be a peer: one that was
// removed is gone within seconds (A3).
const recheck = 2 * time.Second

// sweep closes the connections of nodes that may not connect any more.
func (s *stream) sweep() {
	rules, err := s.tls.config(protocolRaft)
	if err != nil || rules.VerifyConnection == nil {
		return
	}
	var out []*trackedConn
	s.mu.Lock()
	for c := range s.open {
		out = append(out, c)
	}
	s.mu.Unlock()
	for _, c := range out {
		if err := rules.VerifyConnection(c.ConnectionState()); err != nil {
			s.refused(c.RemoteAddr(), err)
			_ = c.Close()
		}
	}
}

// begin notes a connection whose peer is not known yet.
func (s *stream) begin(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosing() {
		return false
	}
	if len(s.pending) >= maxHandshakes {
		_ = s.pending[0].Close()
		s.pending = s.pending[1:]
	}
	s.pending = append(s.pending, conn)
	return true
}

// known takes a connection out of the list begin put it into.
func (s *stream) known(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range s.pending {
		if c == conn {
			s.pending = append(s.pending[:i], s.pending[i+1:]...)
			return
		}
	}
}

func (s *stream) handshake(raw net.Conn) {
	defer s.known(raw)
	_ = raw.SetDeadline(time.Now().Add(handshakeTimeout))
	conn := tls.Server(raw, s.tls.server())
	if err := conn.HandshakeContext(s.life); err != nil {
		_ = raw.Close()
		s.refused(raw.RemoteAddr(), err)
		return
	}
	if conn.ConnectionState().NegotiatedProtocol == protocolStatus {
		if st, ok := s.node.status(); ok {
			_ = json.NewEncoder(conn).Encode(st)
		}
		_ = conn.Close()
		return
	}
	_ = raw.SetDeadline(time.Time{})
	tracked, ok := s.track(conn)
	if !ok {
		return
	}
	select {
	case s.accepted <- tracked:
	case <-s.life.Done():
		_ = tracked.Close()
	}
}

// refused logs a peer that was turned away, once a minute for each host and reason, so
// that a port scan does not fill the log.
func (s *stream) refused(from net.Addr, reason error) {
	host, _, _ := net.SplitHostPort(from.String())
	if !s.isClosing() && s.refusals.first(fmt.Sprint(host, reason), time.Now()) {
		s.log.Warn("raft: refused a connection", "from", host, "error", reason)
	}
}

// Accept implements net.Listener with connections of authenticated nodes.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case conn := <-s.accepted:
		return conn, nil
	case <-s.life.Done():
		return nil, net.ErrClosed
	}
}

// Addr is the address peers dial.
func (s *stream) Addr() net.Addr { return s.addr }

// Close stops accepting and closes all connections, those to peers included, because
// raft's transport leaves them open.
func (s *stream) Close() error {
	s.mu.Lock()
	if s.isClosing() {
		s.mu.Unlock()
		return nil
	}
	s.end()
	err := s.listener.Close()
	for _, c := range s.pending {
		_ = c.Close()
	}
	open := s.open
	s.open = nil
	s.mu.Unlock()
	for c := range open {
		_ = c.Close()
	}
	s.running.Wait()
	return err
}

func (s *stream) isClosing() bool { return s.life.Err() != nil }

// trackedConn is a connection that Close of its stream closes.
type trackedConn struct {
	*tls.Conn
	stream *stream
}

func (s *stream) track(conn *tls.Conn) (net.Conn, bool) {
	c := &trackedConn{Conn: conn, stream: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosing() {
		_ = conn.Close()
		return nil, false
	}
	s.open[c] = struct{}{}
	return c, true
}

// Close closes the connection.
func (c *trackedConn) Close() error {
	c.stream.mu.Lock()
	delete(c.stream.open, c)
	c.stream.mu.Unlock()
	return c.Conn.Close()
}

// Dial implements raft.StreamLayer.
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.life, min(timeout, handshakeTimeout))
	defer cancel()
	conn, err := s.dial(ctx, string(address), protocolRaft)
	if err != nil {
		return nil, err
	}
	tracked, ok := s.track(conn)
	if !ok {
		return nil, net.ErrClosed
	}
	return tracked, nil
}

func (s *stream) dial(ctx context.Context, address, protocol string) (*tls.Conn, error) {
	config, err := s.tls.client(protocol, s.memberAt(address))
	if err != nil {
		return nil, err
	}
	raw, err := s.node.cfg.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

// ask fetches the status of the member at address.
func (s *stream) ask(ctx context.Context, address string) (status, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	conn, err := s.dial(ctx, address, protocolStatus)
	if err != nil {
		return status{}, err
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	return decodeStatus(conn)
}

// memberAt is the node that must answer at the address, or "" if the configuration
// does not say.
func (s *stream) memberAt(address string) reeve.NodeID {
	servers, err := s.node.servers()
	if err != nil {
		return ""
	}
	for _, m := range servers {
		if string(m.Address) == address {
			return reeve.NodeID(m.ID)
		}
	}
	return ""
}
