// Package transport is the SSH side of the connector: it reaches a host, checks its
// key, logs in with one attempt, runs scripts as root with their secrets on standard
// input, and says in sdk error classes what went wrong. It knows nothing of accounts.
// Only package connector imports it.
package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Host is one operation's use of a connection to a host, logged in as one user. It is
// for one goroutine, and ends with its context.
type Host struct {
	line     *line
	first    *ssh.Session // opened to see whether the connection works; for the first command
	user     string
	password sdk.Secret // for sudo; empty when logged in with a key
	address  string
}

func newHost(l *line, t sdk.Target, c sdk.Credential) *Host {
	h := &Host{line: l, user: c.Username, address: net.JoinHostPort(t.Address, strconv.Itoa(t.Port))}
	if c.PrivateKey.Empty() {
		h.password = c.Password
	}
	return h
}

// tries is how often a connection is begun that sshd drops before it speaks, as it does
// beyond MaxStartups. No login has been tried at that point.
const tries = 4

// Dial logs in to t with c, with one attempt. The connection ends with ctx. Errors:
// ClassUnreachable and ClassBusy before a login was tried, ClassHostKeyUnknown,
// ClassHostKeyChanged, ClassAuthFailed, ClassLocked, ClassMustChange, ClassProtocol.
func Dial(ctx context.Context, t sdk.Target, c sdk.Credential) (*Host, error) {
	auth, err := newLogin(c)
	if err != nil {
		return nil, err
	}
	keys, err := pinned(t.Trust)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		h, early, err := dialOnce(ctx, t, keys, auth)
		if err == nil || !early || try == tries {
			return h, err
		}
		// Full jitter over 0.2, 0.4, 0.8 s: others that were dropped come back too.
		pause := time.NewTimer(rand.N(100 * time.Millisecond << try)) //nolint:gosec // jitter needs no secrecy
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, err
		}
	}
}

// dialOnce also says whether the server ended the connection before it spoke.
func dialOnce(ctx context.Context, t sdk.Target, keys []ssh.PublicKey, auth *login) (h *Host, early bool, err error) {
	address := net.JoinHostPort(t.Address, strconv.Itoa(t.Port))
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, false, unreachable(ctx, address, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	fail := func(err error) (*Host, bool, error) {
		stop()
		_ = conn.Close()
		return nil, false, err
	}

	var keyErr *sdk.Error
	var banner strings.Builder
	heard := &listener{Conn: conn}
	config := &ssh.ClientConfig{
		User:              auth.user,
		Auth:              auth.methods(),
		HostKeyAlgorithms: algorithms(keys),
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if keyErr = checkHostKey(keys, key); keyErr != nil {
				return keyErr
			}
			auth.trusted = true
			return nil
		},
		BannerCallback: func(message string) error {
			if banner.Len() < 4<<10 {
				banner.WriteString(message)
			}
			return nil
		},
	}
	c, chans, reqs, err := ssh.NewClientConn(heard, address, config)
	switch {
	case err == nil:
		stop() // from here on whoever runs a command watches the context
		_ = conn.SetDeadline(time.Time{})
		l := &line{client: ssh.NewClient(c, chans, reqs), conn: conn, gone: make(chan struct{})}
		go func() {
			_ = l.client.Wait()
			close(l.gone)
		}()
		return &Host{line: l, user: auth.user, password: auth.password, address: address}, false, nil
	case keyErr != nil:
		return fail(keyErr)
	case ctx.Err() != nil:
		return fail(unreachable(ctx, address, err))
	case !auth.trusted:
		_, _, err := fail(beforeTrust(address, heard, err))
		return nil, broken(errors.Unwrap(err)), err
	default:
		return fail(auth.failure(address, banner.String(), err))
	}
}

// Close ends the use of the connection, and the connection if it is not kept.
func (h *Host) Close() {
	if h.first != nil {
		_ = h.first.Close()
		h.first = nil
	}
	if h.line.pool != nil {
		h.line.pool.leave(h.line)
		return
	}
	h.line.hangUp()
}

// open opens the session of the first command, within openWithin.
func (h *Host) open(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	h.first, err = h.session(ctx)
	return err
}

// session opens a session. One that is not open when ctx ends is given up with its
// connection.
func (h *Host) session(ctx context.Context) (*ssh.Session, error) {
	if s := h.first; s != nil {
		h.first = nil
		return s, nil
	}
	type opened struct {
		session *ssh.Session
		err     error
	}
	done := make(chan opened, 1)
	go func() {
		s, err := h.line.client.NewSession()
		done <- opened{s, err}
	}()
	select {
	case o := <-done:
		return o.session, o.err
	case <-h.line.gone:
		// The library waits for ever for the answer to a session that was asked for in the moment in which the connection ended.
		return nil, errGone
	case <-ctx.Done():
		h.abandon()
		return nil, ctx.Err()
	}
}

var errGone = errors.New("the connection has ended")

// abandon leaves a connection on which something was broken off: no other operation
// begins on it, and the last one on it ends it.
func (h *Host) abandon() {
	if h.line.pool != nil {
		h.line.pool.retire(h.line)
		return
	}
	h.line.hangUp()
}

// User is the name logged in with.
func (h *Host) User() string { return h.user }

func unreachable(ctx context.Context, address string, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return sdk.Errorf(sdk.ClassCancelled, "cancelled while connecting to %s", address).Wrap(err)
	}
	why := "the connection could not be made"
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		why = "its name cannot be resolved"
	case ctx.Err() != nil || isTimeout(err):
		why = "it does not answer in time"
	}
	return sdk.Errorf(sdk.ClassUnreachable, "%s cannot be reached: %s", address, why).Wrap(err).
		WithFix("check address, port, routes and firewalls between the agent and the host")
}

// beforeTrust classifies an end before the host showed its key.
func beforeTrust(address string, heard *listener, err error) *sdk.Error {
	if e, ok := errors.AsType[*ssh.AlgorithmNegotiationError](err); ok {
		return sdk.Errorf(sdk.ClassUnsupported, "%s and Reeve share no algorithm that is still safe: %s", address, e).Wrap(err).
			WithFix("update the host's SSH server")
	}
	said := heard.said()
	switch {
	case bytes.Contains(said, []byte("MaxStartups")) || bytes.Contains(said, []byte("Not allowed at this time")):
		return sdk.Errorf(sdk.ClassBusy, "%s refuses more logins at the same time", address).Wrap(err).
			WithFix("try again later, or raise MaxStartups in its sshd_config")
	case broken(err):
		return sdk.Errorf(sdk.ClassUnreachable, "%s closed the connection before it could be used", address).Wrap(err).
			WithFix("check that its SSH server runs and lets the agent's address in")
	case isTimeout(err):
		return sdk.Errorf(sdk.ClassUnreachable, "%s accepts connections but does not answer", address).Wrap(err).
			WithFix("check that the port is that of its SSH server, and that the host is not overloaded")
	default:
		return sdk.Errorf(sdk.ClassProtocol, "what answers at %s does not speak SSH as expected", address).Wrap(err).
			WithFix("check that the port is that of the host's SSH server")
	}
}

// broken reports whether err is that of a connection the other side ended.
func broken(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.As(err, &op) && !op.Timeout()
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// listener keeps the first bytes the server said.
type listener struct {
	net.Conn
	mu    sync.Mutex
	first []byte
}

func (l *listener) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := 256 - len(l.first); room > 0 {
		l.first = append(l.first, p[:min(n, room)]...)
	}
	return n, err
}

func (l *listener) said() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.first)
}
