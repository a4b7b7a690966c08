package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the node that answers: sealed or not, who leads",
		Example: "  reeve status\n  reeve status --address 192.0.2.1:8443 -o json",
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			st, err := call[client.Status](c.GetStatus(cmd.Context()))
			if err != nil {
				return err
			}
			return a.showStatus(st)
		},
	}
}

func (a *app) showStatus(st client.Status) error {
	return a.show(st, func() {
		sealed := fmt.Sprint(st.Sealed)
		if st.Sealed && st.Seal.Threshold != nil {
			sealed = fmt.Sprintf("true (%d of %d shares given)", intOf(st.Seal.Progress), *st.Seal.Threshold)
		}
		a.pairs("node", st.Name, "id", st.Node, "version", st.Version, "cluster", str(st.Cluster),
			"sealed", sealed, "seal", string(st.Seal.Scheme), "leader", fmt.Sprint(st.Leader), "leader address", str(st.LeaderAddress),
			"disk problem", str(st.DiskProblem))
	})
}

func intOf(p *int) int {
	if p == nil {
		return 0
	}
	return *p
}

func (a *app) whoamiCmd() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Show whose token this is", Example: "  reeve whoami", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			p, err := call[client.Principal](c.Whoami(cmd.Context()))
			if err != nil {
				return err
			}
			return a.show(p, func() { a.pairs("name", p.Name, "kind", p.Kind, "id", p.Id) })
		},
	}
}

