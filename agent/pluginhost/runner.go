package pluginhost

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// drainTime is how long the output of an ended process is still read: a process it
// left behind may hold the pipe open.
const drainTime = time.Second

// runner runs a connector for go-plugin. Unlike go-plugin's own it runs an image, in a
// process group of its own that dies with the agent, without standard input, and it
// always reaps.
type runner struct {
	name           string
	cmd            *exec.Cmd
	stdout, stderr *os.File
	outW, errW     *os.File
	exited         chan struct{} // closed when the process is reaped
	exitErr        error         // valid once exited is closed
	ended          string        // likewise: how it ended, if by itself

	mu      sync.Mutex
	running bool // started, reaped or not
	doomed  bool // killed, perhaps before it was started: then it never is
}

// errDoomed is why a connector that was killed before it began does not start.
var errDoomed = errors.New("pluginhost: killed before it was started")

func newRunner(name string, img *image, cmd *exec.Cmd) (*runner, error) {
	r := &runner{name: name, cmd: cmd, exited: make(chan struct{})}
	var err error
	if r.stdout, r.outW, err = os.Pipe(); err != nil {
		return nil, err
	}
	if r.stderr, r.errW, err = os.Pipe(); err != nil {
		_, _ = r.stdout.Close(), r.outW.Close()
		return nil, err
	}
	cmd.Path, cmd.Args, cmd.Dir = img.path(), []string{filePrefix + name}, "/"
	cmd.Err = nil // of looking up the empty name go-plugin made the command with
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, r.outW, r.errW
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return r, nil
}

// Start implements runner.Runner.
func (r *runner) Start(context.Context) error {
	started := make(chan error, 1)
	go r.supervise(started)
	err := <-started
	_, _ = r.outW.Close(), r.errW.Close()
	if err != nil {
		_, _ = r.stdout.Close(), r.stderr.Close()
	}
	return err
}

// supervise starts the process and waits for its end on one thread that lives as long
// as the process does: Pdeathsig is sent when the thread that forked dies.
func (r *runner) supervise(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(r.exited)
	if err := r.begin(); err != nil {
		started <- err
		return
	}
	started <- nil
	pid := r.cmd.Process.Pid
	for { // until it has ended, but before its number can be given to another
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = unix.Kill(-pid, unix.SIGKILL) // what it left behind in its group
	state, err := r.cmd.Process.Wait()
	if err == nil && state.Exited() {
		r.ended = state.String()
	}
	if err == nil && !state.Success() {
		err = errors.New(state.String())
	}
	r.exitErr = err
	deadline := time.Now().Add(drainTime)
	_, _ = r.stdout.SetReadDeadline(deadline), r.stderr.SetReadDeadline(deadline)
}

// begin starts the process unless it was killed before.
func (r *runner) begin() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.doomed {
		return errDoomed
	}
	err := r.cmd.Start()
	r.running = err == nil
	return err
}

// kill ends the process group at once and returns when the process is reaped. A process
// that has not begun never will.
func (r *runner) kill() {
	r.mu.Lock()
	r.doomed = true
	running := r.running
	r.mu.Unlock()
	if !running {
		return
	}
	select {
	case <-r.exited:
		return
	default:
	}
	_ = unix.Kill(-r.cmd.Process.Pid, unix.SIGKILL)
	<-r.exited
}

// Wait implements runner.Runner.
func (r *runner) Wait(context.Context) error {
	<-r.exited
	return r.exitErr
}

// Kill implements runner.Runner.
func (r *runner) Kill(context.Context) error {
	r.kill()
	return nil
}

// Diagnose implements runner.Runner: why there was no handshake, as far as can be told.
func (r *runner) Diagnose(context.Context) string {
	return "the file is not a connector, or not one for this system: build it for " + runtime.GOOS + "/" + runtime.GOARCH +
		" with plugins/sdk"
}

// Stdout implements runner.Runner.
func (r *runner) Stdout() io.ReadCloser { return r.stdout }

// Stderr implements runner.Runner.
func (r *runner) Stderr() io.ReadCloser { return r.stderr }

// Name implements runner.Runner.
func (r *runner) Name() string { return r.name }

// ID implements runner.Runner.
func (r *runner) ID() string {
	if r.cmd.Process == nil {
		return ""
	}
	return strconv.Itoa(r.cmd.Process.Pid)
}

// PluginToHost implements runner.Runner: both see the same files.
func (r *runner) PluginToHost(network, addr string) (string, string, error) {
	return network, addr, nil
}

// HostToPlugin implements runner.Runner.
func (r *runner) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}
