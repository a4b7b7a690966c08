package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/controller"
	"github.com/reeve-pam/reeve/internal/cmdline"
)

func restoreCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Make the cluster anew from a snapshot, after all controllers were lost",
		Long: `Makes this controller, whose data_dir must be empty, the first of the cluster a snapshot was taken from. Give as many shares of its
seal key as it needs, or name its key file as key_file in the configuration. Make sure that the old controllers stay off.

What was revoked after the snapshot was taken is not known. So nobody who had access has it still: all tokens are void and
there is a new one for root, every agent enrols anew, and so does every other controller. Jobs that were open are not run
again, and every account is looked at before it is trusted.`,
		Example: "  reeved restore reeve.snap --config /etc/reeve/c1.yaml --share-file share-1.txt --share-file share-4.txt --share-file share-5.txt",
		Args:    oneFile,
	}
	config := configFlag(cmd, "error")
	shares := sharesFlag(cmd)
	contextFile := cmd.Flags().String("admin-context", "admin.yaml", "context file for reeve, with the new root token")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := config()
		if err != nil {
			return err
		}
		if _, err := os.Stat(*contextFile); err == nil {
			return cmdline.Usagef("%s exists; choose another --admin-context", *contextFile)
		}
		keys, err := shares(cfg.KeyFile)
		if err != nil {
			return err
		}
		f, err := os.Open(args[0])
		if err != nil {
			return cmdline.Usagef("%w", err)
		}
		defer func() { _ = f.Close() }()
		made, from, err := controller.Refound(cmd.Context(), cfg, f, keys)
		if err != nil {
			return err
		}
		if err := writeContext(*contextFile, []string{cfg.API.Address()}, made.CA, made.RootToken); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.ErrOrStderr(), "cluster %s is restored as it was at %s, %d records; %s holds the new root token\nrun it with: reeved server --config …\n",
			made.Cluster, from.Manifest.Recorded.Format("2006-01-02 15:04:05"), from.Records, *contextFile)
		return err
	}
	return cmd
}

func rehearseCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rehearse FILE", Short: "Prove that a snapshot could be restored: that every record in it opens",
		Long: `Opens a snapshot in a temporary directory with the shares or the key file: it is whole, the cluster itself wrote it, and every record
in it opens. No controller is needed and nothing is changed. Do it where nobody minds that the keys are in memory for a moment.`,
		Example: "  reeved rehearse reeve.snap --share-file share-1.txt --share-file share-4.txt --share-file share-5.txt\n  reeved rehearse reeve.snap --key-file seal.key",
		Args:    oneFile,
	}
	shares := sharesFlag(cmd)
	keyFile := cmd.Flags().String("key-file", "", "the seal's key file, for a cluster without shares")
	level := logFlag(cmd, "error")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		log, err := newLogger(cmd.ErrOrStderr(), *level)
		if err != nil {
			return err
		}
		keys, err := shares(*keyFile)
		if err != nil {
			return err
		}
		f, err := os.Open(args[0])
		if err != nil {
			return cmdline.Usagef("%w", err)
		}
		defer func() { _ = f.Close() }()
		opened, err := controller.Rehearse(cmd.Context(), os.TempDir(), f, keys, log)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "the snapshot of cluster %s of %s can be restored: all %d records open\n",
			opened.Manifest.Cluster, opened.Manifest.Time.Format("2006-01-02 15:04:05"), opened.Records)
		return err
	}
	return cmd
}

// sharesFlag adds --share-file and returns what reads the keys.
func sharesFlag(cmd *cobra.Command) func(keyFile string) (controller.Keys, error) {
	files := cmd.Flags().StringArray("share-file", nil, "file with a share of the seal key; once for each")
	return func(keyFile string) (controller.Keys, error) {
		keys := controller.Keys{KeyFile: keyFile}
		for _, path := range *files {
			share, err := readSecret(cmd.InOrStdin(), path)
			if err != nil {
				return keys, err
			}
			keys.Shares = append(keys.Shares, share)
		}
		return keys, nil
	}
}

func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return cmdline.Usagef("%s takes one FILE; see %s --help", cmd.CommandPath(), cmd.CommandPath())
	}
	return nil
}
