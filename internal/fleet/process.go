//go:build linux

package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
)

// Process is a program that can be started, ended and started again. Its methods may be
// used by many goroutines.
type Process struct {
	Name string // of the process and of its log
	Log  string // file with everything it has printed, over all its lives

	program string
	args    []string
	on      *testlab.Node // nil: this machine's own network
	env     []string      // nil: that of this process

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has been waited for
}

func (f *Fleet) newProcess(on *testlab.Node, name, program string, args ...string) *Process {
	return &Process{Name: name, Log: filepath.Join(f.opts.Dir, name+".log"), program: program, args: args, on: on}
}

// Start runs the program. One that runs already is an error.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.runs() {
		return fmt.Errorf("%s runs already", p.Name)
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(p.program, p.args...) //nolint:gosec,noctx // our own; ended by Kill, End and Pdeathsig
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, p.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true} // Ctrl-C is for us alone
	if p.on != nil {
		p.on.Enter(cmd)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() { _ = cmd.Wait(); close(done) }()
	return nil
}

// runs reports whether the program runs; the caller holds mu.
func (p *Process) runs() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Running reports whether the program runs, stopped by Pause or not.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.runs()
}

// PID is the process id, 0 if it does not run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runs() {
		return 0
	}
	return p.cmd.Process.Pid
}

// Exited is closed when the program that was started last has ended; it is nil if none was.
func (p *Process) Exited() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// Signal sends sig to the program alone, not to its children. One that does not run is
// an error.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runs() {
		return fmt.Errorf("%s does not run", p.Name)
	}
	return p.cmd.Process.Signal(sig)
}

// Pause stops the program in its tracks, as SIGSTOP does; Resume lets it go on.
func (p *Process) Pause() error { return p.Signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (p *Process) Resume() error { return p.Signal(syscall.SIGCONT) }

// Kill ends the program as kill -9 does and waits until it is gone. One that does not run
// is no error. A program in uninterruptible sleep goes only when what it waits for does.
func (p *Process) Kill() {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill()
	<-done
}

// End asks the program to end, waits, and kills it after limit, which is an error.
func (p *Process) End(limit time.Duration) error {
	done := p.Exited()
	if !p.Running() {
		return nil
	}
	_ = p.Signal(syscall.SIGTERM) // it may have ended by itself just now
	select {
	case <-done:
		return nil
	case <-time.After(limit):
		p.Kill()
		return fmt.Errorf("%s did not stop within %s of being asked to", p.Name, limit)
	}
}

// Children are the process ids of the program's living children: of an agent, its
// connectors.
func (p *Process) Children() []int {
	pid := p.PID()
	if pid == 0 {
		return nil
	}
	var out []int
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, l := range lists {
		raw, err := os.ReadFile(l) //nolint:gosec // /proc
		if err != nil {
			continue // the thread is gone
		}
		for word := range strings.FieldsSeq(string(raw)) {
			if n, err := strconv.Atoi(word); err == nil {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out
}

// SignalChildren sends sig to every child; children that are gone by then are no error.
// It returns how many were there.
func (p *Process) SignalChildren(sig syscall.Signal) (n int, err error) {
	for _, pid := range p.Children() {
		switch e := syscall.Kill(pid, sig); {
		case e == nil:
			n++
		case !errors.Is(e, syscall.ESRCH):
			err = errors.Join(err, fmt.Errorf("child %d of %s: %w", pid, p.Name, e))
		}
	}
	return n, err
}

// Tail is the end of the log: the last lines of it.
func (p *Process) Tail(lines int) string {
	raw, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(raw), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}
