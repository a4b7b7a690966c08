//go:build linux

package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
)

// Options say where a fleet lives.
type Options struct {
	Dir    string        // for data and logs; made if missing
	Bin    string        // the programs, as Build and `make build` lay them out
	Reeved []string      // optional: what runs a controller instead of Bin/reeved; "server --config FILE" is added
	Timing string        // "" or "lan", see docs/operators.md
	From   *testlab.Node // optional: the network node the command line and API calls come from
}

// Fleet is a cluster of processes: controllers, agents, and how to talk to them.
type Fleet struct {
	Controllers []*Controller // in the order they were added
	Agents      []*Agent

	opts Options

	answered atomic.Int32 // the controller that answered last

	mu     sync.Mutex
	access *access // read from the context file, once
}

// New makes the directory of a fleet. Nothing runs yet.
func New(opts Options) (*Fleet, error) {
	var err error
	if opts.Dir, err = filepath.Abs(opts.Dir); err != nil {
		return nil, err
	}
	if opts.Bin, err = filepath.Abs(opts.Bin); err != nil {
		return nil, err
	}
	if len(opts.Reeved) == 0 {
		opts.Reeved = []string{filepath.Join(opts.Bin, "reeved")}
	}
	return &Fleet{opts: opts}, os.MkdirAll(opts.Dir, 0o700)
}

// Dir is where data and logs are.
func (f *Fleet) Dir() string { return f.opts.Dir }

// Context is the file for `reeve --context`, which holds the root token.
func (f *Fleet) Context() string { return filepath.Join(f.opts.Dir, "admin.yaml") }

// KeyFile is the seal key with which all controllers unseal themselves.
func (f *Fleet) KeyFile() string { return filepath.Join(f.opts.Dir, "seal.key") }

// Connectors is the directory of the connectors.
func (f *Fleet) Connectors() string { return filepath.Join(f.opts.Bin, "connectors") }

// Program is the path of a program: reeved, reeve-agent or reeve.
func (f *Fleet) Program(name string) string { return filepath.Join(f.opts.Bin, name) }

// Processes are all processes, agents first.
func (f *Fleet) Processes() (all []*Process) {
	for _, a := range f.Agents {
		all = append(all, a.Process)
	}
	for _, c := range f.Controllers {
		all = append(all, c.Process)
	}
	return all
}

// Stop ends all processes, agents first, and waits for them. Paused ones are resumed. One
// that does not stop within ten seconds is killed, and an error.
func (f *Fleet) Stop() error {
	var errs []error
	var agents, controllers []*Process
	for _, a := range f.Agents {
		agents = append(agents, a.Process)
	}
	for _, c := range f.Controllers {
		controllers = append(controllers, c.Process)
	}
	for _, group := range [][]*Process{agents, controllers} {
		ended := make([]error, len(group))
		var wg sync.WaitGroup
		for i, p := range group {
			_ = p.Resume()
			wg.Go(func() { ended[i] = p.End(10 * time.Second) })
		}
		wg.Wait()
		errs = append(errs, ended...)
	}
	f.hangUp()
	return errors.Join(errs...)
}

// Kill ends all processes as kill -9 does, at once.
func (f *Fleet) Kill() {
	var wg sync.WaitGroup
	for _, p := range f.Processes() {
		wg.Go(p.Kill)
	}
	wg.Wait()
	f.hangUp()
}

// Tails writes the end of every log, for a run that failed.
func (f *Fleet) Tails(w io.Writer, lines int) {
	for _, p := range f.Processes() {
		_, _ = fmt.Fprintf(w, "--- end of %s\n%s\n", p.Log, p.Tail(lines))
	}
}

// Run runs a program of the fleet to its end, from opts.From. stdin carries what must not
// be an argument. The error holds what the program wrote to standard error.
func (f *Fleet) Run(ctx context.Context, stdin, program string, args ...string) ([]byte, error) {
	return f.run(ctx, f.opts.From, stdin, program, args...)
}

func (f *Fleet) run(ctx context.Context, on *testlab.Node, stdin, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, f.Program(program), args...)
	cmd.Stdin, cmd.Dir = strings.NewReader(stdin), f.opts.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if on != nil {
		on.Enter(cmd)
	}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, bytes.TrimSpace(errOut.Bytes()))
	}
	return out.Bytes(), nil
}

// CLI runs reeve with the root token; with into it asks for JSON and decodes it.
func (f *Fleet) CLI(ctx context.Context, stdin string, into any, args ...string) error {
	args = append([]string{"--context", f.Context()}, args...)
	if into != nil {
		args = append(args, "-o", "json")
	}
	out, err := f.Run(ctx, stdin, "reeve", args...)
	if err != nil || into == nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("reeve %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// Eventually tries until it works, every 50 ms, or the time is over; then the error holds
// the last one.
func Eventually(ctx context.Context, limit time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// freeAddrs picks ports of ip nobody listens on.
func freeAddrs(ip string, n int) (addrs []string, err error) {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	for range n {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", net.JoinHostPort(ip, "0"))
		if err != nil {
			return nil, err
		}
		held = append(held, l)
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}
