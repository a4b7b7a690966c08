package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/auditchain/checkpoint"
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
		a.auditListCmd(), a.auditExportCmd(), a.auditCheckpointCmd(), a.auditKeyCmd(), a.auditRotateKeyCmd(), a.auditVerifyCmd(), a.auditSinkCmd())
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
	var format, from, to string
	cmd := &cobra.Command{
		Use: "export", Short: "Export the trail, a part of it, or what a search finds, as JSON lines or CSV",
		Long: `Without a search, JSON lines are what "reeve audit verify" proves. With a checkpoint in --from and one in --to, they are the records
between the two, which is all that it needs to prove that the later continues the earlier. CSV is for spreadsheets: what one would
run as a formula has an apostrophe before it.`,
		Example: "  reeve audit export > trail.jsonl\n  reeve audit export --from then.txt --to now.txt > between.jsonl\n  reeve audit export --format csv --since 2027-01-01 --until 2027-02-01 > january.csv", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			want, err := q.params()
			if err != nil {
				return err
			}
			if format != string(client.Jsonl) && format != string(client.Csv) {
				return usagef("--format is jsonl or csv, not %q", format)
			}
			want.Format = new(client.ExportAuditParamsFormat(format))
			if want.After, want.Through, err = stretch(from, to); err != nil {
				return err
			}
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
	cmd.Flags().StringVar(&from, "from", "", "a file with the checkpoint after which to start, or the number of the first record")
	cmd.Flags().StringVar(&to, "to", "", "a file with the checkpoint with which to end, or the number of the last record")
	cmd.Flags().StringVar(&format, "format", string(client.Jsonl), "jsonl or csv")
	return cmd
}

// stretch is which part of the trail is wanted, as the API asks for it.
func stretch(from, to string) (after, through *int64, err error) {
	if n, given, err := position("--from", from); err != nil {
		return nil, nil, err
	} else if given {
		if isNumber(from) {
			n-- // the first record that is wanted
		}
		after = &n
	}
	if n, given, err := position("--to", to); err != nil {
		return nil, nil, err
	} else if given {
		through = &n
	}
	if after != nil && through != nil && *after >= *through {
		return nil, nil, usagef("there is no record between --from and --to: which of the two is the earlier?")
	}
	return after, through, nil
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 63)
	return err == nil
}

// position is the number of a record, or how far the one checkpoint in a file goes.
func position(flag, s string) (n int64, given bool, err error) {
	if s == "" {
		return 0, false, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n < 1 {
			return 0, false, usagef("%s: records are numbered from 1", flag)
		}
		return n, true, nil
	}
	raw, err := readNamed(flag+" is neither a number nor a file with a checkpoint", s)
	if err != nil {
		return 0, false, err
	}
	notes := checkpoint.Split(raw)
	if len(notes) != 1 {
		return 0, false, usagef("%s: there are %d checkpoints in %s, not one", flag, len(notes), s)
	}
	c, err := checkpoint.Unproven(notes[0]) // verify proves it
	if err != nil {
		return 0, false, fmt.Errorf("%s: %w", s, err)
	}
	return int64(c.Head.Sequence), true, nil //nolint:gosec // at most 63 bits
}
