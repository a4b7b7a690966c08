package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

func (a *app) directoryCmd() *cobra.Command {
	return group("directory", "Manage directories (LDAP, Active Directory) in which people sign in",
		"  reeve directory add corp --address dc1.example.com --ca-file ca.pem --bind-dn 'CN=Reeve,OU=Services,DC=example,DC=com' --password-file - --user-base 'OU=People,DC=example,DC=com'\n  reeve directory test corp --user ada",
		a.directoryAddCmd(), a.directoryListCmd(), a.directoryTestCmd(), a.directoryRenewCmd(), a.directoryRemoveCmd())
}

func (a *app) directoryAddCmd() *cobra.Command {
	var in client.DirectoryRequest
	var caFile, passwordFile, filter, attribute string
	var startTLS, create bool
	c := &cobra.Command{
		Use: "add NAME", Short: "Add a directory whose users can sign in", Args: exactArgs("NAME"),
		Long: `Add a directory whose users can sign in, as NAME@DIRECTORY. Reeve searches the name with the bind account and then logs in to the
directory as what it found, with the password that was given; both over TLS alone. The bind account needs to read users and their groups and
nothing more. Try it afterwards with reeve directory test.`,
		Example: `  reeve directory add corp --address dc1.example.com --ca-file ca.pem --bind-dn 'CN=Reeve,OU=Services,DC=example,DC=com' --password-file bind.password --user-base 'OU=People,DC=example,DC=com'
  reeve directory add unix --address ldap.example.com --start-tls --ca-file ca.pem --bind-dn 'cn=reeve,dc=example,dc=com' --password-file - --user-base 'ou=people,dc=example,dc=com' --user-filter '(uid=%Name%)' --create-users`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			ca, err := readNamed("--ca-file", caFile)
			if err != nil {
				return err
			}
			password, err := a.readSecret(passwordFile, "Password of "+in.BindDn)
			if err != nil {
				return err
			}
			text := password.Reveal()
			in.Name, in.Ca, in.Password, in.StartTls, in.CreateUsers = args[0], string(ca), &text, &startTLS, &create
			if filter != "" {
				in.UserFilter = &filter
			}
			if attribute != "" {
				in.GroupAttribute = &attribute
			}
			d, err := call[client.Directory](c.AddDirectory(cmd.Context(), &client.AddDirectoryParams{IdempotencyKey: newKey()}, in))
			if err != nil {
				return err
			}
			return a.show(d, func() { a.say("directory %s is there; now: reeve directory test %s", d.Name, d.Name) })
		},
	}
	f := c.Flags()
	f.StringVar(&in.Address, "address", "", "host or host:port, as in its certificate (required)")
	f.BoolVar(&startTLS, "start-tls", false, "turn TLS on with StartTLS (port 389); else LDAPS (port 636)")
	f.StringVar(&caFile, "ca-file", "", "PEM file with the authority of its certificate (required)")
	f.StringVar(&in.BindDn, "bind-dn", "", "distinguished name of the account that searches (required)")
	f.StringVar(&passwordFile, "password-file", "-", "file with its password; - asks for it")
	f.StringVar(&in.UserBase, "user-base", "", "distinguished name below which users are searched (required)")
	f.StringVar(&filter, "user-filter", "", "filter that finds one user (default \"(sAMAccountName=%Name%)\")")
	f.StringVar(&attribute, "group-attribute", "", "attribute of a user with their groups (default \"memberOf\")")
	f.BoolVar(&create, "create-users", false, "make a user, who may do nothing yet, of whoever signs in for the first time")
	for _, name := range []string{"address", "ca-file", "bind-dn", "user-base"} {
		_ = c.MarkFlagRequired(name)
	}
	return c
}

func (a *app) directoryListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List directories", Example: "  reeve directory list", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return listed(a, []any{"name", "address", "bind account", "user base", "user filter", "users"}, func(cur *string) ([]client.Directory, *string, error) {
				p, err := call[client.DirectoryPage](c.ListDirectories(cmd.Context(), &client.ListDirectoriesParams{Cursor: cur}))
				return p.Items, p.Next, err
			}, func(d client.Directory) []any {
				users := "are added by hand"
				if d.CreateUsers {
					users = "are made at first sign-in"
				}
				return []any{d.Name, d.Address, d.BindDn, d.UserBase, d.UserFilter, users}
			})
		},
	}
}

func (a *app) directoryTestCmd() *cobra.Command {
	var user string
	c := &cobra.Command{
		Use: "test NAME", Short: "Log in to a directory with its bind account, and search a user", Example: "  reeve directory test corp\n  reeve directory test corp --user ada", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			in := client.DirectoryTestRequest{}
			if user != "" {
				in.User = &user
			}
			found, err := call[client.DirectoryTest](c.TestDirectory(cmd.Context(), args[0], in))
			if err != nil {
				return err
			}
			return a.show(found, func() {
				kind := "LDAP"
				if found.ActiveDirectory {
					kind = "Active Directory"
				}
				a.pairs("directory", args[0]+" answers", "kind", kind, "user", str(found.UserDn), "groups", strings.Join(list(found.Groups), "\n"))
			})
		},
	}
	c.Flags().StringVar(&user, "user", "", "whom to search")
	return c
}

func (a *app) directoryRenewCmd() *cobra.Command {
	var caFile, passwordFile string
	c := &cobra.Command{
		Use: "renew NAME", Short: "Replace the password of the bind account, or the authority", Args: exactArgs("NAME"),
		Example: "  reeve directory renew corp --password-file bind.password\n  reeve directory renew corp --ca-file ca.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			if caFile == "" && passwordFile == "" {
				return usagef("give --password-file, --ca-file, or both")
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			var in client.DirectoryRenewal
			if in.Ca, err = readText("--ca-file", caFile); err != nil {
				return err
			}
			if passwordFile != "" {
				password, err := a.readSecret(passwordFile, "Password of the bind account")
				if err != nil {
					return err
				}
				text := password.Reveal()
				in.Password = &text
			}
			d, err := call[client.Directory](c.RenewDirectory(cmd.Context(), args[0], &client.RenewDirectoryParams{IdempotencyKey: newKey()}, in))
			if err != nil {
				return err
			}
			return a.show(d, func() { a.say("directory %s is changed; now: reeve directory test %s", d.Name, d.Name) })
		},
	}
	c.Flags().StringVar(&passwordFile, "password-file", "", "file with the password; - asks for it")
	c.Flags().StringVar(&caFile, "ca-file", "", "PEM file with the authority of its certificate")
	return c
}

func (a *app) directoryRemoveCmd() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "End sign-in through a directory, and the sessions of its users", Example: "  reeve directory remove corp", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.RemoveDirectory(cmd.Context(), args[0], &client.RemoveDirectoryParams{IdempotencyKey: newKey()})); err != nil {
				return err
			}
			a.say("directory %s is removed; its users can no longer sign in", args[0])
			return nil
		},
	}
}
