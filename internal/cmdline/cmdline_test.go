package cmdline_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/internal/cmdline"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// run runs a program with one command that ends with err.
func run(ctx context.Context, err error, args ...string) (status int, told string) {
	var out strings.Builder
	root := &cobra.Command{Use: "prog", Args: cmdline.NoSuchCommand, RunE: func(*cobra.Command, []string) error { return nil }}
	do := &cobra.Command{Use: "rotate NAME", Args: cobra.ExactArgs(1), RunE: func(*cobra.Command, []string) error { return err }}
	do.Flags().String("why", "", "")
	_ = do.MarkFlagRequired("why")
	root.AddCommand(do)
	root.SetOut(io.Discard)
	root.SetErr(&out)
	return cmdline.Run(ctx, root, args), out.String()
}

func TestExitStatusTellsAWrongCommandLineFromARefusal(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused")
	for name, c := range map[string]struct {
		err  error
		args []string
		want int
		told string
	}{
		"nothing wrong":     {nil, []string{"rotate", "a", "--why", "x"}, 0, ""},
		"refused":           {refused, []string{"rotate", "a", "--why", "x"}, cmdline.Failed, "prog: refused\n"},
		"usage, found late": {cmdline.Usagef("no %s", "sense"), []string{"rotate", "a", "--why", "x"}, cmdline.Usage, "prog: no sense\n"},
		"unknown command":   {nil, []string{"rotat"}, cmdline.Usage, "prog: prog has no command \"rotat\"; did you mean rotate?; see prog --help\n"},
		"unknown flag":      {nil, []string{"rotate", "a", "--wy", "x"}, cmdline.Usage, "prog: unknown flag: --wy; see prog rotate --help\n"},
		"missing flag":      {nil, []string{"rotate", "a"}, cmdline.Usage, "prog: required flag(s) \"why\" not set\n"},
		"missing argument":  {nil, []string{"rotate", "--why", "x"}, cmdline.Usage, "prog: accepts 1 arg(s), received 0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, told := run(t.Context(), c.err, c.args...)
			if status != c.want || told != c.told {
				t.Errorf("status %d, told %q; want %d, %q", status, told, c.want, c.told)
			}
		})
	}
}

func TestErrorsAreToldForPeople(t *testing.T) {
	t.Parallel()
	args := []string{"rotate", "a", "--why", "x"}
	ours := reeve.Errorf(reeve.Conflict, "name_taken", "the name is taken").WithFix("choose another").Wrap(errors.New("disk"))
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"ours":            {ours, "prog: the name is taken [name_taken]\n  to do: choose another\n  cause: disk\n"},
		"ours, wrapped":   {fmt.Errorf("context: %w", ours), "prog: context: name_taken: the name is taken (choose another): disk\n"},
		"of an HTTP call": {&url.Error{Op: "Get", URL: "https://reeve/v1/status", Err: errors.New("nobody answers")}, "prog: nobody answers\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, told := run(t.Context(), c.err, args...); told != c.want {
				t.Errorf("told %q, want %q", told, c.want)
			}
		})
	}
}

func TestAnInterruptedCommandSaysSo(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	status, told := run(ctx, &url.Error{Op: "Get", URL: "https://x", Err: context.Canceled}, "rotate", "a", "--why", "x")
	if status != cmdline.Failed || told != "prog: interrupted\n" {
		t.Errorf("status %d, told %q", status, told)
	}
}

// What cobra adds to every program has examples as well.
func TestCompletionAndHelpShowHow(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"help"}, {"completion"}, {"completion", "bash"}, {"completion", "zsh"}, {"completion", "fish"}, {"completion", "powershell"}} {
		var out strings.Builder
		root := &cobra.Command{Use: "prog", RunE: func(*cobra.Command, []string) error { return nil }}
		root.AddCommand(&cobra.Command{Use: "rotate", RunE: func(*cobra.Command, []string) error { return nil }})
		root.SetOut(&out)
		if status := cmdline.Run(t.Context(), root, append(args, "--help")); status != 0 || !regexp.MustCompile(`Examples:\n  (source <\()?prog `+args[0]).MatchString(out.String()) {
			t.Errorf("prog %v --help: status %d\n%s", args, status, out.String())
		}
	}
}
