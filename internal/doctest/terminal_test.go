//go:build linux

package doctest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// script runs one command in the directory and environment the one before left.
const script = `cd "$(cat "$DOCTEST/cwd")" && . "$DOCTEST/env" && command=$DOCTEST_COMMAND && unset DOCTEST_COMMAND && set -o pipefail
eval "$command"
status=$?
export -p > "$DOCTEST/env.new" && mv "$DOCTEST/env.new" "$DOCTEST/env"; pwd > "$DOCTEST/cwd"; exit $status`

// session is a terminal in which a command runs.
type session struct {
	cmd    *exec.Cmd
	tty    *os.File
	ended  chan struct{}
	failed error

	mu      sync.Mutex
	printed strings.Builder
}

// open makes a pseudo terminal.
func openTerminal() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	if err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err == nil {
		var n int
		if n, err = unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN); err == nil {
			slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	return master, slave, nil
}

// begin starts a command as a person does: standard input is a terminal. answers are
// typed when the output ends with their key.
func begin(ctx context.Context, state string, env []string, text string, answers map[string]string) (*session, error) {
	master, slave, err := openTerminal()
	if err != nil {
		return nil, err
	}
	defer slave.Close()
	s := &session{tty: master, ended: make(chan struct{})}
	s.cmd = exec.CommandContext(ctx, "bash", "--norc", "--noprofile", "-c", script)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.Env = append(env, "DOCTEST="+state, "DOCTEST_COMMAND="+text)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	s.cmd.Cancel = func() error { return syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) }
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(err, master.Close())
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf) // fails with EIO when the last process has closed the terminal
			s.print(string(buf[:n]))
			if err != nil {
				return
			}
			for prompt, answer := range answers {
				if strings.HasSuffix(s.output(), prompt) {
					_, _ = master.WriteString(answer + "\n")
				}
			}
		}
	}()
	go func() {
		s.failed = s.cmd.Wait()
		<-read
		_ = master.Close()
		close(s.ended)
	}()
	return s, nil
}

func (s *session) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.printed.WriteString(strings.ReplaceAll(text, "\r\n", "\n"))
}

func (s *session) output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.printed.String()
}

// interrupt types Ctrl-C and waits for the end.
func (s *session) interrupt() error {
	_, _ = s.tty.WriteString("\x03")
	select {
	case <-s.ended:
	case <-time.After(20 * time.Second):
		_ = s.cmd.Cancel()
		<-s.ended
		return errors.New("it does not end on Ctrl-C")
	}
	return s.failed
}

// newState makes the files in which directory and environment are carried along.
func newState(t *testing.T, home string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"cwd": home + "\n", "env": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
