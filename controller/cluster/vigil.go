package cluster

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// How a follower waits for the death of its leader.
const (
	vigilRetry = 500 * time.Millisecond // while no leader is known or it cannot be dialled; and how long a dial may take
	vigilTries = 10                     // dials to find out whether a leader has died
	vigilTry   = 25 * time.Millisecond  // between them
	vigilTurn  = 150 * time.Millisecond // between the candidacies of two followers
)

// runVigil notices when the leader's process dies, long before its heartbeats are missed. It holds a connection to the
// leader that carries nothing. The kernel of a machine whose process has died closes it at once and refuses a new one;
// both together are a death. Anything else (a cut cable, a stopped machine, a connection that merely broke) shows
// neither or only one, and is left to the timeouts.
//
// Then the followers stand for election one after the other, in the order of their ids. What a vigil gets wrong costs
// an election and nothing more: votes are counted by Raft.
func (n *Node) runVigil(ctx context.Context, r *raft.Raft) {
	leaderChanged := make(chan raft.Observation, 1)
	observer := raft.NewObserver(leaderChanged, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	r.RegisterObserver(observer)
	defer r.DeregisterObserver(observer)
	for ctx.Err() == nil {
		addr, leader := r.LeaderWithID()
		if leader == "" || leader == n.conf.LocalID {
			pause(ctx, leaderChanged, vigilRetry)
			continue
		}
		if n.watchOver(ctx, addr, leaderChanged) {
			n.stand(ctx, r, addr, leader)
		}
	}
}

// pause waits a moment; it returns true at once if the leader changes.
func pause(ctx context.Context, leaderChanged <-chan raft.Observation, d time.Duration) (changed bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-leaderChanged:
		return true
	case <-t.C:
		return false
	}
}

// watchOver holds a connection to the leader and reports whether the leader has died. It returns false when ctx ends,
// somebody else leads, or the leader lives on.
func (n *Node) watchOver(ctx context.Context, addr raft.ServerAddress, leaderChanged <-chan raft.Observation) bool {
	conn, err := n.dialLeader(ctx, addr)
	if err != nil {
		pause(ctx, leaderChanged, vigilRetry)
		return false
	}
	var reading sync.WaitGroup
	defer reading.Wait()
	defer func() { _ = conn.Close() }()
	broken := make(chan struct{})
	reading.Go(func() { _, _ = conn.Read(make([]byte, 1)); close(broken) })
	select {
	case <-ctx.Done():
		return false
	case <-leaderChanged:
		return false
	case <-broken:
	}
	return n.hasDied(ctx, addr, leaderChanged)
}

// hasDied looks whether nobody listens any more where the leader did. A process that is dying may close its connections
// a moment before its port, and then breaks a new one too.
func (n *Node) hasDied(ctx context.Context, addr raft.ServerAddress, leaderChanged <-chan raft.Observation) bool {
	for range vigilTries {
		conn, err := n.dialLeader(ctx, addr)
		switch {
		case err == nil:
			_ = conn.Close()
			return false
		case errors.Is(err, syscall.ECONNREFUSED):
			return true
		case pause(ctx, leaderChanged, vigilTry):
			return false
		}
	}
	return false
}

// dialLeader makes a connection on which raft waits for requests.
func (n *Node) dialLeader(ctx context.Context, addr raft.ServerAddress) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, vigilRetry)
	defer cancel()
	conn, err := n.stream.dial(ctx, string(addr), protocolRaft)
	if err != nil {
		return nil, err // and not a nil *tls.Conn in an interface
	}
	return conn, nil
}

// stand makes this node a candidate in its turn, unless the others were quicker.
func (n *Node) stand(ctx context.Context, r *raft.Raft, addr raft.ServerAddress, dead raft.ServerID) {
	turn, ok := n.turnAfter(dead)
	if !ok {
		return // it has no vote
	}
	term := r.CurrentTerm()
	sleep(ctx, time.Duration(turn)*vigilTurn)
	// A vote given to another candidate has raised the term.
	if _, leader := r.LeaderWithID(); ctx.Err() != nil || leader != dead || r.CurrentTerm() != term || r.State() != raft.Follower {
		return
	}
	n.log.Warn("raft: the leader's process has died; standing for election", "leader", dead, "addr", addr, "term", term)
	// What a leader that hands over sends to its successor, sent to ourselves: raft has no other way to say so.
	req := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: n.conf.ProtocolVersion, ID: []byte(n.conf.LocalID), Addr: n.trans.EncodePeer(n.conf.LocalID, n.trans.LocalAddr()),
	}}
	if err := n.trans.TimeoutNow(n.conf.LocalID, n.trans.LocalAddr(), req, &raft.TimeoutNowResponse{}); err != nil {
		n.log.Warn("raft: could not stand for election at once; the timeout will do", "error", err)
	}
}

// turnAfter is this node's place among the voters that are left; ok is false if it has no vote.
func (n *Node) turnAfter(dead raft.ServerID) (turn int, ok bool) {
	servers, err := n.servers()
	if err != nil {
		return 0, false
	}
	var left []raft.ServerID
	for _, s := range servers {
		if s.Suffrage == raft.Voter && s.ID != dead {
			left = append(left, s.ID)
		}
	}
	slices.Sort(left)
	turn = slices.Index(left, n.conf.LocalID)
	return turn, turn >= 0
}
