package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

func (a *app) sealCmd() *cobra.Command {
	var shareFile string
	unseal := &cobra.Command{
		Use: "unseal", Short: "Give a node one share of the seal key",
		Long:    "Gives the node that answers one share, typed without echo or read from a file. Each sealed node needs its own.",
		Example: "  reeve seal unseal --address 192.0.2.1:8443\n  reeve seal unseal --share-file share-1.txt",
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			share, err := a.readSecret(shareFile, "Share")
			if err != nil {
				return err
			}
			text := share.Reveal()
			st, err := call[client.Status](c.UnsealNode(cmd.Context(), client.UnsealRequest{Share: &text}))
			if err != nil {
				return err
			}
			return a.showStatus(st)
		},
	}
	unseal.Flags().StringVar(&shareFile, "share-file", "-", "file with the share; - asks for it")
	seal := &cobra.Command{
		Use: "seal", Short: "Seal a node: it forgets all keys, and goes on voting", Example: "  reeve seal seal --address 192.0.2.1:8443",
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			st, err := call[client.Status](c.SealNode(cmd.Context()))
			if err != nil {
				return err
			}
			return a.showStatus(st)
		},
	}
	return group("seal", "Unseal and seal nodes; replace the keys", "  reeve seal unseal\n  reeve seal status\n  reeve seal rotate",
		unseal, seal, a.sealStatusCmd(), a.rotateCmd(), a.rekeyCmd())
}

// showSeal prints the seal, what is under way, and the newest term of each purpose.
func (a *app) showSeal(s client.Seal) error {
	return a.show(s, func() {
		kept := s.Scheme
		if s.Threshold != nil {
			kept = fmt.Sprintf("%s, %d of %d shares", s.Scheme, *s.Threshold, intOf(s.Shares))
		}
		terms := "newest everywhere"
		if !s.Rewrapped {
			terms = "sealing everything again under the newest"
		}
		kv := []string{"seal", kept, "generation", fmt.Sprint(s.Generation), "terms", terms}
		if r := s.Rekey; r != nil {
			kv = append(kv, "rekey", r.Id, "new seal", r.Scheme, "started", when(&r.StartedAt))
			if r.Shares != nil {
				kv = append(kv, "proven", fmt.Sprintf("%d of %d shares: %s", len(r.Proven), *r.Shares, strings.Trim(fmt.Sprint(r.Proven), "[]")))
			}
		}
		a.pairs(kv...)
		var rows [][]any
		for _, t := range slices.Backward(s.Terms) {
			if t.Active {
				rows = append(rows, []any{t.Purpose, t.Term, when(&t.CreatedAt)})
			}
		}
		slices.Reverse(rows)
		a.table([]any{"purpose", "term", "since"}, rows)
	})
}

// sealCall runs a call that answers with the seal, and shows that.
func (a *app) sealCall(use, short, long, example string, args cobra.PositionalArgs, do func(context.Context, *api, []string) (client.Seal, error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Example: example, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			s, err := do(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			return a.showSeal(s)
		},
	}
}

func (a *app) sealStatusCmd() *cobra.Command {
	return a.sealCall("status", "Show how the seal key is kept, the key terms, and what is under way", "", "  reeve seal status", exactArgs(),
		func(ctx context.Context, c *api, _ []string) (client.Seal, error) {
			return call[client.Seal](c.GetSeal(ctx))
		})
}

func (a *app) rotateCmd() *cobra.Command {
	return a.sealCall("rotate", "Start new keys; everything is sealed again under them in the background",
		"Starts a new term of every key. The work in the background goes on over changes of leader; see `reeve seal status`.\nOld terms are kept, so that backups can be restored.",
		"  reeve seal rotate", exactArgs(),
		func(ctx context.Context, c *api, _ []string) (client.Seal, error) {
			return call[client.Seal](c.RotateKeys(ctx, &client.RotateKeysParams{IdempotencyKey: newKey()}))
		})
}

