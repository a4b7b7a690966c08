package pluginhost

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/toy"
)

// built are the connectors of these tests, compiled once.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// install copies the named connectors (see testdata, and toy) into a directory.
func install(t testing.TB, names ...string) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "reeve-pluginhost-test-"); built.err != nil {
			return
		}
		for name, pkg := range map[string]string{"toy": "../../plugins/sdk/sdktest/toy/connector-toy", "bad": "./testdata/connector-bad", "one": "./testdata/connector-one"} {
			out, err := exec.Command("go", "build", "-o", filepath.Join(built.dir, filePrefix+name), pkg).CombinedOutput() //nolint:gosec,noctx // our own
			if err != nil {
				built.err = fmt.Errorf("%s: %w\n%s", name, err, out)
				return
			}
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	dir := t.TempDir()
	for _, n := range names {
		raw, err := os.ReadFile(filepath.Join(built.dir, filePrefix+n))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filePrefix+n), raw, 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	return dir
}

// newHost runs a host on the directory; its cleanup checks that nothing is left.
func newHost(t testing.TB, dir string) *Host {
	t.Helper()
	h := New(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(h.sockets); h.sockets != "" && err == nil {
			t.Error("the directory of the sockets is left behind")
		}
	})
	return h
}

func sum(t testing.TB, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := sha256.Sum256(raw)
	return hex.EncodeToString(s[:])
}

func acquire(t testing.TB, h *Host, name string) *Process {
	t.Helper()
	p, err := h.Acquire(t.Context(), name, []string{sum(t, filepath.Join(h.dir, filePrefix+name))})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func probe(ctx context.Context, p *Process, target sdk.Target) error {
	return p.Call(ctx, func(ctx context.Context, c *sdk.Client) error {
		_, err := c.Probe(ctx, target)
		return err
	})
}

func TestConnectorServesAndIsUsedAgain(t *testing.T) {
	t.Parallel()
	h := newHost(t, install(t, "toy"))
	m := toy.NewMachine(t)
	p := acquire(t, h, "toy")
	if err := probe(t.Context(), p, m.Target()); err != nil {
		t.Fatal(err)
	}
	pid := p.run.ID()
	p.Release()
	again := acquire(t, h, "toy")
	defer again.Release()
	if again.run.ID() != pid {
		t.Error("an idle process was not used again")
	}
	beside := acquire(t, h, "toy")
	defer beside.Release()
	if beside.run.ID() != pid {
		t.Error("a job beside another got a process of its own")
	}
}

// Jobs that come together wait for one process to start.
func TestJobsTogetherStartOneProcess(t *testing.T) {
	t.Parallel()
	h := newHost(t, install(t, "toy"))
	pids := make([]string, 16)
	var wg sync.WaitGroup
	for i := range pids {
		wg.Go(func() {
			p := acquire(t, h, "toy")
			pids[i] = p.run.ID()
			p.Release()
		})
	}
	wg.Wait()
	slices.Sort(pids)
	if n := len(slices.Compact(pids)); n != 1 {
		t.Errorf("%d processes were started", n)
	}
}

// The file is replaced again and again while jobs start: what runs always has the
// digest that was asked for, and says so itself.
func TestSwappedBinaryNeverRuns_P1(t *testing.T) {
	t.Parallel()
	dir := install(t, "toy", "bad")
	good, evil := filepath.Join(dir, filePrefix+"toy"), filepath.Join(dir, filePrefix+"bad")
	want := sum(t, good)
	rawGood, _ := os.ReadFile(good)
	rawEvil, _ := os.ReadFile(evil)
	h := newHost(t, dir)
	stop, swapped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(swapped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			raw := rawGood
			if i%2 == 0 {
				raw = rawEvil
			}
			tmp := filepath.Join(dir, "tmp")
			if os.WriteFile(tmp, raw, 0o700) != nil || os.Rename(tmp, good) != nil { //nolint:gosec // a program
				t.Error("swap failed")
				return
			}
		}
	}()
	ran, refused := 0, 0
	for range 15 {
		p, err := h.Acquire(t.Context(), "toy", []string{want})
		if err != nil {
			if sdk.ClassOf(err) != reeve.ClassPluginChanged {
				t.Errorf("refused with %v", err)
			}
			refused++
			continue
		}
		ran++
		exe, err := os.ReadFile("/proc/" + p.run.ID() + "/exe")
		if got := sha256.Sum256(exe); err != nil || hex.EncodeToString(got[:]) != want {
			t.Errorf("a process runs other bytes: %v", err)
		}
		p.retire()
		p.Release()
	}
	close(stop)
	<-swapped
	t.Logf("%d ran, %d were refused", ran, refused)
}

