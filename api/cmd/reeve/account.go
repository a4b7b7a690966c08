package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

func (a *app) accountCmd() *cobra.Command {
	act := func(action, short, done string) *cobra.Command { return a.accountActionCmd(action, short, done) }
	return group("account", "Provision accounts and manage their life",
		"  reeve account provision alice --prefix pam_ --role linux-admin-sudo --asset web01,web02 --watch\n  reeve account rotate pam_alice@web01 --watch\n  reeve account list",
		a.accountProvisionCmd(), a.accountListCmd(), a.accountShowCmd(),
		act("verify", "Prove by a fresh login that the vault's password opens the account", "verified"),
		act("inspect", "Read the facts of the account from the target", "inspected"),
		act("rotate", "Give the account a new password", "rotated"),
		act("reconcile", "Set the password through the management account, when none that is kept works", "reconciled"),
		act("disable", "Lock the account on the target and end its sessions", "disabled"),
		act("enable", "Unlock the account on the target", "enabled"),
		act("deprovision", "Remove the account from the target; its history stays", "deprovisioned"),
		a.accountRevealCmd())
}

func (a *app) accountProvisionCmd() *cobra.Command {
	var req client.ProvisionRequest
	var prefix, description, owner, custodian, identity, passwordFile, start, expires string
	var params, tags map[string]string
	var noRotation, dryRun, watch bool
	cmd := &cobra.Command{
		Use: "provision NAME", Short: "Provision one account on one or many assets",
		Long: `Provisions an account. Each asset first answers with a plan, the exact steps with secrets masked; the agent then does
these steps and no others, logs in with the new password, and reads back what the target says.

The password is generated unless --password-file gives one. It is shown by "reeve account reveal" only.`,
		Example: `  reeve account provision alice --prefix pam_ --role linux-admin-sudo --asset web01 --watch
  reeve account provision report --role mysql-db-ro --param Database=shop --asset shop --owner bob
  reeve account provision alice --role linux-standard --asset web01,web02,web03 --expires 2027-01-31 --dry-run --watch`,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			req.Name = args[0]
			for to, from := range map[**string]*string{&req.Prefix: &prefix, &req.Description: &description, &req.Owner: &owner,
				&req.Custodian: &custodian, &req.UserIdentity: &identity} {
				if *from != "" {
					*to = from
				}
			}
			if len(params) > 0 {
				req.Params = &params
			}
			if len(tags) > 0 {
				req.Tags = &tags
			}
			rotation := !noRotation
			req.RotationEnabled, req.DryRun = &rotation, &dryRun
			if req.StartAt, err = instant("--start", start); err != nil {
				return err
			}
			if req.ExpiresAt, err = instant("--expires", expires); err != nil {
				return err
			}
			if passwordFile != "" {
				s, err := a.readSecret(passwordFile, "Password")
				if err != nil {
					return err
				}
				text := s.Reveal()
				req.Password = &text
			}
			b, err := call[client.Batch](c.ProvisionAccounts(cmd.Context(), &client.ProvisionAccountsParams{IdempotencyKey: newKey()}, req))
			if err != nil {
				return err
			}
			if watch {
				return a.watchBatch(cmd.Context(), c, b, dryRun)
			}
			return a.show(b, func() {
				for _, acc := range b.Accounts {
					a.say("%s@%s is being provisioned; follow it with: reeve job logs -f %s", acc.Name, acc.Asset, str(acc.Job))
				}
			})
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&req.Assets, "asset", nil, "asset to provision on; may be repeated (required)")
	f.StringVar(&req.Role, "role", "", "role of the catalogue (required)")
	f.StringVar(&prefix, "prefix", "", "put before the name")
	f.StringToStringVar(&params, "param", nil, "role parameter, Name=value; may be repeated")
	f.StringVar(&description, "description", "", "what the account is for")
	f.StringVar(&owner, "owner", "", "who answers for the account")
	f.StringVar(&custodian, "custodian", "", "who is told of its end and its failures")
	f.StringVar(&identity, "user-identity", "", "the person who will use it")
	f.StringToStringVar(&tags, "tag", nil, "key=value; may be repeated")
	f.StringVar(&passwordFile, "password-file", "", "file with a static password; - asks for it")
	f.BoolVar(&noRotation, "no-rotation", false, "never change the password")
	f.StringVar(&start, "start", "", "when to provision: 2027-01-31 or 2027-01-31T08:00:00Z")
	f.StringVar(&expires, "expires", "", "when to disable: 2027-01-31 or 2027-01-31T18:00:00Z")
	f.BoolVar(&dryRun, "dry-run", false, "only plan; touch nothing")
	f.BoolVar(&watch, "watch", false, "follow it live until it is done")
	for _, name := range []string{"asset", "role"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

// instant reads a day (midnight UTC) or an RFC 3339 instant.
func instant(flag, s string) (*time.Time, error) {
	if s == "" {
		return nil, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return &t, nil
		}
	}
	return nil, usagef("%s takes 2027-01-31 or 2027-01-31T08:00:00Z, not %q", flag, s)
}

func (a *app) accountListCmd() *cobra.Command {
	var asset string
	cmd := &cobra.Command{
		Use: "list", Short: "List accounts", Example: "  reeve account list --asset web01", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return listed(a, []any{"account", "state", "sync", "protection", "role", "owner", "verified", "expires", "id"}, func(cur *string) ([]client.Account, *string, error) {
				p := &client.ListAccountsParams{Cursor: cur}
				if asset != "" {
					p.Asset = &asset
				}
				page, err := call[client.AccountPage](c.ListAccounts(cmd.Context(), p))
				return page.Items, page.Next, err
			}, func(acc client.Account) []any {
				return []any{acc.Name + "@" + acc.Asset, acc.State, syncOf(acc), legacyMark(acc.Legacy), acc.Role, str(acc.Owner), when(acc.VerifiedAt), when(acc.ExpiresAt), acc.Id}
			})
		},
	}
	cmd.Flags().StringVar(&asset, "asset", "", "only accounts on this asset")
	return cmd
}

