package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/reeve-pam/reeve/controller"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func bootstrapCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "bootstrap", Short: "Make a new cluster with this controller as its first",
		Long: `Makes the root key, the authorities, the first administrator's token and a cluster of one. Done once, offline:
there is no network endpoint that initialises a cluster.

Unless the configuration names a key_file, the seal key is split into shares: give each to another
person. They are written to --shares-dir, or shown once.`,
		Example: `  reeved bootstrap --config c1.yaml --admin-context admin.yaml
  reeved bootstrap --config c1.yaml --shares 5 --threshold 3 --shares-dir shares --admin-context admin.yaml`,
		Args: cobra.NoArgs,
	}
	config := configFlag(cmd, "error")
	var opt controller.BootstrapOptions
	var contextFile, sharesDir string
	cmd.Flags().StringVar(&opt.Cluster, "cluster", "", "name of the cluster; made up if left out")
	cmd.Flags().IntVar(&opt.Shares, "shares", 5, "shares of the seal key")
	cmd.Flags().IntVar(&opt.Threshold, "threshold", 3, "shares needed to unseal")
	cmd.Flags().StringVar(&sharesDir, "shares-dir", "", "directory for one file per share; shown once if left out")
	cmd.Flags().StringVar(&contextFile, "admin-context", "admin.yaml", "context file for reeve, with the root token")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := config()
		if err != nil {
			return err
		}
		if _, err := os.Stat(contextFile); err == nil {
			return fmt.Errorf("%s exists; choose another --admin-context", contextFile)
		}
		made, err := controller.Bootstrap(cmd.Context(), cfg, opt)
		if err != nil {
			return err
		}
		if err := writeContext(contextFile, []string{cfg.API.Address()}, made.CA, made.RootToken); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "cluster %s is made; %s holds the root token\n", made.Cluster, contextFile)
		return writeShares(cmd, sharesDir, made.Shares)
	}
	return cmd
}

func writeShares(cmd *cobra.Command, dir string, shares []reeve.Secret) error {
	if len(shares) == 0 {
		return nil
	}
	if dir == "" {
		_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "shares of the seal key, shown this once:")
		for _, s := range shares {
			_, _ = fmt.Fprintln(cmd.OutOrStdout(), s.Reveal())
		}
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for i, s := range shares {
		path := filepath.Join(dir, fmt.Sprintf("share-%d.txt", i+1))
		if err := writeNew(path, append(bytes.Clone(s.Bytes()), '\n')); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%d shares are in %s: give each to another person and delete the files\n", len(shares), dir)
	return nil
}

// contextFile is what `reeve --context` reads.
type contextFile struct {
	Addresses []string `yaml:"addresses"`
	CA        string   `yaml:"ca"`
	Token     string   `yaml:"token"`
}

func readContext(path string) (ctx contextFile, err error) {
	raw, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(raw, &ctx)
	}
	if err == nil && len(ctx.Addresses) == 0 {
		err = fmt.Errorf("%s names no address", path)
	}
	return ctx, err
}

// writeContext writes a context file for the command line.
func writeContext(path string, addresses []string, ca []byte, token reeve.Secret) error {
	body, err := yaml.Marshal(contextFile{Addresses: addresses, CA: string(ca), Token: token.Reveal()})
	if err != nil {
		return err
	}
	return writeNew(path, body)
}

// writeNew writes a file that only its owner may read, and that was not there.
func writeNew(path string, body []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(body); err != nil {
		return err
	}
	return f.Sync()
}

func joinCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "join", Short: "Join a cluster with a one-time token",
		Example: "  reeve cluster join-token c2 > c2.token\n  reeved join --config c2.yaml --token-file c2.token", Args: cobra.NoArgs,
	}
	config := configFlag(cmd, "error")
	tokenFile := cmd.Flags().String("token-file", "-", "file with the join token; - for standard input")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := config()
		if err != nil {
			return err
		}
		token, err := readSecret(cmd.InOrStdin(), *tokenFile)
		if err != nil {
			return err
		}
		if err := controller.Join(cmd.Context(), cfg, token); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s has joined; run it with: reeved server --config …\n", cfg.Name)
		return nil
	}
	return cmd
}

func readSecret(in io.Reader, path string) (reeve.Secret, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return reeve.Secret{}, err
		}
		defer f.Close()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, 64<<10))
	return reeve.NewSecret(bytes.TrimSpace(raw)), err
}

func keyFileCmd() *cobra.Command {
	var add bool
	cmd := &cobra.Command{
		Use: "key-file FILE", Short: "Make a key file, with which controllers unseal by themselves",
		Long: `Makes a seal key in a new file that only its owner may read. Every controller of the cluster needs the same file.

With --add the key is appended to a file that exists: controllers unseal with whichever line is the cluster's, so
that the next key can be in its place before a rekeying.`,
		Example: "  reeved key-file /etc/reeve/seal.key\n  reeved key-file --add /etc/reeve/seal.key", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if add {
				return seal.AddKey(args[0])
			}
			return seal.CreateKeyFile(args[0])
		},
	}
	cmd.Flags().BoolVar(&add, "add", false, "append the next key to a key file")
	return cmd
}
