package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

func (a *app) accessPolicyCmd() *cobra.Command {
	return group("access-policy", "Limit what some users see, whatever they hold", "  reeve access-policy create vendors --vendors --type winrm\n  reeve access-policy list",
		a.accessPolicyCreateCmd(), a.accessPolicyListCmd(), a.accessPolicyShowCmd(), a.accessPolicyEditCmd(), a.accessPolicyDeleteCmd())
}

// limitedFlags are to whom an access policy applies.
type limitedFlags struct {
	users, groups []string
	vendors       bool
}

func (l *limitedFlags) on(c *cobra.Command) {
	c.Flags().StringSliceVar(&l.users, "user", []string{}, "it applies to this user or service account; may be repeated")
	c.Flags().StringSliceVar(&l.groups, "group", []string{}, "it applies to everybody in this group; may be repeated")
	c.Flags().BoolVar(&l.vendors, "vendors", false, "it applies to everybody who works for another company")
}

// whom is to whom an access policy applies, for people.
func whom(p client.AccessPolicy) string {
	var parts []string
	if p.Vendors {
		parts = append(parts, "vendors")
	}
	for _, u := range p.Users {
		parts = append(parts, "user "+u)
	}
	for _, g := range p.Groups {
		parts = append(parts, "group "+g)
	}
	return strings.Join(parts, ", ")
}

func (a *app) accessPolicyCreateCmd() *cobra.Command {
	var description string
	var who limitedFlags
	var scope scopeFlags
	create := &cobra.Command{
		Use: "create NAME", Short: "Limit what some users see",
		Long: `Limit what some users see. To whom no access policy applies, their assignments decide alone. To whom one or more apply, an object must
be in the scope of one of them as well: everything else in any site answers as if it were not there. A policy gives nothing.`,
		Example: "  reeve access-policy create vendors --vendors --type winrm --tag env=production\n  reeve access-policy create acme --group acme --asset-group acme-servers", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			p, err := call[client.AccessPolicy](c.CreateAccessPolicy(cmd.Context(), &client.CreateAccessPolicyParams{IdempotencyKey: newKey()},
				client.AccessPolicyRequest{Name: args[0], Description: &description, Users: &who.users, Groups: &who.groups, Vendors: &who.vendors, Scope: scope.scope()}))
			if err != nil {
				return err
			}
			return a.show(p, func() { a.say("access policy %s shows %s no more than %s (%s)", p.Name, whom(p), place(p.Scope), p.Id) })
		},
	}
	create.Flags().StringVar(&description, "description", "", "what it is for")
	who.on(create)
	scope.on(create)
	create.MarkFlagsOneRequired("user", "group", "vendors")
	create.MarkFlagsOneRequired(scopeNames...)
	return create
}

func (a *app) accessPolicyListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List access policies", Example: "  reeve access-policy list", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			items := []client.AccessPolicy{}
			err = pages(func(cur *string) (*string, error) {
				p, err := call[client.AccessPolicyPage](c.ListAccessPolicies(cmd.Context(), &client.ListAccessPoliciesParams{Cursor: cur}))
				items = append(items, p.Items...)
				return p.Next, err
			})
			if err != nil {
				return err
			}
			return a.show(items, func() {
				var rows [][]any
				for _, p := range items {
					rows = append(rows, []any{p.Name, whom(p), place(p.Scope), p.Id})
				}
				a.table([]any{"name", "for", "shows no more than", "id"}, rows)
			})
		},
	}
}

func (a *app) accessPolicyShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show an access policy", Example: "  reeve access-policy show vendors", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			p, err := call[client.AccessPolicy](c.GetAccessPolicy(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			return a.show(p, func() {
				a.pairs("name", p.Name, "description", str(p.Description), "for", whom(p), "shows", "no more than "+place(p.Scope), "created", when(&p.CreatedAt), "id", p.Id)
			})
		},
	}
}

func (a *app) accessPolicyEditCmd() *cobra.Command {
	var description string
	var who limitedFlags
	var scope scopeFlags
	edit := &cobra.Command{
		Use: "edit NAME", Short: "Change whom an access policy limits, or what it shows",
		Long:    "Change an access policy. What is not given stays; whom it applies to, and what it shows, are replaced as a whole.",
		Example: "  reeve access-policy edit vendors --type winrm,ssh\n  reeve access-policy edit vendors --vendors --group contractors", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			now, err := call[client.AccessPolicy](c.GetAccessPolicy(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			text := client.AccessPolicyText{Description: now.Description, Users: &now.Users, Groups: &now.Groups, Vendors: &now.Vendors, Scope: now.Scope}
			if cmd.Flags().Changed("description") {
				text.Description = &description
			}
			if anyGiven(cmd, "user", "group", "vendors") {
				text.Users, text.Groups, text.Vendors = &who.users, &who.groups, &who.vendors
			}
			if anyGiven(cmd, scopeNames...) {
				text.Scope = scope.scope()
			}
			p, err := call[client.AccessPolicy](c.EditAccessPolicy(cmd.Context(), now.Id, &client.EditAccessPolicyParams{IdempotencyKey: newKey()}, text))
			if err != nil {
				return err
			}
			return a.show(p, func() { a.say("access policy %s shows %s no more than %s", p.Name, whom(p), place(p.Scope)) })
		},
	}
	edit.Flags().StringVar(&description, "description", "", "what it is for")
	who.on(edit)
	scope.on(edit)
	return edit
}

func (a *app) accessPolicyDeleteCmd() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete an access policy: whom it limited sees what they hold", Example: "  reeve access-policy delete vendors", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.DeleteAccessPolicy(cmd.Context(), args[0], &client.DeleteAccessPolicyParams{IdempotencyKey: newKey()})); err != nil {
				return err
			}
			a.say("access policy %s is deleted", args[0])
			return nil
		},
	}
}
