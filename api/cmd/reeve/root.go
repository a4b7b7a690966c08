package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/internal/cmdline"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// stdio is where a run reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// app is what every command shares.
type app struct {
	stdio             // what is written there is made printable
	raw         stdio // for what must arrive byte by byte, and for prompts
	contextFile string
	addresses   []string
	caFile      string
	tokenFile   string
	output      string     // table or json
	printing    sync.Mutex // one log line at a time
}

// usagef makes an error of the command line.
func usagef(format string, args ...any) error { return cmdline.Usagef(format, args...) }

func newRoot(io stdio) *cobra.Command {
	raw := io
	io.out, io.err = printable{io.out}, printable{io.err}
	a := &app{stdio: io, raw: raw}
	root := &cobra.Command{
		Use:   "reeve",
		Short: "Manage privileged accounts with Reeve",
		Long: `reeve talks to a Reeve cluster: it adds assets, provisions accounts on them, rotates
their passwords, follows jobs live and reads the audit trail.

Where to find the cluster, what to trust and who you are stands in a context file,
which "reeved bootstrap" writes. Flags override what the file says.`,
		Example: `  reeve --context ./admin.yaml cluster status
  reeve asset add web01 --site dmz --connector ssh --address 192.0.2.10 --username root --password-file -
  reeve account provision alice --prefix pam_ --role linux-admin-sudo --asset web01 --watch
  reeve account rotate pam_alice@web01 --watch
  reeve audit export > trail.jsonl && reeve audit verify trail.jsonl`,
		Version: reeve.Version,
		Args:    cmdline.NoSuchCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.output != "table" && a.output != "json" {
				return usagef("-o takes table or json, not %q", a.output)
			}
			return nil
		},
	}
	root.SetIn(io.in)
	root.SetOut(io.out)
	root.SetErr(io.err)
	f := root.PersistentFlags()
	f.StringVar(&a.contextFile, "context", defaultContext(), "file with addresses, authority and token ($REEVE_CONTEXT)")
	f.StringSliceVar(&a.addresses, "address", nil, "API address, host:port; may be repeated")
	f.StringVar(&a.caFile, "ca-file", "", "PEM file with the cluster's authority")
	f.StringVar(&a.tokenFile, "token-file", "", "file with the bearer token; - for standard input")
	f.StringVarP(&a.output, "output", "o", "table", "table or json")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(a.statusCmd(), a.whoamiCmd(), a.sealCmd(), a.clusterCmd(), a.tokenCmd(),
		a.loginCmd(), a.logoutCmd(), a.acceptCmd(), a.sessionCmd(), a.factorCmd(), a.securityKeysCmd(), a.oidcCmd(), a.userCmd(), a.groupCmd(), a.directoryCmd(), a.pamRoleCmd(), a.assignmentCmd(), a.assetGroupCmd(), a.accessPolicyCmd(), a.canCmd(), a.siteCmd(), a.agentCmd(),
		a.connectorCmd(), a.roleCmd(), a.assetCmd(), a.accountCmd(), a.unwrapCmd(), a.wrapCmd(), a.jobCmd(), a.auditCmd(), a.systemCmd())
	return root
}

func defaultContext() string {
	if f := os.Getenv("REEVE_CONTEXT"); f != "" {
		return f
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "reeve", "context.yaml")
}

// group is a command that only has sub-commands.
func group(use, short, example string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Example: example,
		Args: cmdline.NoSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(children...)
	return c
}

// exactArgs wants n arguments, named for the error.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			wants := "takes no argument"
			if len(names) > 0 {
				wants = "takes " + strings.Join(names, " and ")
			}
			return usagef("%s %s, but %d argument(s) are given; see %s --help", cmd.CommandPath(), wants, len(args), cmd.CommandPath())
		}
		return nil
	}
}
