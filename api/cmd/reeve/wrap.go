package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

// wrap makes a wrapping token and prints it.
func (a *app) wrap(ctx context.Context, c *api, account string, life time.Duration, in client.WrapRequest, user string, networks []string) error {
	seconds := int(life / time.Second)
	if life%time.Second != 0 || seconds < 10 || life > 12*time.Hour {
		return usagef("--wrap takes whole seconds, from 10s to 12h, not %s", life)
	}
	in.TtlSeconds = &seconds
	if user != "" {
		in.For = &user
	}
	if len(networks) > 0 {
		in.Networks = &networks
	}
	made, err := call[client.CreatedWrap](c.WrapSecret(ctx, account, in))
	if err != nil {
		return err
	}
	return a.show(made, func() {
		a.say("%s: good once, until %s; it is shown once. Open it with: reeve unwrap", made.Wrap.Id, when(&made.Wrap.ExpiresAt))
		_, _ = fmt.Fprintln(a.out, made.Secret)
	})
}

func (a *app) unwrapCmd() *cobra.Command {
	var lookup bool
	cmd := &cobra.Command{
		Use: "unwrap [FILE]", Short: "Get the password that a wrapping token stands for, once",
		Long: `Reads a wrapping token from FILE, or from standard input, where it is asked for on a terminal, and prints the password alone on
standard output. That needs no other token; if the wrap is for one user, that user must be signed in.

It works once. If it answers that the token was used already, and not by you, somebody else has seen the password: tell whoever
gave you the token. --lookup shows what a token stands for, and whether it was used, without using it.`,
		Example: "  reeve unwrap app.wrap\n  reeve unwrap --lookup app.wrap\n  reeve unwrap --address 192.0.2.1:8443 --ca-file ca.pem /dev/fd/3",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return exactArgs("FILE")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			file := "-"
			if len(args) == 1 {
				file = args[0]
			}
			secret, err := a.readSecret(file, "Wrapping token")
			if err != nil {
				return err
			}
			token := strings.TrimSpace(secret.Reveal())
			if lookup {
				w, err := call[client.Wrap](c.LookUpWrap(cmd.Context(), client.UnwrapRequest{Token: &token}, anonymous))
				if err != nil {
					return err
				}
				return a.show(w, func() {
					a.pairs("account", w.Account, "state", string(w.State), "made by", w.MadeBy, "reason", w.Reason, "made", when(&w.CreatedAt), "good until", when(&w.ExpiresAt),
						"for", str(w.For), "from", joined(w.Networks, " "), "opened", when(w.OpenedAt), "opened from", str(w.OpenedFrom), "id", w.Id)
				})
			}
			s, err := call[client.RevealedSecret](c.Unwrap(cmd.Context(), client.UnwrapRequest{Token: &token}))
			if err != nil {
				return err
			}
			return a.show(s, func() { _, _ = fmt.Fprintln(a.raw.out, s.Password) })
		},
	}
	cmd.Flags().BoolVar(&lookup, "lookup", false, "show what it stands for, and use nothing up")
	return cmd
}

func (a *app) wrapCmd() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the wraps you made, and whether they were opened", Example: "  reeve wrap list", Args: exactArgs(),
		Long: "List the wraps you made; with the privilege token.manage, everybody's. They are kept for a day after their end.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return listed(a, []any{"account", "state", "made by", "for", "reason", "good until", "opened", "from", "id"}, func(cur *string) ([]client.Wrap, *string, error) {
				p, err := call[client.WrapPage](c.ListWraps(cmd.Context(), &client.ListWrapsParams{Cursor: cur}))
				return p.Items, p.Next, err
			}, func(w client.Wrap) []any {
				return []any{w.Account, w.State, w.MadeBy, str(w.For), w.Reason, when(&w.ExpiresAt), when(w.OpenedAt), str(w.OpenedFrom), w.Id}
			})
		},
	}
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "Revoke a wrap that was not opened", Example: "  reeve wrap revoke wrap_06f2…", Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.RevokeWrap(cmd.Context(), args[0], &client.RevokeWrapParams{IdempotencyKey: newKey()})); err != nil {
				return err
			}
			a.say("%s is revoked", args[0])
			return nil
		},
	}
	return group("wrap", "See and revoke passwords that wait to be opened once", "  reeve wrap list\n  reeve wrap revoke wrap_06f2…", list, revoke)
}
