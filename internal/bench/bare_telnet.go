package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// bareTelnet is a plain dialogue: one connection as root for each change, and one as the account for the proof. It
// types its commands into a shell without prompt and echo, each with a line behind it that tells how it ended.
type bareTelnet struct{ target sdk.Target }

func newBareTelnet(t sdk.Target) (keeper, error) { return &bareTelnet{t}, nil }

func (*bareTelnet) close() error { return nil }

func (b *bareTelnet) provision(ctx context.Context, a *account) error {
	if err := b.change(ctx, a, func(string) []script { return provisionUnix(a) }); err != nil {
		return err
	}
	return b.prove(ctx, a.name, a.password)
}

func (b *bareTelnet) rotate(ctx context.Context, a *account, password string) error {
	if err := b.change(ctx, a, func(string) []script { return []script{rotateUnix(a, password)} }); err != nil {
		return err
	}
	return b.prove(ctx, a.name, password)
}

func (b *bareTelnet) deprovision(ctx context.Context, a *account) error {
	return b.change(ctx, a, func(uid string) []script { return removeUnix(a, uid) })
}

// change runs commands between two readings of the account. They get the uid that the first one told.
func (b *bareTelnet) change(ctx context.Context, a *account, commands func(uid string) []script) error {
	s, err := b.login(ctx, b.target.Management.Username, b.target.Management.Password.Reveal())
	if err != nil {
		return err
	}
	defer s.close()
	read := script{text: fmt.Sprintf(readUser, a.name)}
	before, err := s.run(read)
	if err != nil {
		return err
	}
	for _, c := range append(commands(uidOf(before)), read) {
		if _, err := s.run(c); err != nil {
			return err
		}
	}
	return nil
}

func (b *bareTelnet) prove(ctx context.Context, user, password string) error {
	s, err := b.login(ctx, user, password)
	if err != nil {
		return err
	}
	defer s.close()
	out, err := s.run(script{text: "id -un"})
	if err == nil && strings.TrimSpace(out) != user {
		err = fmt.Errorf("logged in as %q and not as %s", out, user)
	}
	return err
}

// telnetSession is a connection on which a shell waits for commands.
type telnetSession struct {
	conn net.Conn
	in   *bufio.Reader
	stop func() bool
}

var (
	loginAsks    = regexp.MustCompile(`login: $`)
	passwordAsks = regexp.MustCompile(`Password: $`)
	shellAsks    = regexp.MustCompile(`[#$] $`)
	shellReady   = regexp.MustCompile(`(?m)^ready 2\r?\n`)
	commandEnded = regexp.MustCompile(`(?m)^\nended (\d+)\n`)
)

func (b *bareTelnet) login(ctx context.Context, user, password string) (*telnetSession, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address(b.target))
	if err != nil {
		return nil, err
	}
	s := &telnetSession{conn: conn, in: bufio.NewReader(conn), stop: context.AfterFunc(ctx, func() { _ = conn.Close() })}
	for _, step := range []struct {
		wanted *regexp.Regexp
		answer string
	}{
		{loginAsks, user}, {passwordAsks, password},
		{shellAsks, "unset HISTFILE; exec /bin/sh -c 'stty -echo -opost; " + unixEnvironment + "PS1=; PS2=; export PS1 PS2; echo ready $((1+1)); exec /bin/sh -i'"},
	} {
		if _, err = s.expect(step.wanted); err == nil {
			err = s.send(step.answer)
		}
		if err != nil {
			s.close()
			return nil, fmt.Errorf("log in as %s: %w", user, err)
		}
	}
	if _, err := s.expect(shellReady); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *telnetSession) close() {
	s.stop()
	_ = s.conn.Close()
}

// run has the shell do a command, in a shell of its own as the connector does.
func (s *telnetSession) run(c script) (string, error) {
	if err := s.send("(\n" + c.text + "\n)\n" + c.input + `printf '\nended %s\n' $?`); err != nil {
		return "", err
	}
	said, err := s.expect(commandEnded)
	if err != nil {
		return "", fmt.Errorf("%s: %w", c.text, err)
	}
	m := commandEnded.FindStringSubmatch(said)
	said = strings.TrimSuffix(said, m[0])
	if status, _ := strconv.Atoi(m[1]); status != 0 && status != c.fine {
		return "", fmt.Errorf("%s: exit status %d: %s", c.text, status, said)
	}
	return said, nil
}

func (s *telnetSession) send(text string) error {
	_, err := s.conn.Write([]byte(strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\r\x00") + "\r\x00"))
	return err
}

// Of RFC 854.
const (
	telnetSE   = 240
	telnetSB   = 250
	telnetWill = 251
	telnetWont = 252
	telnetDo   = 253
	telnetDont = 254
	telnetIAC  = 255
)

// expect reads until what was said is what is waited for. Every option is refused.
func (s *telnetSession) expect(wanted *regexp.Regexp) (string, error) {
	var said []byte
	for {
		if s.in.Buffered() == 0 && wanted.Match(said) {
			return string(said), nil
		}
		b, err := s.in.ReadByte()
		if err != nil {
			return "", fmt.Errorf("after %q: %w", said, err)
		}
		if b != telnetIAC {
			if b != 0 {
				said = append(said, b)
			}
			continue
		}
		if err := s.negotiate(); err != nil {
			return "", err
		}
	}
}

func (s *telnetSession) negotiate() error {
	verb, err := s.in.ReadByte()
	if err != nil {
		return err
	}
	switch verb {
	case telnetDo, telnetWill:
		option, err := s.in.ReadByte()
		if err != nil {
			return err
		}
		refusal := byte(telnetWont)
		if verb == telnetWill {
			refusal = telnetDont
		}
		_, err = s.conn.Write([]byte{telnetIAC, refusal, option})
		return err
	case telnetDont, telnetWont:
		_, err = s.in.ReadByte()
	case telnetSB:
		for b := byte(0); err == nil && b != telnetSE; {
			b, err = s.in.ReadByte()
		}
	}
	return err
}
