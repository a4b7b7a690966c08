package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/agent/pluginhost"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/internal/selftest"
	"github.com/reeve-pam/reeve/plugins/sdk"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// targetHelp explains target files, in every command that takes one.
const targetHelp = `A target file is YAML or JSON. Paths in it are relative to it; secrets stand in files of their own, and
"-" asks for one on standard input:

  address: 192.0.2.10
  port: 22                          # the connector's default if left out
  options: {shell: /bin/sh}         # of the connector
  trust:                            # host_keys, host_key_file, ca_file, server_name
    host_key_file: web01.pub
  management:                       # username and password_file or private_key_file
    username: root
    password_file: web01.password`

// byHand is what all commands share that work with a connector and without a cluster.
type byHand struct {
	*app
	targetPath string
	timeout    time.Duration
}

func (h *byHand) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&h.targetPath, "target", "", "file that describes the target")
	cmd.Flags().DurationVar(&h.timeout, "timeout", 2*time.Minute, "how long one operation may take")
	_ = cmd.MarkFlagFilename("target", "yaml", "yml", "json")
}

// open starts a connector and reads the target file, if there is one.
func (h *byHand) open(ctx context.Context, binary string, needTarget bool) (*sdk.Client, func(), sdk.Description, sdk.Target, error) {
	var d sdk.Description
	var t sdk.Target
	if needTarget && h.targetPath == "" {
		return nil, nil, d, t, usagef("--target is required: a file that describes the target")
	}
	if err := asProgram(binary); err != nil {
		return nil, nil, d, t, err
	}
	var f *targetFile
	if h.targetPath != "" {
		var err error
		if f, err = readTargetFile(h.targetPath); err != nil {
			return nil, nil, d, t, err
		}
	}
	log := slog.New(slog.NewTextHandler(h.err, nil))
	c, stop, err := pluginhost.Open(ctx, binary, log)
	if err != nil {
		return nil, nil, d, t, asReeveError(err)
	}
	if d, err = c.Describe(ctx); err == nil && f != nil {
		t, err = f.target(h.app, d)
	}
	if err != nil {
		stop()
		return nil, nil, d, t, asReeveError(err)
	}
	return c, stop, d, t, nil
}

// asReeveError gives an error of a connector the words our programs tell errors in.
func asReeveError(err error) error {
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok {
		return err
	}
	message := e.Message
	for _, name := range slices.Sorted(maps.Keys(e.Details)) {
		message += "\n  " + name + ": " + strings.ReplaceAll(strings.TrimSpace(e.Details[name]), "\n", "\n    ")
	}
	out := reeve.Errorf(reeve.Invalid, string(e.Class), "%s", message)
	if e.Fix != "" {
		out = out.WithFix("%s", e.Fix)
	}
	return out
}

// operations are those of "connector run", and whether each needs an account and takes a
// password.
var operations = map[string]struct{ account, password bool }{
	"describe": {}, "probe": {}, "discover": {}, "run": {},
	"plan": {account: true}, "inspect": {account: true}, "verify": {account: true, password: true},
	"provision": {account: true, password: true}, "rotate": {account: true, password: true},
	"disable": {account: true}, "enable": {account: true}, "deprovision": {account: true},
}

// runFlags are the flags of "connector run".
type runFlags struct {
	byHand
	account, accountID, identity, comment, role, action, passwordFile, command string
	params                                                                     map[string]string
	expires                                                                    time.Duration
}

