package gateway

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// Enroll implements agentv1.AgentServiceServer.
func (s *Server) Enroll(ctx context.Context, req *agentv1.EnrollRequest) (*agentv1.EnrollResponse, error) {
	from := ""
	if p, ok := peer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	e, err := s.cfg.PKI.Enroll(ctx, pki.EnrollRequest{Secret: reeve.NewSecret(req.GetToken()), CSR: req.GetCsrDer(),
		HPKEKey: req.GetHpkePublicKey(), Version: req.GetVersion(), From: from})
	if err != nil {
		return nil, err
	}
	id, err := s.identity(ctx, e)
	return &agentv1.EnrollResponse{Identity: id}, err
}

// Renew implements agentv1.AgentServiceServer.
func (s *Server) Renew(ctx context.Context, req *agentv1.RenewRequest) (*agentv1.RenewResponse, error) {
	e, err := s.cfg.PKI.Renew(ctx, callerOf(ctx).cert, pki.RenewRequest{CSR: req.GetCsrDer(), HPKEKey: req.GetHpkePublicKey(),
		Version: req.GetVersion(), Generation: req.GetGeneration()})
	if err != nil {
		return nil, err
	}
	id, err := s.identity(ctx, e)
	return &agentv1.RenewResponse{Identity: id}, err
}

func (s *Server) identity(ctx context.Context, e *pki.Enrollment) (*agentv1.Identity, error) {
	all, _, err := s.addresses(ctx, "")
	if err != nil {
		return nil, err
	}
	return &agentv1.Identity{Cluster: e.Cluster, Site: string(e.Agent.SiteID), Agent: string(e.Agent.ID), Name: e.Agent.Name,
		CertificateDer: e.Certificate, CaPem: e.CA, Addresses: all, NotAfter: timestamppb.New(e.NotAfter), Generation: e.Generation}, nil
}

