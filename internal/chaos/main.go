//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/reeve-pam/reeve/controller"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/internal/memory"
)

// The times the broker keeps in these clusters: short, or a round would take minutes. They
// keep the order that makes a quarantine safe: KillGrace is more than an agent takes to
// end a connector (2 s), and nothing is paused for longer than longestPause.
var terms = jobs.Terms{Lease: 3 * time.Second, KillGrace: 3 * time.Second, DriftMargin: time.Second, Work: 8 * time.Second}

// longestPause is below the quarantine of a lost lease: what is paused longer may wake up
// and go on when nobody waits for it any more, on any system without fences on targets.
const longestPause = 4500 * time.Millisecond

// asController is the first argument of this program when it is a controller.
const asController = "controller"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if len(os.Args) > 1 && os.Args[1] == asController {
		err = runController(ctx, os.Args[2:])
	} else {
		err = run(ctx, os.Args[1:], os.Stdout)
	}
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// runController is `reeved server` with short terms.
func runController(ctx context.Context, args []string) error {
	if err := memory.KeepPrivate(); err != nil {
		return err
	}
	flags := flag.NewFlagSet("controller", flag.ContinueOnError)
	config := flags.String("config", "", "configuration file")
	if len(args) == 0 || args[0] != "server" {
		return errors.New("a controller takes: server --config FILE")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	cfg, err := controller.ReadConfig(*config)
	if err != nil {
		return err
	}
	cfg.Terms, cfg.StableFor = terms, 500*time.Millisecond
	cfg.Logger = slog.New(slog.NewJSONHandler(os.Stderr, nil))
	c, err := controller.New(cfg)
	if err != nil {
		return err
	}
	if err := c.Run(ctx); err != nil && (ctx.Err() == nil || !errors.Is(err, context.Canceled)) {
		return err
	}
	return nil
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	seed := flags.Uint64("seed", 1, "what the plan is computed from")
	rounds := flags.Int("rounds", 10, "how many rounds")
	onlyPlan := flags.Bool("plan", false, "print the plan and end")
	dir := flags.String("dir", "", "where logs and data go; kept when something was lost (default: a new directory)")
	bin := flags.String("bin", "bin", "where the programs are")
	if err := flags.Parse(args); err != nil {
		return err
	}
	todo := plan(*seed, *rounds)
	if *onlyPlan {
		printPlan(out, todo)
		return nil
	}
	if *dir == "" {
		if *dir, err = os.MkdirTemp("", "reeve-chaos-"); err != nil {
			return err
		}
	}
	if *dir, err = filepath.Abs(*dir); err != nil {
		return err
	}
	w, err := newWorld(ctx, worldOptions{dir: *dir, bin: *bin, seed: *seed, out: out})
	defer func() {
		err = errors.Join(err, w.close())
		if err == nil || ctx.Err() != nil {
			err = errors.Join(err, os.RemoveAll(*dir))
		} else {
			_, _ = fmt.Fprintf(out, "logs are kept in %s\nrepeat it with: make chaos ARGS=\"--seed %d --rounds %d\"\n", *dir, *seed, max(w.round, 1))
		}
	}()
	if err != nil {
		return err
	}
	return w.play(ctx, todo)
}
