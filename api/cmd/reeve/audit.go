package main

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

// auditSearch are the flags that say which records are wanted.
type auditSearch struct{ object, action, actor, outcome, since, until string }

func (q *auditSearch) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&q.object, "object", "", "only records about this id")
	f.StringVar(&q.action, "action", "", "only this action, e.g. account.rotate")
	f.StringVar(&q.actor, "actor", "", "only what this actor did: a name or an id")
	f.StringVar(&q.outcome, "outcome", "", "only this outcome, e.g. denied")
	f.StringVar(&q.since, "since", "", "from this day or instant on (UTC): 2027-01-31 or 2027-01-31T08:00:00Z")
	f.StringVar(&q.until, "until", "", "before this day or instant")
}

func (q *auditSearch) params() (p client.ExportAuditParams, err error) {
	p = client.ExportAuditParams{Object: given(q.object), Action: given(q.action), Actor: given(q.actor), Outcome: given(q.outcome)}
	if p.Since, err = instant("--since", q.since); err != nil {
		return p, err
	}
	p.Until, err = instant("--until", q.until)
	return p, err
}

// given is nil for a flag that was not.
func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (a *app) auditCmd() *cobra.Command {
	return group("audit", "Read and verify the audit trail", "  reeve audit list\n  reeve audit export > trail.jsonl && reeve audit verify trail.jsonl",
		a.auditListCmd(), a.auditExportCmd(), a.auditCheckpointCmd(), a.auditKeyCmd(), a.auditVerifyCmd(), a.auditSinkCmd())
}

func (a *app) auditListCmd() *cobra.Command {
	var q auditSearch
	var after int64
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "Search the audit trail, oldest first",
		Example: "  reeve audit list --object acct_06f2…\n  reeve audit list --actor ada --since 2027-01-31 --outcome denied\n  reeve audit list --after 1000 --limit 50", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			want, err := q.params()
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			page, err := call[client.AuditPage](c.ListAudit(cmd.Context(), &client.ListAuditParams{After: &after, Limit: &limit, Object: want.Object, Action: want.Action,
				Actor: want.Actor, Outcome: want.Outcome, Since: want.Since, Until: want.Until}))
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
	q.flags(cmd)
	cmd.Flags().Int64Var(&after, "after", 0, "sequence number after which to start")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many")
	return cmd
}

func (a *app) auditExportCmd() *cobra.Command {
	var q auditSearch
	var format string
	cmd := &cobra.Command{
		Use: "export", Short: "Export the trail, or what a search finds, as JSON lines or CSV",
		Long: `Without a search, JSON lines are what "reeve audit verify" proves. CSV is for spreadsheets: what one would run as a formula
has an apostrophe before it.`,
		Example: "  reeve audit export > trail.jsonl\n  reeve audit export --format csv --since 2027-01-01 --until 2027-02-01 > january.csv", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			want, err := q.params()
			if err != nil {
				return err
			}
			if format != string(client.Jsonl) && format != string(client.Csv) {
				return usagef("--format is jsonl or csv, not %q", format)
			}
			want.Format = new(client.ExportAuditParamsFormat(format))
			c, err := a.connect()
			if err != nil {
				return err
			}
			resp, err := c.ExportAudit(cmd.Context(), &want)
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
	q.flags(cmd)
	cmd.Flags().StringVar(&format, "format", string(client.Jsonl), "jsonl or csv")
	return cmd
}