func TestUnregisteredDigestIsRefusedAndNothingRuns_P4(t *testing.T) {
	t.Parallel()
	dir := install(t, "toy")
	h := newHost(t, dir)
	path := filepath.Join(dir, filePrefix+"toy")
	want := sum(t, path)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	_, err = h.Acquire(t.Context(), "toy", []string{want})
	if sdk.ClassOf(err) != reeve.ClassPluginChanged {
		t.Errorf("got %v", err)
	}
	if len(h.processes) != 0 {
		t.Error("something was run")
	}
}

func TestConnectorNamesAreNotPaths(t *testing.T) {
	t.Parallel()
	h := newHost(t, t.TempDir())
	for _, name := range []string{"", "../toy", "a/b", "Toy", "toy\x00", strings.Repeat("x", 65)} {
		if _, err := h.Acquire(t.Context(), name, nil); sdk.ClassOf(err) != sdk.ClassInvalid {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := h.Acquire(t.Context(), "absent", nil); sdk.ClassOf(err) != sdk.ClassUnsupported {
		t.Errorf("absent: %v", err)
	}
}

// The agent's environment, standard input and descriptors stay its own.
func TestNothingOfTheAgentIsInherited_P2(t *testing.T) {
	t.Setenv("REEVE_TEST_CANARY", "c4nary-value")
	leak, err := os.CreateTemp(t.TempDir(), "agent-key")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = leak.Close() }()
	h := newHost(t, install(t, "toy"))
	p := acquire(t, h, "toy")
	defer p.Release()
	proc := "/proc/" + p.run.ID()
	for _, f := range []string{"environ", "cmdline"} {
		raw, err := os.ReadFile(filepath.Join(proc, f))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte("c4nary")) || f == "environ" && bytes.Contains(raw, []byte("PATH=")) {
			t.Errorf("%s: %q", f, raw)
		}
	}
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink(filepath.Join(proc, "fd", fd.Name()))
		if to == leak.Name() || strings.Contains(to, "memfd") || fd.Name() == "0" && to != os.DevNull {
			t.Errorf("descriptor %s is %s", fd.Name(), to)
		}
	}
	if info, err := os.Stat(h.sockets); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("sockets: %v %v", info, err)
	}
}

// alive reports whether a process is there and not a zombie.
func alive(pid string) bool {
	raw, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false
	}
	rest := raw[bytes.LastIndexByte(raw, ')')+1:]
	return !bytes.HasPrefix(rest, []byte(" Z"))
}

func gone(t testing.TB, pid string) {
	t.Helper()
	for range 500 {
		if !alive(pid) {
			return
		}
		time.Sleep(10 * time.Millisecond) // polls a real process
	}
	t.Errorf("process %s is still there", pid)
}

// bad asks connector-bad to misbehave: the probe's address says how.
func bad(how string) sdk.Target { return sdk.Target{Address: how} }

func TestHangingCallIsKilledWithinItsGrace_P3(t *testing.T) {
	t.Parallel()
	h := newHost(t, install(t, "bad", "toy"))
	p, other := acquire(t, h, "bad"), acquire(t, h, "toy")
	defer other.Release()
	pid := p.run.ID()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := probe(ctx, p, bad("hang"))
	took := time.Since(began)
	p.Release()
	if err == nil || took > 200*time.Millisecond+killGrace+time.Second {
		t.Errorf("%v after %s", err, took)
	}
	gone(t, pid)
	if err := probe(t.Context(), other, toy.NewMachine(t).Target()); err != nil {
		t.Errorf("another job suffered: %v", err)
	}
}

func TestCancelledCallReturnsWhenItsProcessIsDead_C17(t *testing.T) {
	t.Parallel()
	h := newHost(t, install(t, "bad"))
	p := acquire(t, h, "bad")
	ctx, cancel := context.WithCancel(t.Context())
	stop := time.AfterFunc(100*time.Millisecond, cancel)
	defer stop.Stop()
	if err := probe(ctx, p, bad("hang")); err == nil {
		t.Error("no error")
	}
	if alive(p.run.ID()) {
		t.Error("the process still runs")
	}
	p.Release()
}

