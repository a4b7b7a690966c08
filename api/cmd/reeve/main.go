// Command reeve is the command line of Reeve. It speaks the public API and nothing
// else; with `-o json` every command is fit for programs. Its exit status is 0, 1 when
// a call was refused or the work did not succeed, or 2 when the command line was wrong.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/reeve-pam/reeve/internal/cmdline"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := cmdline.Run(ctx, newRoot(stdio{in: os.Stdin, out: os.Stdout, err: os.Stderr}), os.Args[1:])
	stop()
	os.Exit(status)
}
