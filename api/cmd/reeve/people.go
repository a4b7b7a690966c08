package main

import (
	"context"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

func (a *app) userCmd() *cobra.Command {
	return group("user", "Manage users and service accounts", "  reeve user add ada --full-name 'Ada Lovelace' --email ada@example.com\n  reeve user list",
		a.userAddCmd(), a.userListCmd(), a.userShowCmd(), a.userEditCmd(),
		a.userChangeCmd("disable", "Take everything from a user until it is enabled again", func(ctx context.Context, c *api, user string) (*http.Response, error) {
			return c.DisableUser(ctx, user, &client.DisableUserParams{IdempotencyKey: newKey()})
		}),
		a.userChangeCmd("enable", "Give a disabled user back what it may do", func(ctx context.Context, c *api, user string) (*http.Response, error) {
			return c.EnableUser(ctx, user, &client.EnableUserParams{IdempotencyKey: newKey()})
		}),
		a.userChangeCmd("unlock", "Let a user try again who failed to sign in too often", func(ctx context.Context, c *api, user string) (*http.Response, error) {
			return c.UnlockUser(ctx, user, &client.UnlockUserParams{IdempotencyKey: newKey()})
		}),
		a.userChangeCmd("reset-factors", "Take the second factors, and with them a password under 15 characters, from a user who lost them; their sessions end", func(ctx context.Context, c *api, user string) (*http.Response, error) {
			return c.ResetFactors(ctx, user, &client.ResetFactorsParams{IdempotencyKey: newKey()})
		}, "if their password had fewer than 15 characters it is gone as well; then: reeve user invite %s"),
		a.userInviteCmd(), a.userRemoveCmd())
}

func (a *app) userChangeCmd(use, short string, do func(context.Context, *api, string) (*http.Response, error), next ...string) *cobra.Command {
	return &cobra.Command{
		Use: use + " NAME", Short: short, Example: "  reeve user " + use + " ada", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			u, err := call[client.User](do(cmd.Context(), c, args[0])) //nolint:bodyclose // call does
			if err != nil {
				return err
			}
			return a.show(u, func() {
				a.say("%s is %s", u.Name, u.Status)
				for _, hint := range next {
					a.say(hint, u.Name)
				}
			})
		},
	}
}

// profileFlags are what is known of a user.
type profileFlags struct {
	fullName, email, department, timeZone string
	vendor                                bool
}

func (p *profileFlags) on(c *cobra.Command) *cobra.Command {
	f := c.Flags()
	f.StringVar(&p.fullName, "full-name", "", "as people know them")
	f.StringVar(&p.email, "email", "", "where mail goes")
	f.StringVar(&p.department, "department", "", "for rules")
	f.StringVar(&p.timeZone, "time-zone", "", "such as Europe/Berlin")
	f.BoolVar(&p.vendor, "vendor", false, "they work for another company")
	return c
}

// into sets in a profile what was given on the command line.
func (p *profileFlags) into(c *cobra.Command, out *client.UserProfile) {
	for flag, set := range map[string]func(){
		"full-name": func() { out.FullName = &p.fullName }, "email": func() { out.Email = &p.email }, "department": func() { out.Department = &p.department },
		"time-zone": func() { out.TimeZone = &p.timeZone }, "vendor": func() { out.Vendor = &p.vendor },
	} {
		if c.Flags().Changed(flag) {
			set()
		}
	}
}

