package dialogue

import (
	"context"
	"errors"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// server listens, talks to one client as told, and gives away what it got.
func server(t *testing.T, talk func(net.Conn)) sdk.Target {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		talk(conn)
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	a := listener.Addr().(*net.TCPAddr)
	return sdk.Target{Address: a.IP.String(), Port: a.Port}
}

func dial(t *testing.T, target sdk.Target, o Options) *Session {
	t.Helper()
	s, err := Dial(t.Context(), target, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func tail(re string, secret bool) Case {
	return Case{Tail: regexp.MustCompile(re).MatchString, Secret: secret}
}

// says sends text and then takes in what comes until the client hangs up.
func says(text string, heard *strings.Builder) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Write([]byte(text))
		b := make([]byte, 256)
		for {
			n, err := c.Read(b)
			if heard != nil {
				heard.Write(b[:n])
			}
			if err != nil {
				return
			}
		}
	}
}

func TestSecretIsSentOnlyInAnswerToItsPrompt(t *testing.T) {
	t.Parallel()
	secret := sdk.NewSecret([]byte("C4nary-Secret"))
	var heard strings.Builder
	t.Cleanup(func() { // after the server has ended
		if !strings.Contains(heard.String(), "x") || strings.Contains(heard.String(), "C4nary") {
			t.Errorf("the server heard %q", heard.String())
		}
	})
	s := dial(t, server(t, says("Password: ", &heard)), Options{})
	if err := s.Answer(secret); sdk.ClassOf(err) != sdk.ClassInternal {
		t.Errorf("before any prompt: %v", err)
	}
	if _, err := s.Expect(time.Minute, nil, tail(`Pass`, false)); err != nil {
		t.Fatal(err)
	}
	if err := s.Answer(secret); sdk.ClassOf(err) != sdk.ClassInternal {
		t.Errorf("at a prompt that is for no secret: %v", err)
	}
	s.asked = true
	if err := s.Send("x\n"); err != nil {
		t.Fatal(err)
	}
	if err := s.Answer(secret); sdk.ClassOf(err) != sdk.ClassInternal {
		t.Errorf("after the prompt was answered: %v", err)
	}
	for _, bad := range []string{"a\nb", "a\rb", "a\x00b", "a\x7fb", "ü"} {
		s.asked = true
		if err := s.Answer(sdk.NewSecret([]byte(bad))); err == nil {
			t.Errorf("%q was sent over seven bits", bad)
		}
	}
}

func TestSecretsThatAreRepeatedAreMasked(t *testing.T) {
	t.Parallel()
	s := dial(t, server(t, func(c net.Conn) {
		_, _ = c.Write([]byte("Password: "))
		b := make([]byte, 64)
		n, _ := c.Read(b)
		_, _ = c.Write(append(b[:n-1], "\n again C4nary-Secret and C4nary-Secret> "...)) // without the NUL
	}), Options{})
	if _, err := s.Expect(time.Minute, nil, tail(`Password: $`, true)); err != nil {
		t.Fatal(err)
	}
	if err := s.Answer(sdk.NewSecret([]byte("C4nary-Secret"))); err != nil {
		t.Fatal(err)
	}
	var lines, last string
	_, err := s.Expect(time.Minute, func(l string) { lines += l }, Case{Tail: func(text string) bool {
		last = text
		return strings.HasSuffix(text, "> ")
	}})
	if err != nil || lines != Mask+"\n" || last != " again "+Mask+" and "+Mask+"> " {
		t.Errorf("%q, %q, %v", lines, last, err)
	}
}

func TestLinesComeInOrderAndPromptsAtTheEnd(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 2*maxLine)
	s := dial(t, server(t, says("one\r\ntwo\r\n"+long+"\r\nfound it\r\nmore\r\n$ ", nil)), Options{})
	var got []string
	i, err := s.Expect(time.Minute, func(l string) { got = append(got, l) }, tail(`^\$ $`, false),
		Case{Line: func(l string) bool { return l == "found it" }})
	if err != nil || i != 1 || strings.Join(got, "") != "one\ntwo\n"+long+"\n" || len(got) < 4 {
		t.Errorf("case %d, %d lines, %v", i, len(got), err)
	}
	got = nil
	if i, err = s.Expect(time.Minute, func(l string) { got = append(got, l) }, tail(`^\$ $`, false)); err != nil || i != 0 || len(got) != 1 {
		t.Errorf("case %d, %q, %v", i, got, err)
	}
}

func TestPromptInTheMiddleOfAMessageIsNone(t *testing.T) {
	t.Parallel()
	s := dial(t, server(t, func(c net.Conn) {
		for _, piece := range []string{"last failed login: ", "never\r\n", "login: "} {
			_, _ = c.Write([]byte(piece))
			time.Sleep(100 * time.Millisecond) // it arrives by itself
		}
		_, _ = c.Read(make([]byte, 1))
	}), Options{})
	var before string
	prompt := tail(`login: $`, false)
	prompt.Settled = true
	i, err := s.Expect(time.Minute, func(l string) { before += l }, prompt)
	if err != nil || i != 0 || before != "last failed login: never\n" {
		t.Errorf("%d, %q, %v", i, before, err)
	}
}

