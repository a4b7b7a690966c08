package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/internal/backup"
)

// verifySnapshotCmd needs no cluster, and no key.
func (a *app) verifySnapshotCmd() *cobra.Command {
	return &cobra.Command{
		Use: "verify FILE", Short: "Check a saved snapshot without a cluster, and show what it holds",
		Long: `Reads a snapshot to its end: one of which a byte was changed is refused. No key and no controller is needed. That every
record in it opens with your shares or key file proves "reeved rehearse".`,
		Example: "  reeve cluster snapshot verify reeve.snap\n  reeve cluster snapshot verify reeve.snap -o json", Args: exactArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := openNamed("FILE", args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			m, err := backup.Check(f)
			if err != nil {
				return err
			}
			return a.show(m, func() {
				a.pairs("cluster", m.Cluster, "written", when(&m.Time), "by", m.Node+" "+m.Version, "newest change", when(&m.Recorded),
					"revision", fmt.Sprint(m.Revision), "seal", fmt.Sprintf("generation %d, keyring %d", m.Generation, m.Keyring), "sha256", m.SHA256)
			})
		},
	}
}