func (a *app) userAddCmd() *cobra.Command {
	var profile profileFlags
	var service bool
	var directory string
	add := &cobra.Command{
		Use: "add NAME", Short: "Add a user or a service account", Args: exactArgs("NAME"),
		Long:    "Add a user or a service account. It may do nothing until it has a PAM role: reeve assignment add.",
		Example: "  reeve user add ada --full-name 'Ada Lovelace' --email ada@example.com --department operations\n  reeve user add ci --service\n  reeve user add bob --directory corp",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			in := client.UserRequest{Name: args[0], Service: &service, Profile: &client.UserProfile{}}
			profile.into(cmd, in.Profile)
			if directory != "" {
				in.Directory = &directory
			}
			u, err := call[client.User](c.AddUser(cmd.Context(), &client.AddUserParams{IdempotencyKey: newKey()}, in))
			if err != nil {
				return err
			}
			return a.show(u, func() { a.say("%s %s is there (%s)", u.Kind, u.Name, u.Id) })
		},
	}
	add.Flags().StringVar(&directory, "directory", "", "the directory that proves their password")
	add.Flags().BoolVar(&service, "service", false, "it is a program, not a person")
	return profile.on(add)
}

func (a *app) userListCmd() *cobra.Command {
	var removed bool
	list := &cobra.Command{
		Use: "list", Short: "List users and service accounts", Example: "  reeve user list --removed", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			items := []client.User{}
			err = pages(func(cur *string) (*string, error) {
				p, err := call[client.UserPage](c.ListUsers(cmd.Context(), &client.ListUsersParams{Cursor: cur, Removed: &removed}))
				items = append(items, p.Items...)
				return p.Next, err
			})
			if err != nil {
				return err
			}
			return a.show(items, func() { a.users(items) })
		},
	}
	list.Flags().BoolVar(&removed, "removed", false, "those that were removed as well")
	return list
}

func (a *app) users(items []client.User) {
	var rows [][]any
	for _, u := range items {
		rows = append(rows, []any{u.Name, u.Kind, u.Status, str(u.Profile.FullName), str(u.Profile.Email), str(u.Profile.Department), u.Id})
	}
	a.table([]any{"name", "kind", "status", "full name", "e-mail", "department", "id"}, rows)
}

func (a *app) userShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a user, its groups and what it holds", Example: "  reeve user show ada", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			u, err := call[client.User](c.GetUser(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			return a.show(u, func() {
				vendor := ""
				if u.Profile.Vendor != nil && *u.Profile.Vendor {
					vendor = "yes"
				}
				a.pairs("name", u.Name, "kind", u.Kind, "status", u.Status, "directory", str(u.Directory), "full name", str(u.Profile.FullName), "e-mail", str(u.Profile.Email),
					"department", str(u.Profile.Department), "time zone", str(u.Profile.TimeZone), "vendor", vendor,
					"groups", strings.Join(list(u.Groups), ", "), "holds", strings.Join(held(list(u.Assignments)), "\n"), "limited by", strings.Join(list(u.AccessPolicies), ", "), "created", when(&u.CreatedAt), "id", u.Id)
			})
		},
	}
}

// list is an optional list; empty if absent.
func list[T any](p *[]T) []T {
	if p == nil {
		return nil
	}
	return *p
}

func (a *app) userEditCmd() *cobra.Command {
	var profile profileFlags
	edit := &cobra.Command{
		Use: "edit NAME", Short: "Change what is known of a user; what is not given stays", Example: "  reeve user edit ada --email ada@example.org", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			u, err := call[client.User](c.GetUser(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			profile.into(cmd, &u.Profile)
			u, err = call[client.User](c.EditUser(cmd.Context(), u.Id, &client.EditUserParams{IdempotencyKey: newKey()}, u.Profile))
			if err != nil {
				return err
			}
			return a.show(u, func() { a.say("%s is changed", u.Name) })
		},
	}
	return profile.on(edit)
}

func (a *app) userRemoveCmd() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "End a user for ever: its tokens, its groups, its PAM roles", Example: "  reeve user remove ada", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.RemoveUser(cmd.Context(), args[0], &client.RemoveUserParams{IdempotencyKey: newKey()})); err != nil {
				return err
			}
			a.say("%s is removed; old records keep the name", args[0])
			return nil
		},
	}
}

