package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Member is one controller of the cluster. What says "known to the leader" is zero
// in the answer of another node.
type Member struct {
	ID           reeve.NodeID
	Addr         string // for Raft
	Voter        bool
	Leader       bool
	Healthy      bool          // known to the leader: reachable, in the leader's term, and not far behind
	HealthySince time.Time     // known to the leader: zero unless Healthy
	LastContact  time.Duration // known to the leader: since the member last answered; -1: never
	LastIndex    uint64        // known to the leader: the newest entry in its log
	AppliedIndex uint64        // known to the leader: the newest entry in its state
}

// Leader tells who leads, as far as this node knows, and at what Raft address. ok is
// false during an election and on a node that is cut off.
func (n *Node) Leader() (id reeve.NodeID, raftAddr string, ok bool) {
	r := n.raft.Load()
	if r == nil {
		return "", "", false
	}
	addr, server := r.LeaderWithID()
	return reeve.NodeID(server), string(addr), server != ""
}

// IsLeader reports whether this node leads and takes proposals: Config.Lead is
// running. Only VerifyLeader knows that nobody else leads by now.
func (n *Node) IsLeader() bool { return n.leading.Load() != 0 }

// VerifyLeader is the barrier before a read that must not be stale. It returns nil
// when a majority has confirmed, after the call, that this node leads, and everything
// committed before the call is visible in the state.
//
// Errors: Unavailable "not_leader", or ctx's error.
func (n *Node) VerifyLeader(ctx context.Context) error {
	term := n.leading.Load()
	if mutant.Is(mutant.FollowerReads) || mutant.Is(mutant.BarrierSkipped) && term != 0 {
		return nil
	}
	if term == 0 {
		return n.notLeader()
	}
	// An entry of the term is committed, so the commit index is not older than the term.
	r := n.raft.Load()
	commit := r.CommitIndex()
	err := n.call(ctx, func(r *raft.Raft) raft.Future { return r.VerifyLeader() })
	if err != nil {
		return err
	}
	if r.CurrentTerm() != term {
		return n.notLeader() // lost and regained, with another leader's entries in between
	}
	for f := n.fsm.Load(); ; {
		ok, progress := f.reached(commit)
		if ok {
			return nil
		}
		select {
		case <-progress:
		case <-f.failed:
			return errStopped().Wrap(f.failure())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// AddNonvoter lets a node in. It replicates at once, and votes after it has been
// healthy for Config.StableFor. For a member it sets the address and changes nothing
// else.
//
// Errors: Unavailable "not_leader", Conflict "address_taken", OutcomeUnknown.
func (n *Node) AddNonvoter(ctx context.Context, id reeve.NodeID, addr string) error {
	if !reeve.ValidID("node", string(id)) {
		return reeve.Errorf(reeve.Invalid, "node_id_invalid", "%q is not a node id", id)
	}
	if err := checkAddr(addr); err != nil {
		return err
	}
	servers, err := n.servers()
	if err != nil {
		return err
	}
	for _, s := range servers {
		if string(s.Address) == addr && s.ID != raft.ServerID(id) {
			return reeve.Errorf(reeve.Conflict, "address_taken", "address %s belongs to member %s", addr, s.ID).
				WithFix("remove that member first if it is gone for good")
		}
	}
	return n.call(ctx, func(r *raft.Raft) raft.Future {
		return r.AddNonvoter(raft.ServerID(id), raft.ServerAddress(addr), 0, 0)
	})
}

// Remove takes a node out of the cluster for good. The leader may remove itself; then
// another one is elected.
//
// Errors: Unavailable "not_leader", NotFound "node_not_member", Precondition
// "quorum_at_risk" when the voters left over could not elect a leader, OutcomeUnknown.
func (n *Node) Remove(ctx context.Context, id reeve.NodeID) error {
	if !n.IsLeader() {
		return n.notLeader()
	}
	servers, err := n.servers()
	if err != nil {
		return err
	}
	found := false
	voters, healthy := 0, 0
	for _, s := range servers {
		if s.ID == raft.ServerID(id) {
			found = true
			continue
		}
		if s.Suffrage == raft.Voter {
			voters++
			if s.ID == n.conf.LocalID || n.peers.get(s.ID).healthy() {
				healthy++
			}
		}
	}
	if !found {
		return reeve.Errorf(reeve.NotFound, "node_not_member", "%s is not a member of this cluster", id)
	}
	if healthy < voters/2+1 {
		return reeve.Errorf(reeve.Precondition, "quorum_at_risk",
			"without %s only %d of %d voting members would be healthy", id, healthy, voters).
			WithFix("bring the others back first, or let a new controller join and wait until it votes")
	}
	return n.call(ctx, func(r *raft.Raft) raft.Future { return r.RemoveServer(raft.ServerID(id), 0, 0) })
}

// TransferLeadership hands leadership to a voting member, or with "" to the one most
// up to date. It returns when this node has stopped its work and another leads.
//
// Errors: Unavailable "not_leader" or "transfer_failed" (this node then goes on
// leading), NotFound "node_not_voter", Precondition "no_other_voter", or ctx's error.
func (n *Node) TransferLeadership(ctx context.Context, to reeve.NodeID) error {
	t := transfer{to: raft.ServerID(to), done: make(chan error, 1)}
	if !n.IsLeader() {
		return n.notLeader()
	}
	if _, err := n.successor(t.to); err != nil {
		return err // before any work is stopped
	}
	if !n.enter() {
		return errStopped()
	}
	defer n.calls.Done()
	select {
	case n.transfers <- t:
	case <-n.stopping:
		return errStopped()
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-t.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Snapshot writes a snapshot now and trims the log. Nothing new since the last one is
// not an error.
func (n *Node) Snapshot(ctx context.Context) error {
	err := n.call(ctx, func(r *raft.Raft) raft.Future { return r.Snapshot() })
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	return err
}

// Members lists the cluster as this node knows it.
func (n *Node) Members() []Member {
	servers, err := n.servers()
	if err != nil {
		return nil
	}
	r := n.raft.Load()
	leader, _, _ := n.Leader()
	leading := n.IsLeader()
	members := make([]Member, 0, len(servers))
	for _, s := range servers {
		m := Member{
			ID: reeve.NodeID(s.ID), Addr: string(s.Address), Voter: s.Suffrage == raft.Voter,
			Leader: reeve.NodeID(s.ID) == leader, LastContact: -1,
		}
		switch {
		case s.ID == n.conf.LocalID:
			m.Healthy, m.LastContact = leading, 0
			m.LastIndex, m.AppliedIndex = r.LastIndex(), n.fsm.Load().visible.Load()
		case leading:
			p := n.peers.get(s.ID)
			m.Healthy, m.HealthySince = p.healthy(), p.healthySince
			m.LastIndex, m.AppliedIndex = p.status.LastIndex, p.status.AppliedIndex
			if !p.contact.IsZero() {
				m.LastContact = time.Since(p.contact)
			}
		}
		members = append(members, m)
	}
	return members
}

func (n *Node) servers() ([]raft.Server, error) {
	r := n.raft.Load()
	if r == nil {
		return nil, errStopped()
	}
	return r.GetConfiguration().Configuration().Servers, nil
}

// enter notes that somebody waits for raft; Run ends raft only when nobody does. It
// is false when the node does not run. Otherwise calls.Done must follow.
func (n *Node) enter() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.raft.Load() == nil {
		return false
	}
	n.calls.Add(1)
	return true
}

// call waits for a raft future or for ctx, whichever is first, and translates the
// error. raft answers all futures while it runs.
func (n *Node) call(ctx context.Context, start func(*raft.Raft) raft.Future) error {
	if !n.enter() {
		return errStopped()
	}
	answer := make(chan error, 1)
	go func() {
		defer n.calls.Done()
		answer <- start(n.raft.Load()).Error()
	}()
	select {
	case err := <-answer:
		return n.callError(err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *Node) callError(err error) error {
	switch {
	case err == nil, errors.Is(err, raft.ErrNothingNewToSnapshot):
		return err
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return n.notLeader().Wrap(err)
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
		return errUnknown().Wrap(err)
	default:
		return reeve.Errorf(reeve.Internal, "raft_failed", "raft refused or failed").Wrap(err)
	}
}
