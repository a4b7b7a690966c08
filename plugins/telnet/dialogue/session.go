// Package dialogue talks with what is at the other end of a Telnet connection: it waits
// for prompts, sends lines, and answers prompts for secrets. It knows no particular kind
// of host. Only package connector imports it.
package dialogue

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/telnet/wire"
)

const (
	maxLine   = 64 << 10 // bytes; longer lines come in pieces
	maxPrompt = 4 << 10  // bytes; what is longer is no prompt
)

// Mask stands for a secret the other side repeated.
const Mask = "********"

// Options say how a session treats what it hears.
type Options struct {
	EightBit bool // ask for eight bits in both directions
	Screen   bool // lines are what a terminal would show, not what was sent
}

// Session is one connection, for one goroutine. It ends with the context it was made with.
type Session struct {
	ctx     context.Context //nolint:containedctx // the session is one operation's
	conn    *wire.Conn
	raw     net.Conn
	stop    func() bool
	options Options
	address string

	buffer  []byte // not yet looked at, but for a beginning that holds no line feed
	asked   bool   // the other side waits for a secret
	secrets []sdk.Secret
}

// Dial connects to t. Errors are those of Expect.
func Dial(ctx context.Context, t sdk.Target, o Options) (*Session, error) {
	s := &Session{ctx: ctx, options: o, address: net.JoinHostPort(t.Address, strconv.Itoa(t.Port))}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, unreachable(ctx, s.address, err)
	}
	s.raw = conn
	s.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
	if s.conn, err = wire.NewConn(conn, o.EightBit); err != nil {
		s.Close()
		return nil, s.lost(err)
	}
	return s, nil
}

// Address is the host and port that was dialled.
func (s *Session) Address() string { return s.address }

// Close ends the connection.
func (s *Session) Close() {
	s.stop()
	_ = s.raw.Close()
	s.secrets = nil
}

// Case is something that Expect waits for.
type Case struct {
	Line func(line string) bool // a whole line, without its end
	Tail func(text string) bool // what the unfinished line shows so far
	// Secret marks a prompt that may be answered with a secret.
	Secret bool
	// Settled marks a prompt that is none if more text follows it within settle, as in the
	// middle of a message that arrives in pieces.
	Settled bool
}

const settle = time.Second

// Expect reads until a line or the unfinished line fits a case, and returns the index of
// the first that fits. Lines before it go to each, which may be nil, with their "\n";
// pieces of very long lines come without. What fits is taken away. It waits at most for
// the given time, or as long as the context lasts if that is 0.
//
// Errors: ClassCancelled, ClassUnreachable (silent, or the connection ended), ClassProtocol.
func (s *Session) Expect(within time.Duration, each func(text string), cases ...Case) (int, error) {
	s.asked = false
	if each == nil {
		each = func(string) {}
	}
	until := s.deadline(within)
	if err := s.raw.SetReadDeadline(until); err != nil {
		return 0, s.lost(err)
	}
	from := 0 // no line feed before it
	for {
		for {
			i := bytes.IndexByte(s.buffer[from:], '\n')
			if i < 0 {
				break
			}
			line := s.text(s.buffer[:from+i])
			s.buffer, from = s.buffer[from+i+1:], 0
			if k := fits(cases, func(c Case) bool { return c.Line != nil && c.Line(line) }); k >= 0 {
				return k, nil
			}
			each(line + "\n")
		}
		if len(s.buffer) > maxLine {
			each(s.text(s.buffer[:maxLine]))
			s.buffer = s.buffer[maxLine:]
		}
		from = len(s.buffer)
		if from > 0 && from <= maxPrompt {
			tail := s.scrub(show(s.buffer))
			k := fits(cases, func(c Case) bool { return c.Tail != nil && c.Tail(tail) })
			if k >= 0 && cases[k].Settled {
				more, err := s.follows(until)
				if err != nil {
					return 0, s.lost(err)
				}
				if more {
					continue
				}
			}
			if k >= 0 {
				s.buffer = s.buffer[:0]
				s.asked = cases[k].Secret
				return k, nil
			}
		}
		var err error
		if s.buffer, err = s.conn.Read(s.buffer); err != nil {
			return 0, s.lost(err)
		}
	}
}

// follows reports whether more text comes soon. The connection's time is then until again.
func (s *Session) follows(until time.Time) (bool, error) {
	before := len(s.buffer)
	for soon := s.deadline(settle); len(s.buffer) == before; { // commands are no text
		err := s.raw.SetReadDeadline(soon)
		if err == nil {
			s.buffer, err = s.conn.Read(s.buffer)
		}
		switch {
		case err == nil:
		case s.ctx.Err() != nil || s.expired():
			return false, err // nothing can be said of a wait that was broken off
		default:
			return false, nil
		}
	}
	return true, s.raw.SetReadDeadline(until)
}

