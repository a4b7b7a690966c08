package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/auditchain/checkpoint"
)

func (a *app) auditCheckpointCmd() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "checkpoint", Short: "Print the newest signed checkpoint of the trail, to be kept elsewhere",
		Long: `The controllers sign the trail after every 1,000 records, and within a minute of any. Keep checkpoints where those who
run the controllers cannot change them: "reeve audit verify" proves with them that nothing up to the last of them was changed since.`,
		Example: "  reeve audit checkpoint > now.txt\n  reeve audit checkpoint --all > checkpoints.txt", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := &client.ListAuditCheckpointsParams{Limit: new(1)}
			if all {
				*p.Limit = 1000
			}
			for {
				page, err := a.checkpoints(cmd, p)
				if err != nil {
					return err
				}
				if !all {
					return a.show(page.Newest, func() { _, _ = fmt.Fprint(a.out, page.Newest.Note) })
				}
				for _, c := range page.Items {
					if err := a.show(c, func() { _, _ = fmt.Fprint(a.out, c.Note) }); err != nil {
						return err
					}
				}
				if p.After = page.Next; p.After == nil {
					return nil
				}
			}
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all of them, oldest first; the more, the closer verify names a record")
	return cmd
}

func (a *app) auditKeyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "key", Short: "Print the public key that verifies checkpoints",
		Long:    "The key stays the same for the life of the cluster. Note it once, and compare: a checkpoint is worth as much as the key you trust.",
		Example: "  reeve audit key > audit.key", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			page, err := a.checkpoints(cmd, &client.ListAuditCheckpointsParams{Limit: new(1)})
			if err != nil {
				return err
			}
			return a.show(map[string]string{"key": *page.Key}, func() { _, _ = fmt.Fprintln(a.out, *page.Key) })
		},
	}
}

// checkpoints is a page of them, of which there is at least one.
func (a *app) checkpoints(cmd *cobra.Command, p *client.ListAuditCheckpointsParams) (*client.AuditCheckpointPage, error) {
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	page, err := call[client.AuditCheckpointPage](c.ListAuditCheckpoints(cmd.Context(), p))
	if err != nil {
		return nil, err
	}
	if page.Newest == nil || page.Key == nil {
		return nil, errors.New("no checkpoint has been signed yet: there is one within a minute of the first record, try again")
	}
	return &page, nil
}

func (a *app) auditVerifyCmd() *cobra.Command {
	var head, key string
	var files []string
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Prove, offline, that nothing in an exported trail was changed, removed or reordered",
		Long: `Checks the hash chain of an exported trail without any cluster. A chain that was computed anew from a changed record on, and
removal at the very end, show only against what was kept elsewhere: signed checkpoints (--checkpoint, --key) or a head (--head).
Up to the last checkpoint, every record is then proven to be what it was when it was signed.`,
		Example: "  reeve audit verify trail.jsonl --checkpoint then.txt --checkpoint now.txt --key audit.key\n" +
			"  reeve audit verify trail.jsonl\n  reeve audit verify trail.jsonl --head 1204:5f2c…", Args: exactArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			in := a.in
			if args[0] != "-" {
				f, err := openNamed("FILE", args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			var opt auditchain.Options
			if head != "" {
				seq, hash, ok := strings.Cut(head, ":")
				n, err := strconv.ParseUint(seq, 10, 64)
				if !ok || err != nil {
					return usagef("--head takes a sequence number and a hash, as in 1204:5f2c…")
				}
				opt.Expect = &auditchain.Head{Sequence: n, Hash: hash}
			}
			signed, err := openCheckpoints(files, key)
			if err != nil {
				return err
			}
			rep, err := checkpoint.Verify(in, signed, opt)
			if err != nil {
				return err
			}
			if rep.Records == 0 {
				return errors.New("there is no record in it, which proves nothing: every cluster has some")
			}
			return a.show(rep, func() {
				_, _ = fmt.Fprintf(a.out, "%d records are whole and in order, %s to %s\nhead %d:%s\n",
					rep.Records, when(&rep.Begin), when(&rep.End), rep.Head.Sequence, rep.Head.Hash)
				if n := len(rep.Checkpoints); n > 0 {
					_, _ = fmt.Fprintf(a.out, "the checkpoints agree: records 1 to %d are those that were signed\n", rep.Checkpoints[n-1])
				}
			})
		},
	}
	cmd.Flags().StringVar(&head, "head", "", "sequence:hash of a head noted before; the trail must reach it")
	cmd.Flags().StringArrayVar(&files, "checkpoint", nil, "file with one or more checkpoints that the trail must agree with; may be repeated")
	cmd.Flags().StringVar(&key, "key", "", "the key that verifies checkpoints, or a file with it, of reeve audit key")
	return cmd
}

// openCheckpoints reads the checkpoints in files, and fails for one that key did not sign.
func openCheckpoints(files []string, key string) (all []*checkpoint.Checkpoint, err error) {
	if (key == "") != (len(files) == 0) {
		return nil, usagef("--checkpoint and --key go together: a checkpoint proves nothing without the key")
	}
	if key != "" && !strings.Contains(key, "+") {
		raw, err := readNamed("--key is neither a key nor a file with one", key)
		if err != nil {
			return nil, err
		}
		key = strings.TrimSpace(string(raw))
	}
	for _, name := range files {
		raw, err := readNamed("--checkpoint", name)
		if err != nil {
			return nil, err
		}
		parts := checkpoint.Split(raw)
		if len(parts) == 0 {
			return nil, fmt.Errorf("%s holds no checkpoint", name)
		}
		for i, part := range parts {
			c, err := checkpoint.Open(part, key)
			if err != nil {
				return nil, fmt.Errorf("checkpoint %d of %s: %w", i+1, name, err)
			}
			all = append(all, c)
		}
	}
	return all, nil
}
