package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// ask asks on a terminal. The echo is off before the prompt appears: what is typed, or
// pasted, at once must not show either.
func (a *app) ask(tty *os.File, what string) ([]byte, error) {
	before, err := term.MakeRaw(int(tty.Fd()))
	if err != nil {
		return nil, err
	}
	defer func() { _ = term.Restore(int(tty.Fd()), before) }()
	line, err := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{tty, a.raw.err}, "").ReadPassword(what + ": ")
	if errors.Is(err, io.EOF) {
		return nil, context.Canceled // Ctrl-C or Ctrl-D
	}
	return []byte(line), err
}

// readSecret reads one secret: from a file, from standard input for "-", and from the
// terminal, without echo, when standard input is one. Never from an argument. One
// newline at the end belongs to the file, not to the secret.
func (a *app) readSecret(path, what string) (reeve.Secret, error) {
	var raw []byte
	var err error
	f, isFile := a.in.(*os.File)
	switch {
	case path != "-":
		if raw, err = os.ReadFile(path); err != nil {
			return reeve.Secret{}, fileError(what, path, err)
		}
	case isFile && term.IsTerminal(int(f.Fd())):
		raw, err = a.ask(f, what)
	default:
		raw, err = io.ReadAll(io.LimitReader(a.in, 1<<20))
	}
	if err != nil {
		return reeve.Secret{}, usagef("%s cannot be read: %w", what, err)
	}
	raw = bytes.TrimSuffix(bytes.TrimSuffix(raw, []byte("\n")), []byte("\r"))
	if len(raw) == 0 {
		return reeve.Secret{}, usagef("%s is empty", what)
	}
	return reeve.NewSecret(raw), nil
}