func fits(cases []Case, fit func(Case) bool) int {
	for i, c := range cases {
		if fit(c) {
			return i
		}
	}
	return -1
}

// deadline is the sooner of now and a while and the end of the context.
func (s *Session) deadline(within time.Duration) time.Time {
	end, limited := s.ctx.Deadline()
	if within > 0 && (!limited || time.Until(end) > within) {
		return time.Now().Add(within)
	}
	return end
}

// text is a line, or a piece of one, as it is given away.
func (s *Session) text(raw []byte) string {
	if s.options.Screen {
		return s.scrub(show(raw))
	}
	return s.scrub(string(bytes.TrimRight(raw, "\r")))
}

// scrub masks secrets that were sent in this session, should the other side repeat them.
func (s *Session) scrub(text string) string {
	for _, secret := range s.secrets {
		if p := secret.Reveal(); p != "" {
			text = strings.ReplaceAll(text, p, Mask)
		}
	}
	return text
}

// Send sends text, in which a line feed is the end of a line. It must hold no secret.
func (s *Session) Send(text string) error {
	s.asked = false
	return s.write([]byte(text))
}

// Answer sends a secret and the end of the line, once, in answer to the prompt that the last
// Expect found, and to nothing else.
func (s *Session) Answer(secret sdk.Secret) error {
	if !s.asked {
		return sdk.Errorf(sdk.ClassInternal, "a secret would be sent although nobody asked for one")
	}
	s.asked = false
	if err := s.Typable(secret); err != nil {
		return err
	}
	s.secrets = append(s.secrets, secret)
	line := append(bytes.Clone(secret.Bytes()), '\n')
	defer clear(line)
	return s.write(line)
}

// Typable returns the error that Answer would for a secret that cannot be sent: ClassInvalid
// with a control character, ClassUnsupported beyond ASCII where only seven bits arrive.
func (s *Session) Typable(secret sdk.Secret) error {
	if bytes.ContainsFunc(secret.Bytes(), unicode.IsControl) {
		return sdk.Errorf(sdk.ClassInvalid, "the password has a control character, and cannot be typed").
			WithFix("use a password of printable characters")
	}
	if !s.conn.EightBit() && bytes.ContainsFunc(secret.Bytes(), func(r rune) bool { return r >= 0x80 }) {
		return sdk.Errorf(sdk.ClassUnsupported, "%s transmits seven bits, and the password has characters beyond ASCII", s.address).
			WithFix("use a password of ASCII characters")
	}
	return nil
}

func (s *Session) write(text []byte) error {
	if err := s.raw.SetWriteDeadline(s.deadline(0)); err != nil {
		return s.lost(err)
	}
	if err := s.conn.Write(text); err != nil {
		return s.lost(err)
	}
	return nil
}

// Ended reports whether err says that the other side ended the connection.
func Ended(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.As(err, &op) && !op.Timeout() && !errors.Is(err, net.ErrClosed)
}

// Silent reports whether err says that nothing came in time, while the context lasts.
func (s *Session) Silent(err error) bool {
	return s.ctx.Err() == nil && errors.Is(err, os.ErrDeadlineExceeded) && !s.expired()
}

// expired reports whether the context's time is over. Its timer may fire a little later
// than the connection's.
func (s *Session) expired() bool {
	end, ok := s.ctx.Deadline()
	return ok && !time.Now().Before(end)
}

// lost is the error of a connection that failed.
func (s *Session) lost(err error) error {
	switch {
	case errors.Is(s.ctx.Err(), context.Canceled):
		return sdk.Errorf(sdk.ClassCancelled, "cancelled").Wrap(err)
	case errors.Is(err, wire.ErrProtocol):
		return sdk.Errorf(sdk.ClassProtocol, "what answers at %s does not speak Telnet as expected", s.address).Wrap(err).
			WithFix("check that port and address are those of a Telnet server")
	case s.ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded):
		return sdk.Errorf(sdk.ClassUnreachable, "%s did not answer in time", s.address).Wrap(err).
			WithFix("check that the host is not overloaded, and that what answers is a Telnet server")
	default:
		return sdk.Errorf(sdk.ClassUnreachable, "%s ended the connection", s.address).Wrap(err).
			WithFix("check that its Telnet server runs and lets the agent's address in")
	}
}

func unreachable(ctx context.Context, address string, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return sdk.Errorf(sdk.ClassCancelled, "cancelled while connecting to %s", address).Wrap(err)
	}
	why := "the connection could not be made"
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		why = "its name cannot be resolved"
	case ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded):
		why = "it does not answer in time"
	}
	return sdk.Errorf(sdk.ClassUnreachable, "%s cannot be reached: %s", address, why).Wrap(err).
		WithFix("check address, port, routes and firewalls between the agent and the host")
}
