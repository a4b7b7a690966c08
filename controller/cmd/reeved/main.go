// Command reeved is a Reeve controller: it keeps policy and the sealed vault,
// replicates them to its fellows, serves the API and hands jobs to agents.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/controller"
	"github.com/reeve-pam/reeve/internal/cmdline"
	"github.com/reeve-pam/reeve/internal/memory"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func main() {
	if err := memory.KeepPrivate(); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "reeved:", err)
		os.Exit(cmdline.Failed)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := cmdline.Run(ctx, newRoot(), os.Args[1:])
	stop()
	os.Exit(status)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "reeved",
		Short: "Run a Reeve controller",
		Long: `reeved runs one controller. The first of a cluster is made with "bootstrap", each further one with "join";
after that "server" runs it. For trying out, "dev" does everything at once.`,
		Example: `  reeved dev
  reeved bootstrap --config /etc/reeve/c1.yaml --admin-context admin.yaml
  reeved server --config /etc/reeve/c1.yaml`,
		Version: reeve.Version, Args: cmdline.NoSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(bootstrapCmd(), joinCmd(), serverCmd(), recoverCmd(), restoreCmd(), rehearseCmd(), keyFileCmd(), devCmd())
	return root
}

// configFlag adds --config and the logger, which writes what is of that level at least,
// and reads both.
func configFlag(cmd *cobra.Command, logLevel string) func() (controller.Config, error) {
	path := cmd.Flags().String("config", "", "configuration file (required)")
	level := logFlag(cmd, logLevel)
	_ = cmd.MarkFlagRequired("config")
	return func() (controller.Config, error) {
		cfg, err := controller.ReadConfig(*path)
		if err != nil {
			return cfg, err
		}
		cfg.Logger, err = newLogger(cmd.ErrOrStderr(), *level)
		return cfg, err
	}
}

func logFlag(cmd *cobra.Command, level string) *string {
	return cmd.Flags().String("log-level", level, "debug, info, warn or error")
}

func newLogger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, cmdline.Usagef("--log-level takes debug, info, warn or error, not %q", level)
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l})), nil
}

// untilStopped takes the end of a program that runs until it is told to stop: being
// told so is no error.
func untilStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func serverCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "server", Short: "Run a controller that was bootstrapped or has joined",
		Example: "  reeved server --config /etc/reeve/c1.yaml", Args: cobra.NoArgs,
	}
	config := configFlag(cmd, "info")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := config()
		if err != nil {
			return err
		}
		c, err := controller.New(cfg)
		if err != nil {
			return err
		}
		return untilStopped(cmd.Context(), c.Run(cmd.Context()))
	}
	return cmd
}
