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

// Verify is auditchain.Verify of a trail from its first record on that also has to agree
// with every one of the checkpoints, which Open has returned: it must reach each, and have
// its root and its head there. So none of the records up to the last checkpoint is another
// than when it was signed, and each checkpoint continues the one before.
//
// The error of a trail that was rewritten with all its hashes names the first record after
// the last checkpoint that still agrees: it, or one of those up to the next checkpoint, is
// the first that is wrong. The more checkpoints, the closer.
func Verify(in io.Reader, checkpoints []*Checkpoint, opt auditchain.Options) (Report, error) {
	var rep Report
	ahead, err := inOrder(checkpoints)
	if err != nil {
		return rep, err
	}
	var tree Tree
	agreed := uint64(0)
	opt.Partial = false
	opt.Each = func(r *auditchain.Record) error {
		if err := tree.Append(r.Hash); err != nil {
			return err
		}
		for len(ahead) > 0 && ahead[0].Head.Sequence == r.Sequence {
			c := ahead[0]
			switch {
			case c.Root != tree.Root() || c.Head.Hash != r.Hash:
				return broken(agreed+1, OtherRoot, "the checkpoint of record %d has another root: of the records from %d to %d one or more are not those that were signed",
					r.Sequence, agreed+1, r.Sequence)
			case c.Time.Before(r.Time):
				return broken(r.Sequence, auditchain.ClockBack, "its checkpoint was signed at %s, before it was recorded", c.Time.Format(time.RFC3339Nano))
			}
			agreed, ahead = r.Sequence, ahead[1:]
			rep.Checkpoints = append(rep.Checkpoints, agreed)
		}
		return nil
	}
	rep.Report, err = auditchain.Verify(in, opt)
	if err == nil && len(ahead) > 0 {
		end := rep.Head.Sequence + 1
		err = broken(end, auditchain.Truncated, "the trail ends, but a checkpoint was signed of record %d", ahead[0].Head.Sequence)
	}
	return rep, err
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
