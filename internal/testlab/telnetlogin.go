//go:build linux

package testlab

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
)

// Of RFC 854 and RFC 856, what a plain client needs.
const (
	telnetBinary = 0
	telnetSE     = 240
	telnetSB     = 250
	telnetWill   = 251
	telnetWont   = 252
	telnetDo     = 253
	telnetDont   = 254
	telnetIAC    = 255
)

var (
	telnetRefusal = regexp.MustCompile(`Login incorrect|account has expired|Authentication failure|Permission denied`)
	telnetShell   = regexp.MustCompile(`[#$] $`)
)

// TelnetLogin tries one login with a password at the host's telnetd, with a plain client of the lab's own, and waits for a
// shell's prompt. A login that is refused is ErrRefused.
func (h *Host) TelnetLogin(ctx context.Context, user, password string) error {
	conn, err := h.dial(ctx, "tcp", net.JoinHostPort(h.Addr, strconv.Itoa(TelnetPort)))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	c := &telnetClient{conn: conn}
	// Eight bits in both directions, for passwords beyond ASCII.
	if _, err := conn.Write([]byte{telnetIAC, telnetWill, telnetBinary, telnetIAC, telnetDo, telnetBinary}); err != nil {
		return err
	}
	for _, step := range []struct{ prompt, answer string }{{"login: ", user}, {"Password: ", password}} {
		if err := c.read(func(s string) bool { return strings.HasSuffix(s, step.prompt) }); err != nil {
			return err
		}
		if _, err := conn.Write([]byte(step.answer + "\r")); err != nil {
			return err
		}
	}
	err = c.read(func(s string) bool { return telnetRefusal.MatchString(s) || telnetShell.MatchString(s) })
	if telnetRefusal.MatchString(c.text) {
		return ErrRefused
	}
	return err
}

type telnetClient struct {
	conn net.Conn
	text string // since the last answer
}

// read reads until the text since the last call is what is waited for. Every option but BINARY is refused.
func (c *telnetClient) read(enough func(string) bool) error {
	c.text = ""
	one := make([]byte, 1)
	next := func() (byte, error) {
		_, err := c.conn.Read(one)
		return one[0], err
	}
	for !enough(c.text) {
		b, err := next()
		if err != nil {
			return fmt.Errorf("telnet: after %q: %w", c.text, err)
		}
		if b != telnetIAC {
			c.text += string(rune(b))
			continue
		}
		command, err := next()
		if err != nil {
			return err
		}
		switch command {
		case telnetDo, telnetWill:
			option, err := next()
			if err != nil {
				return err
			}
			if option == telnetBinary {
				continue // what was asked for
			}
			refusal := byte(telnetWont)
			if command == telnetWill {
				refusal = telnetDont
			}
			if _, err := c.conn.Write([]byte{telnetIAC, refusal, option}); err != nil {
				return err
			}
		case telnetDont, telnetWont:
			if _, err := next(); err != nil {
				return err
			}
		case telnetSB:
			for last := byte(0); last != telnetIAC || one[0] != telnetSE; {
				last = one[0]
				if _, err := next(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
