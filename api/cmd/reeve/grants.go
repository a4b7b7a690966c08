package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

// held says what assignments give, a line each.
func held(all []client.Assignment) []string {
	var out []string
	for _, as := range all {
		line := as.Role + " in " + place(as.Scope)
		if as.Group != nil {
			line += " (group " + *as.Group + ")"
		}
		out = append(out, line)
	}
	return out
}

func (a *app) pamRoleCmd() *cobra.Command {
	return group("pam-role", "See and write PAM roles: what a user of Reeve may do", "  reeve pam-role list\n  reeve pam-role show auditor",
		a.privilegesCmd(), a.pamRoleListCmd(), a.pamRoleShowCmd(), a.pamRoleAddCmd(), a.pamRoleEditCmd(), a.pamRoleDeleteCmd())
}

func (a *app) privilegesCmd() *cobra.Command {
	return &cobra.Command{
		Use: "privileges", Short: "List the privileges there are", Example: "  reeve pam-role privileges", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			all, err := call[client.PrivilegeList](c.ListPrivileges(cmd.Context()))
			if err != nil {
				return err
			}
			return a.show(all.Items, func() {
				var rows [][]any
				for _, p := range all.Items {
					rows = append(rows, []any{p.Privilege, p.Help})
				}
				a.table([]any{"privilege", "lets somebody"}, rows)
			})
		},
	}
}

func (a *app) pamRoleListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List PAM roles", Example: "  reeve pam-role list", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return listed(a, []any{"name", "kind", "privileges", "description"}, func(cur *string) ([]client.PAMRole, *string, error) {
				p, err := call[client.PAMRolePage](c.ListPAMRoles(cmd.Context(), &client.ListPAMRolesParams{Cursor: cur}))
				return p.Items, p.Next, err
			}, func(r client.PAMRole) []any {
				kind := "custom"
				if r.BuiltIn {
					kind = "built in"
				}
				return []any{r.Name, kind, len(r.Privileges), str(r.Description)}
			})
		},
	}
}

func (a *app) pamRoleShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a PAM role", Example: "  reeve pam-role show lifecycle-operator", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			r, err := call[client.PAMRole](c.GetPAMRole(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			return a.showPAMRole(r)
		},
	}
}

func (a *app) showPAMRole(r client.PAMRole) error {
	return a.show(r, func() {
		a.pairs("name", r.Name, "title", r.Title, "description", str(r.Description), "privileges", strings.Join(r.Privileges, "\n"), "created", when(r.CreatedAt))
	})
}

// pamRoleText are the flags of what a PAM role says.
type pamRoleText struct {
	title, description string
	privileges         []string
}

func (p *pamRoleText) on(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&p.title, "title", "", "for people")
	c.Flags().StringVar(&p.description, "description", "", "what it is for")
	c.Flags().StringSliceVar(&p.privileges, "privilege", nil, "what it holds; may be repeated (required)")
	_ = c.MarkFlagRequired("privilege")
	return c
}

func (a *app) pamRoleAddCmd() *cobra.Command {
	var in pamRoleText
	return in.on(&cobra.Command{
		Use: "add NAME", Short: "Add a PAM role, of nothing but what you hold", Example: "  reeve pam-role add password-reader --privilege lifecycle.view,vault.reveal", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			r, err := call[client.PAMRole](c.AddPAMRole(cmd.Context(), &client.AddPAMRoleParams{IdempotencyKey: newKey()},
				client.PAMRoleRequest{Name: args[0], Title: &in.title, Description: &in.description, Privileges: in.privileges}))
			if err != nil {
				return err
			}
			return a.showPAMRole(r)
		},
	})
}

func (a *app) pamRoleEditCmd() *cobra.Command {
	var in pamRoleText
	return in.on(&cobra.Command{
		Use: "edit NAME", Short: "Replace what a PAM role holds, for everybody who has it", Example: "  reeve pam-role edit password-reader --privilege lifecycle.view", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			r, err := call[client.PAMRole](c.EditPAMRole(cmd.Context(), args[0], &client.EditPAMRoleParams{IdempotencyKey: newKey()},
				client.PAMRoleText{Title: &in.title, Description: &in.description, Privileges: in.privileges}))
			if err != nil {
				return err
			}
			return a.showPAMRole(r)
		},
	})
}

func (a *app) pamRoleDeleteCmd() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a PAM role that nobody has", Example: "  reeve pam-role delete password-reader", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.DeletePAMRole(cmd.Context(), args[0], &client.DeletePAMRoleParams{IdempotencyKey: newKey()})); err != nil {
				return err
			}
			a.say("PAM role %s is deleted", args[0])
			return nil
		},
	}
}

func (a *app) assignmentCmd() *cobra.Command {
	return group("assignment", "Say who has which PAM role where", "  reeve assignment list\n  reeve assignment add --role auditor --user ada --everything",
		a.assignmentAddCmd(), a.assignmentListCmd(), a.assignmentDeleteCmd())
}

