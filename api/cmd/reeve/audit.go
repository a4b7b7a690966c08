package main

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

func (a *app) auditCmd() *cobra.Command {
	var object, action string
	var after int64
	var limit int
	list := &cobra.Command{
		Use: "list", Short: "Read the audit trail", Example: "  reeve audit list --object acct_06f2…\n  reeve audit list --after 1000 --limit 50", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			p := &client.ListAuditParams{After: &after, Limit: &limit}
			if object != "" {
				p.Object = &object
			}
			if action != "" {
				p.Action = &action
			}
			page, err := call[client.AuditPage](c.ListAudit(cmd.Context(), p))
			if err != nil {
				return err
			}
			return a.show(page, func() {
				var rows [][]any
				for _, r := range page.Items {
					rows = append(rows, []any{r.Sequence, when(&r.Time), r.Actor["name"], r.Action, r.Object, r.Outcome, sortedPairs(r.Details)})
				}
				a.table([]any{"#", "time", "actor", "action", "object", "outcome", "details"}, rows)
			})
		},
	}
	list.Flags().StringVar(&object, "object", "", "only records about this object")
	list.Flags().StringVar(&action, "action", "", "only this action, e.g. account.rotate")
	list.Flags().Int64Var(&after, "after", 0, "sequence number after which to start")
	list.Flags().IntVar(&limit, "limit", 100, "how many")
	export := &cobra.Command{
		Use: "export", Short: "Export the whole trail as JSON lines", Example: "  reeve audit export > trail.jsonl", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			resp, err := c.ExportAudit(cmd.Context())
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return problem(resp)
			}
			_, err = io.Copy(a.raw.out, resp.Body)
			return err
		},
	}
	return group("audit", "Read and verify the audit trail", "  reeve audit list\n  reeve audit export > trail.jsonl && reeve audit verify trail.jsonl",
		list, export, a.auditCheckpointCmd(), a.auditKeyCmd(), a.auditVerifyCmd())
}
