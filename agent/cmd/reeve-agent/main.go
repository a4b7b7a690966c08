// Command reeve-agent is Reeve's agent: see package agent.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/reeve-pam/reeve/agent"
	"github.com/reeve-pam/reeve/internal/cmdline"
	"github.com/reeve-pam/reeve/internal/jointoken"
	"github.com/reeve-pam/reeve/internal/memory"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// enrolTimeout is how long enroll keeps trying to reach a controller.
const enrolTimeout = 2 * time.Minute

func main() {
	if err := memory.KeepPrivate(); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "reeve-agent:", err)
		os.Exit(cmdline.Failed)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	status := cmdline.Run(ctx, root(), os.Args[1:])
	stop()
	os.Exit(status)
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "reeve-agent",
		Short: "Reeve's agent: does the controllers' jobs on the targets near it",
		Long: "Reeve's agent runs in the network of the targets. It dials out to the controllers, takes jobs,\n" +
			"does them through connectors, and listens on nothing.",
		Example: "  reeve-agent enroll --token-file dmz-1.token --data /var/lib/reeve-agent\n" +
			"  reeve-agent run --data /var/lib/reeve-agent --connectors /usr/lib/reeve/connectors",
		Version: reeve.Version,
		Args:    cmdline.NoSuchCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(enroll(), run())
	return c
}

func enroll() *cobra.Command {
	var data, tokenFile string
	c := &cobra.Command{
		Use:   "enroll --token-file FILE --data DIR",
		Short: "Make this host an agent, with a join token",
		Long: "Trade a join token for this agent's certificate. If it fails or is interrupted, run it again\n" +
			"with the same token. The token is read from a file or, with -, from standard input: never\n" +
			"from an argument, where every process could see it.",
		Example: "  reeve agent join-token dmz-1 --site dmz > dmz-1.token # where an administrator is\n" +
			"  reeve-agent enroll --token-file dmz-1.token --data /var/lib/reeve-agent",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := readToken(cmd.InOrStdin(), tokenFile)
			if err != nil {
				return err
			}
			defer token.Wipe()
			ctx, cancel := context.WithTimeout(cmd.Context(), enrolTimeout)
			defer cancel()
			id, err := agent.Enroll(ctx, data, token, logger(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "enrolled as %s (%s) in site %s of cluster %s\n", id.Name, id.Agent, id.Site, id.Cluster)
			return err
		},
	}
	c.Flags().StringVar(&tokenFile, "token-file", "", "file with the join token; - for standard input")
	c.Flags().StringVar(&data, "data", "", "the agent's own directory; made if need be")
	_ = c.MarkFlagRequired("token-file")
	_ = c.MarkFlagRequired("data")
	return c
}

func readToken(stdin io.Reader, path string) (reeve.Secret, error) {
	in := stdin
	if path != "-" {
		f, err := os.Open(path) //nolint:gosec // what the operator names
		if err != nil {
			return reeve.Secret{}, reeve.Errorf(reeve.Invalid, "token_file_unreadable", "the token file cannot be read").Wrap(err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, jointoken.MaxText+2))
	if err != nil {
		return reeve.Secret{}, reeve.Errorf(reeve.Invalid, "token_file_unreadable", "the token cannot be read").Wrap(err)
	}
	return reeve.NewSecret(raw), nil
}

// settings is the configuration file. Flags go before it.
type settings struct {
	Data        string `yaml:"data"`
	Connectors  string `yaml:"connectors"`
	Concurrency int    `yaml:"concurrency"`
}

func run() *cobra.Command {
	var flags settings
	var config string
	c := &cobra.Command{
		Use:   "run --data DIR --connectors DIR",
		Short: "Do the controllers' jobs until stopped",
		Long: "Run the agent. Logs go to standard error as JSON lines. The configuration file, YAML, may hold\n" +
			"data, connectors and concurrency (jobs at a time); flags go before it.",
		Example: "  reeve-agent run --data /var/lib/reeve-agent --connectors /usr/lib/reeve/connectors\n" +
			"  reeve-agent run --config /etc/reeve-agent.yaml",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := readSettings(config)
			if err != nil {
				return err
			}
			if flags.Data != "" {
				s.Data = flags.Data
			}
			if flags.Connectors != "" {
				s.Connectors = flags.Connectors
			}
			if cmd.Flags().Changed("concurrency") {
				s.Concurrency = flags.Concurrency
			}
			if err := s.check(); err != nil {
				return cmdline.Usagef("%w", err)
			}
			a, err := agent.New(agent.Config{Data: s.Data, Connectors: s.Connectors, Concurrency: s.Concurrency,
				Logger: logger(cmd.ErrOrStderr())})
			if err != nil {
				return err
			}
			return a.Run(cmd.Context())
		},
	}
	c.Flags().StringVar(&flags.Data, "data", "", "the agent's own directory, enrolled")
	c.Flags().StringVar(&flags.Connectors, "connectors", "", "directory of the connectors")
	c.Flags().IntVar(&flags.Concurrency, "concurrency", agent.DefaultConcurrency, "jobs at a time, 1 to 256")
	c.Flags().StringVar(&config, "config", "", "configuration file")
	return c
}

func readSettings(path string) (settings, error) {
	s := settings{Concurrency: agent.DefaultConcurrency}
	if path == "" {
		return s, nil
	}
	raw, err := os.ReadFile(path) //nolint:gosec // what the operator names
	if err != nil {
		return s, reeve.Errorf(reeve.Invalid, "config_invalid", "the configuration file cannot be read").Wrap(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return s, reeve.Errorf(reeve.Invalid, "config_invalid", "the configuration file %s is not valid", path).
			WithFix("it may hold data, connectors and concurrency").Wrap(err)
	}
	return s, nil
}

func (s settings) check() error {
	switch {
	case s.Data == "":
		return missing("data")
	case s.Connectors == "":
		return missing("connectors")
	case s.Concurrency < 1 || s.Concurrency > 256:
		return reeve.Errorf(reeve.Invalid, "config_invalid", "concurrency is %d, not 1 to 256", s.Concurrency)
	default:
		return nil
	}
}

func missing(name string) error {
	return reeve.Errorf(reeve.Invalid, "config_invalid", "the %s directory is not given", name).
		WithFix("use --%s, or %s in the configuration file", name, name)
}

func logger(w io.Writer) *slog.Logger { return slog.New(slog.NewJSONHandler(w, nil)) }
