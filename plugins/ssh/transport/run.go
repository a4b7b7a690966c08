package transport

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/crypto/ssh"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/quote"
	"github.com/reeve-pam/reeve/plugins/sdk/shadow"
)

// maxOutput bounds what is kept of a script's output, in bytes.
const maxOutput = 1 << 20

// environment is set by every script itself, because sudo resets what it is given.
const environment = "LC_ALL=C; LANG=C; PATH=/usr/sbin:/usr/bin:/sbin:/bin; export LC_ALL LANG PATH; umask 022; "

// gate makes a script wait until it is told to go, so that one whose connection ends
// before that has certainly changed nothing. The shell's read takes single bytes and
// leaves the rest of standard input to the script.
const gate = "IFS= read -r go && [ \"$go\" = go ] || exit 76; "

// Become finds out how this login becomes root. It must be called before Script.
func (h *Host) Become(ctx context.Context) error {
	h.line.become.Lock()
	defer h.line.become.Unlock()
	if h.line.asked {
		return nil
	}
	out, err := h.exec(ctx, "id -u", shadow.Script{}, "")
	if err != nil {
		return err
	}
	if mustChange(out) {
		return sdk.Errorf(sdk.ClassMustChange, "the password of %s at %s must be changed before it can be used", h.user, h.address).
			WithFix(shadow.FixMustChange)
	}
	if out.Status != 0 {
		return sdk.Errorf(sdk.ClassNotPermitted, "%s at %s cannot run commands: %s", h.user, h.address, out.Stderr).
			WithFix("give the management account a login shell")
	}
	h.line.asked, h.line.root = true, strings.TrimSpace(out.Stdout) == "0"
	return nil
}