func (a *app) clusterCmd() *cobra.Command {
	status := &cobra.Command{
		Use: "status", Short: "List the controllers and their health", Example: "  reeve cluster status\n  reeve cluster status -o json",
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			cl, err := call[client.Cluster](c.GetCluster(cmd.Context()))
			if err != nil {
				return err
			}
			return a.show(cl, func() {
				if d := cl.Clock; d != nil {
					a.say("✗ clock: %s\n  fix: %s", d.Detail, d.Fix)
				}
				var rows [][]any
				for _, m := range cl.Members {
					role := "non-voter"
					if m.Voter {
						role = "voter"
					}
					if m.Leader {
						role = "leader"
					}
					health := "✓ healthy"
					if !m.Healthy {
						health = "✗ failing"
					}
					rows = append(rows, []any{m.Name, role, health, m.ApiAddress, m.AgentAddress, m.RaftAddress, m.Id})
				}
				a.table([]any{"name", "role", "health", "api", "agents", "raft", "id"}, rows)
			})
		},
	}
	var ttl int
	token := &cobra.Command{
		Use: "join-token NAME", Short: "Make a one-time token with which a controller joins",
		Example: "  reeve cluster join-token c2 > c2.token\n  reeved join --config c2.yaml --token-file c2.token",
		Args:    exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			t, err := call[client.JoinToken](c.CreateNodeJoinToken(cmd.Context(), client.NodeJoinTokenRequest{Name: args[0], TtlSeconds: &ttl}))
			if err != nil {
				return err
			}
			return a.showJoinToken(t)
		},
	}
	token.Flags().IntVar(&ttl, "ttl", 900, "seconds the token is good for")
	remove := &cobra.Command{
		Use: "remove NODE", Short: "Remove a controller from the cluster", Example: "  reeve cluster remove c3", Args: exactArgs("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.RemoveNode(cmd.Context(), args[0], &client.RemoveNodeParams{IdempotencyKey: newKey()})); err != nil {
				return err
			}
			a.say("%s is no longer a member", args[0])
			return nil
		},
	}
	transfer := &cobra.Command{
		Use: "transfer [NODE]", Short: "Hand leadership to another controller", Example: "  reeve cluster transfer c2\n  reeve cluster transfer",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%s takes at most one NODE; see %s --help", cmd.CommandPath(), cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			req := client.TransferRequest{}
			if len(args) == 1 {
				req.Node = &args[0]
			}
			if _, err := call[none](c.TransferLeadership(cmd.Context(), req)); err != nil {
				return err
			}
			a.say("leadership was handed over")
			return nil
		},
	}
	clock := &cobra.Command{
		Use: "accept-clock", Short: "Say that the leader's clock is right, which it does not believe", Example: "  reeve cluster accept-clock",
		Long: `A controller whose clock jumps does not believe it: time goes on as if nothing had happened, nothing expires or is deleted
because of the time, and no certificates are made. "reeve cluster status" says so. Set the clock right and the doubt ends by
itself. If the clock is right after all, such as after the machine was suspended, this command says so. Time does not go back:
if the clock is behind, time runs at half speed until the clock has caught up.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.AcceptClock(cmd.Context())); err != nil {
				return err
			}
			a.say("the leader's clock is believed")
			return nil
		},
	}
	return group("cluster", "See and change the controllers", "  reeve cluster status\n  reeve cluster join-token c2",
		status, token, remove, transfer, clock, a.snapshotCmd())
}

func (a *app) showJoinToken(t client.JoinToken) error {
	return a.show(t, func() {
		a.say("good once, until %s", when(&t.ExpiresAt))
		_, _ = fmt.Fprintln(a.out, t.Token)
	})
}

func (a *app) snapshotCmd() *cobra.Command {
	save := &cobra.Command{
		Use: "save FILE", Short: "Save a snapshot; every value in it stays sealed", Example: "  reeve cluster snapshot save reeve.snap", Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			resp, err := c.SaveSnapshot(cmd.Context())
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return problem(resp)
			}
			n, err := writeNew("FILE", args[0], resp.Body)
			if err != nil {
				return err
			}
			a.say("%d bytes saved to %s", n, args[0])
			return nil
		},
	}
	restore := &cobra.Command{
		Use: "restore FILE", Short: "Replace all state by a snapshot of this cluster",
		Long:    "Replaces all state by a snapshot. A snapshot of which one byte was changed is refused and changes nothing.",
		Example: "  reeve cluster snapshot restore reeve.snap", Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			f, err := openNamed("FILE", args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := call[none](c.RestoreSnapshotWithBody(cmd.Context(), "application/octet-stream", f)); err != nil {
				return err
			}
			a.say("restored from %s", args[0])
			return nil
		},
	}
	return group("snapshot", "Save, check and restore all state", "  reeve cluster snapshot save reeve.snap\n  reeve cluster snapshot verify reeve.snap",
		save, a.verifySnapshotCmd(), restore)
}

// writeNew copies r into a new file that only its owner may read. A copy cut short
// leaves no file behind.
func writeNew(what, path string, r io.Reader) (int64, error) {
	f, err := createNamed(what, path)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(path)
	}
	return n, err
}

// limits is all that a token can be used for, a line for each kind; empty for no limits.
func limits(t client.Token) string {
	var lines []string
	for _, l := range []*[]string{t.Privileges, t.Networks} {
		if l != nil {
			lines = append(lines, strings.Join(*l, ", "))
		}
	}
	if t.Scope != nil {
		lines = append(lines, place(*t.Scope))
	}
	return strings.Join(lines, "\n")
}

func (a *app) tokenCmd() *cobra.Command {
	var ttl int64
	var service string
	var privileges, networks []string
	var scope scopeFlags
	create := &cobra.Command{
		Use: "create NAME", Short: "Make a bearer token, for yourself or for a service account",
		Example: "  reeve token create laptop --ttl 3600 > laptop.token\n  reeve token create nightly --for ci --privilege lifecycle.view --site dmz --network 192.0.2.0/24 > ci.token", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			in := client.TokenRequest{Name: args[0], TtlSeconds: &ttl}
			if service != "" {
				in.Principal = &service
			}
			if len(privileges) > 0 {
				in.Privileges = &privileges
			}
			if len(networks) > 0 {
				in.Networks = &networks
			}
			if anyGiven(cmd, scopeNames...) {
				in.Scope = new(scope.scope())
			}
			t, err := call[client.CreatedToken](c.CreateToken(cmd.Context(), in))
			if err != nil {
				return err
			}
			return a.show(t, func() {
				a.say("token %s, good until %s; it is shown once", t.Token.Id, when(t.Token.ExpiresAt))
				_, _ = fmt.Fprintln(a.out, t.Secret)
			})
		},
	}
	f := create.Flags()
	f.Int64Var(&ttl, "ttl", 86400, "seconds the token is good for")
	f.StringVar(&service, "for", "", "service account it is for; left out: yourself")
	f.StringSliceVar(&privileges, "privilege", nil, "all that it can be used for; may be repeated")
	scope.on(create)
	f.StringSliceVar(&networks, "network", nil, "it can be used from here only, such as 192.0.2.0/24; may be repeated")
	list := &cobra.Command{
		Use: "list", Short: "List bearer tokens", Example: "  reeve token list", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return listed(a, []any{"name", "of", "limited to", "created", "expires", "last used", "id"}, func(cur *string) ([]client.Token, *string, error) {
				p, err := call[client.TokenPage](c.ListTokens(cmd.Context(), &client.ListTokensParams{Cursor: cur}))
				return p.Items, p.Next, err
			}, func(t client.Token) []any {
				return []any{t.Name, str(t.Principal), limits(t), when(&t.CreatedAt), when(t.ExpiresAt), when(t.LastUsedAt), t.Id}
			})
		},
	}
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "Revoke a bearer token", Example: "  reeve token revoke tok_06f2…", Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.RevokeToken(cmd.Context(), args[0], &client.RevokeTokenParams{IdempotencyKey: newKey()})); err != nil {
				return err
			}
			a.say("%s is revoked", args[0])
			return nil
		},
	}
	return group("token", "Make and revoke bearer tokens", "  reeve token list\n  reeve token create ci", create, list, revoke)
}
