package gateway

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// admit is the one gate: this node must lead, and but for enrolment the certificate
// must be that of an agent which may be served now.
func (s *Server) admit(ctx context.Context, method string) (context.Context, error) {
	if _, here := s.cfg.Leader(); !here {
		return nil, errNotLeader
	}
	if method == agentv1.AgentService_Enroll_FullMethodName {
		return ctx, nil
	}
	c := certificate(ctx)
	if c.cert == nil {
		return nil, reeve.Errorf(reeve.Unauthenticated, "certificate_required", "this call needs the certificate of an agent").
			WithFix("enrol with a join token")
	}
	agent, err := s.cfg.PKI.Admit(ctx, c.cert, c.signedBy)
	if err != nil {
		return nil, err
	}
	c.agent, c.site = agent.ID, agent.SiteID
	return context.WithValue(ctx, callerKey{}, c), nil
}

var errNotLeader = reeve.Errorf(reeve.Unavailable, "not_leader", "this controller is not the leader")

// certificate is a caller of whom nothing is known but what it has proven to hold the key
// of, and which authority signed that; without a certificate it has proven nothing.
func certificate(ctx context.Context) caller {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return caller{}
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return caller{}
	}
	chain := info.State.VerifiedChains[0]
	return caller{cert: chain[0], signedBy: chain[len(chain)-1]}
}

// survive turns a panic into an error of the call: no message of an agent may end a
// controller, or it would end them all, one leader after the other. Of the panic's value
// only the type is told; it may hold what the agent sent.
func survive(err *error) {
	if p := recover(); p != nil {
		*err = reeve.Errorf(reeve.Internal, "internal", "the controller hit a defect (%T)", p).
			Wrap(fmt.Errorf("gateway: at %s", debug.Stack()))
	}
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	in, err := s.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, s.status(ctx, info.FullMethod, err)
	}
	var res any
	func() {
		defer survive(&err)
		res, err = handle(in, req)
	}()
	if err != nil {
		return nil, s.status(ctx, info.FullMethod, err)
	}
	return res, nil
}

// stream is an open stream of an agent; its context ends when the agent may not be
// served any more.
type stream struct {
	grpc.ServerStream
	ctx   context.Context //nolint:containedctx // how grpc hands it on
	close context.CancelCauseFunc
	caller
}

// Context implements grpc.ServerStream.
func (s *stream) Context() context.Context { return s.ctx }

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	// It is known to sweep before it is admitted: a ban that admit does not see yet, sweep does.
	st := &stream{ServerStream: ss, close: cancel, caller: certificate(ctx)}
	s.mu.Lock()
	s.streams[st] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.streams, st)
	}()
	ctx, err := s.admit(ctx, info.FullMethod)
	if err != nil {
		return s.status(ss.Context(), info.FullMethod, err)
	}
	st.ctx = ctx
	func() {
		defer survive(&err)
		err = handle(srv, st)
	}()
	if cause := context.Cause(ctx); cause != nil && ss.Context().Err() == nil {
		err = cause // closed by sweep or closeStreams
	}
	if err != nil {
		return s.status(ss.Context(), info.FullMethod, err)
	}
	return nil
}

// sweep closes the streams of agents that may not be served any more (A3), and all of
// them when this node leads no longer. While agents and authorities do not change it
// seldom looks.
func (s *Server) sweep(ctx context.Context, changed <-chan struct{}) {
	if _, here := s.cfg.Leader(); !here {
		s.closeStreams(errNotLeader)
		return
	}
	select {
	case <-changed:
	default:
		if time.Since(s.swept) < recheckAnyway {
			return
		}
	}
	s.swept = time.Now()
	byCert := map[string][]*stream{} // an agent may have several streams under one certificate
	s.mu.Lock()
	for st := range s.streams {
		if st.cert != nil {
			byCert[string(st.cert.Raw)] = append(byCert[string(st.cert.Raw)], st)
		}
	}
	s.mu.Unlock()
	for _, streams := range byCert {
		err := s.cfg.Store.View(ctx, func(tx *store.Tx) error {
			_, err := pki.CheckAgent(tx, streams[0].cert, streams[0].signedBy)
			return err
		})
		if err == nil || ctx.Err() != nil {
			continue
		}
		for _, st := range streams {
			st.close(err)
		}
	}
}

func (s *Server) closeStreams(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		st.close(cause)
	}
}

// receiver reads a stream in a goroutine of its own, so that the handler can answer,
// and end, while the agent says nothing. The goroutine ends with the call.
type receiver[M any] struct {
	messages chan M
	err      error // set before messages is closed
}

func receive[M any](ctx context.Context, recv func() (M, error), buffer int) *receiver[M] {
	r := &receiver[M]{messages: make(chan M, buffer)}
	go func() {
		defer close(r.messages)
		for {
			m, err := recv()
			if err != nil {
				r.err = err
				return
			}
			select {
			case r.messages <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	return r
}