// Script runs s as root. The error is about running it at all; whether the script did
// what it should is in the Output. With sudo, the password is sent only in answer to
// sudo's own prompt, so a rule that asks for none never passes it to the script.
func (h *Host) Script(ctx context.Context, s shadow.Script) (shadow.Output, error) {
	nonce := rand.Text()
	words := []string{"/bin/sh", "-c", "echo " + nonce + "; " + gate + environment + s.Text, "reeve"}
	words = append(words, s.Args...)
	var b strings.Builder
	b.WriteString("exec ")
	if !h.line.root {
		fmt.Fprintf(&b, "sudo -S -k -p %s -- ", nonce)
	}
	for i, word := range words {
		quoted, err := quote.ShArg(word)
		if err != nil {
			return shadow.Output{}, sdk.Errorf(sdk.ClassInvalid, "an argument has a NUL byte")
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(quoted)
	}
	out, err := h.exec(ctx, b.String(), s, nonce)
	if err != nil {
		return shadow.Output{}, err
	}
	rest, started := strings.CutPrefix(out.Stdout, nonce+"\n")
	if !started {
		return shadow.Output{}, h.refused(out)
	}
	out.Stdout = rest
	return out, nil
}

// refused explains why a script did not even start.
func (h *Host) refused(out shadow.Output) error {
	if mustChange(out) {
		return sdk.Errorf(sdk.ClassMustChange, "the password of %s at %s must be changed before it can be used", h.user, h.address).
			WithFix(shadow.FixMustChange)
	}
	e := sdk.Errorf(sdk.ClassNotPermitted, "%s at %s cannot become root: %s", h.user, h.address, out.Stderr)
	switch {
	case out.Status == 127:
		return e.WithFix("install sudo on the host, or log in as root")
	case strings.Contains(out.Stderr, "must have a tty"):
		return e.WithFix("remove requiretty from the host's sudoers for %s", h.user)
	case strings.Contains(out.Stderr, "password is required"), strings.Contains(out.Stderr, "no password was provided"):
		return e.WithFix("give %s a NOPASSWD rule, or let it log in with its password", h.user)
	default:
		return e.WithFix("allow %s to run /bin/sh with sudo", h.user)
	}
}

// exec runs one command. With a nonce it answers sudo's prompt for a password once, and
// sends the input when the script says that it runs.
func (h *Host) exec(ctx context.Context, command string, s shadow.Script, nonce string) (shadow.Output, error) {
	session, err := h.session(ctx)
	if err != nil {
		return shadow.Output{}, h.lost(ctx, false, err)
	}
	defer func() { _ = session.Close() }()
	stdin, err := session.StdinPipe()
	if err != nil {
		return shadow.Output{}, h.lost(ctx, false, err)
	}
	d := &dialogue{nonce: nonce, stdin: stdin, input: s.Input, password: h.password}
	session.Stdout = writer(d.stdout)
	session.Stderr = writer(d.stderr)
	err = h.within(ctx, func() error {
		if err := session.Start(command); err != nil {
			return err
		}
		if nonce == "" {
			_ = stdin.Close()
		}
		return session.Wait()
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true // of a command that was broken off nothing is answered any more
	out := shadow.Output{Stdout: d.out.String(), Stderr: printable(d.err.String(), nonce)}
	if d.rejected {
		return shadow.Output{}, sdk.Errorf(sdk.ClassAuthFailed, "sudo at %s does not accept the password of %s", h.address, h.user).
			WithFix("check the password; sudo may ask for another one (rootpw, targetpw)")
	}
	if exit, ok := errors.AsType[*ssh.ExitError](err); ok && exit.Signal() == "" {
		out.Status = exit.ExitStatus()
		return out, nil
	}
	if err != nil {
		return shadow.Output{}, h.lost(ctx, s.Changes && d.started, err)
	}
	return out, nil
}

// within runs f, which waits for the host, no longer than ctx lasts.
func (h *Host) within(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		h.abandon()
		if h.line.pool == nil {
			<-done //nolint:errcheck // at once, as the connection is gone; ctx says why
		}
		return ctx.Err()
	}
}

// lost is the error of a connection that ended while something ran.
func (h *Host) lost(ctx context.Context, changes bool, err error) error {
	switch {
	case changes:
		return sdk.Errorf(sdk.ClassUnknownOutcome, "the connection to %s ended while a change was under way", h.address).
			Wrap(err).WithFix("read the account back before anything else is tried")
	case errors.Is(ctx.Err(), context.Canceled):
		return sdk.Errorf(sdk.ClassCancelled, "cancelled; nothing was changed").Wrap(err)
	case ctx.Err() != nil:
		return sdk.Errorf(sdk.ClassUnreachable, "%s did not answer in time; nothing was changed", h.address).Wrap(err).
			WithFix("see whether the host is overloaded")
	default:
		return sdk.Errorf(sdk.ClassUnreachable, "the connection to %s ended; nothing was changed", h.address).Wrap(err).
			WithFix("see the host's own log (journalctl -u ssh)")
	}
}

// Plain runs command as the login user, and streams what it prints.
func (h *Host) Plain(ctx context.Context, command string, out sdk.Output) (int, error) {
	session, err := h.session(ctx)
	if err != nil {
		return 0, h.lost(ctx, false, err)
	}
	defer func() { _ = session.Close() }()
	session.Stdout = writer(out.Stdout)
	session.Stderr = writer(out.Stderr)
	err = h.within(ctx, func() error { return session.Run(command) })
	if exit, ok := errors.AsType[*ssh.ExitError](err); ok && exit.Signal() == "" {
		return exit.ExitStatus(), nil
	}
	if err != nil {
		return 0, h.lost(ctx, true, err)
	}
	return 0, nil
}

// Login says who the host thinks is logged in. mustChange means that the host lets the
// login do nothing but change its password. A login without a usable shell has no name
// to tell, and is a login nevertheless: the host has accepted the secret.
func (h *Host) Login(ctx context.Context) (name string, changeFirst bool, err error) {
	out, err := h.exec(ctx, "id -un", shadow.Script{}, "")
	if err != nil {
		return "", false, err
	}
	if mustChange(out) {
		return "", true, nil
	}
	if out.Status != 0 {
		return "", false, nil
	}
	return printable(strings.TrimSpace(out.Stdout), ""), false, nil
}

// mustChange recognises what sshd says when the password has expired.
func mustChange(out shadow.Output) bool {
	return out.Status != 0 && (strings.Contains(out.Stderr, "Password change required") ||
		strings.Contains(out.Stderr, "password has expired") ||
		strings.Contains(out.Stderr, "required to change your password"))
}

// dialogue is what goes on at the three streams of a command.
type dialogue struct {
	nonce    string
	stdin    io.WriteCloser
	input    sdk.Secret
	password sdk.Secret

	mu       sync.Mutex
	out, err bytes.Buffer
	started  bool // the script was told to go
	asked    bool // sudo asked for the password
	rejected bool // sudo asked again
	over     bool // nobody waits for the command any more
}

func (d *dialogue) stdout(p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	keep(&d.out, p)
	if d.nonce == "" || d.started || d.over || !bytes.HasPrefix(d.out.Bytes(), []byte(d.nonce+"\n")) {
		return
	}
	d.started = true
	// One write is one SSH packet, so the input arrives whole or not at all.
	input := append([]byte("go\n"), d.input.Bytes()...)
	_, _ = d.stdin.Write(input)
	clear(input)
	_ = d.stdin.Close()
}

func (d *dialogue) stderr(p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	keep(&d.err, p)
	if d.nonce == "" || d.started || d.over {
		return
	}
	switch n := bytes.Count(d.err.Bytes(), []byte(d.nonce)); {
	case n == 0:
	case n == 1 && !d.asked:
		d.asked = true
		if d.password.Empty() {
			_ = d.stdin.Close()
			return
		}
		line := append(bytes.Clone(d.password.Bytes()), '\n')
		_, _ = d.stdin.Write(line)
		clear(line)
	case n > 1 && !d.rejected && !d.password.Empty():
		d.rejected = true
		_ = d.stdin.Close()
	}
}

func keep(b *bytes.Buffer, p []byte) {
	b.Write(p[:min(len(p), max(0, maxOutput-b.Len()))])
}

// writer makes an io.Writer of a function that takes every byte.
type writer func([]byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

// printable makes text of a host fit for a message.
func printable(s, nonce string) string {
	if nonce != "" {
		s = strings.ReplaceAll(s, nonce, "")
	}
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + "…"
	}
	return s
}