func TestNothingIsSaidOfAPromptWhoseWaitIsBrokenOff(t *testing.T) {
	t.Parallel()
	prompt := tail(`login: $`, false)
	prompt.Settled = true
	for want, end := range map[sdk.Class]func(context.Context) (context.Context, context.CancelFunc){
		sdk.ClassUnreachable: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 200*time.Millisecond)
		},
		sdk.ClassCancelled: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(200*time.Millisecond, cancel)
			return ctx, cancel
		},
	} {
		ctx, cancel := end(t.Context())
		s, err := Dial(ctx, server(t, says("login: ", nil)), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if i, err := s.Expect(0, nil, prompt); sdk.ClassOf(err) != want {
			t.Errorf("case %d, %v, want class %s", i, err, want)
		}
		s.Close()
		cancel()
	}
}

func TestFailuresHaveTheirClassWithinTheirTime(t *testing.T) {
	t.Parallel()
	never := Case{Line: func(string) bool { return false }}
	for name, c := range map[string]struct {
		talk func(net.Conn)
		want sdk.Class
	}{
		"silence":   {says("", nil), sdk.ClassUnreachable},
		"an end":    {func(net.Conn) {}, sdk.ClassUnreachable},
		"no Telnet": {says(strings.Repeat("\xff\xfb\x01\xff\xfc\x01", 4000), nil), sdk.ClassProtocol},
		"endless text": {func(c net.Conn) {
			for {
				if _, err := c.Write([]byte(strings.Repeat("text without an end", 100))); err != nil {
					return
				}
			}
		}, sdk.ClassUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dial(t, server(t, c.talk), Options{Screen: true})
			_, err := s.Expect(300*time.Millisecond, nil, never)
			if sdk.ClassOf(err) != c.want {
				t.Errorf("%v", err)
			}
			if s.Silent(err) != (name == "silence" || name == "endless text") || Ended(err) != (name == "an end") {
				t.Errorf("silent %t, ended %t: %v", s.Silent(err), Ended(err), err)
			}
			if cap(s.buffer) > 8*maxLine {
				t.Errorf("%d bytes are kept", cap(s.buffer))
			}
		})
	}
}

func TestCancellationEndsAWaitAtOnce(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Dial(ctx, server(t, says("", nil)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	time.AfterFunc(20*time.Millisecond, cancel)
	began := time.Now()
	_, err = s.Expect(0, nil, tail("x", false))
	if sdk.ClassOf(err) != sdk.ClassCancelled || time.Since(began) > 2*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	if _, err := Dial(ctx, sdk.Target{Address: "127.0.0.1", Port: 1}, Options{}); sdk.ClassOf(err) != sdk.ClassCancelled {
		t.Errorf("a connection after the end: %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	target := server(t, func(net.Conn) {})
	target.Address = "127.0.0.9" // nobody is here
	_, err := Dial(t.Context(), target, Options{})
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok || e.Class != sdk.ClassUnreachable || e.Fix == "" {
		t.Errorf("%v", err)
	}
}

func TestScreenShowsWhatATerminalWould(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain\r": "plain",
		" --More-- \b\b\b\b\b\b\b\b\b\b          \b\b\b\b\b\b\b\b\b\binterface Gi0": "interface Gi0",
		"--More--\r        \rvlan 10 is a vlan":                                     "vlan 10 is a vlan",
		"\x1b[01;32mroot@host\x1b[00m:~# ":                                          "root@host:~# ",
		"\x1b]0;title\aprompt> ":                                                    "prompt> ",
		"\x1b]0;title\x1b\\prompt> ":                                                "prompt> ",
		"\x1b(Bx\x07y\x00z":                                                         "xyz",
		"a\tb":                                                                      "a\tb",
		"\b\bü\xff":                                                                 "ü\uFFFD",
	} {
		if got := show([]byte(in)); got != want {
			t.Errorf("%q shows %q, want %q", in, got, want)
		}
	}
}

// FuzzScreen shows anything: never a control character but tabs, never more than was sent.
func FuzzScreen(f *testing.F) {
	for _, seed := range []string{"a\bb\rc", "\x1b[1mx", "\x1b]0;t\x1b\\x", " --More-- \b\b  \b\b", "\xff\xfe", "\t\b\t"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got := show(in)
		if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			t.Errorf("%q shows %q", in, got)
		}
		if n := len([]rune(got)); n > len(in) {
			t.Errorf("%d characters came of %d bytes", n, len(in))
		}
	})
}
