package connector

import (
	"bufio"
	"context"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

var (
	loopWords = regexp.MustCompile(`%s%s %s\\n" ([A-Z0-9]+) ([A-Z0-9]+) `)
	runNonce  = regexp.MustCompile(`^@(?:run|ask) ([A-Z0-9]+)$`)
)

// talk is a conversation with a client: what a host says and hears.
type talk struct {
	net.Conn
	in *bufio.Reader
}

func (c talk) say(text string) { _, _ = io.WriteString(c, text) }

// hear is a line the client sent, without Telnet's commands and the end.
func (c talk) hear() string {
	line, _ := c.in.ReadString('\r')
	for {
		i := strings.IndexByte(line, 0xff)
		if i < 0 || i+3 > len(line) {
			return strings.Trim(line, "\r\n\x00")
		}
		line = line[:i] + line[i+3:]
	}
}

// shell logs everybody in, becomes the loop that the connector asks for, and returns the nonce of the first script.
func (c talk) shell() string {
	c.say("login: ")
	c.hear()
	c.say("Password: ")
	c.hear()
	c.say("\r\n# ")
	m := loopWords.FindStringSubmatch(c.hear())
	if m == nil {
		return ""
	}
	c.say("\r\n" + m[1] + m[2] + " 0\r\n")
	for range 1000 {
		if n := runNonce.FindStringSubmatch(c.hear()); n != nil {
			return n[1]
		}
	}
	return ""
}

// device logs everybody in, and answers commands with nothing until one that begins so.
func (c talk) device(until string) {
	c.say("\r\nUsername: ")
	c.hear()
	c.say("Password: ")
	c.hear()
	for {
		c.say("\r\nR1#")
		line := c.hear()
		if line != "" {
			c.say(line + "\r\n")
		}
		if strings.HasPrefix(line, until) {
			return
		}
	}
}

// What answers may stop, or talk nonsense, at any point: every operation ends in time, with its class and what to do.
func TestHostsThatFailInTheMiddleGetTheirClass(t *testing.T) {
	t.Parallel()
	endless := func(c talk, line string) {
		text := strings.Repeat(line, 1000)
		for {
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
	}
	account := "passwd alice:x:1000:1000::/:/bin/sh\r\npassword set\r\n"
	for name, c := range map[string]struct {
		profile string
		serve   func(talk)
		want    sdk.Class
		slow    bool // it ends with the time that is given
	}{
		"silence":                    {"unix", func(talk) {}, sdk.ClassUnreachable, true},
		"silence after the name":     {"unix", func(c talk) { c.say("login: "); c.hear() }, sdk.ClassUnreachable, true},
		"silence after the password": {"unix", func(c talk) { c.say("login: "); c.hear(); c.say("Password: "); c.hear() }, sdk.ClassUnreachable, true},
		"silence in the shell":       {"unix", func(c talk) { c.shell() }, sdk.ClassUnreachable, true},
		"silence in an answer":       {"unix", func(c talk) { c.say("\r\n" + c.shell() + " begin\r\npasswd alice:x:10") }, sdk.ClassUnreachable, true},
		"an end in an answer":        {"unix", func(c talk) { c.say("\r\n" + c.shell() + " begin\r\npasswd alice"); _ = c.Close() }, sdk.ClassUnreachable, false},
		"an answer that is cut":      {"unix", func(c talk) { n := c.shell(); c.say("\r\n" + n + " begin\r\n" + account + "\r\n" + n + " end 0\r\n") }, sdk.ClassProtocol, false},
		"no status":                  {"unix", func(c talk) { n := c.shell(); c.say("\r\n" + n + " begin\r\n" + account + "\r\n" + n + " end x\r\n") }, sdk.ClassProtocol, false},
		"an answer that is no answer": {"unix", func(c talk) {
			n := c.shell()
			c.say("\r\n" + n + " begin\r\n\x00\x1b[2J<html>\xfe\r\n" + n + " end 0\r\n")
		}, sdk.ClassProtocol, false},
		"an answer that is too large": {"unix", func(c talk) {
			n := c.shell()
			c.say("\r\n" + n + " begin\r\n" + strings.Repeat("groups x\r\n", 200_000) + "end\r\n\r\n" + n + " end 0\r\n")
		}, sdk.ClassProtocol, false},
		"an answer without an end":     {"unix", func(c talk) { n := c.shell(); c.say("\r\n" + n + " begin\r\n"); endless(c, "groups x\r\n") }, sdk.ClassUnreachable, true},
		"a new password is wanted":     {"unix", func(c talk) { c.say("login: "); c.hear(); c.say("Password: "); c.hear(); c.say("\r\nNew password: ") }, sdk.ClassMustChange, false},
		"device: silence":              {"ios", func(talk) {}, sdk.ClassUnreachable, true},
		"device: silence at a command": {"ios", func(c talk) { c.device("show running-config") }, sdk.ClassUnreachable, true},
		"device: silence in an answer": {"ios", func(c talk) { c.device("show running-config"); c.say("username alice priv") }, sdk.ClassUnreachable, true},
		"device: an end in an answer":  {"ios", func(c talk) { c.device("show running-config"); c.say("username alice priv"); _ = c.Close() }, sdk.ClassUnreachable, false},
		"device: no account at all":    {"ios", func(c talk) { c.device("show users"); c.say("\x00\xfe<html>\r\n\r\nR1#") }, sdk.ClassProtocol, false},
		"device: too large": {"ios", func(c talk) {
			c.device("show running-config")
			c.say(strings.Repeat("username x\r\n", 200_000) + "\r\nR1#")
		}, sdk.ClassProtocol, false},
		"device: no end":     {"ios", func(c talk) { c.device("show running-config"); endless(c, "username x\r\n") }, sdk.ClassUnreachable, true},
		"device: a question": {"ios", func(c talk) { c.device("show running-config"); c.say("Really? [yes/no]: ") }, sdk.ClassProtocol, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
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
					go c.serve(talk{conn, bufio.NewReader(conn)})
				}
			}()
			within := 20 * time.Second
			if c.slow {
				within = 700 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			_, err = Connector{}.Inspect(ctx, sdk.Target{
				Address: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port, Options: map[string]string{"legacy": "yes", "profile": c.profile},
				Management: sdk.Credential{Username: "root", Password: sdk.NewSecret([]byte(canary))},
			}, "alice")
			if sdk.ClassOf(err) != c.want || !fixed(err) {
				t.Fatalf("%v, want class %s and a fix", err, c.want)
			}
			if said := told(err); strings.Contains(said, canary) || strings.ContainsAny(said, "\x00\x1b") || !utf8.ValidString(said) || len(said) > 2000 {
				t.Errorf("%q", said)
			}
		})
	}
}
