package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/pem"
	"io"
	"net"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// liar stands between the connector and a real server, with TLS of its own, and tampers with
// what the server says from the message on that ends a login.
type liar struct {
	listener net.Listener
	config   *tls.Config
	server   string
	lie      func(to io.Writer, messages <-chan []byte)
	wg       sync.WaitGroup
	done     chan struct{}
}

// newLiar returns a target that leads through a liar. The server must let accounts in from
// there, without TLS.
func newLiar(t *testing.T, p *testlab.PostgresServer, lie func(to io.Writer, messages <-chan []byte)) sdk.Target {
	t.Helper()
	identity := httptest.NewTLSServer(nil)
	identity.Close()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{
		listener: listener, config: &tls.Config{Certificates: identity.TLS.Certificates, MinVersion: tls.VersionTLS12},
		server: net.JoinHostPort(p.Addr, strconv.Itoa(p.Port)), lie: lie, done: make(chan struct{}),
	}
	l.wg.Go(l.accept)
	t.Cleanup(func() {
		close(l.done)
		_ = listener.Close()
		l.wg.Wait()
	})
	tgt := target(p)
	tgt.Address, tgt.Port = "127.0.0.1", listener.Addr().(*net.TCPAddr).Port
	tgt.Trust.CAPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: identity.Certificate().Raw}))
	return tgt
}

func (l *liar) accept() {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.wg.Go(func() { l.serve(c) })
	}
}

func (l *liar) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	l.wg.Go(func() { <-l.done; _ = c.Close() })
	if _, err := io.ReadFull(c, make([]byte, 8)); err != nil { // SSLRequest
		return
	}
	_, _ = c.Write([]byte("S"))
	client := tls.Server(c, l.config)
	server, err := net.Dial("tcp", l.server) //nolint:noctx // ends with the liar
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	l.wg.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	lies := make(chan []byte)
	var lying sync.WaitGroup
	defer lying.Wait()
	defer close(lies)
	over := false
	for {
		m, err := message(server)
		if err != nil {
			return
		}
		if over {
			lies <- m
			continue
		}
		if _, err := client.Write(m); err != nil {
			return
		}
		if over = m[0] == 'Z'; over { // ReadyForQuery
			lying.Go(func() {
				l.lie(client, lies)
				for range lies { //nolint:revive // what is not wanted any more
				}
			})
		}
	}
}

// message reads one message of the protocol.
func message(from io.Reader) ([]byte, error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(from, head); err != nil {
		return nil, err
	}
	m := make([]byte, 1+binary.BigEndian.Uint32(head[1:]))
	copy(m, head)
	_, err := io.ReadFull(from, m[5:])
	return m, err
}

// Whatever comes in place of an answer, it gives a class that is true, in time, and no change.
func TestServerThatFallsSilentOrTalksNonsenseIsTold(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{Access: []string{"hostnossl all all 127.0.0.0/8 scram-sha-256"}})
	for name, c := range map[string]struct {
		lie  func(to io.Writer, messages <-chan []byte)
		want sdk.Class
	}{
		"silent after the login": {func(io.Writer, <-chan []byte) {}, sdk.ClassUnreachable},
		"silent in the middle of an answer": {func(to io.Writer, ms <-chan []byte) {
			m := <-ms
			_, _ = to.Write(m[:3])
		}, sdk.ClassUnreachable},
		"not a message":             {func(to io.Writer, _ <-chan []byte) { _, _ = to.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, sdk.ClassProtocol},
		"too large a message":       {func(to io.Writer, _ <-chan []byte) { _, _ = to.Write([]byte{'D', 0x7f, 0xff, 0xff, 0xff, 0, 1}) }, sdk.ClassProtocol},
		"a message that ends early": {func(to io.Writer, _ <-chan []byte) { _, _ = to.Write([]byte{'T', 0, 0, 0, 6, 0, 9}) }, sdk.ClassProtocol},
		"an error without a code":   {func(to io.Writer, _ <-chan []byte) { _, _ = to.Write([]byte("E\x00\x00\x00\x05\x00")) }, sdk.ClassUnreachable},
		"an error with a strange code": {func(to io.Writer, _ <-chan []byte) {
			_, _ = to.Write([]byte("E\x00\x00\x00\x0dCa\x1b[2J\x00\x00\x00Z\x00\x00\x00\x05I"))
		}, sdk.ClassProtocol},
		"nothing but warnings": {func(to io.Writer, _ <-chan []byte) {
			for range 1000 {
				_, _ = to.Write([]byte("N\x00\x00\x00\x0cC01007\x00\x00"))
			}
		}, sdk.ClassUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tgt := newLiar(t, p, c.lie)
			var wg sync.WaitGroup
			defer wg.Wait()
			for operation, do := range map[string]func(context.Context) error{
				"inspect": func(ctx context.Context) error { _, err := connector{}.Inspect(ctx, tgt, "alice"); return err },
				"apply": func(ctx context.Context) error {
					_, err := apply(ctx, tgt, intent(sdk.Provision), first)
					return err
				},
				"verify": func(ctx context.Context) error {
					v, err := connector{}.Verify(ctx, tgt, tgt.Management)
					if err != nil || v.Kind != sdk.VerdictUnknown {
						t.Errorf("verify: %+v, %v", v, err)
					}
					return sdk.Errorf(c.want, "unknown")
				},
			} {
				wg.Go(func() {
					allowed := 6 * time.Second       // also for the login, beside all the others, on a busy machine
					if c.want == sdk.ClassProtocol { // nothing is waited for
						allowed = 20 * time.Second
					}
					ctx, cancel := context.WithTimeout(t.Context(), allowed)
					defer cancel()
					began := time.Now()
					err := do(ctx)
					if got := sdk.ClassOf(err); got != c.want {
						t.Errorf("%s: %v, want %s", operation, err, c.want)
					}
					if took := time.Since(began); took > allowed+20*time.Second {
						t.Errorf("%s took %s", operation, took)
					}
				})
			}
		})
	}
}
