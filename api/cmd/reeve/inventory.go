package main

import (
	"context"
	"sort"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/agent/pluginhost"
	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

func (a *app) siteCmd() *cobra.Command {
	var description string
	add := &cobra.Command{
		Use: "add NAME", Short: "Add a site", Example: "  reeve site add dmz --description 'web servers'", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			s, err := call[client.Site](c.AddSite(cmd.Context(), &client.AddSiteParams{IdempotencyKey: newKey()},
				client.SiteRequest{Name: args[0], Description: &description}))
			if err != nil {
				return err
			}
			return a.show(s, func() { a.say("site %s is there (%s)", s.Name, s.Id) })
		},
	}
	add.Flags().StringVar(&description, "description", "", "what the site is")
	list := &cobra.Command{
		Use: "list", Short: "List sites", Example: "  reeve site list", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return listed(a, []any{"name", "description", "created", "id"}, func(cur *string) ([]client.Site, *string, error) {
				p, err := call[client.SitePage](c.ListSites(cmd.Context(), &client.ListSitesParams{Cursor: cur}))
				return p.Items, p.Next, err
			}, func(s client.Site) []any {
				return []any{s.Name, str(s.Description), when(&s.CreatedAt), s.Id}
			})
		},
	}
	retire := &cobra.Command{
		Use: "retire NAME", Short: "Take a site without assets out of use", Example: "  reeve site retire dmz", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.RetireSite(cmd.Context(), args[0], &client.RetireSiteParams{IdempotencyKey: newKey()})); err != nil {
				return err
			}
			a.say("site %s is out of use", args[0])
			return nil
		},
	}
	return group("site", "Manage sites", "  reeve site add dmz\n  reeve site list", add, list, retire)
}

func (a *app) agentCmd() *cobra.Command {
	var site, reason string
	var ttl int
	token := &cobra.Command{
		Use: "join-token NAME", Short: "Make a one-time token with which an agent joins a site",
		Example: "  reeve agent join-token dmz-1 --site dmz > dmz-1.token\n  reeve-agent enroll --data /var/lib/reeve-agent --token-file dmz-1.token",
		Args:    exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			t, err := call[client.JoinToken](c.CreateAgentJoinToken(cmd.Context(), client.AgentJoinTokenRequest{Name: args[0], Site: site, TtlSeconds: &ttl}))
			if err != nil {
				return err
			}
			return a.showJoinToken(t)
		},
	}
	token.Flags().StringVar(&site, "site", "", "site the agent will serve (required)")
	token.Flags().IntVar(&ttl, "ttl", 900, "seconds the token is good for")
	_ = token.MarkFlagRequired("site")
	list := &cobra.Command{
		Use: "list", Short: "List agents", Example: "  reeve agent list", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return listed(a, []any{"name", "site", "status", "connected", "version", "last seen", "id"}, func(cur *string) ([]client.Agent, *string, error) {
				p, err := call[client.AgentPage](c.ListAgents(cmd.Context(), &client.ListAgentsParams{Cursor: cur}))
				return p.Items, p.Next, err
			}, func(g client.Agent) []any {
				return []any{g.Name, g.Site, string(g.Status), yes(g.Connected), str(g.Version), when(g.LastSeenAt), g.Id}
			})
		},
	}
	change := func(use, short string, do func(context.Context, *api, string, client.ReasonRequest) (client.Agent, error)) *cobra.Command {
		c := &cobra.Command{
			Use: use + " AGENT", Short: short, Example: "  reeve agent " + use + " dmz-1 --reason 'host was stolen'", Args: exactArgs("AGENT"),
			RunE: func(cmd *cobra.Command, args []string) error {
				c, err := a.connect()
				if err != nil {
					return err
				}
				g, err := do(cmd.Context(), c, args[0], client.ReasonRequest{Reason: reason})
				if err != nil {
					return err
				}
				return a.show(g, func() { a.say("agent %s is %s", g.Name, g.Status) })
			},
		}
		c.Flags().StringVar(&reason, "reason", "", "why, for the audit trail (required)")
		_ = c.MarkFlagRequired("reason")
		return c
	}
	ban := change("ban", "Cut an agent off, within five seconds", func(ctx context.Context, c *api, id string, r client.ReasonRequest) (client.Agent, error) {
		return call[client.Agent](c.BanAgent(ctx, id, &client.BanAgentParams{IdempotencyKey: newKey()}, r))
	})
	unban := change("unban", "Let a banned agent back in", func(ctx context.Context, c *api, id string, r client.ReasonRequest) (client.Agent, error) {
		return call[client.Agent](c.UnbanAgent(ctx, id, &client.UnbanAgentParams{IdempotencyKey: newKey()}, r))
	})
	return group("agent", "Manage agents", "  reeve agent list\n  reeve agent join-token dmz-1 --site dmz", token, list, ban, unban)
}