func (a *app) assignmentAddCmd() *cobra.Command {
	var role, user, group string
	var scope scopeFlags
	add := &cobra.Command{
		Use: "add", Short: "Give a PAM role to a user or a group, somewhere", Args: exactArgs(),
		Long: `Give a PAM role to a user or a group. Sites, types and asset groups are alternatives each, tags must all be there; of these conditions
all that are given must be met.`,
		Example: "  reeve assignment add --role lifecycle-operator --group dba --site dmz --tag kind=database\n  reeve assignment add --role user --user ada --asset-group windows\n  reeve assignment add --role auditor --user ada --everything",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			in := client.AssignmentRequest{Role: role, Scope: scope.scope()}
			if user != "" {
				in.User = &user
			}
			if group != "" {
				in.Group = &group
			}
			as, err := call[client.Assignment](c.AddAssignment(cmd.Context(), &client.AddAssignmentParams{IdempotencyKey: newKey()}, in))
			if err != nil {
				return err
			}
			return a.show(as, func() { a.say("%s has %s in %s (%s)", str(as.User)+str(as.Group), as.Role, place(as.Scope), as.Id) })
		},
	}
	f := add.Flags()
	f.StringVar(&role, "role", "", "PAM role to give (required)")
	f.StringVar(&user, "user", "", "who gets it")
	f.StringVar(&group, "group", "", "the group that gets it")
	scope.on(add)
	_ = add.MarkFlagRequired("role")
	add.MarkFlagsOneRequired("user", "group")
	add.MarkFlagsMutuallyExclusive("user", "group")
	return add
}

func (a *app) assignmentDeleteCmd() *cobra.Command {
	return &cobra.Command{
		Use: "delete ID", Short: "Take a PAM role back", Example: "  reeve assignment delete asgn_06f2…", Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.DeleteAssignment(cmd.Context(), args[0], &client.DeleteAssignmentParams{IdempotencyKey: newKey()})); err != nil {
				return err
			}
			a.say("%s is deleted", args[0])
			return nil
		},
	}
}

func (a *app) assignmentListCmd() *cobra.Command {
	var role, user, group string
	c := &cobra.Command{
		Use: "list", Short: "List who has which PAM role where", Example: "  reeve assignment list --role administrator", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return listed(a, []any{"pam role", "who", "where", "id"}, func(cur *string) ([]client.Assignment, *string, error) {
				in := &client.ListAssignmentsParams{Cursor: cur}
				for _, o := range []struct {
					value string
					to    **string
				}{{role, &in.Role}, {user, &in.User}, {group, &in.Group}} {
					if o.value != "" {
						*o.to = &o.value
					}
				}
				p, err := call[client.AssignmentPage](c.ListAssignments(cmd.Context(), in))
				return p.Items, p.Next, err
			}, func(as client.Assignment) []any {
				who := "user " + str(as.User)
				if as.Group != nil {
					who = "group " + *as.Group
				}
				return []any{as.Role, who, place(as.Scope), as.Id}
			})
		},
	}
	c.Flags().StringVar(&role, "role", "", "only those of this PAM role")
	c.Flags().StringVar(&user, "user", "", "only those of this user, without those of its groups")
	c.Flags().StringVar(&group, "group", "", "only those of this group")
	return c
}

func (a *app) canCmd() *cobra.Command {
	var why bool
	c := &cobra.Command{
		Use: "can USER PRIVILEGE [OBJECT]", Short: "Say whether somebody may do something, and why",
		Long: `Say whether somebody may do something. OBJECT is site:NAME, asset:NAME or account:NAME@ASSET; without it the question is about the
installation as a whole. The privileges are listed by reeve pam-role privileges.`,
		Example: "  reeve can ada lifecycle.provision asset:web01 --why\n  reeve can ci audit.export",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 && len(args) != 3 {
				return exactArgs("USER", "PRIVILEGE")(cmd, args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			in := &client.CanParams{User: &args[0], Privilege: args[1]}
			if len(args) == 3 {
				kind, name, _ := strings.Cut(args[2], ":")
				at, known := map[string]**string{"site": &in.Site, "asset": &in.Asset, "account": &in.Account}[kind]
				if !known || name == "" {
					return usagef("OBJECT is site:NAME, asset:NAME or account:NAME@ASSET, not %q", args[2])
				}
				*at = &name
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			d, err := call[client.Decision](c.Can(cmd.Context(), in))
			if err != nil {
				return err
			}
			return a.show(d, func() {
				answer := yes(&d.Allowed)
				if why {
					answer += ": " + d.Because
				}
				_, _ = a.out.Write([]byte(answer + "\n"))
			})
		},
	}
	c.Flags().BoolVar(&why, "why", false, "which assignment allows it, what is missing, or which access policy hides it")
	return c
}