func (a *app) connectorRunCmd() *cobra.Command {
	f := &runFlags{byHand: byHand{app: a}}
	names := slices.Sorted(maps.Keys(operations))
	cmd := &cobra.Command{
		Use: "run BINARY OPERATION", Short: "Do one operation with a connector, without a cluster",
		Long: `Starts the connector as an agent does and does one operation on a target: ` + strings.Join(names, ", ") + `.
A change is planned first and the plan is shown. Passwords come from a file or standard input.

` + targetHelp,
		Example: `  reeve connector run ./connector-acme describe
  reeve connector run bin/connectors/connector-ssh probe --target web01.yaml
  reeve connector run bin/connectors/connector-ssh plan --target web01.yaml --account pam_alice --role linux-admin-sudo
  reeve connector run bin/connectors/connector-ssh provision --target web01.yaml --account pam_alice --password-file -
  reeve connector run bin/connectors/connector-ssh run --target web01.yaml --command 'uptime'`,
		Args:              exactArgs("BINARY", "OPERATION"),
		ValidArgsFunction: completeSecond(names),
		RunE:              func(cmd *cobra.Command, args []string) error { return f.do(cmd.Context(), args[0], args[1]) },
	}
	f.flags(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.account, "account", "", "name of the account on the target")
	fl.StringVar(&f.accountID, "account-id", "acct_byhand", "id that marks the account on the target as ours")
	fl.StringVar(&f.identity, "identity", "", "identity (uid, SID, …) the account must have to be touched")
	fl.StringVar(&f.comment, "comment", "made by hand", "comment of a new account")
	fl.DurationVar(&f.expires, "expires-in", 0, "after which a new account expires; 0 for never")
	fl.StringVar(&f.role, "role", "", "role of the connector's catalogue")
	fl.StringToStringVar(&f.params, "param", nil, "parameter of the role, NAME=VALUE; may be repeated")
	fl.StringVar(&f.action, "action", "provision", "what plan is for: provision, rotate, disable, enable or deprovision")
	fl.StringVar(&f.passwordFile, "password-file", "-", "file with the account's password (the new one for provision and rotate); - asks for it")
	fl.StringVar(&f.command, "command", "", "what run runs")
	_ = cmd.RegisterFlagCompletionFunc("action", cobra.FixedCompletions(
		[]string{"provision", "rotate", "disable", "enable", "deprovision"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// completeSecond completes files, and then one of some words.
func completeSecond(words []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return words, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveDefault
	}
}

func (f *runFlags) do(ctx context.Context, binary, operation string) error {
	op, known := operations[operation]
	switch {
	case !known:
		return usagef("there is no operation %q; see reeve connector run --help", operation)
	case op.account && f.account == "":
		return usagef("%s takes --account", operation)
	case operation == "run" && f.command == "":
		return usagef("run takes --command")
	}
	c, stop, d, t, err := f.open(ctx, binary, operation != "describe")
	if err != nil {
		return err
	}
	defer stop()
	var password sdk.Secret
	if op.password {
		if password, err = f.readSecret(f.passwordFile, "Password of "+f.account); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	switch operation {
	case "describe":
		return f.show(selftest.JSON(sdk.DescriptionToProto(d)), func() { f.showDescription(d) })
	case "probe":
		fp, err := c.Probe(ctx, t)
		if err != nil {
			return asReeveError(err)
		}
		return f.show(selftest.JSON(sdk.FingerprintToProto(fp)), func() {
			kv := []string{"product", fp.Product, "version", fp.Version}
			for _, k := range slices.Sorted(maps.Keys(fp.Attributes)) {
				kv = append(kv, k, fp.Attributes[k])
			}
			kv = append(kv, "protection", legacyMark(t.Options["legacy"] == "yes"))
			f.pairs(append(kv, "missing rights", strings.Join(fp.MissingRights, "\n"))...)
		})
	case "verify":
		v, err := c.Verify(ctx, t, sdk.Credential{Username: f.account, Password: password})
		if err != nil {
			return asReeveError(err)
		}
		return f.show(selftest.JSON(&connectorv1.VerifyResponse{Verdict: string(v.Kind), Identity: v.Identity, Message: v.Message, Fix: v.Fix}), func() { f.pairs("verdict", string(v.Kind), "identity", v.Identity, "message", v.Message, "fix", v.Fix) })
	case "inspect":
		facts, err := c.Inspect(ctx, t, f.account)
		if err != nil {
			return asReeveError(err)
		}
		return f.showFacts(facts)
	case "discover":
		return f.discover(ctx, c, t)
	case "run":
		status, err := c.Run(ctx, t, f.command, output{f.app})
		if err != nil {
			return asReeveError(err)
		}
		if status != 0 {
			return fmt.Errorf("the command ended with status %d", status)
		}
		return nil
	case "plan":
		_, plan, err := f.plan(ctx, c, d, t, sdk.Action(f.action))
		if err != nil {
			return err
		}
		return f.show(plan, func() { f.showPlan(plan, f.table) })
	default:
		return f.change(ctx, c, d, t, sdk.Action(operation), password)
	}
}

// output prints what a command prints.
type output struct{ a *app }

func (o output) Stdout(p []byte) { _, _ = o.a.out.Write(p) }
func (o output) Stderr(p []byte) { _, _ = o.a.err.Write(p) }

func (f *runFlags) plan(ctx context.Context, c *sdk.Client, d sdk.Description, t sdk.Target, action sdk.Action) (sdk.Intent, sdk.Plan, error) {
	role, err := roleOf(d, f.role)
	if err != nil {
		return sdk.Intent{}, sdk.Plan{}, err
	}
	in := sdk.Intent{
		Action: action, Account: f.account, AccountID: f.accountID, Identity: f.identity, Comment: f.comment, Role: role, Params: f.params,
	}
	if f.expires > 0 {
		in.ExpiresAt = time.Now().UTC().Add(f.expires).Truncate(time.Second)
	}
	plan, err := c.Plan(ctx, t, in)
	return in, plan, asReeveError(err)
}

func (f *runFlags) change(ctx context.Context, c *sdk.Client, d sdk.Description, t sdk.Target, action sdk.Action, password sdk.Secret) error {
	in, plan, err := f.plan(ctx, c, d, t, action)
	if err != nil {
		return err
	}
	if action != sdk.Provision && action != sdk.Rotate {
		password = sdk.Secret{}
	}
	var mu sync.Mutex
	r, err := c.Apply(ctx, t, sdk.Change{Intent: in, Plan: plan, Password: password}, func(e sdk.Event) {
		mu.Lock()
		defer mu.Unlock()
		f.say("%-8s %s  %s", e.State, e.Step, e.Message)
	})
	if err != nil {
		return asReeveError(err)
	}
	for _, left := range r.Residue {
		f.say("left behind: %s", left)
	}
	if f.output == "json" {
		return f.show(selftest.JSON(&connectorv1.ApplyResult{Facts: sdk.FactsToProto(r.Facts), Residue: r.Residue, Changed: r.Changed}), nil)
	}
	f.pairs("changed", strconv.FormatBool(r.Changed))
	return f.showFacts(r.Facts)
}

func (f *runFlags) discover(ctx context.Context, c *sdk.Client, t sdk.Target) error {
	all, raw := []sdk.Facts{}, []any{}
	err := c.Discover(ctx, t, func(facts sdk.Facts) bool {
		all, raw = append(all, facts), append(raw, selftest.JSON(sdk.FactsToProto(facts)))
		return true
	})
	if err != nil {
		return asReeveError(err)
	}
	return f.show(raw, func() {
		var rows [][]any
		for _, x := range all {
			rows = append(rows, []any{x.Account, x.Identity, yes(&x.Locked), yes(&x.HasPassword), x.Sessions, strings.Join(x.Groups, " ")})
		}
		f.table([]any{"account", "identity", "locked", "password", "sessions", "groups"}, rows)
	})
}

func (a *app) showFacts(x sdk.Facts) error {
	return a.show(selftest.JSON(sdk.FactsToProto(x)), func() {
		kv := []string{"account", x.Account, "exists", yes(&x.Exists)}
		if x.Exists {
			kv = append(kv, "identity", x.Identity, "locked", yes(&x.Locked), "password", yes(&x.HasPassword),
				"expires", when(&x.ExpiresAt), "password changed", when(&x.PasswordChangedAt),
				"sessions", strconv.Itoa(x.Sessions), "groups", strings.Join(x.Groups, "\n"), "grants", strings.Join(x.Grants, "\n"))
		}
		for _, k := range slices.Sorted(maps.Keys(x.Attributes)) {
			kv = append(kv, k, x.Attributes[k])
		}
		a.pairs(kv...)
	})
}

func (a *app) showPlan(p sdk.Plan, table func([]any, [][]any)) {
	var rows [][]any
	for _, s := range p.Steps {
		rows = append(rows, []any{s.ID, s.Title, s.Command})
	}
	table([]any{"step", "what", "command"}, rows)
	a.say("hash %s", sdk.PlanHash(p))
}

func (a *app) showDescription(d sdk.Description) {
	kv := []string{"connector", d.Name, "title", d.Title, "version", d.Version, "category", string(d.Category), "port", strconv.Itoa(d.DefaultPort)}
	var powers, roles []string
	for _, p := range d.Powers {
		powers = append(powers, string(p))
	}
	for _, r := range d.Roles {
		roles = append(roles, r.Name+"  "+r.Title)
	}
	kv = append(kv, "powers", strings.Join(powers, ", "), "protocol", strconv.Itoa(d.Protocol), "names", d.NameRule.Help,
		"passwords", fmt.Sprintf("%d to %d characters", d.PasswordRule.MinLength, d.PasswordRule.MaxLength), "not allowed", d.PasswordRule.Excluded)
	for _, o := range d.Options {
		kv = append(kv, "option "+o.Name, o.Help)
	}
	a.pairs(append(kv, "roles", strings.Join(roles, "\n"))...)
}