// PullJobs implements agentv1.AgentServiceServer.
func (s *Server) PullJobs(st grpc.BidiStreamingServer[agentv1.PullJobsRequest, agentv1.PullJobsResponse]) error {
	ctx, cancel := context.WithCancelCause(st.Context())
	defer cancel(nil)
	var left error // set before ctx ends with errAgentLeft
	began, attached := make(chan *agentv1.PullJobsRequest, 1), make(chan *jobs.Pull, 1)
	go func() { // ends with the call
		var pull *jobs.Pull
		for {
			m, err := st.Recv()
			switch {
			case err != nil:
				left = err
				cancel(errAgentLeft)
				return
			case pull != nil:
				pull.AddCredits(m.GetCredits())
			default:
				began <- m
				select {
				case pull = <-attached:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	err := s.pull(ctx, st, began, attached)
	if errors.Is(context.Cause(ctx), errAgentLeft) {
		return ended(left)
	}
	return err
}

// pull attaches the agent with its first message and serves it.
func (s *Server) pull(ctx context.Context, st grpc.BidiStreamingServer[agentv1.PullJobsRequest, agentv1.PullJobsResponse],
	began <-chan *agentv1.PullJobsRequest, attached chan<- *jobs.Pull) error {
	var first *agentv1.PullJobsRequest
	select {
	case first = <-began:
	case <-ctx.Done():
		return ctx.Err()
	}
	connectors := make([]string, 0, len(first.GetConnectors()))
	for _, c := range first.GetConnectors() {
		connectors = append(connectors, c.GetName())
	}
	agent := callerOf(ctx)
	pull, err := s.cfg.Broker.Attach(jobs.Puller{ID: agent.agent, SiteID: agent.site, Connectors: connectors})
	if err != nil {
		return err
	}
	defer pull.Close()
	pull.AddCredits(first.GetCredits())
	attached <- pull
	return s.push(ctx, st, pull)
}

var errAgentLeft = errors.New("the agent has ended its stream")

// push sends what the pull has, and heartbeats, until either ends.
func (s *Server) push(ctx context.Context, st grpc.BidiStreamingServer[agentv1.PullJobsRequest, agentv1.PullJobsResponse], pull *jobs.Pull) error {
	for {
		if err := s.heartbeat(ctx, st); err != nil {
			return err
		}
		quiet, cancel := context.WithTimeout(ctx, heartbeatEvery)
		err := forward(quiet, st, pull)
		cancel()
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

// forward sends jobs and cancellations until something fails, which ctx's end is.
func forward(ctx context.Context, st grpc.BidiStreamingServer[agentv1.PullJobsRequest, agentv1.PullJobsResponse], pull *jobs.Pull) error {
	for {
		m, err := pull.Next(ctx)
		if err != nil {
			return err
		}
		if err := st.Send(m); err != nil {
			return err
		}
	}
}

func (s *Server) heartbeat(ctx context.Context, st grpc.BidiStreamingServer[agentv1.PullJobsRequest, agentv1.PullJobsResponse]) error {
	all, _, err := s.addresses(ctx, "")
	if err != nil {
		return err
	}
	return st.Send(&agentv1.PullJobsResponse{Message: &agentv1.PullJobsResponse_Heartbeat{Heartbeat: &agentv1.Heartbeat{Addresses: all}}})
}

// RenewLeases implements agentv1.AgentServiceServer.
func (s *Server) RenewLeases(ctx context.Context, req *agentv1.RenewLeasesRequest) (*agentv1.RenewLeasesResponse, error) {
	if len(req.GetLeases()) > maxLeasesAtOnce {
		return nil, reeve.Errorf(reeve.TooLarge, "too_many_leases", "at most %d leases are renewed at a time", maxLeasesAtOnce)
	}
	states, err := s.cfg.Broker.RenewLeases(callerOf(ctx).agent, req.GetLeases())
	return &agentv1.RenewLeasesResponse{Leases: states}, err
}

// ReportOutcome implements agentv1.AgentServiceServer.
func (s *Server) ReportOutcome(ctx context.Context, req *agentv1.ReportOutcomeRequest) (*agentv1.ReportOutcomeResponse, error) {
	stale, err := s.cfg.Broker.Report(ctx, callerOf(ctx).agent, reeve.JobID(req.GetJob()), req.GetFence(), req.GetResult())
	return &agentv1.ReportOutcomeResponse{Stale: stale}, err
}

// StreamLogs implements agentv1.AgentServiceServer. Chunks that have arrived by the
// time the ones before them are durable share a transaction.
func (s *Server) StreamLogs(st grpc.BidiStreamingServer[agentv1.StreamLogsRequest, agentv1.StreamLogsResponse]) error {
	ctx := st.Context()
	agent := callerOf(ctx).agent
	in := receive(ctx, st.Recv, maxChunksAtOnce)
	for {
		var batch []*agentv1.LogChunk
		select {
		case m, ok := <-in.messages:
			if !ok {
				return ended(in.err)
			}
			batch = append(batch, m.GetChunk())
		case <-ctx.Done():
			return ctx.Err()
		}
		size := len(batch[0].GetData())
		for len(batch) < maxChunksAtOnce && size < maxLogAtOnce && len(in.messages) > 0 {
			m, ok := <-in.messages
			if !ok {
				break
			}
			batch = append(batch, m.GetChunk())
			size += len(m.GetChunk().GetData())
		}
		acks, err := s.cfg.Broker.AppendLog(ctx, agent, batch...)
		if err != nil {
			return err
		}
		for i, a := range acks {
			if i+1 < len(acks) && acks[i+1].GetJob() == a.GetJob() && acks[i+1].GetAttempt() == a.GetAttempt() &&
				acks[i+1].GetRefused() == a.GetRefused() {
				continue // the next one says as much
			}
			if err := st.Send(a); err != nil {
				return err
			}
		}
	}
}

// ended is what a handler returns when the agent has ended its stream: nothing, if it
// did so in order.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
