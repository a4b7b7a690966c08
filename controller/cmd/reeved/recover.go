package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/controller"
)

func recoverCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "recover", Short: "Go on with this controller alone, after a majority was lost for good",
		Long: `Makes this controller, which must be stopped, the only member of its cluster. The others are never let in again: make
sure that they stay off, since two of them would still be a majority for each other. What they were told and this one was not
is lost. Jobs that were open are not run again, and every account is looked at once this controller leads unsealed. Without
--accept-data-loss it changes nothing and says what would be lost.

Afterwards start it as usual, and let new controllers join.`,
		Example: "  reeved recover --config /etc/reeve/c1.yaml --accept-data-loss", Args: cobra.NoArgs,
	}
	config := configFlag(cmd, "error")
	accept := cmd.Flags().Bool("accept-data-loss", false, "do it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := config()
		if err != nil {
			return err
		}
		r, err := controller.Recover(cfg, *accept)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s is the only controller of cluster %s now, with what it knew at %s; lost for good: %s\nrun it with: reeved server --config …\n",
			cfg.Name, r.Cluster, r.Recorded.Format("2006-01-02 15:04:05"), strings.Join(r.Lost, ", "))
		return err
	}
	return cmd
}
