// Command conformance runs the conformance kit (plugins/sdk/sdktest) on every connector
// under plugins/ that has a TestConformance, and counts what it did.
//
//	go run ./internal/conformance               # all
//	go run ./internal/conformance -v ssh mysql  # some, with every check
//
// It ends with a line "conformance: N connectors, M checks, F failed", and with status 1
// unless F is 0 and every connector was checked.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk/sdktest"
)

func main() {
	verbose := flag.Bool("v", false, "print the report of every run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, *verbose, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1) //nolint:gocritic // what is deferred is a signal handler
	}
}

// tally is what was counted.
type tally struct{ connectors, checks, failed int }

func (n tally) String() string {
	return fmt.Sprintf("conformance: %d connectors, %d checks, %d failed", n.connectors, n.checks, n.failed)
}

func run(ctx context.Context, out io.Writer, verbose bool, names []string) error {
	found, err := connectors("plugins")
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.Contains(found, name) {
			return fmt.Errorf("plugins/%s has no TestConformance", name)
		}
	}
	if len(names) == 0 {
		names = found
	}
	var sum tally
	var failures []error
	for _, name := range names {
		sum.connectors++
		began := time.Now()
		reports, printed, failed := examine(ctx, name)
		var here tally
		notApplicable := 0
		for _, r := range reports {
			here.checks += r.Count(sdktest.Passed) + r.Count(sdktest.Failed)
			here.failed += r.Count(sdktest.Failed)
			notApplicable += r.Count(sdktest.NotApplicable)
			if verbose || !r.Passed() {
				_, _ = fmt.Fprint(out, r)
			}
		}
		_, _ = fmt.Fprintf(out, "%-10s %d checks in %d runs, %d failed, %d not applicable, %s\n",
			name, here.checks, len(reports), here.failed, notApplicable, time.Since(began).Round(time.Second))
		sum.checks, sum.failed = sum.checks+here.checks, sum.failed+here.failed
		if err := verdict(name, here, failed); err != nil {
			failures = append(failures, err)
			if here.failed == 0 {
				_, _ = fmt.Fprint(out, printed) // the tests say why
			}
		}
	}
	_, _ = fmt.Fprintln(out, sum)
	return errors.Join(failures...)
}

// verdict is what is wrong with a run; tests that do no check prove nothing.
func verdict(name string, n tally, failed error) error {
	switch {
	case n.failed > 0:
		return fmt.Errorf("%s: %d checks failed", name, n.failed)
	case failed != nil:
		return fmt.Errorf("%s: %w", name, failed)
	case n.checks == 0:
		return fmt.Errorf("%s: no check was done", name)
	default:
		return nil
	}
}

// connectors are the folders under dir whose tests have a TestConformance.
func connectors(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "*_test.go"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		name := filepath.Base(filepath.Dir(file))
		if strings.Contains(string(text), "\nfunc TestConformance(") && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, errors.New("no connector has a TestConformance; run this at the root of the module")
	}
	return names, nil
}

// examine runs the kit on one connector.
func examine(ctx context.Context, name string) (reports []sdktest.Report, printed string, failed error) {
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	cmd := exec.CommandContext(ctx, "go", "test", "-tags", "nomsgpack", "-count", "1", "-timeout", "10m", "-run", "^TestConformance$", "./plugins/"+name)
	cmd.Env = append(os.Environ(), sdktest.ReportDir+"="+dir, "REEVE_LAB=require")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	text, failed := cmd.CombinedOutput()
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, string(text), err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, string(text), err
		}
		var r sdktest.Report
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, string(text), err
		}
		reports = append(reports, r)
	}
	return reports, string(text), failed
}
