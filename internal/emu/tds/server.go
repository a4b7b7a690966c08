package tds

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// Options say what kind of server is started.
type Options struct {
	Version      [4]byte // 16.0.4135 if zero; the last two bytes are the build
	NoTLS        bool    // the server offers none
	TLS12        bool    // … no newer version than 1.2, strict connections included
	Databases    []string
	Lockout      int // wrong passwords that lock a login; 0: none does
	Edition      int // 3 (enterprise) if zero; 5 is Azure SQL Database
	LetItUnknown bool
}

// Server is a running emulator.
type Server struct {
	// CAPEM is the authority that signed the server's certificate, for 127.0.0.1 and localhost.
	CAPEM string
	// Port is where it listens on 127.0.0.1.
	Port int

	t        testing.TB
	options  Options
	tls      *tls.Config
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]bool
	faults Faults
	state  *instance
	record []string // statements
	logins int      // attempts
}

// Start starts a server that ends with the test.
func Start(t testing.TB, options Options) *Server {
	t.Helper()
	if options.Version == [4]byte{} {
		options.Version = [4]byte{16, 0, 0x10, 0x27}
	}
	if options.Edition == 0 {
		options.Edition = 3
	}
	cert, ca, err := certificate()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		CAPEM: ca, Port: listener.Addr().(*net.TCPAddr).Port, t: t, options: options, listener: listener,
		tls:   &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		conns: map[net.Conn]bool{}, state: newInstance(options),
	}
	s.wg.Go(s.accept)
	t.Cleanup(s.close)
	return s
}

func (s *Server) close() {
	_ = s.listener.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[conn] = true
		if s.closed {
			_ = conn.Close()
		}
		s.mu.Unlock()
		s.wg.Go(func() {
			err := s.serve(conn)
			_ = conn.Close()
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
			if e, ok := errors.AsType[strangeError](err); ok {
				s.t.Errorf("TDS emulator: %v", e)
			}
		})
	}
}

// strangeError is what a client must not send.
type strangeError string

func (e strangeError) Error() string { return string(e) }

func strange(format string, args ...any) error { return strangeError(fmt.Sprintf(format, args...)) }

// unknown reports a statement that is not understood.
func (s *Server) unknown(what, statement string) {
	if !s.options.LetItUnknown {
		s.t.Errorf("TDS emulator: %s in %q", what, masked(statement))
	}
}

// gone waits until the client hangs up.
func gone(conn io.Reader) error {
	_, err := io.Copy(io.Discard, conn)
	return err
}

