package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/auditchain"
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
		list, export, a.auditVerifyCmd(), a.auditSinkCmd())
}

func (a *app) auditVerifyCmd() *cobra.Command {
	var head string
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Prove, offline, that nothing in an exported trail was changed, removed or reordered",
		Long: `Checks the hash chain of an exported trail without any cluster. Removal at the very end shows only against a head
that was noted before: give it with --head.`,
		Example: "  reeve audit verify trail.jsonl\n  reeve audit verify trail.jsonl --head 1204:5f2c…", Args: exactArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			in := a.in
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return usagef("%w", err)
				}
				defer f.Close()
				in = f
			}
			var opt auditchain.Options
			if head != "" {
				seq, hash, ok := strings.Cut(head, ":")
				n, err := strconv.ParseUint(seq, 10, 64)
				if !ok || err != nil {
					return usagef("--head takes a sequence number and a hash, as in 1204:5f2c…")
				}
				opt.Expect = &auditchain.Head{Sequence: n, Hash: hash}
			}
			rep, err := auditchain.Verify(in, opt)
			if err != nil {
				return err
			}
			if rep.Records == 0 {
				return errors.New("there is no record in it, which proves nothing: every cluster has some")
			}
			return a.show(rep, func() {
				_, _ = fmt.Fprintf(a.out, "%d records are whole and in order, %s to %s\nhead %d:%s\n",
					rep.Records, when(&rep.Begin), when(&rep.End), rep.Head.Sequence, rep.Head.Hash)
			})
		},
	}
	cmd.Flags().StringVar(&head, "head", "", "sequence:hash of a head noted before; the trail must reach it")
	return cmd
}
