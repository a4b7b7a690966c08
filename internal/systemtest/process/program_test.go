//go:build linux

package process

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
)

// buildFlags are those of the Makefile, so that the build cache is shared with it.
var buildFlags = []string{"build", "-trimpath", "-tags", "nomsgpack", "-ldflags", "-s -w"}

// programs are built once, into a directory that goes with the test run.
var programs struct {
	once sync.Once
	dir  string
	err  error
}

// parallel is how many tests run at a time: most of what they do is to wait, for a
// token to expire, a member to be trusted with a vote, an agent to try again.
const parallel = "6"

// TestMain removes the programs and fails the run if one of them is still running.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", parallel); err != nil {
		panic(err)
	}
	status := m.Run()
	if programs.dir != "" {
		if left := survivors(programs.dir); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "FAIL: still running: %v\n", left)
			status = max(status, 1)
		}
		_ = os.RemoveAll(programs.dir)
	}
	os.Exit(status)
}

// survivors are processes that run a program of dir.
func survivors(dir string) (left []string) {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, l := range links {
		if exe, err := os.Readlink(l); err == nil && strings.HasPrefix(exe, dir) {
			left = append(left, l+" "+exe)
		}
	}
	return left
}

// bin is the directory of the programs; the connectors are in "connectors" below it.
func bin(t testing.TB) string {
	t.Helper()
	programs.once.Do(func() {
		if programs.dir, programs.err = os.MkdirTemp("", "reeve-process-"); programs.err != nil {
			return
		}
		for out, from := range map[string][]string{
			"":                           {"./controller/cmd/reeved", "./agent/cmd/reeve-agent", "./api/cmd/reeve"},
			"connectors/connector-ssh":   {"./plugins/ssh"},
			"connectors/connector-mysql": {"./plugins/mysql"},
		} {
			args := append(slices.Clone(buildFlags), "-o", filepath.Join(programs.dir, out)+strings.Repeat("/", 1-min(len(out), 1)))
			cmd := exec.CommandContext(context.Background(), "go", append(args, from...)...)
			cmd.Dir = "../../.."
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if text, err := cmd.CombinedOutput(); err != nil {
				programs.err = fmt.Errorf("build %v: %w\n%s", from, err, text)
				return
			}
		}
	})
	if programs.err != nil {
		t.Fatal(programs.err)
	}
	return programs.dir
}

// process is a program that runs beside the test.
type process struct {
	t    testing.TB
	name string
	log  string // file with everything it printed
	cmd  *exec.Cmd
	done chan struct{}
}

// start runs a program until the test ends, in a network node if one is given. Its log
// goes on where an earlier process of the name left off.
func start(t testing.TB, on *testlab.Node, dir, name, program string, args ...string) *process {
	t.Helper()
	return startWith(t, nil, on, dir, name, program, args...)
}

// startWith is start with more in the environment.
func startWith(t testing.TB, env []string, on *testlab.Node, dir, name, program string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	p.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(bin(t), program), args...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = log, log, append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	if on != nil {
		on.Enter(p.cmd)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", name, tail(p.logged(), 4000))
		}
	})
	return p
}

// kill ends the process as kill -9 does, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop asks the process to end, and insists.
func (p *process) stop() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.t.Errorf("%s did not stop when asked to", p.name)
		p.kill()
	}
}

// status waits for the process to end by itself.
func (p *process) status() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.t.Fatalf("%s runs on:\n%s", p.name, tail(p.logged(), 2000))
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) logged() string {
	raw, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Errorf("log of %s: %v", p.name, err)
	}
	return string(raw)
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// answer is how a program ended that was run to its end.
type answer struct {
	command  string
	status   int
	out, err string
}

func (a answer) String() string {
	return fmt.Sprintf("%s\nended with %d\n%s%s", a.command, a.status, a.out, a.err)
}

// run runs a program to its end.
func run(t testing.TB, on *testlab.Node, dir, stdin, program string, args ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin(t), program), args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if on != nil {
		on.Enter(cmd)
	}
	began := time.Now()
	err := cmd.Run()
	if d := time.Since(began); d > 5*time.Second {
		t.Logf("%s took %s: %s %s", program, d.Round(time.Second), strings.Join(args, " "), tail(errOut.String(), 700))
	}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatalf("%s: %v", program, err)
	}
	return answer{command: program + " " + strings.Join(args, " "), status: cmd.ProcessState.ExitCode(), out: out.String(), err: errOut.String()}
}

// must fails the test unless the program succeeded.
func (a answer) must(t testing.TB) answer {
	t.Helper()
	if a.status != 0 {
		t.Fatal(a)
	}
	return a
}

// refused fails the test unless the program ended with status 1 and says why: the
// code, in brackets, and each of the words.
func (a answer) refused(t testing.TB, code string, words ...string) {
	t.Helper()
	if a.status != 1 || !strings.Contains(a.err, "["+code+"]") {
		t.Errorf("want status 1 and code %s:\n%s", code, a)
	}
	for _, w := range words {
		if !strings.Contains(a.err, w) {
			t.Errorf("want %q:\n%s", w, a)
		}
	}
}

// usage fails the test unless the program ended with status 2 and says what is wrong.
func (a answer) usage(t testing.TB, words ...string) {
	t.Helper()
	if a.status != 2 || a.out != "" {
		t.Errorf("want status 2 and nothing on standard output:\n%s", a)
	}
	for _, w := range words {
		if !strings.Contains(a.err, w) {
			t.Errorf("want %q:\n%s", w, a)
		}
	}
}

// eventually tries until it succeeds; it fails the test with the last error when the
// limit is over. It returns how long it took.
func eventually(t testing.TB, limit time.Duration, try func() error) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		err := try()
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > limit {
			t.Fatalf("not within %s: %v", limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