func (a *app) accountShowCmd() *cobra.Command {
	var plans bool
	cmd := &cobra.Command{
		Use: "show ACCOUNT", Short: "Show an account, its facts and its plans",
		Example: "  reeve account show pam_alice@web01\n  reeve account show pam_alice@web01 --plans", Args: exactArgs("ACCOUNT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			acc, err := call[client.Account](c.GetAccount(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			return a.show(acc, func() { a.describeAccount(acc, plans) })
		},
	}
	cmd.Flags().BoolVar(&plans, "plans", false, "with the steps of every plan")
	return cmd
}

func (a *app) describeAccount(acc client.Account, plans bool) {
	kv := []string{"account", acc.Name + "@" + acc.Asset, "id", acc.Id, "state", acc.State, "sync", acc.Sync, "protection", legacyMark(acc.Legacy),
		"role", fmt.Sprintf("%s (version %d)", acc.Role, acc.RoleVersion), "params", sortedPairs(acc.Params), "description", str(acc.Description),
		"owner", str(acc.Owner), "custodian", str(acc.Custodian), "user identity", str(acc.UserIdentity), "tags", sortedPairs(acc.Tags),
		"password", fmt.Sprintf("%s, version %d", acc.PasswordMode, intOf(acc.PasswordVersion)), "rotation", yes(&acc.RotationEnabled), "identity on target", str(acc.Identity),
		"starts", when(acc.StartAt), "expires", when(acc.ExpiresAt), "provisioned", when(acc.ProvisionedAt), "verified", when(acc.VerifiedAt),
		"rotated", when(acc.RotatedAt), "job", str(acc.Job)}
	if e := acc.LastError; e != nil {
		kv = append(kv, "last error", e.Message+" ["+e.Class+"]", "to do", str(e.Fix))
	}
	kv = append(kv, "left behind", joined(acc.Residue, "\n"))
	if f := acc.Facts; f != nil {
		kv = append(kv, "read back", when(&f.ReadAt), "on target", yes(&f.Exists), "locked", yes(f.Locked), "password set", yes(f.HasPassword),
			"groups", joined(f.Groups, ", "), "grants", joined(f.Grants, "\n"), "attributes", sortedPairs(f.Attributes))
	}
	a.pairs(kv...)
	if !plans || acc.Plans == nil {
		return
	}
	for _, p := range *acc.Plans {
		a.describePlan(p)
	}
}

