package transport

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

func FuzzPinned(f *testing.F) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
	f.Add(key)
	f.Add("host " + key)
	f.Add("@revoked * " + key)
	f.Add("|1|a|b " + key)
	f.Fuzz(func(t *testing.T, line string) {
		keys, err := pinned(sdk.Trust{HostKeys: []string{line}})
		if err == nil && len(keys) != 1 {
			t.Errorf("%q was accepted as %d keys", line, len(keys))
		}
		if err == nil && strings.HasPrefix(strings.TrimSpace(line), "@revoked") {
			t.Errorf("a revoked key was trusted: %q", line)
		}
		if e := sdk.ClassOf(err); err != nil && e != sdk.ClassInvalid {
			t.Errorf("class %s", e)
		}
	})
}

type closer struct{ bytes.Buffer }

func (*closer) Close() error { return nil }

func newDialogue(password string) (*dialogue, *closer) {
	var sent closer
	return &dialogue{
		nonce: "NONCE", stdin: &sent, input: sdk.NewSecret([]byte("input\n")), password: sdk.NewSecret([]byte(password)),
	}, &sent
}

// The script's input must not hold sudo's password when sudo does not ask for it: with
// a NOPASSWD rule it would be the script's first line.
func TestSudoGetsThePasswordOnlyWhenItAsks_C84(t *testing.T) {
	t.Parallel()
	d, sent := newDialogue("secret")
	d.stderr([]byte("lecture about NON"))
	d.stdout([]byte("NON"))
	if sent.Len() != 0 {
		t.Errorf("sent %q unasked", sent.String())
	}
	d.stdout([]byte("CE\n"))
	if got := sent.String(); got != "go\ninput\n" {
		t.Errorf("not asked, sent %q", got)
	}
	d.stderr([]byte("NONCE")) // what the script prints is no question
	if got := sent.String(); got != "go\ninput\n" || d.rejected {
		t.Errorf("after the start, sent %q", got)
	}

	d, sent = newDialogue("secret")
	d.stderr([]byte("We trust you.\nNONCE"))
	if got := sent.String(); got != "secret\n" {
		t.Errorf("asked, sent %q", got)
	}
	d.stderr([]byte("\nSorry, try again.\nNONCE"))
	if got := sent.String(); got != "secret\n" || !d.rejected {
		t.Errorf("asked again, sent %q; rejected %t", got, d.rejected)
	}

	d, sent = newDialogue("")
	d.stderr([]byte("NONCE"))
	if sent.Len() != 0 || d.rejected {
		t.Errorf("without a password, sent %q", sent.String())
	}
}

func TestTheGateHoldsUntilGo(t *testing.T) {
	t.Parallel()
	for input, want := range map[string]string{
		"":              "",
		"g":             "",
		"go":            "",
		"stop\n":        "",
		"go\n":          "ran ",
		"go\nline one":  "ran line one",
		"go\n\\n %s\n ": "ran \\n %s\n ",
	} {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", gate+environment+"printf 'ran '; cat")
		// A pipe, as sshd gives: what follows must not be swallowed by the shell's read.
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(stdin, input)
		_ = stdin.Close()
		_ = cmd.Wait() // its status says whether it ran
		if out.String() != want {
			t.Errorf("given %q, the script printed %q, want %q", input, out.String(), want)
		}
	}
}

func TestHostTextIsMadePrintable(t *testing.T) {
	t.Parallel()
	got := printable("a\x1b[31m\nb\t NONCE c\xff "+strings.Repeat("ü", 400), "NONCE")
	if !strings.HasPrefix(got, "a[31m b c ") || len(got) > 510 || strings.ContainsAny(got, "\x1b\n\t") || !utf8.ValidString(got) {
		t.Errorf("got %q", got)
	}
}

// A session that is asked for just when the connection ends gets no answer from the library: nobody is left to give it.
func TestASessionIsNotWaitedForOnAConnectionThatHasEnded(t *testing.T) {
	t.Parallel()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	go func() { // a server that opens no channel
		far, err := listener.Accept()
		if err != nil {
			return
		}
		config := &ssh.ServerConfig{NoClientAuth: true}
		config.AddHostKey(signer)
		_, channels, requests, err := ssh.NewServerConn(far, config)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		for range channels { //nolint:revive // neither accepted nor refused
		}
	}()
	near, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, channels, requests, err := ssh.NewClientConn(near, "", &ssh.ClientConfig{HostKeyCallback: ssh.FixedHostKey(signer.PublicKey())})
	if err != nil {
		t.Fatal(err)
	}
	l := &line{client: ssh.NewClient(conn, channels, requests), conn: near, gone: make(chan struct{})}
	defer l.hangUp()
	close(l.gone)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := (&Host{line: l}).session(ctx); !errors.Is(err, errGone) {
		t.Errorf("got %v", err)
	}
}
