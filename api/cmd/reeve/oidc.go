package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

func (a *app) oidcCmd() *cobra.Command {
	return group("oidc", "OpenID providers that people can sign in with", "  reeve oidc list", a.oidcAddCmd(), a.oidcListCmd(), a.oidcRemoveCmd())
}

func (a *app) oidcAddCmd() *cobra.Command {
	var in client.OIDCProviderRequest
	var secretFile, authorityFile, userClaim, groupClaim string
	var scopes, origins []string
	var secondFactor string
	var allowCreate bool
	c := &cobra.Command{
		Use: "add NAME", Short: "Add an OpenID provider that people can sign in with", Args: exactArgs("NAME"),
		Long: `Add an OpenID provider that people can sign in with (reeve login --oidc NAME). Register Reeve there as a native application with the
redirect address http://127.0.0.1/callback, any port, and the authorisation code flow with PKCE; for browsers, also with
https://ORIGIN/v1/browser/oidc/NAME/callback for each --origin.

Whoever signs in is the user of the name in the user claim; from then on the provider's subject counts, whatever name it has. The
provider's groups are groups of Reeve that have exactly the same name. Only somebody who holds everything can add a provider,
since it can say of anybody that it is them.`,
		Example: "  reeve oidc add corp --issuer https://login.example.com --client-id reeve --client-secret-file corp.secret --user-claim email\n" +
			"  reeve oidc add corp --issuer https://login.example.com --client-id reeve --user-claim preferred_username --group-claim groups --allow-create",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			in.Name, in.UserClaim = args[0], client.OIDCProviderRequestUserClaim(userClaim)
			if secretFile != "" {
				s, err := a.readSecret(secretFile, "Client secret")
				if err != nil {
					return err
				}
				text := s.Reveal()
				in.ClientSecret = &text
			}
			if in.Authority, err = readText("--authority-file", authorityFile); err != nil {
				return err
			}
			if groupClaim != "" {
				in.GroupClaim = &groupClaim
			}
			if len(scopes) > 0 {
				in.Scopes = &scopes
			}
			if len(origins) > 0 {
				in.Origins = &origins
			}
			if secondFactor != "" {
				who := client.OIDCProviderRequestSecondFactor(secondFactor)
				in.SecondFactor = &who
			}
			if allowCreate {
				in.AllowCreate = &allowCreate
			}
			p, err := call[client.OIDCProvider](c.AddOIDCProvider(cmd.Context(), in))
			if err != nil {
				return err
			}
			return a.show(p, func() { a.say("%s is added; people sign in with: reeve login --oidc %s", p.Name, p.Name) })
		},
	}
	f := c.Flags()
	f.StringVar(&in.Issuer, "issuer", "", "https URL of the provider, exactly as it names itself (required)")
	f.StringVar(&in.ClientId, "client-id", "", "of Reeve at the provider (required)")
	f.StringVar(&secretFile, "client-secret-file", "", "file with the client's secret; - asks for it; left out: a public client")
	f.StringVar(&authorityFile, "authority-file", "", "PEM file with the certificates that the provider's is proven with; left out: those of the controllers' system")
	f.StringVar(&userClaim, "user-claim", "email", "claim that names the user: email or preferred_username")
	f.StringVar(&groupClaim, "group-claim", "", "claim that names groups; left out: groups are not mapped")
	f.StringSliceVar(&scopes, "scope", nil, "to ask for besides openid, profile and email; may be repeated")
	f.StringSliceVar(&origins, "origin", nil, "where browsers may sign in from, such as https://reeve.example.com; may be repeated; left out: only reeve login can be used")
	f.StringVar(&secondFactor, "second-factor", "", "who asks for a second factor: reeve (the default: of whoever has one here, unless the provider says that it has), provider (it must say so), none")
	f.BoolVar(&allowCreate, "allow-create", false, "add users whom nobody added when they sign in")
	_ = c.MarkFlagRequired("issuer")
	_ = c.MarkFlagRequired("client-id")
	return c
}

func (a *app) oidcListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List OpenID providers", Example: "  reeve oidc list", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			all := []client.OIDCProvider{}
			err = pages(func(cursor *string) (*string, error) {
				p, err := call[client.OIDCProviderPage](c.ListOIDCProviders(cmd.Context(), &client.ListOIDCProvidersParams{Cursor: cursor}))
				all = append(all, p.Items...)
				return p.Next, err
			})
			if err != nil {
				return err
			}
			return a.show(all, func() {
				var rows [][]any
				for _, p := range all {
					rows = append(rows, []any{p.Name, p.Issuer, p.ClientId, p.UserClaim, str(p.GroupClaim), yes(&p.AllowCreate), yes(&p.Public), p.SecondFactor, origins(p)})
				}
				a.table([]any{"name", "issuer", "client", "user claim", "group claim", "adds users", "public", "second factor", "browsers from"}, rows)
			})
		},
	}
}

func origins(p client.OIDCProvider) string {
	if p.Origins == nil {
		return ""
	}
	return strings.Join(*p.Origins, " ")
}

func (a *app) oidcRemoveCmd() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Remove an OpenID provider; sessions and users stay", Example: "  reeve oidc remove corp", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.RemoveOIDCProvider(cmd.Context(), args[0])); err != nil {
				return err
			}
			a.say("%s is removed", args[0])
			return nil
		},
	}
}
