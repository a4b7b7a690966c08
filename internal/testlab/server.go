//go:build linux

package testlab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// startLimit is how long a server may take to answer; generous, for loaded machines.
const startLimit = 60 * time.Second

// pollEvery is how often an outside condition is looked at again.
const pollEvery = 5 * time.Millisecond

// path is the PATH of everything the lab runs.
const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// server is a process that is pid 1 of its own namespaces: killing it makes the
// kernel kill everything it started and drop every mount it made.
type server struct {
	ctx  context.Context
	name string
	log  string // file with what it printed
	node *Node  // where its sockets live; nil: this process's network

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has been waited for
}

func newServer(l *Lab, name, dir string, node *Node) *server {
	return &server{ctx: l.ctx, name: name, log: filepath.Join(dir, "log"), node: node}
}

// start runs cmd in new namespaces and waits until ready returns nil. A server that
// exits before that, or is not ready in time, is an error that holds the end of its log.
func (s *server) start(cmd *exec.Cmd, flags uintptr, ready func(context.Context) error) error {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: flags,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	if s.node != nil {
		s.node.Enter(cmd)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	done := make(chan struct{})
	s.mu.Lock()
	s.cmd, s.done = cmd, done
	s.mu.Unlock()
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	if err := s.await(ready); err != nil {
		s.kill()
		return err
	}
	return nil
}

// await polls until check returns nil.
func (s *server) await(check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(s.ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		try, stop := context.WithTimeout(ctx, 5*time.Second)
		err := check(try)
		stop()
		if err == nil {
			return nil
		}
		select {
		case <-s.exited():
			return fmt.Errorf("%s exited: %s", s.name, s.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %s", s.name, err, s.tail())
		case <-tick.C:
		}
	}
}

func (s *server) exited() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

// pid is the server's process id as this process sees it.
func (s *server) pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process.Pid
}

// kill ends the server as a power cut would, and waits until it is gone.
func (s *server) kill() {
	s.mu.Lock()
	cmd, done := s.cmd, s.done
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill()
	<-done
}

// signal sends sig to the server alone.
func (s *server) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process.Signal(sig)
}

// stop stops the server as SIGSTOP does and returns when it stands still: the signal is on
// its way for a moment, in which other threads still answer.
func (s *server) stop() error {
	if err := s.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	pid := s.pid()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		still, err := stopped(pid)
		switch {
		case err != nil || still:
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("%s: does not stop", s.name)
		}
	}
}

// stopped tells whether every thread of a process is stopped, or has ended and is not
// waited for (states T and Z, proc(5)).
func stopped(pid int) (bool, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false, err
	}
	for _, task := range tasks {
		stat, err := os.ReadFile(task) //nolint:gosec // of the kernel
		if err != nil {
			continue // the thread has ended
		}
		if _, state, _ := strings.Cut(string(stat), ") "); !strings.HasPrefix(state, "T") && !strings.HasPrefix(state, "Z") {
			return false, nil
		}
	}
	return true, nil
}

// inside runs a shell command in the server's namespaces and returns what it printed.
func (s *server) inside(stdin, script string) (string, error) {
	cmd := exec.CommandContext(s.ctx, "nsenter", "-t", strconv.Itoa(s.pid()), "-m", "-p", "-u", "-i", "-n", "--",
		"/bin/sh", "-c", script) //nolint:gosec // the lab's purpose
	cmd.Env = []string{path, "HOME=/root", "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewBufferString(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: command failed: %w: %s", s.name, err, out)
	}
	return string(out), nil
}

// logged is what the server has printed.
func (s *server) logged() string {
	b, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// tail is the end of the server's log.
func (s *server) tail() string {
	all := s.logged()
	return all[max(0, len(all)-4000):]
}