func (a *app) connectorCmd() *cobra.Command {
	register := &cobra.Command{
		Use: "register BINARY...", Short: "Register connectors: agents run only registered bytes",
		Long: `Starts each binary here, asks it what it is, and registers its description and the SHA-256 of
its bytes. Agents refuse every other binary.`,
		Example: "  reeve connector register bin/connectors/connector-ssh bin/connectors/connector-mysql",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s takes the paths of connector binaries", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			registered := []client.Connector{}
			for _, path := range args {
				if err := asProgram(path); err != nil {
					return err
				}
				desc, digest, err := pluginhost.Describe(cmd.Context(), path)
				if err != nil {
					return err
				}
				raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(sdk.DescriptionToProto(desc))
				if err != nil {
					return err
				}
				k, err := call[client.Connector](c.RegisterConnector(cmd.Context(), &client.RegisterConnectorParams{IdempotencyKey: newKey()},
					client.ConnectorRequest{Sha256: digest, Description: raw}))
				if err != nil {
					return err
				}
				registered = append(registered, k)
			}
			return a.show(registered, func() {
				for _, k := range registered {
					a.say("connector %s %s is registered (%s)", k.Name, k.Version, k.Title)
				}
			})
		},
	}
	list := &cobra.Command{
		Use: "list", Short: "List registered connectors", Example: "  reeve connector list", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return listed(a, []any{"name", "title", "version", "category", "port", "builds"}, func(cur *string) ([]client.Connector, *string, error) {
				p, err := call[client.ConnectorPage](c.ListConnectors(cmd.Context(), &client.ListConnectorsParams{Cursor: cur}))
				return p.Items, p.Next, err
			}, func(k client.Connector) []any {
				live := 0
				for _, d := range k.Digests {
					if d.RevokedAt == nil {
						live++
					}
				}
				return []any{k.Name, k.Title, k.Version, k.Category, k.DefaultPort, live}
			})
		},
	}
	revoke := &cobra.Command{
		Use: "revoke NAME SHA256", Short: "Forbid a build of a connector", Example: "  reeve connector revoke ssh 9f86d081884c7d65…", Args: exactArgs("NAME", "SHA256"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.RevokeConnectorDigest(cmd.Context(), args[0], args[1], &client.RevokeConnectorDigestParams{IdempotencyKey: newKey()})); err != nil {
				return err
			}
			a.say("agents will no longer run %s", args[1])
			return nil
		},
	}
	return group("connector", "Register connectors; write, test and try them",
		"  reeve connector list\n  reeve connector new acme\n  reeve connector run ./connector-acme describe",
		register, list, revoke, a.connectorNewCmd(), a.connectorRunCmd(), a.connectorVerifyCmd(), a.connectorSelftestCmd(), a.connectorCompareCmd())
}

// sortedPairs turns a map into "k=v, k=v", sorted.
func sortedPairs(m *map[string]string) string {
	if m == nil {
		return ""
	}
	var out []string
	for k, v := range *m {
		out = append(out, k+"="+v)
	}
	sort.Strings(out)
	return strings.Join(out, ", ")
}