func TestCrashIsAnErrorAndTheNextJobGetsANewProcess_C72(t *testing.T) {
	t.Parallel()
	h := newHost(t, install(t, "bad"))
	p := acquire(t, h, "bad")
	pid := p.run.ID()
	if err := probe(t.Context(), p, bad("crash")); sdk.ClassOf(err) != sdk.ClassInternal {
		t.Errorf("got %v", err)
	}
	<-p.run.exited
	p.Release()
	next := acquire(t, h, "bad")
	defer next.Release()
	if next.run.ID() == pid {
		t.Error("a dead process was handed out")
	}
	if err := probe(t.Context(), next, bad("fine")); err != nil {
		t.Error(err)
	}
}

func TestStoppedProcessIsReplaced_C72(t *testing.T) {
	t.Parallel()
	h := newHost(t, install(t, "bad"))
	p := acquire(t, h, "bad")
	pid := p.run.ID()
	p.Release()
	p.alive.Store(0)
	n, _ := strconv.Atoi(pid)
	proc, err := os.FindProcess(n)
	if err != nil {
		t.Fatal(err)
	}
	if err := proc.Signal(sigStop); err != nil {
		t.Fatal(err)
	}
	next := acquire(t, h, "bad")
	defer next.Release()
	if next.run.ID() == pid {
		t.Error("a process that does not answer was handed out")
	}
	gone(t, pid)
}

// What a connector starts dies with it, also when it has left a child behind that
// holds its output open.
func TestChildrenOfAConnectorDieWithIt_C73(t *testing.T) {
	t.Parallel()
	h := newHost(t, install(t, "bad"))
	file := filepath.Join(t.TempDir(), "pid")
	p := acquire(t, h, "bad")
	if err := probe(t.Context(), p, bad("spawn:"+file)); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p.retire()
	p.Release()
	gone(t, string(raw))
	gone(t, p.run.ID())
}

func TestFileThatIsNoConnectorBacksOff_C75(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string]string{"text": "not a program", "script": "#!/bin/sh\nexit 3\n"} {
		if err := os.WriteFile(filepath.Join(dir, filePrefix+name), []byte(content), 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	h := newHost(t, dir)
	for _, name := range []string{"text", "script"} {
		digest := []string{sum(t, filepath.Join(dir, filePrefix+name))}
		_, first := h.Acquire(t.Context(), name, digest)
		_, second := h.Acquire(t.Context(), name, digest)
		if sdk.ClassOf(first) != sdk.ClassInternal || first != second { //nolint:errorlint // the very same: nothing was started
			t.Errorf("%s: %v, then %v", name, first, second)
		}
	}
}

func TestGiantFileIsNotRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, filePrefix+"giant")
	if err := os.WriteFile(path, nil, 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	if err := os.Truncate(path, MaxSize+1); err != nil {
		t.Fatal(err)
	}
	if _, err := newHost(t, dir).Acquire(t.Context(), "giant", nil); sdk.ClassOf(err) != sdk.ClassInternal {
		t.Errorf("got %v", err)
	}
}

func TestDescribeTellsDigestAndDescription(t *testing.T) {
	t.Parallel()
	path := filepath.Join(install(t, "toy"), filePrefix+"toy")
	d, digest, err := Describe(t.Context(), path)
	if err != nil || d.Name != "toy" || digest != sum(t, path) || len(d.Powers) == 0 {
		t.Errorf("%+v %s %v", d, digest, err)
	}
}

// When the host has ended, no process, descriptor or goroutine of it is left.
func TestStoppedMeansJoined(t *testing.T) {
	dir := install(t, "toy")
	before, fds := runtime.NumGoroutine(), descriptors(t)
	h := New(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	idle, busy := acquire(t, h, "toy"), acquire(t, h, "toy")
	idle.Release()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if alive(idle.run.ID()) || alive(busy.run.ID()) {
		t.Error("a process is left")
	}
	for i := 0; runtime.NumGoroutine() > before || descriptors(t) > fds; i++ {
		if i == 300 {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines more, %d descriptors more\n%s", runtime.NumGoroutine()-before, descriptors(t)-fds,
				stacks[:runtime.Stack(stacks, true)])
		}
		time.Sleep(10 * time.Millisecond) // gRPC ends its own in the background
	}
}

func descriptors(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func BenchmarkAcquireIdle(b *testing.B) {
	h := newHost(b, install(b, "toy"))
	acquire(b, h, "toy").Release()
	digest := []string{sum(b, filepath.Join(h.dir, filePrefix+"toy"))}
	for b.Loop() {
		p, err := h.Acquire(b.Context(), "toy", digest)
		if err != nil {
			b.Fatal(err)
		}
		p.Release()
	}
}

func BenchmarkAcquireFresh(b *testing.B) {
	h := newHost(b, install(b, "toy"))
	for b.Loop() {
		p := acquire(b, h, "toy")
		p.retire()
		p.Release()
	}
}
