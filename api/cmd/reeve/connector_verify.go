package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/plugins/sdk/sdktest"
)

func (a *app) connectorVerifyCmd() *cobra.Command {
	h := &byHand{app: a}
	var only []string
	var report string
	cmd := &cobra.Command{
		Use: "verify BINARY", Short: "Run the conformance kit on a connector and a target",
		Long: `Runs the conformance kit as a black box: the connector works on a target of yours, on which it makes, changes and
removes accounts of its own, and the kit looks at that target with commands of yours, never through the connector.
Ends with status 1 if a check failed.

` + targetHelp + `
  kit:
    wrong_trust: {host_key_file: other.pub}   # well-formed, and not the target's; or no_identity: true
    role: linux-standard                      # of the accounts; the first that needs no parameter if left out
    params: {}
    name_prefix: kit                          # of their names
    hooks:                                    # programs with arguments; $REEVE_ACCOUNT is the account, a password
      exists: [./exists]                      # comes on standard input. Status 0: yes, 1: no, others: cannot say
      login: [./login]                        # the same, for a login with the password
      create: [./create]                      # makes an account Reeve knows nothing of
      snapshot: [./snapshot]                  # prints all that a connector could change
      session: [./session]                    # logs in, prints a line and stays; optional
      failed_logins: [./failures]             # prints how many failed logins the target counts; optional
    states:                                   # in which an account refuses its right password; each optional
      expired: {set: [./expire]}              # brings $REEVE_ACCOUNT there
      locked: {none: the server locks nobody} # why there is no such state
      disabled: {set: [./disable], hidden: a login is told that the password is wrong}
      must_change: {set: [./age]}
    refused_role: acme-group                  # a grant of it the target refuses, after it made the account; optional
    refused_params: {Group: nogroup}
    in_the_clear: why the protocol encrypts nothing; left out where it does
    commands:                                 # for connectors that run commands; optional
      {speak: 'echo hello; exit 3', stdout: hello, status: 3, pause: 'echo x; sleep 30', large: 'seq 40000', large_end: '40000'}`,
		Example: `  reeve connector verify ./connector-acme --target acme.yaml
  reeve connector verify ./connector-acme --target acme.yaml --check SDK07,SDK13 --report report.json`,
		Args: exactArgs("BINARY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := h.kitConfig(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			cfg.Report = report
			for _, id := range only {
				if !known(id) {
					return usagef("there is no check %q", id)
				}
			}
			cfg.Each = func(o sdktest.Outcome) {
				if a.output == "table" {
					a.say("%s  %-14s  %s", o.ID, o.Status, o.Title)
				}
			}
			r, err := sdktest.Examine(cmd.Context(), cfg, only...)
			if err != nil {
				return err
			}
			err = a.show(r, func() { a.showReport(r) })
			if n := r.Count(sdktest.Failed); n > 0 && err == nil {
				err = fmt.Errorf("%d checks failed", n)
			}
			return err
		},
	}
	h.flags(cmd)
	cmd.Flags().StringSliceVar(&only, "check", nil, "only these checks")
	cmd.Flags().StringVar(&report, "report", "", "file to write the report to, as JSON")
	_ = cmd.MarkFlagRequired("target")
	_ = cmd.RegisterFlagCompletionFunc("check", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var ids []string
		for _, c := range sdktest.Checks() {
			ids = append(ids, c.ID+"\t"+c.Title)
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

func known(id string) bool {
	for _, c := range sdktest.Checks() {
		if c.ID == id {
			return true
		}
	}
	return false
}

func (a *app) showReport(r sdktest.Report) {
	var rows [][]any
	for _, o := range r.Outcomes {
		if o.Status != sdktest.Passed {
			rows = append(rows, []any{o.ID, string(o.Status), o.Title, o.Message})
		}
	}
	if len(rows) > 0 {
		a.table([]any{"check", "status", "what", "why"}, rows)
	}
	_, _ = fmt.Fprintf(a.out, "connector %s %s: %d passed, %d failed, %d not applicable\n", r.Connector, r.Version,
		r.Count(sdktest.Passed), r.Count(sdktest.Failed), r.Count(sdktest.NotApplicable))
}

// kitConfig is what the kit is told, of a target file.
func (h *byHand) kitConfig(ctx context.Context, binary string) (sdktest.Config, error) {
	if err := asProgram(binary); err != nil {
		return sdktest.Config{}, err
	}
	f, err := readTargetFile(h.targetPath)
	if err != nil {
		return sdktest.Config{}, err
	}
	_, stop, d, t, err := h.open(ctx, binary, true)
	if err != nil {
		return sdktest.Config{}, err
	}
	stop()
	cfg := sdktest.Config{Binary: binary, Target: t, Params: f.Kit.Params, NoIdentity: f.Kit.NoIdentity}
	if cfg.WrongTrust, err = f.trust(f.Kit.WrongTrust); err != nil {
		return cfg, err
	}
	if cfg.Role, err = roleOf(d, f.Kit.Role); err != nil {
		return cfg, err
	}
	hooks := f.Kit.Hooks
	for name, argv := range map[string][]string{"exists": hooks.Exists, "login": hooks.Login, "create": hooks.Create, "snapshot": hooks.Snapshot} {
		if len(argv) == 0 {
			return cfg, usagef("--target: kit.hooks.%s is missing; see reeve connector verify --help", name)
		}
	}
	prefix := f.Kit.NamePrefix
	if prefix == "" {
		prefix = "kit"
	}
	prefix += strings.ToLower(rand.Text()[:4]) // of no earlier run
	var names atomic.Int64
	cfg.NewAccountName = func() string { return fmt.Sprintf("%s%d", prefix, names.Add(1)) }
	cfg.Exists = func(ctx context.Context, name string) (bool, error) { return f.asks(ctx, hooks.Exists, name, "") }
	cfg.LoginWorks = func(ctx context.Context, name, password string) (bool, error) {
		return f.asks(ctx, hooks.Login, name, password)
	}
	cfg.CreateForeign = func(ctx context.Context, name, password string) error {
		_, err := f.hook(ctx, hooks.Create, name, password).Output()
		return hookError(hooks.Create, err)
	}
	cfg.Snapshot = func(ctx context.Context) (string, error) {
		out, err := f.hook(ctx, hooks.Snapshot, "", "").Output()
		return string(out), hookError(hooks.Snapshot, err)
	}
	for state, h := range f.Kit.States {
		hook := sdktest.StateHook{None: h.None, Hidden: h.Hidden}
		if len(h.Set) > 0 {
			hook.Set = func(ctx context.Context, name string) error {
				_, err := f.hook(ctx, h.Set, name, "").Output()
				return hookError(h.Set, err)
			}
		}
		if cfg.States == nil {
			cfg.States = map[sdktest.State]sdktest.StateHook{}
		}
		cfg.States[state] = hook
	}
	if len(hooks.FailedLogins) > 0 {
		cfg.FailedLogins = func(ctx context.Context, name string) (int, error) {
			out, err := f.hook(ctx, hooks.FailedLogins, name, "").Output()
			if err != nil {
				return 0, hookError(hooks.FailedLogins, err)
			}
			n, err := strconv.Atoi(strings.TrimSpace(string(out)))
			if err != nil {
				return 0, fmt.Errorf("hook %s printed no number", hooks.FailedLogins[0])
			}
			return n, nil
		}
	}
	cfg.RefusedParams, cfg.InTheClear = f.Kit.RefusedParams, f.Kit.InTheClear
	if cfg.RefusedRole, err = roleOf(d, f.Kit.RefusedRole); err != nil {
		return cfg, err
	}
	if len(hooks.Session) > 0 {
		cfg.Session = f.session
	}
	if c := f.Kit.Commands; c != nil {
		cfg.Commands = &sdktest.Commands{
			Speak: c.Speak, Stdout: c.Stdout, Stderr: c.Stderr, Status: c.Status, Pause: c.Pause, Large: c.Large, LargeEnd: c.LargeEnd,
		}
	}
	if err := d.NameRule.Check(cfg.NewAccountName()); err != nil {
		return cfg, usagef("--target: kit.name_prefix: %w", asReeveError(err))
	}
	return cfg, nil
}

// hook is a command of the target file. The password goes to its standard input.
func (f *targetFile) hook(ctx context.Context, argv []string, name, password string) *exec.Cmd {
	program := argv[0]
	if strings.Contains(program, "/") {
		program = f.path(program)
	}
	cmd := exec.CommandContext(ctx, program, argv[1:]...)
	cmd.Dir = f.dir
	cmd.Env = append(os.Environ(), "REEVE_ACCOUNT="+name)
	cmd.Stdin = strings.NewReader(password)
	cmd.WaitDelay = time.Second
	return cmd
}

// asks runs a hook that answers yes or no.
func (f *targetFile) asks(ctx context.Context, argv []string, name, password string) (bool, error) {
	_, err := f.hook(ctx, argv, name, password).Output()
	if e, ended := errors.AsType[*exec.ExitError](err); ended && e.ExitCode() == 1 {
		return false, nil
	}
	return err == nil, hookError(argv, err)
}

// hookError says what a hook printed; what it prints is its author's.
func hookError(argv []string, err error) error {
	if e, ended := errors.AsType[*exec.ExitError](err); ended {
		return fmt.Errorf("hook %s: %w: %s", argv[0], err, bytes.TrimSpace(e.Stderr))
	}
	if err != nil {
		return fmt.Errorf("hook %s: %w", argv[0], err)
	}
	return nil
}

// session runs the hook that logs in and stays. It has begun when it prints something.
func (f *targetFile) session(ctx context.Context, name, password string) (func(), error) {
	argv := f.Kit.Hooks.Session
	cmd := f.hook(ctx, argv, name, password)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, hookError(argv, err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		_ = cmd.Process.Kill()
		return nil, fmt.Errorf("hook %s printed nothing: %w", argv[0], errors.Join(err, cmd.Wait()))
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}, nil
}