func (a *app) rekeyCmd() *cobra.Command {
	var shares, threshold int
	var keyFile, sharesDir string
	start := &cobra.Command{
		Use: "start", Short: "Prepare a new seal key; nothing changes until all of it was proven",
		Long: "Makes new shares of a new seal key, or takes the last line of a key file as the new key (`reeved key-file --add`\n" +
			"appends one). The seal of now stays in force until every new share, or the key, was given to `reeve seal rekey prove`.",
		Example: "  reeve seal rekey start --shares 5 --threshold 3 --shares-dir new-shares\n  reeve seal rekey start --key-file seal.key", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			req := client.RekeyRequest{Shares: &shares, Threshold: &threshold}
			if keyFile != "" {
				key, err := lastLine("--key-file", keyFile)
				if err != nil {
					return err
				}
				req = client.RekeyRequest{Key: &key}
			} else if sharesDir != "" {
				if err := os.MkdirAll(sharesDir, 0o700); err != nil { // before there is something to lose
					return usagef("%w", err)
				}
			}
			made, err := call[client.StartedRekey](c.StartRekey(cmd.Context(), req))
			if err != nil {
				return err
			}
			return a.showStarted(made, sharesDir)
		},
	}
	start.Flags().IntVar(&shares, "shares", 5, "shares of the new seal key")
	start.Flags().IntVar(&threshold, "threshold", 3, "shares that will unseal")
	start.Flags().StringVar(&sharesDir, "shares-dir", "", "directory for one file per share; shown once if left out")
	start.Flags().StringVar(&keyFile, "key-file", "", "key file whose last line is the new key, instead of shares")

	var shareFile, provenFile string
	prove := a.sealCall("prove REKEY", "Prove that a new share, or the new key, is in its holder's hands",
		"Gives one new share, typed without echo or read from a file. With the last one the new seal is in force.",
		"  reeve seal rekey prove rekey_06f2… --share-file new-shares/share-1.txt\n  reeve seal rekey prove rekey_06f2… --key-file seal.key", exactArgs("REKEY"),
		func(ctx context.Context, c *api, args []string) (client.Seal, error) {
			var p client.RekeyProof
			if provenFile != "" {
				key, err := lastLine("--key-file", provenFile)
				if err != nil {
					return client.Seal{}, err
				}
				p.Key = &key
			} else {
				share, err := a.readSecret(shareFile, "Share")
				if err != nil {
					return client.Seal{}, err
				}
				text := share.Reveal()
				p.Share = &text
			}
			return call[client.Seal](c.ProveRekey(ctx, args[0], p))
		})
	prove.Flags().StringVar(&shareFile, "share-file", "-", "file with the share; - asks for it")
	prove.Flags().StringVar(&provenFile, "key-file", "", "key file whose last line is the new key, instead of a share")

	cancel := &cobra.Command{
		Use: "cancel REKEY", Short: "Give a rekeying up; its shares will open nothing", Example: "  reeve seal rekey cancel rekey_06f2…", Args: exactArgs("REKEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.CancelRekey(cmd.Context(), args[0])); err != nil {
				return err
			}
			a.say("%s is given up; the seal is what it was", args[0])
			return nil
		},
	}
	return group("rekey", "Replace the seal key", "  reeve seal rekey start --shares 5 --threshold 3 --shares-dir new-shares", start, prove, cancel)
}

// showStarted prints or writes the new shares.
func (a *app) showStarted(made client.StartedRekey, dir string) error {
	if dir != "" {
		for i, share := range made.Shares {
			if _, err := writeNew("--shares-dir", filepath.Join(dir, fmt.Sprintf("share-%d.txt", i+1)), strings.NewReader(share+"\n")); err != nil {
				return fmt.Errorf("%w\n  to do: reeve seal rekey cancel %s, and start again", err, made.Rekey.Id)
			}
		}
		a.say("%d shares are in %s: give each to another person and delete the files", len(made.Shares), dir)
		made.Shares = []string{}
	}
	return a.show(made, func() {
		if len(made.Shares) > 0 {
			a.say("shares of the new seal key, shown this once:")
		}
		for _, share := range made.Shares {
			_, _ = fmt.Fprintln(a.out, share)
		}
		a.say("nothing has changed yet; prove what was handed out: reeve seal rekey prove %s", made.Rekey.Id)
	})
}

// lastLine is the newest key of a key file.
func lastLine(what, path string) (string, error) {
	raw, err := readNamed(what, path)
	if err != nil {
		return "", err
	}
	defer clear(raw)
	raw = bytes.TrimSpace(raw)
	return string(bytes.TrimSpace(raw[bytes.LastIndexByte(raw, '\n')+1:])), nil
}
