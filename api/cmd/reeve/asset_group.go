package main

import (
	"context"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

func (a *app) assetGroupCmd() *cobra.Command {
	return group("asset-group", "Manage asset groups, which scopes can name", "  reeve asset-group create databases --type mysql,postgres\n  reeve asset-group add databases orders",
		a.assetGroupCreateCmd(), a.assetGroupListCmd(), a.assetGroupShowCmd(), a.assetGroupEditCmd(),
		a.groupedAssetCmd("add", "Put assets into an asset group", "is in", func(ctx context.Context, c *api, group, asset string) (*http.Response, error) {
			return c.AddGroupedAsset(ctx, group, asset, &client.AddGroupedAssetParams{IdempotencyKey: newKey()})
		}),
		a.groupedAssetCmd("remove", "Take assets out of an asset group", "is not in", func(ctx context.Context, c *api, group, asset string) (*http.Response, error) {
			return c.RemoveGroupedAsset(ctx, group, asset, &client.RemoveGroupedAssetParams{IdempotencyKey: newKey()})
		}),
		a.assetGroupDeleteCmd())
}

func (a *app) assetGroupCreateCmd() *cobra.Command {
	var description string
	var rule ruleFlags
	create := &cobra.Command{
		Use: "create NAME", Short: "Make an asset group",
		Long: `Make an asset group. Assets are in it because they were put there (reeve asset-group add), or because they meet all conditions of
its rule: --site, --type and --tag. Without a rule nothing is in it by itself.`,
		Example: "  reeve asset-group create crown-jewels --description 'approved one by one'\n  reeve asset-group create windows --type winrm --tag env=production", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			g, err := call[client.AssetGroup](c.CreateAssetGroup(cmd.Context(), &client.CreateAssetGroupParams{IdempotencyKey: newKey()},
				client.AssetGroupRequest{Name: args[0], Description: &description, Rule: rule.rule()}))
			if err != nil {
				return err
			}
			return a.show(g, func() { a.say("asset group %s is there (%s)", g.Name, g.Id) })
		},
	}
	create.Flags().StringVar(&description, "description", "", "what the group is")
	rule.on(create)
	return create
}

func (a *app) assetGroupListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List asset groups", Example: "  reeve asset-group list", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			items := []client.AssetGroup{}
			err = pages(func(cur *string) (*string, error) {
				p, err := call[client.AssetGroupPage](c.ListAssetGroups(cmd.Context(), &client.ListAssetGroupsParams{Cursor: cur}))
				items = append(items, p.Items...)
				return p.Next, err
			})
			if err != nil {
				return err
			}
			return a.show(items, func() {
				var rows [][]any
				for _, g := range items {
					rows = append(rows, []any{g.Name, ruled(g.Rule), str(g.Description), g.Id})
				}
				a.table([]any{"name", "rule", "description", "id"}, rows)
			})
		},
	}
}

func (a *app) assetGroupShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show an asset group, who holds what in it, and its assets", Example: "  reeve asset-group show databases", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			whole := client.AssetGroupMembers{}
			err = pages(func(cur *string) (*string, error) {
				p, err := call[client.AssetGroupMembers](c.GetAssetGroup(cmd.Context(), args[0], &client.GetAssetGroupParams{Cursor: cur}))
				p.Items = append(whole.Items, p.Items...)
				whole = p
				return p.Next, err
			})
			if err != nil {
				return err
			}
			return a.show(whole, func() {
				var holds []string
				for _, as := range whole.Assignments {
					holds = append(holds, str(as.User)+str(as.Group)+" "+as.Role+" in "+place(as.Scope))
				}
				g := whole.AssetGroup
				a.pairs("name", g.Name, "description", str(g.Description), "rule", ruled(g.Rule), "held by", strings.Join(holds, "\n"),
					"shown by", strings.Join(whole.AccessPolicies, ", "), "created", when(&g.CreatedAt), "id", g.Id)
				var rows [][]any
				for _, as := range whole.Items {
					how := "put there"
					if as.ByRule {
						how = "by the rule"
					}
					rows = append(rows, []any{as.Name, as.Site, as.Type, how, as.Id})
				}
				a.table([]any{"asset", "site", "type", "is in it", "id"}, rows)
			})
		},
	}
}

func (a *app) assetGroupEditCmd() *cobra.Command {
	var description string
	var rule ruleFlags
	var noRule bool
	edit := &cobra.Command{
		Use: "edit NAME", Short: "Change the rule or the description of an asset group",
		Long:    "Change an asset group. What is not given stays; a rule is replaced as a whole.",
		Example: "  reeve asset-group edit windows --type winrm --site dmz\n  reeve asset-group edit windows --no-rule", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			now, err := call[client.AssetGroupMembers](c.GetAssetGroup(cmd.Context(), args[0], &client.GetAssetGroupParams{}))
			if err != nil {
				return err
			}
			text := client.AssetGroupText{Description: now.AssetGroup.Description, Rule: now.AssetGroup.Rule}
			if cmd.Flags().Changed("description") {
				text.Description = &description
			}
			if noRule || anyGiven(cmd, "site", "type", "tag") {
				text.Rule = rule.rule()
			}
			g, err := call[client.AssetGroup](c.EditAssetGroup(cmd.Context(), now.AssetGroup.Id, &client.EditAssetGroupParams{IdempotencyKey: newKey()}, text))
			if err != nil {
				return err
			}
			return a.show(g, func() { a.say("asset group %s is changed", g.Name) })
		},
	}
	edit.Flags().StringVar(&description, "description", "", "what the group is")
	edit.Flags().BoolVar(&noRule, "no-rule", false, "only what was put there is in it")
	rule.on(edit)
	for _, flag := range []string{"site", "type", "tag"} {
		edit.MarkFlagsMutuallyExclusive("no-rule", flag)
	}
	return edit
}

func (a *app) groupedAssetCmd(use, short, done string, do func(ctx context.Context, c *api, group, asset string) (*http.Response, error)) *cobra.Command {
	return &cobra.Command{
		Use: use + " GROUP ASSET...", Short: short, Example: "  reeve asset-group " + use + " databases orders billing",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return exactArgs("GROUP", "ASSET")(cmd, args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			for _, asset := range args[1:] {
				if _, err := call[none](do(cmd.Context(), c, args[0], asset)); err != nil {
					return err
				}
				a.say("%s "+done+" asset group %s", asset, args[0])
			}
			return nil
		},
	}
}

func (a *app) assetGroupDeleteCmd() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete an asset group that no assignment and no access policy names", Example: "  reeve asset-group delete databases", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.DeleteAssetGroup(cmd.Context(), args[0], &client.DeleteAssetGroupParams{IdempotencyKey: newKey()})); err != nil {
				return err
			}
			a.say("asset group %s is deleted", args[0])
			return nil
		},
	}
}
