package jobs

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// Puller is an agent that asks for work. ID and SiteID come from its certificate.
type Puller struct {
	ID         reeve.AgentID
	SiteID     reeve.SiteID
	Connectors []string // names of the connectors it has
}

// Pull is one agent's open request for work.
type Pull struct {
	b          *Broker
	agent      Puller
	connectors map[string]bool

	// Guarded by b.mu.
	credits int
	grants  []grant
	cancels []*agentv1.Cancel
	closed  error

	ready chan struct{} // buffered: something to take, or closed
}

// Attach opens a Pull. One that the agent still has open is closed: its connection is
// gone, or the agent has restarted. Unavailable "not_leader" unless Run runs.
func (b *Broker) Attach(agent Puller) (*Pull, error) {
	p := &Pull{b: b, agent: agent, connectors: map[string]bool{}, ready: make(chan struct{}, 1)}
	for _, c := range agent.Connectors {
		p.connectors[c] = true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.board == nil {
		return nil, errNotLeader
	}
	if old := b.pulls[agent.ID]; old != nil {
		old.closeWith(reeve.Errorf(reeve.Unavailable, "pull_replaced", "the agent has opened another stream"))
	}
	b.pulls[agent.ID] = p
	return p, nil
}

// Connected reports whether the agent has a Pull open here.
func (b *Broker) Connected(agent reeve.AgentID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pulls[agent] != nil
}

// AddCredits says that the agent will take n more jobs.
func (p *Pull) AddCredits(n uint32) {
	p.b.mu.Lock()
	p.credits = min(p.credits+int(min(n, PerAgent)), PerAgent)
	p.b.mu.Unlock()
	p.b.poke()
}

// Next waits for a job or a cancellation. The secrets of the job are sealed to the
// agent's key; its lease and its exposure records are committed.
func (p *Pull) Next(ctx context.Context) (*agentv1.PullJobsResponse, error) {
	for {
		g, c, err := p.take()
		switch {
		case err != nil:
			return nil, err
		case c != nil:
			return &agentv1.PullJobsResponse{Message: &agentv1.PullJobsResponse_Cancel{Cancel: c}}, nil
		case g != nil:
			job, err := g.seal(&p.b.cfg, p.b.store.Now())
			if err != nil {
				// Too late, or the key is unusable: the lease runs out and the job goes on.
				p.b.log.Error("job cannot be sealed to its agent", "job", g.job.ID, "agent", p.agent.ID, "error", err)
				p.AddCredits(1) // the agent knows of no job that used it up
				continue
			}
			return &agentv1.PullJobsResponse{Message: &agentv1.PullJobsResponse_Job{Job: job}}, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-p.ready:
		}
	}
}

func (p *Pull) take() (*grant, *agentv1.Cancel, error) {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	if p.closed != nil {
		return nil, nil, p.closed
	}
	if len(p.cancels) > 0 {
		c := p.cancels[0]
		p.cancels = p.cancels[1:]
		return nil, c, nil
	}
	if len(p.grants) > 0 {
		g := p.grants[0]
		p.grants = slices.Delete(p.grants, 0, 1)
		return &g, nil, nil
	}
	return nil, nil, nil
}

// Close ends the pull. Jobs it did not take go back to the queue.
func (p *Pull) Close() {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	if p.b.pulls[p.agent.ID] == p {
		delete(p.b.pulls, p.agent.ID)
	}
	p.closeWith(reeve.Errorf(reeve.Unavailable, "pull_closed", "the stream has ended"))
	p.b.poke()
}

// closeWith is Close without leaving the broker's list. b.mu is held.
func (p *Pull) closeWith(err error) {
	if p.closed != nil {
		return
	}
	p.closed = err
	for _, g := range p.grants {
		g.wipe()
	}
	if p.b.board != nil {
		p.b.unsent = append(p.b.unsent, p.grants...)
	}
	p.grants = nil
	p.signal()
}

// deliver queues a granted job. b.mu is held.
func (p *Pull) deliver(g grant) {
	p.credits--
	p.grants = append(p.grants, g)
	p.signal()
}

// cancel queues a cancellation, or takes back a job that was not sent yet. b.mu is held.
func (p *Pull) cancel(id reeve.JobID, fence uint64) {
	i := slices.IndexFunc(p.grants, func(g grant) bool { return g.job.ID == id && g.job.Lease.Fence == fence })
	if i >= 0 {
		p.grants[i].wipe()
		p.b.unsent = append(p.b.unsent, p.grants[i])
		p.grants = slices.Delete(p.grants, i, i+1)
		p.credits++
		return
	}
	p.cancels = append(p.cancels, &agentv1.Cancel{Job: string(id), Fence: fence})
	p.signal()
}

func (p *Pull) signal() {
	select {
	case p.ready <- struct{}{}:
	default:
	}
}

func (p *Pull) taker() *taker {
	return &taker{id: p.agent.ID, site: p.agent.SiteID, connectors: p.connectors, credits: p.credits}
}

// grant is a committed lease on its way to the agent. Its secrets are in the clear
// until seal or wipe, on this node's heap alone.
type grant struct {
	job     *Job
	key     []byte // HPKE public key of the agent
	digests []string
	secrets []reeve.Secret // as job.Secrets
	fresh   []bool         // likewise: never leased before
	until   time.Time      // end of the lease, by this leader's clock
}

func (g *grant) wipe() {
	for _, s := range g.secrets {
		s.Wipe()
	}
}

// seal makes the message for the agent and wipes the secrets.
func (g *grant) seal(cfg *BrokerConfig, now time.Time) (*agentv1.Job, error) {
	defer g.wipe()
	j := g.job
	if !g.until.After(now) {
		return nil, reeve.Errorf(reeve.Unavailable, "lease_ended", "the agent did not take the job while its lease lasted")
	}
	work, err := j.DecodeWork()
	if err != nil {
		return nil, err
	}
	m := &agentv1.Job{Id: string(j.ID), Fence: j.Lease.Fence, Attempt: j.Attempt, Connector: j.Connector,
		ConnectorSha256: g.digests, Work: work, LogLimit: LogLimit,
		Lease: durationpb.New(g.until.Sub(now)), Timeout: durationpb.New(j.workTime(now))}
	binding := envelope.Binding{Cluster: cfg.Cluster, Site: j.SiteID, Agent: j.Lease.Agent, Job: j.ID,
		Fence: j.Lease.Fence, Connector: j.Connector}
	for i, r := range j.Secrets {
		enc, sealed, err := cfg.Seal(g.key, binding, envelope.Ref{Slot: r.Slot, Secret: r.Secret, Version: r.Version}, g.secrets[i])
		if err != nil {
			return nil, err
		}
		m.Secrets = append(m.Secrets, &agentv1.SealedSecret{Slot: r.Slot, Kind: r.Kind, Secret: string(r.Secret),
			Version: r.Version, Enc: enc, Ciphertext: sealed, Fresh: g.fresh[i]})
	}
	return m, nil
}

// sealTo is envelope.Seal for a key as it came from the wire.
func sealTo(key []byte, b envelope.Binding, r envelope.Ref, s reeve.Secret) (enc, ciphertext []byte, err error) {
	k, err := envelope.ParsePublicKey(key)
	if err != nil {
		return nil, nil, err
	}
	return envelope.Seal(k, b, r, s)
}
