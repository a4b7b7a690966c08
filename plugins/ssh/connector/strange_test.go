package connector_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/ssh/connector"
)

// listen serves every connection until the test ends.
func listen(t *testing.T, serve func(net.Conn)) sdk.Target {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(t.Context(), func() { _ = conn.Close() })
			go serve(conn)
		}
	}()
	return sdk.Target{
		Address: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port,
		Management: sdk.Credential{Username: "root", Password: sdk.NewSecret([]byte(rootPassword))},
	}
}

// strange is an SSH server that lets everybody in, and what it does with commands; nil: it takes no session.
func strange(t *testing.T, run func(command string, c ssh.Channel) (status uint32, done bool)) sdk.Target {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, nil }}
	config.AddHostKey(signer)
	session := func(c ssh.Channel, requests <-chan *ssh.Request) {
		for r := range requests {
			_ = r.Reply(r.Type == "exec", nil)
			if r.Type != "exec" {
				continue
			}
			if status, done := run(string(r.Payload[4:]), c); done {
				_, _ = c.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
				_ = c.Close()
			}
		}
	}
	target := listen(t, func(conn net.Conn) {
		_, channels, requests, err := ssh.NewServerConn(conn, config)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		for n := range channels {
			if run == nil {
				continue
			}
			if c, rs, err := n.Accept(); err == nil {
				go session(c, rs)
			}
		}
	})
	target.Trust.HostKeys = []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))}
	return target
}

var nonceOf = regexp.MustCompile(`echo ([A-Z0-9]{20,});`)

// answering is a host on which we are root, and whose answer to every script is given by what.
func answering(what func(c ssh.Channel) bool) func(string, ssh.Channel) (uint32, bool) {
	return func(command string, c ssh.Channel) (uint32, bool) {
		if m := nonceOf.FindStringSubmatch(command); m != nil {
			_, _ = io.WriteString(c, m[1]+"\n")
			_, _ = io.ReadFull(c, make([]byte, 3)) // go
			return 0, what(c)
		}
		_, _ = io.WriteString(c, "0\n")
		return 0, true
	}
}

// What answers may be anything, and may stop at any point: every operation ends in time, with its class and what to do.
func TestStrangeServersGetTheirClass(t *testing.T) {
	t.Parallel()
	says := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = io.WriteString(c, text)
			_, _ = io.Copy(io.Discard, c)
		}
	}
	print := func(text string) func(ssh.Channel) bool {
		return func(c ssh.Channel) bool { _, _ = io.WriteString(c, text); return true }
	}
	endless := func(c ssh.Channel) bool {
		line := []byte(strings.Repeat("groups x\n", 1000))
		for {
			if _, err := c.Write(line); err != nil {
				return false
			}
		}
	}
	key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
	plain := func(serve func(net.Conn)) func(*testing.T) sdk.Target {
		return func(t *testing.T) sdk.Target {
			t.Helper()
			target := listen(t, serve)
			target.Trust.HostKeys = []string{key}
			return target
		}
	}
	speaking := func(run func(string, ssh.Channel) (uint32, bool)) func(*testing.T) sdk.Target {
		return func(t *testing.T) sdk.Target { t.Helper(); return strange(t, run) }
	}
	for name, c := range map[string]struct {
		target func(*testing.T) sdk.Target
		want   sdk.Class
		slow   bool // it ends with the time that is given
	}{
		"nothing listens": {target: func(t *testing.T) sdk.Target {
			t.Helper()
			target := listen(t, func(net.Conn) {})
			target.Port, target.Trust.HostKeys = 1, []string{key}
			return target
		}, want: sdk.ClassUnreachable},
		"a web server":                 {target: plain(says("HTTP/1.1 400 Bad Request\r\n\r\n" + strings.Repeat("x\n", 1<<16))), want: sdk.ClassProtocol},
		"a Telnet server":              {target: plain(says("\xff\xfd\x18\xff\xfd\x20login: ")), want: sdk.ClassUnreachable, slow: true},
		"an endless banner":            {target: plain(says("SSH-2.0-" + strings.Repeat("x", 1<<20))), want: sdk.ClassProtocol},
		"nonsense after the banner":    {target: plain(says("SSH-2.0-x\r\n" + strings.Repeat("\xff", 1<<16))), want: sdk.ClassProtocol},
		"silence after the connection": {target: plain(says("")), want: sdk.ClassUnreachable, slow: true},
		"silence after the banner":     {target: plain(says("SSH-2.0-OpenSSH_9.2\r\n")), want: sdk.ClassUnreachable, slow: true},
		"silence after the login":      {target: speaking(nil), want: sdk.ClassUnreachable, slow: true},
		"silence after a command":      {target: speaking(func(string, ssh.Channel) (uint32, bool) { return 0, false }), want: sdk.ClassUnreachable, slow: true},
		"silence in an answer":         {target: speaking(answering(func(c ssh.Channel) bool { print("passwd alice:x:10")(c); return false })), want: sdk.ClassUnreachable, slow: true},
		"an end in an answer":          {target: speaking(answering(func(c ssh.Channel) bool { print("passwd alice:x:10")(c); _ = c.Close(); return false })), want: sdk.ClassUnreachable},
		"an answer that is cut":        {target: speaking(answering(print("passwd alice:x:1000:1000::/:/bin/sh\npassword set\n"))), want: sdk.ClassProtocol},
		"an answer that is no answer":  {target: speaking(answering(print("\x00\xff\x1b[2J<html>"))), want: sdk.ClassProtocol},
		"an answer of another account": {target: speaking(answering(print("passwd bob:x:0:0::/:/bin/sh\nend\n"))), want: sdk.ClassProtocol},
		"an answer that is too large":  {target: speaking(answering(print(strings.Repeat("groups x\n", 300_000) + "end\n"))), want: sdk.ClassProtocol},
		"an answer without an end":     {target: speaking(answering(endless)), want: sdk.ClassUnreachable, slow: true},
		"a login that is asked for a password": {target: speaking(func(_ string, c ssh.Channel) (uint32, bool) {
			_, _ = io.WriteString(c.Stderr(), "WARNING: Your password has expired.\n")
			return 1, true
		}), want: sdk.ClassMustChange},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			within := 20 * time.Second
			if c.slow {
				within = 500 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			_, err := connector.Connector{}.Inspect(ctx, c.target(t), "alice")
			e, ok := errors.AsType[*sdk.Error](err)
			if !ok || e.Class != c.want || e.Fix == "" {
				t.Fatalf("%v, want class %s and a fix", err, c.want)
			}
			if said := e.Message + e.Fix; strings.Contains(said, rootPassword) || strings.ContainsAny(said, "\x00\x1b") || !utf8.ValidString(said) || len(said) > 2000 {
				t.Errorf("%q", said)
			}
		})
	}
}
