//go:build linux

// Package swarm is very many agents in one process: real identities, real mutual TLS and
// the agent's own way of dialling (agent/link), but no connectors and no jobs. It shows
// what a crowd of idle agents costs a controller, and how it comes back after a failover.
// Its floor is a bare server of one mutual-TLS gRPC stream for each client. Tests and the
// benchmark import it; the product never does.
package swarm

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reeve-pam/reeve/agent/link"
	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// enrolAtOnce is how many agents enrol at a time.
const enrolAtOnce = 16

// Swarm is agents of one site. They hold the stream that an agent without work holds: that
// for jobs.
type Swarm struct {
	links  []*link.Link
	before baseline

	running   sync.WaitGroup
	stop      context.CancelFunc
	connected atomic.Int64
	mu        sync.Mutex
	attempts  []time.Time
	served    map[*link.Link]time.Time // when a leader last took it in
}

// Enroll makes a site and n agents of it, whose identities are kept below dir. The cost
// is two writes to the cluster for each.
func Enroll(ctx context.Context, f *fleet.Fleet, dir, site string, n int) (*Swarm, error) {
	key := "swarm-" + site
	_, err := fleet.Call[client.Site](ctx, f, func(ctx context.Context, api *client.Client) (*http.Response, error) {
		return api.AddSite(ctx, &client.AddSiteParams{IdempotencyKey: &key}, client.SiteRequest{Name: site})
	})
	if err != nil {
		return nil, err
	}
	s := &Swarm{links: make([]*link.Link, n), served: map[*link.Link]time.Time{}}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(enrolAtOnce)
	for i := range n {
		g.Go(func() (err error) {
			s.links[i], err = enroll(ctx, f, dir, site, fmt.Sprintf("%s-%d", site, i))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return s, nil
}

func enroll(ctx context.Context, f *fleet.Fleet, dir, site, name string) (*link.Link, error) {
	token, err := fleet.Call[client.JoinToken](ctx, f, func(ctx context.Context, api *client.Client) (*http.Response, error) {
		return api.CreateAgentJoinToken(ctx, client.AgentJoinTokenRequest{Name: name, Site: site})
	})
	if err != nil {
		return nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	data := filepath.Join(dir, name)
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	if _, err := link.Enroll(ctx, data, reeve.SecretString(token.Token), reeve.Version, quiet); err != nil {
		return nil, err
	}
	return link.Open(link.Config{Dir: data, Version: reeve.Version, Logger: quiet})
}

// Start connects all agents, who keep themselves connected until Disconnect.
func (s *Swarm) Start(ctx context.Context) {
	ctx, s.stop = context.WithCancel(ctx)
	for _, l := range s.links {
		s.running.Go(func() {
			_ = l.Call(ctx, func(ctx context.Context, c agentv1.AgentServiceClient) error { return s.pull(ctx, l, c) })
		})
	}
}

// pull is what an agent without connectors does for jobs.
func (s *Swarm) pull(ctx context.Context, l *link.Link, c agentv1.AgentServiceClient) error {
	s.mu.Lock()
	s.attempts = append(s.attempts, time.Now())
	s.mu.Unlock()
	stream, err := c.PullJobs(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&agentv1.PullJobsRequest{Credits: 16}); err != nil {
		_, err = stream.Recv() // has the reason
		return err
	}
	if _, err := stream.Recv(); err != nil { // the first heartbeat: the leader has admitted it
		return err
	}
	s.mu.Lock()
	s.served[l] = time.Now()
	s.mu.Unlock()
	s.connected.Add(1)
	defer s.connected.Add(-1)
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

// Connected is how many agents a leader serves now.
func (s *Swarm) Connected() int { return int(s.connected.Load()) }

// Size is how many agents there are.
func (s *Swarm) Size() int { return len(s.links) }

// AwaitConnected waits until all agents are connected, or ctx ends.
func (s *Swarm) AwaitConnected(ctx context.Context) error {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for s.Connected() < s.Size() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d agents are connected: %w", s.Connected(), s.Size(), ctx.Err())
		case <-t.C:
		}
	}
	return nil
}

// returns is after what time since then each agent was taken in, sorted, of those that were.
func (s *Swarm) returns(since time.Time) (all []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.served {
		if at.After(since) {
			all = append(all, at.Sub(since))
		}
	}
	slices.Sort(all)
	return all
}

// tries is how many connections all agents together began since then.
func (s *Swarm) tries(since time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.attempts {
		if at.After(since) {
			n++
		}
	}
	return n
}

// Busiest is the largest number of connections that all agents together began within any
// one second since then, wherever to.
func (s *Swarm) Busiest(since time.Time) (most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := 0
	for i, at := range s.attempts { // nearly in order of time
		if at.Before(since) {
			first = i + 1
			continue
		}
		for at.Sub(s.attempts[first]) > time.Second {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// Disconnect ends all streams and connections. The agents can be started again.
func (s *Swarm) Disconnect() {
	if s.stop == nil {
		return
	}
	s.stop()
	s.running.Wait()
	s.stop = nil
	for _, l := range s.links {
		l.Close()
	}
}
