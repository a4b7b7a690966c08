// Package cmdline is what our three programs have in common as commands: how an error
// is told to people, and what exit status follows. Only their mains import it.
package cmdline

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Exit statuses, for scripts.
const (
	Failed = 1 // the call was refused, or the work did not succeed
	Usage  = 2 // the command line itself was wrong; nothing was tried
)

// usageError is a wrong command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Usagef makes an error for which Run returns Usage. Errors that cobra finds before a
// command runs need no such mark.
func Usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// Run runs the command that args name, tells an error on root's standard error, and
// returns the exit status: 0, Failed or Usage.
func Run(ctx context.Context, root *cobra.Command, args []string) int {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return Usagef("%w; see %s --help", err, cmd.CommandPath())
	})
	showHow(root)
	started := false
	noteStart(root, &started)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintf(root.ErrOrStderr(), "%s: %s\n", root.Name(), explain(ctx, err))
	if _, usage := errors.AsType[*usageError](err); usage || !started {
		return Usage
	}
	return Failed
}

// showHow gives examples to the commands that cobra adds by itself.
func showHow(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Example = "  " + root.Name() + " help completion"
		case "completion":
			c.Example = loads(root.Name(), "bash")
			for _, shell := range c.Commands() {
				shell.Example = loads(root.Name(), shell.Name())
			}
		}
	}
}

// loads is how a shell loads its completions, for this session.
func loads(program, shell string) string {
	switch shell {
	case "fish":
		return "  " + program + " completion fish | source"
	case "powershell":
		return "  " + program + " completion powershell | Out-String | Invoke-Expression"
	default:
		return "  source <(" + program + " completion " + shell + ")"
	}
}

// noteStart makes every command tell that it began: errors before that are cobra's,
// about flags and arguments.
func noteStart(cmd *cobra.Command, started *bool) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*started = true
			return run(cmd, args)
		}
	}
	for _, child := range cmd.Commands() {
		noteStart(child, started)
	}
}

// explain says what happened and what to do.
func explain(ctx context.Context, err error) string {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return "interrupted"
	}
	if _, said := errors.AsType[*reeve.Error](err); said {
		// it has its own words for what the call below it met
	} else if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // `Get "https://reeve/v1/…":` says nothing to people
	}
	for { // what was joined with nothing is itself
		j, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // only the outermost
		if !ok || len(j.Unwrap()) != 1 {
			break
		}
		err = j.Unwrap()[0]
	}
	if u, ok := err.(*usageError); ok { //nolint:errorlint // only the outermost
		if inner := errors.Unwrap(u.err); inner != nil && inner.Error() == u.err.Error() {
			err = inner
		}
	}
	e, ok := err.(*reeve.Error) //nolint:errorlint // one that was wrapped has more to say than this
	if !ok {
		return err.Error()
	}
	s := fmt.Sprintf("%s [%s]", e.Message, e.Code)
	if e.Fix != "" {
		s += "\n  to do: " + e.Fix
	}
	if e.Err != nil {
		s += "\n  cause: " + e.Err.Error()
	}
	return s
}

// NoSuchCommand is the Args of a command that only has sub-commands.
func NoSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	msg := fmt.Sprintf("%s has no command %q", cmd.CommandPath(), args[0])
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		first := slices.IndexFunc(near, func(name string) bool { return strings.HasPrefix(name, args[0]) })
		msg += fmt.Sprintf("; did you mean %s?", near[max(first, 0)])
	}
	return fmt.Errorf("%s; see %s --help", msg, cmd.CommandPath())
}
