package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// transfer asks the leadership loop to hand leadership over.
type transfer struct {
	to   raft.ServerID // empty: whoever is most up to date
	done chan error
}

// runLeadership is the only reader of leadership. It returns when ctx has ended, with
// the leader's work joined, no proposal in flight, and leadership handed away if
// there is somebody to take it.
func (n *Node) runLeadership(ctx context.Context, r *raft.Raft, f *fsm) {
	for ctx.Err() == nil {
		if r.State() == raft.Leader {
			n.lead(ctx, r, f)
			continue
		}
		select {
		case <-ctx.Done():
		case <-r.LeaderCh():
		case t := <-n.transfers:
			t.done <- n.notLeader()
		}
	}
}

// lead establishes leadership, does the leader's work and cleans up. It returns when
// the leadership it found is over, given up, or must be established afresh.
func (n *Node) lead(ctx context.Context, r *raft.Raft, f *fsm) {
	term, ok := n.establish(r, f)
	if !ok {
		sleep(ctx, establishRetry)
		return
	}
	n.log.Info("raft: leading", "term", term)
	n.accept(term)
	leadCtx, cancel := context.WithCancel(ctx)
	work := make(chan error, 1)
	go func() {
		err := f.state.Lead(term)
		if err == nil {
			err = n.cfg.Lead(leadCtx, term)
		}
		work <- err
	}()
	members := make(chan struct{})
	go func() { defer close(members); n.runMembers(leadCtx, r) }()

	var failure error // of the work, while this node led
	var request *transfer
	working := true
wait:
	for {
		select {
		case <-ctx.Done():
			break wait
		case <-r.LeaderCh():
			// Whatever it says: false is a loss, true a loss followed by a gain that
			// replaced it in the channel. establish drained what was older.
			break wait
		case failure = <-work:
			working = false
			if failure != nil {
				break wait
			}
		case t := <-n.transfers:
			request = &t
			break wait
		}
	}
	n.accept(0)
	cancel()
	if working {
		if err := <-work; err != nil {
			n.log.Debug("raft: the leader's work was interrupted", "error", err)
		}
	}
	<-members
	f.state.Follow()
	n.pending.Wait()
	n.log.Info("raft: the leader's work has ended", "term", term)
	n.giveUp(ctx, r, failure, request)
}

const establishRetry = 50 * time.Millisecond

// establish makes sure that everything committed before is applied here and that this
// node leads in the term it returns. Afterwards the next value of LeaderCh means that
// this leadership is over.
func (n *Node) establish(r *raft.Raft, f *fsm) (term uint64, ok bool) {
	term = r.CurrentTerm()
	n.enqueued.Store(n.now())
	barrier := r.Barrier(0)
	if mutant.Is(mutant.LedEarly) {
		go func() { _ = barrier.Error(); f.advance(barrier.(raft.IndexFuture).Index()) }()
		return term, true
	}
	err := barrier.Error()
	n.enqueued.Store(0)
	if err != nil {
		return 0, false
	}
	// The barrier and what raft put before it never reach the FSM.
	f.advance(barrier.(raft.IndexFuture).Index())
	select {
	case <-r.LeaderCh():
	default:
	}
	// Had leadership been lost before the channel was drained, the state or the term
	// would tell; if it is lost after this check, the channel will.
	return term, r.State() == raft.Leader && r.CurrentTerm() == term
}

// giveUp decides what follows the end of the leader's work.
func (n *Node) giveUp(ctx context.Context, r *raft.Raft, failure error, request *transfer) {
	switch {
	case request != nil:
		request.done <- n.handOver(r, request.to)
	case ctx.Err() != nil:
		if err := n.handOver(r, ""); err != nil {
			n.log.Info("raft: stopping without handing leadership over", "reason", err)
		}
	case failure != nil:
		n.log.Error("raft: the leader's work failed; handing leadership over", "error", failure)
		if err := n.handOver(r, ""); err != nil {
			n.log.Warn("raft: nobody takes leadership; starting the leader's work again", "reason", err)
			sleep(ctx, leadRetry)
		}
	}
}

const leadRetry = time.Second // between attempts at the leader's work when nobody else can

// handOver transfers leadership. No proposal may be in flight: raft would refuse some
// and take others if the transfer failed.
func (n *Node) handOver(r *raft.Raft, to raft.ServerID) error {
	if r.State() != raft.Leader {
		return n.notLeader()
	}
	successor, err := n.successor(to)
	if err != nil {
		return err
	}
	transfer := r.LeadershipTransfer
	if to != "" {
		transfer = func() raft.Future { return r.LeadershipTransferToServer(successor.ID, successor.Address) }
	}
	if err := transfer().Error(); err != nil {
		return reeve.Errorf(reeve.Unavailable, "transfer_failed", "leadership was not handed over").
			WithFix("look at the other controllers' health, then try again").Wrap(err)
	}
	return nil
}

// successor is the voter to, or with "" any other voter.
func (n *Node) successor(to raft.ServerID) (raft.Server, error) {
	servers, err := n.servers()
	if err != nil {
		return raft.Server{}, err
	}
	for _, s := range servers {
		if s.Suffrage == raft.Voter && s.ID != n.conf.LocalID && (to == "" || s.ID == to) {
			return s, nil
		}
	}
	if to == "" {
		return raft.Server{}, reeve.Errorf(reeve.Precondition, "no_other_voter", "no other controller can lead").
			WithFix("let another controller join, and wait until it votes")
	}
	return raft.Server{}, reeve.Errorf(reeve.NotFound, "node_not_voter", "%s is not another voting member of this cluster", to)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
