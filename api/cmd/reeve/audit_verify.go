package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

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
		Long: `Note it once, and compare: a checkpoint is worth as much as the key you trust. It changes only with "reeve audit rotate-key", and
the checkpoints then lead from the key you noted to the one of now.`,
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

func (a *app) auditRotateKeyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "rotate-key", Short: "Sign the trail with a new key from now on",
		Long: `The old key signs a last checkpoint, which names the new one, and is forgotten. It is printed: keep it with the others. "reeve audit
verify" with the old key and that checkpoint takes what the new key signs after it.`,
		Example: "  reeve audit rotate-key > last-of-old-key.txt", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			made, err := call[client.RotatedAuditKey](c.RotateAuditKey(cmd.Context(), &client.RotateAuditKeyParams{IdempotencyKey: newKey()}))
			if err != nil {
				return err
			}
			return a.show(made, func() { _, _ = fmt.Fprint(a.out, made.Checkpoint.Note) })
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
Up to the last checkpoint, every record is then proven to be what it was when it was signed.

The trail begins with record 1, or with the one after the first of the checkpoints. So an older checkpoint, a newer one and the records
between them prove that nothing between them was removed, changed or reordered.`,
		Example: "  reeve audit verify between.jsonl --checkpoint then.txt --checkpoint now.txt --key audit.key\n" +
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
			progress := a.verifyProgress()
			opt.Each = func(r *auditchain.Record) error { progress.record(r); return nil }
			rep, err := checkpoint.Verify(in, signed, opt)
			progress.end()
			if err != nil {
				return err
			}
			if rep.Records == 0 {
				return errors.New("there is no record in it, which proves nothing: every cluster has some")
			}
			return a.show(rep, func() {
				_, _ = fmt.Fprintf(a.out, "%d records are whole and in order, %s to %s\nhead %d:%s\n",
					rep.Records, when(&rep.Begin), when(&rep.End), rep.Head.Sequence, rep.Head.Hash)
				if n := rep.Signed(); n > 0 {
					_, _ = fmt.Fprintf(a.out, "the checkpoints agree: records %d to %d are those that were signed\n", rep.First, n)
				}
				if rep.First > 1 {
					_, _ = fmt.Fprintf(a.out, "they follow the checkpoint of record %d; of what was before, nothing is proven here\n", rep.First-1)
				}
			})
		},
	}
	cmd.Flags().StringVar(&head, "head", "", "sequence:hash of a head noted before; the trail must reach it")
	cmd.Flags().StringArrayVar(&files, "checkpoint", nil, "file with one or more checkpoints that the trail must agree with; may be repeated")
	cmd.Flags().StringVar(&key, "key", "", "the key that verifies checkpoints, or a file with it, of reeve audit key")
	return cmd
}

// openCheckpoints reads the checkpoints in files, and fails for one that neither key nor one
// that follows from it signed.
func openCheckpoints(files []string, key string) ([]*checkpoint.Checkpoint, error) {
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
	var notes [][]byte
	var from []string // where each is
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
			notes, from = append(notes, part), append(from, fmt.Sprintf("checkpoint %d of %s", i+1, name))
		}
	}
	all, err := checkpoint.OpenAll(notes, key)
	if bad, ok := errors.AsType[*checkpoint.NoteError](err); ok {
		return nil, fmt.Errorf("%s: %w", from[bad.Place], bad.Err)
	}
	return all, err
}

// progressEvery is how many records go by between two signs of life.
const progressEvery = 100_000

// progress shows on a terminal how far a long trail is.
type progress struct {
	out   io.Writer // nil: nobody looks
	shown bool
	count int
}

func (a *app) verifyProgress() *progress {
	if f, ok := a.raw.err.(*os.File); ok && term.IsTerminal(int(f.Fd())) { //nolint:gosec // descriptors are small
		return &progress{out: f}
	}
	return &progress{}
}

func (p *progress) record(r *auditchain.Record) {
	if p.count++; p.out != nil && p.count%progressEvery == 0 {
		p.shown = true
		_, _ = fmt.Fprintf(p.out, "\rrecord %d, %s", r.Sequence, r.Time.Format(time.DateTime))
	}
}

func (p *progress) end() {
	if p.shown {
		_, _ = fmt.Fprintln(p.out)
	}
}
