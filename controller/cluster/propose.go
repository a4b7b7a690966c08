package cluster

import (
	"errors"

	"github.com/hashicorp/raft"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
)

var _ store.Replicator = (*Node)(nil)

// proposal is an entry on its way through the log. It implements store.Proposal.
type proposal struct {
	start  int64 // see Node.now
	future raft.ApplyFuture
	done   chan struct{}
	err    error // set before done closes
}

// Propose implements store.Replicator: it queues entry for the log, in the order of
// the calls. It does not wait for the commit, only while raft takes no entries because
// its disk is busy or thousands are in flight. The caller must not change entry
// afterwards.
//
// What the proposal's Wait returns: nil when the entry is committed and was passed to
// the store of this node. Kind Unavailable when it is not in the log and never will
// be: "not_leader", or "disk_full" while the disk has less than 5 % left. Kind
// OutcomeUnknown, code "outcome_unknown", when leadership was lost before the commit,
// the log could not be written, or this node failed to apply.
func (n *Node) Propose(entry []byte) store.Proposal {
	p := &proposal{start: n.now(), done: make(chan struct{})}
	n.proposing.Lock()
	defer n.proposing.Unlock()
	if !n.IsLeader() {
		return p.answer(n.notLeader())
	}
	if n.diskFull.Load() {
		return p.answer(errDiskFull())
	}
	n.enqueued.Store(p.start)
	p.future = n.raft.Load().Apply(entry, 0) // without a timeout: a hanging disk is the watchdog's affair
	n.enqueued.Store(0)
	n.pending.Add(1)
	n.queue <- p
	return p
}

// Wait implements store.Proposal.
func (p *proposal) Wait() error {
	<-p.done
	return p.err
}

func (p *proposal) answer(err error) *proposal {
	p.err = err
	close(p.done)
	return p
}

// runAnswers waits for the futures in the order they were made, which is the order
// raft answers them in.
func (n *Node) runAnswers() {
	for p := range n.queue {
		n.oldest.Store(p.start)
		err := p.future.Error()
		if err != nil {
			err = n.proposalError(err)
		} else if failed, ok := p.future.Response().(error); ok {
			err = failed
		}
		n.oldest.Store(0)
		p.answer(err)
		n.pending.Done()
	}
}

// proposalError translates raft's answer. What raft surely never appended is
// Unavailable; everything else may yet be committed by this or another leader.
func (n *Node) proposalError(err error) error {
	if mutant.Is(mutant.UnknownRefused) || errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		return n.notLeader().Wrap(err)
	}
	return errUnknown().Wrap(err) // lost leadership, shutdown, a failed write to the log
}

// accept lets proposals in while this node leads in the term, or with 0 no more. Those
// in flight are answered by raft, also after leadership was lost.
func (n *Node) accept(term uint64) {
	n.proposing.Lock()
	defer n.proposing.Unlock()
	n.leading.Store(term)
}

func (n *Node) notLeader() *reeve.Error {
	err := reeve.Errorf(reeve.Unavailable, "not_leader", "this controller does not lead the cluster")
	if id, _, ok := n.Leader(); ok && id != n.cfg.ID {
		return err.WithFix("ask controller %s", id)
	}
	return err.WithFix("try again in a moment")
}

func errUnknown() *reeve.Error {
	return reeve.Errorf(reeve.OutcomeUnknown, "outcome_unknown", "it is not known whether the change was committed").
		WithFix("read the object again, or repeat the request with the same idempotency key")
}

func errDiskFull() *reeve.Error {
	return reeve.Errorf(reeve.Unavailable, "disk_full", "the leader's disk has less than 5 %% left; nothing was changed").
		WithFix("make room in its data directory, or move leadership to another controller")
}
