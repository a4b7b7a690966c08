package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

func (a *app) assetRightsCmd() *cobra.Command {
	req := client.RightsRequest{}
	var params map[string]string
	cmd := &cobra.Command{
		Use: "rights NAME", Short: "Check which rights the management account needs for a role, and which it lacks",
		Long: `Logs in with the management account and compares what it may do with what the role needs. Nothing is changed.
For each right that is missing it prints what an administrator of the target has to run to grant it.

It fails if a right is missing.`,
		Example: "  reeve asset rights shop --role mysql-db-ro --param Database=orders\n  reeve asset rights web01 --role linux-admin-sudo", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if len(params) > 0 {
				req.Params = &params
			}
			ref, err := call[client.JobRef](c.CheckRights(cmd.Context(), args[0], &client.CheckRightsParams{IdempotencyKey: newKey()}, req))
			if err != nil {
				return err
			}
			if err := a.followJob(cmd.Context(), c, ref.Job, a.progress(""), a.progress("")); err != nil {
				return err
			}
			j, err := call[client.Job](c.GetJob(cmd.Context(), ref.Job))
			if err != nil {
				return err
			}
			if j.Legacy && a.output == "table" {
				a.say("%s %s: a right that is given here is given over a network that may be read", legacyMark(true), args[0])
			}
			rights := []client.Right{}
			if j.Rights != nil {
				rights = *j.Rights
			}
			return a.showRights(args[0], req.Role, rights)
		},
	}
	cmd.Flags().StringVar(&req.Role, "role", "", "role it shall be able to give (required)")
	cmd.Flags().StringToStringVar(&params, "param", nil, "parameter of the role, name=value; may be repeated")
	_ = cmd.MarkFlagRequired("role")
	return cmd
}

func (a *app) showRights(asset, role string, rights []client.Right) error {
	missing := 0
	if err := a.show(rights, func() {
		var rows [][]any
		for _, r := range rights {
			held := "✓"
			if !r.Held {
				held = "✗ missing"
			}
			rows = append(rows, []any{held, r.Name, r.Reason})
		}
		a.table([]any{"held", "right", "needed to"}, rows)
		first := true
		for _, r := range rights {
			if r.Grant != nil && !r.Held {
				if first {
					_, _ = fmt.Fprintf(a.out, "\nan administrator of %s runs:\n", asset)
					first = false
				}
				_, _ = fmt.Fprintf(a.out, "  %s\n", *r.Grant)
			}
		}
	}); err != nil {
		return err
	}
	for _, r := range rights {
		if !r.Held {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Errorf("the management account of %s lacks %d of the %d rights that role %s needs", asset, missing, len(rights), role)
	}
	return nil
}
