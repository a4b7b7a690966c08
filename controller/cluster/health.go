package cluster

import (
	"context"
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// status is what a member tells about itself to another one that connects with
// protocolStatus: one JSON object, then the connection closes.
type status struct {
	Term         uint64 `json:"term"`
	LastIndex    uint64 `json:"last_index"`
	AppliedIndex uint64 `json:"applied_index"`
	// Time is what the member goes by; zero from one of an older release.
	Time time.Time `json:"time,omitzero"`
}

const maxStatusBytes = 4 << 10

// status describes this node. ok is false before it runs.
func (n *Node) status() (s status, ok bool) {
	r, f := n.raft.Load(), n.fsm.Load()
	if r == nil {
		return s, false
	}
	return status{Term: r.CurrentTerm(), LastIndex: r.LastIndex(), AppliedIndex: f.visible.Load(), Time: f.state.Now()}, true
}

func decodeStatus(r io.Reader) (status, error) {
	var s status
	err := json.NewDecoder(io.LimitReader(r, maxStatusBytes)).Decode(&s)
	return s, err
}

// peerPatience bounds how long a new leader waits for its fellows' times.
const peerPatience = 500 * time.Millisecond

// PeerTimes asks the other voting members for the time they go by. It returns once
// enough have answered to make a majority with this node, or with what there is after
// half a second.
func (n *Node) PeerTimes() []time.Time {
	servers, err := n.servers()
	if err != nil {
		return nil
	}
	ctx, stop := context.WithTimeout(context.Background(), peerPatience)
	defer stop()
	answers := make(chan time.Time, len(servers))
	voters := 1
	var asking sync.WaitGroup
	for _, s := range servers {
		if s.ID == n.conf.LocalID || s.Suffrage != raft.Voter {
			continue
		}
		voters++
		asking.Go(func() {
			if st, err := n.stream.ask(ctx, string(s.Address)); err == nil && !st.Time.IsZero() {
				answers <- st.Time
			}
		})
	}
	all := make(chan struct{})
	go func() { asking.Wait(); close(all) }()
	defer func() { stop(); <-all }()
	var times []time.Time
	for len(times) < voters/2 {
		select {
		case t := <-answers:
			times = append(times, t)
		case <-all:
			for len(answers) > 0 {
				times = append(times, <-answers)
			}
			return times
		}
	}
	return times
}

// peer is what the leader knows about a member.
type peer struct {
	status       status
	contact      time.Time // when it last answered; zero: never
	healthySince time.Time // zero: it is not healthy
}

func (p peer) healthy() bool { return !p.healthySince.IsZero() }

// peers holds a leader's knowledge; it is empty elsewhere.
type peers struct {
	mu sync.Mutex
	m  map[raft.ServerID]peer
}

func (p *peers) get(id raft.ServerID) peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.m[id]
}

// observe replaces what is known by one round of answers.
func (p *peers) observe(round map[raft.ServerID]peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.m = round
}

// maxTrailing is by how many entries a healthy member may trail the leader; the same
// number as in Vault's and Consul's autopilot.
const maxTrailing = 1000

// runMembers asks all members how they are, again and again, and gives a vote to new
// ones that have been healthy for Config.StableFor.
func (n *Node) runMembers(ctx context.Context, r *raft.Raft) {
	defer n.peers.observe(nil)
	every := time.NewTicker(min(2*time.Second, n.cfg.StableFor/4))
	defer every.Stop()
	for {
		n.askMembers(ctx, r)
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

func (n *Node) askMembers(ctx context.Context, r *raft.Raft) {
	servers := r.GetConfiguration().Configuration().Servers
	var wg sync.WaitGroup
	var mu sync.Mutex
	round := map[raft.ServerID]peer{}
	for _, s := range servers {
		if s.ID == n.conf.LocalID {
			continue
		}
		wg.Go(func() {
			p := n.peers.get(s.ID)
			answer, err := n.stream.ask(ctx, string(s.Address))
			now := time.Now()
			healthy := err == nil && answer.Term == r.CurrentTerm() && answer.LastIndex+maxTrailing >= r.LastIndex()
			if err == nil {
				p.status, p.contact = answer, now
			}
			switch {
			case !healthy:
				if p.healthy() && ctx.Err() == nil {
					n.log.Warn("raft: a member is not healthy", "member", s.ID, "error", err, "last_index", answer.LastIndex)
				}
				p.healthySince = time.Time{}
			case !p.healthy():
				p.healthySince = now
			}
			mu.Lock()
			defer mu.Unlock()
			round[s.ID] = p
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return
	}
	n.peers.observe(round)
	for _, s := range servers {
		if s.Suffrage != raft.Nonvoter {
			continue
		}
		if p := round[s.ID]; p.healthy() && time.Since(p.healthySince) >= n.cfg.StableFor {
			n.promote(ctx, s)
		}
	}
}

func (n *Node) promote(ctx context.Context, s raft.Server) {
	err := n.call(ctx, func(r *raft.Raft) raft.Future { return r.AddVoter(s.ID, s.Address, 0, 0) })
	if err != nil && reeve.KindOf(err) != reeve.Unavailable && ctx.Err() == nil {
		n.log.Warn("raft: a new member could not be given its vote", "member", s.ID, "error", err)
	}
	if err == nil {
		n.log.Info("raft: a new member votes now", "member", s.ID)
	}
}