// serve speaks with one client.
func (s *Server) serve(raw net.Conn) error {
	if s.fault().HangAtAccept {
		return gone(raw)
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(raw, first); err != nil {
		return err
	}
	conn := net.Conn(&peeked{Conn: raw, first: first})
	config := s.tls.Clone()
	strict := first[0] == 0x16 // a TLS record: TDS 8
	if strict {
		if s.options.NoTLS {
			return nil
		}
		config.NextProtos = []string{"tds/8.0"}
		if s.options.TLS12 {
			config.MaxVersion = tls.VersionTLS12
		}
		c := tls.Server(conn, config)
		if err := c.HandshakeContext(context.Background()); err != nil {
			return err
		}
		conn = c
	} else if first[0] != packetPrelogin {
		return nil // something that is no client of ours, such as a port scan
	}
	f := &framed{rw: conn, size: 4096}
	m, err := f.read()
	if err != nil {
		return err
	}
	if m.kind != packetPrelogin {
		return strange("a packet of type %d instead of PRELOGIN", m.kind)
	}
	options, err := parsePrelogin(m.data)
	if err != nil {
		return strange("%v", err)
	}
	answer := s.encryption(strict, options[preEncryption][0])
	if err := f.write(prelogin(s.options.Version, answer)); err != nil {
		return err
	}
	if !strict && answer != encryptNotSup {
		config.MaxVersion = tls.VersionTLS12 // servers speak 1.3 under TDS 8 alone
		if f.rw, err = secure(conn, config); err != nil {
			return err
		}
	}
	if m, err = f.read(); err != nil {
		return err
	}
	if m.kind != packetLogin {
		return strange("a packet of type %d instead of LOGIN7", m.kind)
	}
	l, err := parseLogin(m.data)
	if err != nil {
		return strange("%v", err)
	}
	if answer == encryptOff {
		f.rw = conn // only the login was encrypted
	}
	if s.fault().HangAtLogin {
		return gone(f.rw)
	}
	return s.begin(f, raw, l, strict || answer == encryptOn || answer == encryptReq)
}

// encryption is the server's answer to what a client asks for. [MS-TDS] 2.2.6.5
func (s *Server) encryption(strict bool, asked byte) byte {
	switch {
	case strict:
		return encryptOn
	case s.options.NoTLS || asked == encryptNotSup:
		return encryptNotSup
	case asked == encryptOn || asked == encryptReq:
		return encryptOn
	default:
		return encryptOff
	}
}

// begin logs in and answers requests until the client leaves.
func (s *Server) begin(f *framed, raw net.Conn, l *loginRequest, encrypted bool) error {
	s.mu.Lock()
	s.logins++
	forced := s.faults.Login
	s.mu.Unlock()
	session, refused := s.state.login(l, encrypted, func() { _ = raw.Close() })
	if forced != nil {
		if e := forced(l.user); e != nil {
			refused = e
			if session != nil {
				s.state.leave(session)
			}
		}
	}
	var r reply
	if refused != nil {
		r.message(tokenError, refused)
		r.done(tokenDone, doneError, 0, 0)
		return f.write(r.Bytes())
	}
	defer s.state.leave(session)
	r.welcome(l, session.database.name, s.options.Version)
	if err := f.write(r.Bytes()); err != nil {
		return err
	}
	f.size = int(min(max(l.packetSize, 512), 32767))
	return s.answerAll(f, session)
}

// answerAll answers requests, and looks for a cancellation meanwhile.
func (s *Server) answerAll(f *framed, session *session) error {
	type incoming struct {
		message
		err error
	}
	requests, stop := make(chan incoming), make(chan struct{})
	defer close(stop)
	s.wg.Go(func() {
		for {
			m, err := f.read()
			select {
			case requests <- incoming{m, err}:
			case <-stop:
				return
			}
			if err != nil {
				return
			}
		}
	})
	cancelled := func() error {
		var r reply
		r.done(tokenDone, doneAttention, 0, 0)
		return f.write(r.Bytes())
	}
	for in := range requests {
		if in.err != nil {
			return in.err
		}
		if in.kind == packetAttention {
			if err := cancelled(); err != nil {
				return err
			}
			continue
		}
		w := &work{server: s, session: session, cancel: make(chan struct{}), ended: make(chan struct{}), begin: f.begin}
		go w.do(in.message)
		select {
		case <-w.ended:
			if err := w.send(f, func() error { return (<-requests).err }); err != nil {
				return err
			}
		case next := <-requests:
			close(w.cancel)
			<-w.ended
			if next.err != nil {
				return next.err
			}
			if next.kind != packetAttention {
				return strange("a packet of type %d while a request is answered", next.kind)
			}
			if err := cancelled(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Statements are what clients sent, in their order: batches as they came, calls with their
// parameters.
func (s *Server) Statements() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.record...)
}

// Logged is what a trace of the server would show: statements about logins without their text,
// calls with their parameters.
func (s *Server) Logged() string {
	var all []string
	for _, statement := range s.Statements() {
		all = append(all, masked(statement))
	}
	return strings.Join(all, "\n")
}

// Logins is how many logins were tried.
func (s *Server) Logins() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logins
}

// masked is how traces of SQL Server show a batch that holds a password: not at all. Parameters
// of calls are shown.
func masked(statement string) string {
	upper := strings.ToUpper(statement)
	if strings.HasPrefix(statement, "exec sp_executesql ") || !strings.Contains(upper, "PASSWORD") {
		return statement
	}
	for _, verb := range []string{"CREATE LOGIN", "ALTER LOGIN"} {
		if strings.Contains(upper, verb) {
			return "--*" + verb + "----------------------------------"
		}
	}
	return statement
}
