package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// load is work to be profiled.
type load struct {
	name, work string
	clients    int
	prepare    func(ctx context.Context, e *env) (do func(context.Context) error, done func() error, err error)
}

func loads() []load {
	return []load{
		{"store", "store updates, 1 KB, 3 nodes in one process, 256 clients", 256,
			func(ctx context.Context, e *env) (func(context.Context) error, func() error, error) {
				db, err := startStores(ctx, e)
				if err != nil {
					return nil, nil, err
				}
				return db.writer(), db.close, nil
			}},
		{"jobs", fmt.Sprintf("a storm of jobs, %d at a time, controller and agent in one process", jobsAtOnce), jobsAtOnce,
			func(ctx context.Context, e *env) (func(context.Context) error, func() error, error) {
				w, err := startWhole(ctx, e)
				if err != nil {
					return nil, nil, err
				}
				var next atomic.Int64
				return func(ctx context.Context) error { return w.job(ctx, w.asset(int(next.Add(1))%w.assets)) }, w.close, nil
			}},
		{"reads", "API reads, lists of assets, 16 clients", 16,
			func(ctx context.Context, e *env) (func(context.Context) error, func() error, error) {
				w, err := startWhole(ctx, e)
				if err != nil {
					return nil, nil, err
				}
				return w.read, w.close, nil
			}},
	}
}

// kinds are the profiles taken, with what pprof is told to make of them.
var kinds = []struct{ name, what, index string }{
	{"cpu", "CPU time", ""},
	{"allocs", "bytes allocated", "-sample_index=alloc_space"},
	{"block", "time blocked", ""},
	{"mutex", "time others waited for a mutex", ""},
}

const (
	profileFor = 8 * time.Second
	topEntries = 12
)

// profile has each load run in a process of its own, for profiles count from the start of one.
func profile(ctx context.Context, o options, log *slog.Logger, stdout, stderr io.Writer) error {
	if err := os.MkdirAll(o.profile, 0o700); err != nil {
		return err
	}
	known := loads()
	if len(o.rows) == 1 {
		for _, l := range known {
			if l.name == o.rows[0] {
				e, err := newEnv(o, log, stderr)
				if err != nil {
					return err
				}
				return errors.Join(e.profile(ctx, l, o.profile, stdout), e.close())
			}
		}
		return fmt.Errorf("no load %q to profile; there are store, jobs and reads", o.rows[0])
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, l := range known {
		if len(o.rows) > 0 && !slices.Contains(o.rows, l.name) {
			continue
		}
		args := []string{"--profile", o.profile, "--rows", l.name, "--dir", o.dir, "--bin", o.bin, fmt.Sprintf("--quick=%v", o.quick)}
		cmd := exec.CommandContext(ctx, self, args...) //nolint:gosec // this program
		cmd.Stdout, cmd.Stderr = stdout, stderr
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("load %s: %w", l.name, err)
		}
	}
	return nil
}

func (e *env) profile(ctx context.Context, l load, dir string, stdout io.Writer) (err error) {
	do, done, err := l.prepare(ctx, e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	span := profileFor
	if e.quick {
		span = e.span()
	}
	var cpu bytes.Buffer
	runtime.SetBlockProfileRate(10_000) // a sample for each 10 µs blocked
	runtime.SetMutexProfileFraction(10)
	defer runtime.SetBlockProfileRate(0)
	defer runtime.SetMutexProfileFraction(0)
	if err := pprof.StartCPUProfile(&cpu); err != nil {
		return err
	}
	perSecond, err := rate(ctx, span, l.clients, do)
	pprof.StopCPUProfile()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "== %s: %s: %s/s\n", l.name, l.work, number(perSecond[0])); err != nil {
		return err
	}
	for _, k := range kinds {
		raw := cpu
		if k.name != "cpu" {
			raw.Reset()
			if err := pprof.Lookup(k.name).WriteTo(&raw, 0); err != nil {
				return err
			}
		}
		path := filepath.Join(dir, l.name+"."+k.name+".prof")
		if err := os.WriteFile(path, raw.Bytes(), 0o600); err != nil {
			return err
		}
		if err := top(ctx, path, k.index, k.what, stdout); err != nil {
			return err
		}
	}
	return nil
}

// top prints the heaviest entries of a profile, by what they cause.
func top(ctx context.Context, path, index, what string, stdout io.Writer) error {
	args := []string{"tool", "pprof", "-top", "-cum", fmt.Sprintf("-nodecount=%d", topEntries), "-show=reeve|raft|bbolt|tls|grpc|gin|cbor|syscall|runtime.gcBgMarkWorker"}
	if index != "" {
		args = append(args, index)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, path)...) //nolint:gosec // our own
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go tool pprof %s: %w", path, err)
	}
	_, err = fmt.Fprintf(stdout, "-- %s (%s)\n%s\n", what, path, strings.TrimSpace(string(out)))
	return err
}
