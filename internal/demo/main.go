// Command demo shows Reeve at work: three controllers, two agents in two sites, real
// Linux hosts and a real MariaDB. It uses the programs in bin/ as a user would and
// believes none of them: after every step it looks at the targets with plain clients
// and at their own files. `make demo` runs it; with --once it ends by itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/reeve-pam/reeve/internal/fleet"
)

func main() {
	once := flag.Bool("once", false, "end after the last step instead of serving on")
	dir := flag.String("dir", ".demo", "where the cluster keeps its data; emptied first")
	bin := flag.String("bin", "bin", "where the programs are")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *once, *dir, *bin)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is one run.
type demo struct {
	dir, bin string
	steps    int
	lab      *targets
	cluster  *fleet.Fleet
}

func run(ctx context.Context, once bool, dir, bin string) (err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	d := &demo{dir: dir, bin: bin}
	defer func() {
		if d.cluster != nil {
			err = errors.Join(err, d.cluster.Stop())
			if err != nil {
				d.cluster.Tails(os.Stderr, 15)
			}
		}
		if d.lab != nil {
			err = errors.Join(err, d.lab.Close())
		}
	}()
	began := time.Now()
	for _, s := range d.story() {
		if err := d.step(ctx, s.title, s.do); err != nil {
			return err
		}
	}
	fmt.Printf("\nall of it took %s\n", time.Since(began).Round(100*time.Millisecond))
	fmt.Printf("demo: %d steps ok\n", d.steps)
	if once {
		return nil
	}
	reeve := d.cluster.Program("reeve")
	fmt.Printf(`
It keeps serving. In another terminal:

  export REEVE_CONTEXT=%s
  %s cluster status
  %s account list
  %s account show pam_alice@web01 --plans
  %s account reveal pam_alice@web01 --reason 'to see it'
  %s audit list

Ctrl-C ends it.
`, d.cluster.Context(), reeve, reeve, reeve, reeve, reeve)
	<-ctx.Done()
	return nil
}

// step runs one step and prints its line.
func (d *demo) step(ctx context.Context, title string, do func(context.Context) error) error {
	began := time.Now()
	if err := do(ctx); err != nil {
		fmt.Printf("✗ %-72s %7s\n", title, time.Since(began).Round(time.Millisecond))
		return fmt.Errorf("%s: %w", title, err)
	}
	d.steps++
	fmt.Printf("✓ %-72s %7s\n", title, time.Since(began).Round(time.Millisecond))
	return nil
}
