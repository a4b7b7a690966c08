package checkpoint

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/internal/auditchain"
)

// What is wrong with a trail that is whole in itself; more of auditchain's reasons.
const (
	OtherRoot     auditchain.Reason = "other_root"    // the trail was rewritten, hashes and all
	Contradictory auditchain.Reason = "contradictory" // two checkpoints cannot both be of one trail
)

// Report says what was verified.
type Report struct {
	auditchain.Report
	Checkpoints []uint64 `json:"checkpoints,omitempty"` // how far each goes that the trail agrees with
}

// Signed is the last record that a checkpoint covers, 0 if none does.
func (r *Report) Signed() uint64 {
	if n := len(r.Checkpoints); n > 0 && r.Checkpoints[n-1] >= r.First {
		return r.Checkpoints[n-1]
	}
	return 0
}

// Verify is auditchain.Verify of a trail that also has to agree with every one of the
// checkpoints, which Open has returned: it must reach each, and have its root and its head
// there. So none of the records up to the last checkpoint is another than when it was
// signed, and each checkpoint continues the one before.
//
// The trail begins with record 1, or with the one after the first checkpoint: then it is
// proven that the others continue that one, and nothing is said of the records before.
//
// The error of a trail that was rewritten with all its hashes names the first record after
// the last checkpoint that still agrees: it, or one of those up to the next checkpoint, is
// the first that is wrong. The more checkpoints, the closer.
func Verify(in io.Reader, checkpoints []*Checkpoint, opt auditchain.Options) (rep Report, err error) {
	p := &prover{}
	if p.ahead, err = inOrder(checkpoints); err != nil {
		return rep, err
	}
	each := opt.Each
	opt.Partial = len(p.ahead) > 0 // the prover knows where it may begin
	opt.Each = func(r *auditchain.Record) error {
		if err := p.record(r); err != nil || each == nil {
			return err
		}
		return each(r)
	}
	rep.Report, err = auditchain.Verify(in, opt)
	rep.Checkpoints = p.agreed
	if err == nil && len(p.ahead) > 0 {
		err = broken(rep.Head.Sequence+1, auditchain.Truncated, "the trail ends, but a checkpoint was signed of record %d", p.ahead[0].Head.Sequence)
	}
	return rep, err
}

// prover holds records against checkpoints.
type prover struct {
	tree   Tree
	ahead  []*Checkpoint
	agreed []uint64
}

func (p *prover) record(r *auditchain.Record) error {
	if r.Sequence != p.tree.Size+1 { // only of the first, which anything may be
		if err := p.begin(r); err != nil {
			return err
		}
	}
	if err := p.tree.Append(r.Hash); err != nil {
		return err
	}
	for len(p.ahead) > 0 && p.ahead[0].Head.Sequence == r.Sequence {
		c, begin := p.ahead[0], uint64(1)
		if n := len(p.agreed); n > 0 {
			begin = p.agreed[n-1] + 1
		}
		switch {
		case c.Root != p.tree.Root() || c.Head.Hash != r.Hash:
			return broken(begin, OtherRoot, "the checkpoint of record %d has another root: of the records from %d to %d one or more are not those that were signed",
				r.Sequence, begin, r.Sequence)
		case c.Time.Before(r.Time):
			return broken(r.Sequence, auditchain.ClockBack, "its checkpoint was signed at %s, before it was recorded", c.Time.Format(time.RFC3339Nano))
		}
		p.agree()
	}
	return nil
}

// agree notes that the trail has what the next checkpoint says.
func (p *prover) agree() {
	p.agreed, p.ahead = append(p.agreed, p.ahead[0].Head.Sequence), p.ahead[1:]
}

// begin takes over the tree of the first checkpoint, which the record has to follow.
func (p *prover) begin(r *auditchain.Record) error {
	switch {
	case len(p.ahead) == 0:
		return broken(r.Sequence, auditchain.Missing, "record 1 is expected here, or a checkpoint of record %d", r.Sequence-1)
	case p.ahead[0].Head.Sequence != r.Sequence-1:
		return broken(r.Sequence, auditchain.Missing, "record 1 is expected here, or record %d, which follows the first checkpoint", p.ahead[0].Head.Sequence+1)
	case p.ahead[0].Edge == nil:
		return fmt.Errorf("the checkpoint of record %d was signed by an early release and holds no edge: only a trail from record 1 on can be held against it", r.Sequence-1)
	case p.ahead[0].Head.Hash != r.Prev:
		return broken(r.Sequence, auditchain.Unlinked, "it follows a record with the hash %.16s…, the checkpoint before it is of %.16s…", r.Prev, p.ahead[0].Head.Hash)
	}
	p.tree = Tree{Size: r.Sequence - 1, Edge: slices.Clone(p.ahead[0].Edge)}
	for len(p.ahead) > 0 && p.ahead[0].Head.Sequence == p.tree.Size { // the same one may be given twice
		p.agree()
	}
	return nil
}

// inOrder sorts checkpoints, and fails if no trail can have them all.
func inOrder(checkpoints []*Checkpoint) ([]*Checkpoint, error) {
	all := slices.SortedStableFunc(slices.Values(checkpoints), func(a, b *Checkpoint) int {
		return cmp.Or(cmp.Compare(a.Head.Sequence, b.Head.Sequence), a.Time.Compare(b.Time))
	})
	for i := 1; i < len(all); i++ {
		a, b := all[i-1], all[i]
		switch {
		case a.Cluster != b.Cluster:
			return nil, broken(0, Contradictory, "the checkpoints are of two clusters, %s and %s", a.Cluster, b.Cluster)
		case a.Head.Sequence == b.Head.Sequence && (a.Root != b.Root || a.Head.Hash != b.Head.Hash):
			return nil, broken(a.Head.Sequence, Contradictory, "two checkpoints of this record have different roots: two histories were signed")
		case b.Time.Before(a.Time):
			return nil, broken(b.Head.Sequence, auditchain.ClockBack, "its checkpoint was signed at %s, before the one of record %d", b.Time.Format(time.RFC3339Nano), a.Head.Sequence)
		}
	}
	return all, nil
}

func broken(sequence uint64, why auditchain.Reason, format string, args ...any) error {
	return &auditchain.BrokenError{Sequence: sequence, Reason: why, Message: fmt.Sprintf(format, args...)}
}
