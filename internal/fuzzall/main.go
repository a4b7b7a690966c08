// Command fuzzall runs every fuzz target of the module for a while, several side by side.
//
//	go run ./internal/fuzzall -time 30s            # what CI does
//	go run ./internal/fuzzall -time 5m -run Entry  # one family, longer
//	go run ./internal/fuzzall -time 5m -keep       # and keep what was found
//
// An input that fails is written to the package's testdata/fuzz, as the go command does it, so that it can be
// repaired and then stays as a test. With -keep, inputs that reach new code are kept there as well: they are the
// corpora that every later run, and every ordinary test run, begins with.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// target is one fuzz function.
type target struct {
	dir    string // of its package, from the module's root
	name   string
	binary string // instrumented test binary of the package
}

// verdict is what became of a target.
type verdict struct {
	target
	output     string
	executions int
	kept       int
	err        error
}

func main() {
	budget := flag.Duration("time", 30*time.Second, "how long each target runs")
	width := flag.Int("width", 4, "how many targets run side by side")
	only := flag.String("run", "", "regular expression of the targets to run")
	keep := flag.Bool("keep", false, "keep inputs that reach new code in testdata/fuzz")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, *budget, *width, *only, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "fuzzall:", err)
		os.Exit(1) //nolint:gocritic // what is deferred is a signal handler
	}
}

func run(ctx context.Context, out io.Writer, budget time.Duration, width int, only string, keep bool) error {
	work, err := os.MkdirTemp("", "fuzzall-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	match, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	targets, err := discover(ctx, match)
	if err != nil {
		return err
	}
	if targets, err = build(ctx, work, targets); err != nil {
		return err
	}

	queue, verdicts := make(chan target), make(chan verdict)
	var workers sync.WaitGroup
	for range width {
		workers.Go(func() {
			for t := range queue {
				verdicts <- fuzz(ctx, work, t, budget, keep)
			}
		})
	}
	go func() {
		for _, t := range targets {
			queue <- t
		}
		close(queue)
		workers.Wait()
		close(verdicts)
	}()
	var executions, failed int
	for v := range verdicts {
		executions += v.executions
		note := ""
		if v.kept > 0 {
			note = fmt.Sprintf(", %d inputs kept", v.kept)
		}
		if v.err != nil {
			failed++
			note += ", FAILED: " + v.err.Error() + "\n" + v.output
		}
		_, _ = fmt.Fprintf(out, "%-28s %-24s %9d executions%s\n", v.dir, v.name, v.executions, note)
	}
	_, _ = fmt.Fprintf(out, "fuzz: %d targets, %d executions, %d failed\n", len(targets), executions, failed)
	if failed > 0 {
		return errors.New("the inputs that failed are in testdata/fuzz of their packages")
	}
	return ctx.Err()
}

var declaration = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

// discover finds the fuzz targets in the working tree.
func discover(ctx context.Context, match *regexp.Regexp) ([]target, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-e", "-f",
		`{{$d := .Dir}}{{range .TestGoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}`, "./...").Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	var targets []target
	for file := range strings.FieldsSeq(string(out)) {
		source, err := os.ReadFile(file) //nolint:gosec // a file of this module, named by the go command
		if err != nil {
			return nil, err
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return nil, err
		}
		for _, m := range declaration.FindAllSubmatch(source, -1) {
			if name := string(m[1]); match.MatchString(name) {
				targets = append(targets, target{dir: dir, name: name})
			}
		}
	}
	if len(targets) == 0 {
		return nil, errors.New("no fuzz target matches")
	}
	return targets, nil
}

// build makes one instrumented test binary for each package.
func build(ctx context.Context, work string, targets []target) ([]target, error) {
	built := map[string]string{}
	for i, t := range targets {
		if built[t.dir] == "" {
			binary := filepath.Join(work, strings.ReplaceAll(t.dir, "/", "-")+".test")
			c := exec.CommandContext(ctx, "go", "test", "-tags", "nomsgpack", "-fuzz", "Fuzz", "-c", "-o", binary, "./"+t.dir) //nolint:gosec // our own packages
			if out, err := c.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("build %s: %w\n%s", t.dir, err, out)
			}
			built[t.dir] = binary
			fmt.Fprintf(os.Stderr, "built %s\n", t.dir)
		}
		targets[i].binary = built[t.dir]
	}
	return targets, nil
}

var progress = regexp.MustCompile(`execs: (\d+)`)

// fuzz runs one target. Minimizing is kept short: a small run is for finding, not for beauty.
func fuzz(ctx context.Context, work string, t target, budget time.Duration, keep bool) verdict {
	cache := filepath.Join(work, "cache", t.dir)
	c := exec.CommandContext(ctx, t.binary, "-test.run=^$", "-test.fuzz=^"+t.name+"$", "-test.fuzztime="+budget.String(), //nolint:gosec // built above
		"-test.fuzzminimizetime=200x", "-test.parallel=1", "-test.fuzzcachedir="+cache, "-test.timeout="+(budget+5*time.Minute).String())
	c.Dir = t.dir
	// An interrupted coordinator must not leave its worker behind.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	out, err := c.CombinedOutput()
	v := verdict{target: t, output: string(out), err: err}
	for _, m := range progress.FindAllStringSubmatch(v.output, -1) {
		v.executions, _ = strconv.Atoi(m[1])
	}
	if err == nil && v.executions == 0 {
		v.err = errors.New("it executed nothing")
	}
	if keep && v.err == nil {
		v.kept, v.err = keepCorpus(filepath.Join(cache, t.name), filepath.Join(t.dir, "testdata", "fuzz", t.name))
	}
	return v
}

// At most so many inputs of at most so many bytes are kept for a target: the small ones come first.
const (
	keptInputs = 24
	keptSize   = 4 << 10
)

func keepCorpus(from, to string) (int, error) {
	entries, err := os.ReadDir(from)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	inputs := map[string][]byte{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(from, e.Name())) //nolint:gosec // the cache of this run
		if err != nil {
			return 0, err
		}
		if len(b) <= keptSize {
			inputs[e.Name()] = b
		}
	}
	names := make([]string, 0, len(inputs))
	for name := range inputs {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(len(inputs[a])-len(inputs[b]), strings.Compare(a, b))
	})
	names = names[:min(len(names), keptInputs)]
	if len(names) == 0 {
		return 0, nil
	}
	if err := os.MkdirAll(to, 0o755); err != nil { //nolint:gosec // part of the source tree
		return 0, err
	}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(to, name), inputs[name], 0o644); err != nil { //nolint:gosec // part of the source tree
			return 0, err
		}
	}
	return len(names), nil
}