// syncOf is the sync state of an account that is, or may be, on its target.
func syncOf(acc client.Account) string {
	switch acc.State {
	case "planned", "scheduled", "removed", "failed":
		return ""
	}
	return acc.Sync
}

// condition says in words how an account stands.
func condition(acc client.Account) string {
	if acc.State == "planned" {
		return "planned; nothing was touched"
	}
	if sync := syncOf(acc); sync != "" {
		return acc.State + ", " + sync
	}
	return acc.State
}

func (a *app) describePlan(p client.Plan) {
	_, _ = fmt.Fprintf(a.out, "\nplan %s  %s\n", p.Action, p.Hash)
	for i, s := range p.Steps {
		_, _ = fmt.Fprintf(a.out, "%3d. %s\n       %s\n", i+1, s.Title, strings.ReplaceAll(s.Command, "\n", "\n       "))
	}
}

func joined(s *[]string, sep string) string {
	if s == nil {
		return ""
	}
	return strings.Join(*s, sep)
}

func (a *app) accountActionCmd(action, short, done string) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: action + " ACCOUNT", Short: short, Example: "  reeve account " + action + " pam_alice@web01 --watch", Args: exactArgs("ACCOUNT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			acc, err := call[client.Account](c.GetAccount(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			// By id from here on: an account that is gone from its target has lost its name.
			ref, err := call[client.JobRef](c.ActOnAccount(cmd.Context(), acc.Id, action, &client.ActOnAccountParams{IdempotencyKey: newKey()}))
			if err != nil {
				return err
			}
			if ref.Job == "" {
				return a.show(ref, func() { a.say("%s@%s was not on its target yet; it is removed", acc.Name, acc.Asset) })
			}
			if !watch {
				return a.show(ref, func() { a.say("queued; follow it with: reeve job logs -f %s", ref.Job) })
			}
			if err := a.followJob(cmd.Context(), c, ref.Job, a.progress(""), a.progress("")); err != nil {
				return err
			}
			if acc, err = call[client.Account](c.GetAccount(cmd.Context(), acc.Id)); err != nil {
				return err
			}
			return a.show(acc, func() { a.say("✓ %s@%s was %s; it is %s", acc.Name, acc.Asset, done, condition(acc)) })
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "follow it live until it is done")
	return cmd
}

func (a *app) accountRevealCmd() *cobra.Command {
	var reason, user string
	var wrap time.Duration
	var networks []string
	cmd := &cobra.Command{
		Use: "reveal ACCOUNT", Short: "Reveal the password of an account; recorded before it is shown",
		Long: `Prints the password alone on standard output. The reveal is in the audit trail before the password leaves the controller.

With --wrap it prints a wrapping token instead: whoever holds that gets the password with "reeve unwrap", once, within the time.
What is revealed is the password that counts then, if you could still reveal it yourself.`,
		Example: "  reeve account reveal pam_alice@web01 --reason 'ticket 4711'\n" +
			"  reeve account reveal app@db --reason 'new server' --wrap 5m --network 192.0.2.0/24 > app.wrap\n" +
			"  reeve account reveal pam_alice@web01 --reason 'ticket 4711' --wrap 1h --for alice", Args: exactArgs("ACCOUNT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if wrap == 0 && (user != "" || len(networks) > 0) {
				return usagef("--for and --network say who may open what --wrap makes: give --wrap too")
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			if wrap != 0 {
				return a.wrap(cmd.Context(), c, args[0], wrap, client.WrapRequest{Reason: reason}, user, networks)
			}
			s, err := call[client.RevealedSecret](c.RevealSecret(cmd.Context(), args[0], client.ReasonRequest{Reason: reason}))
			if err != nil {
				return err
			}
			return a.show(s, func() { _, _ = fmt.Fprintln(a.raw.out, s.Password) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&reason, "reason", "", "why, for the audit trail (required)")
	f.DurationVar(&wrap, "wrap", 0, "print a wrapping token that is good once, for this long, such as 5m; at most 12h")
	f.StringVar(&user, "for", "", "the user who alone may open it, signed in; left out: whoever holds the token")
	f.StringSliceVar(&networks, "network", nil, "it can be opened from here only, such as 192.0.2.0/24; may be repeated")
	_ = cmd.MarkFlagRequired("reason")
	return cmd
}