func (a *app) groupCmd() *cobra.Command {
	var description, directory, external string
	add := &cobra.Command{
		Use: "add NAME", Short: "Add a group",
		Example: "  reeve group add dba --description 'runs the databases'\n  reeve group add dba --directory corp --external 'CN=DBA,OU=Groups,DC=example,DC=com'", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			in := client.GroupRequest{Name: args[0], Description: &description}
			if directory != "" || external != "" {
				in.Directory, in.External = &directory, &external
			}
			g, err := call[client.Group](c.AddGroup(cmd.Context(), &client.AddGroupParams{IdempotencyKey: newKey()}, in))
			if err != nil {
				return err
			}
			return a.show(g, func() { a.say("group %s is there (%s)", g.Name, g.Id) })
		},
	}
	add.Flags().StringVar(&description, "description", "", "what the group is")
	add.Flags().StringVar(&directory, "directory", "", "the directory that says who is in it")
	add.Flags().StringVar(&external, "external", "", "what the directory calls the group: its distinguished name")
	list := &cobra.Command{
		Use: "list", Short: "List groups", Example: "  reeve group list", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return listed(a, []any{"name", "description", "created", "id"}, func(cur *string) ([]client.Group, *string, error) {
				p, err := call[client.GroupPage](c.ListGroups(cmd.Context(), &client.ListGroupsParams{Cursor: cur}))
				return p.Items, p.Next, err
			}, func(g client.Group) []any {
				return []any{g.Name, str(g.Description), when(&g.CreatedAt), g.Id}
			})
		},
	}
	remove := &cobra.Command{
		Use: "remove NAME", Short: "Remove a group and what its members held through it", Example: "  reeve group remove dba", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.RemoveGroup(cmd.Context(), args[0], &client.RemoveGroupParams{IdempotencyKey: newKey()})); err != nil {
				return err
			}
			a.say("group %s is removed", args[0])
			return nil
		},
	}
	member := func(use, short, done string, do func(ctx context.Context, c *api, group, user string) (*http.Response, error)) *cobra.Command {
		return &cobra.Command{
			Use: use + " GROUP USER", Short: short, Example: "  reeve group " + use + " dba ada", Args: exactArgs("GROUP", "USER"),
			RunE: func(cmd *cobra.Command, args []string) error {
				c, err := a.connect()
				if err != nil {
					return err
				}
				if _, err := call[none](do(cmd.Context(), c, args[0], args[1])); err != nil {
					return err
				}
				a.say("%s "+done+" group %s", args[1], args[0])
				return nil
			},
		}
	}
	return group("group", "Manage groups", "  reeve group add dba\n  reeve group add-member dba ada", add, list, a.groupShowCmd(), remove,
		member("add-member", "Put a user into a group", "is in", func(ctx context.Context, c *api, group, user string) (*http.Response, error) {
			return c.AddGroupMember(ctx, group, user, &client.AddGroupMemberParams{IdempotencyKey: newKey()})
		}),
		member("remove-member", "Take a user out of a group", "is not in", func(ctx context.Context, c *api, group, user string) (*http.Response, error) {
			return c.RemoveGroupMember(ctx, group, user, &client.RemoveGroupMemberParams{IdempotencyKey: newKey()})
		}))
}

func (a *app) groupShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a group, its members and what they hold through it", Example: "  reeve group show dba", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			var whole client.GroupMembers
			err = pages(func(cur *string) (*string, error) {
				p, err := call[client.GroupMembers](c.GetGroup(cmd.Context(), args[0], &client.GetGroupParams{Cursor: cur}))
				whole.Group, whole.Assignments, whole.Items = p.Group, p.Assignments, append(whole.Items, p.Items...)
				return p.Next, err
			})
			if err != nil {
				return err
			}
			return a.show(whole, func() {
				a.pairs("name", whole.Group.Name, "description", str(whole.Group.Description), "directory", str(whole.Group.Directory), "there", str(whole.Group.External), "holds", strings.Join(held(whole.Assignments), "\n"), "id", whole.Group.Id)
				a.users(whole.Items)
			})
		},
	}
}
