package simulation

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/reeve-pam/reeve/agent/link"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// call is one RPC of an agent. The request may be lost, come late, or come again later;
// so may the answer. handle runs on the controller that gets it.
func (w *world) call(ctx context.Context, i *incarnation, name string, handle func(*node) error) error {
	n := i.controller()
	lost := status.Error(codes.Unavailable, "the connection broke")
	if w.strikes("request lost: "+name, 0.004) {
		w.sleep(ctx, w.between(time.Millisecond, 5*time.Second))
		return lost
	}
	var err error
	answered := false
	deliver := func(first bool) {
		if !n.alive {
			if first {
				err, answered = lost, true
			}
			return
		}
		life := n.life
		w.start(n.proc, name, func() {
			got := handle(n)
			if !first {
				return
			}
			if w.strikes("answer lost: "+name, 0.004) || !n.alive || n.life != life {
				got = lost
			}
			w.after(w.latency(), func() { err, answered = got, true })
		})
	}
	w.after(w.latency(), func() { deliver(true) })
	if w.strikes("request comes again: "+name, 0.002) {
		w.after(w.between(0, 6*time.Minute), func() { deliver(false) })
	}
	w.park(ctx, func() bool { return answered })
	if !answered {
		return status.FromContextError(ctx.Err()).Err()
	}
	return err
}

// latency of one message.
func (w *world) latency() time.Duration {
	if w.strikes("message delayed", 0.004) {
		return w.between(100*time.Millisecond, 8*time.Second)
	}
	return w.between(200*time.Microsecond, 4*time.Millisecond)
}

// translated is a controller's error as the gateway sends it.
func translated(err error) error {
	code := codes.Internal
	switch reeve.KindOf(err) {
	case "":
		return nil
	case reeve.NotFound:
		code = codes.NotFound
	case reeve.Invalid:
		code = codes.InvalidArgument
	case reeve.TooLarge:
		code = codes.OutOfRange
	case reeve.Unavailable, reeve.OutcomeUnknown, reeve.Sealed:
		code = codes.Unavailable
	}
	return status.Error(code, reeve.CodeOf(err))
}

// client is the agent's side of the RPCs with an answer.
type client struct {
	agentv1.AgentServiceClient // the others are not called
	i                          *incarnation
}

// ReportOutcome implements agentv1.AgentServiceClient.
func (c client) ReportOutcome(ctx context.Context, r *agentv1.ReportOutcomeRequest, _ ...grpcOption) (*agentv1.ReportOutcomeResponse, error) {
	w := c.i.w
	out := &agentv1.ReportOutcomeResponse{}
	err := w.call(ctx, c.i, "report", func(n *node) error {
		stale, err := n.broker.Report(n.ctx, c.i.of.id, reeve.JobID(r.Job), r.Fence, r.Result)
		w.note("report %s of fence %d: stale %v, %s", r.Result.GetOutcome(), r.Fence, stale, reeve.CodeOf(err))
		if err == nil {
			out.Stale = stale
			w.reported(reeve.JobID(r.Job), r.Fence, stale)
		}
		return translated(err)
	})
	return out, err
}

// RenewLeases implements agentv1.AgentServiceClient.
func (c client) RenewLeases(ctx context.Context, r *agentv1.RenewLeasesRequest, _ ...grpcOption) (*agentv1.RenewLeasesResponse, error) {
	out := &agentv1.RenewLeasesResponse{}
	err := c.i.w.call(ctx, c.i, "renew", func(n *node) error {
		states, err := n.broker.RenewLeases(c.i.of.id, r.Leases)
		if err == nil {
			out.Leases = states
		}
		return translated(err)
	})
	return out, err
}

// tie is the agent's link: it finds the leader and tries again, as agent/link does.
type tie struct{ i *incarnation }

// Identity implements worker.Link.
func (t tie) Identity() link.Identity {
	return link.Identity{Cluster: "simulation", Site: t.i.w.site, Agent: t.i.of.id, Name: t.i.of.name}
}

// OpenSecret implements worker.Link for what seal made.
func (t tie) OpenSecret(b envelope.Binding, r envelope.Ref, enc, ciphertext []byte) (reeve.Secret, error) {
	if string(enc) != bound(string(t.i.of.id), b, r) {
		t.i.w.fail("a secret came in the wrong envelope")
	}
	return reeve.NewSecret(append([]byte(nil), ciphertext...)), nil
}

func bound(key string, b envelope.Binding, r envelope.Ref) string {
	return key + "/" + string(b.Agent) + "/" + string(b.Job) + "/" + strconv.FormatUint(b.Fence, 10) + "/" + r.Slot + "/" + string(r.Secret) + "/" + strconv.FormatUint(uint64(r.Version), 10)
}

// SetAddresses implements worker.Link.
func (tie) SetAddresses([]string) {}

// Call implements worker.Link.
func (t tie) Call(ctx context.Context, fn func(context.Context, agentv1.AgentServiceClient) error) error {
	w := t.i.w
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := fn(ctx, client{i: t.i})
		if err == nil || ctx.Err() != nil {
			return err
		}
		switch status.Code(err) {
		case codes.InvalidArgument, codes.NotFound, codes.OutOfRange, codes.Internal:
			return err
		}
		t.i.believed = nil // somebody else may lead
		w.sleep(ctx, w.between(0, wait))
	}
}

// stream is an agent's PullJobs: jobs come in order, until it breaks. The two ends learn
// of that at different times; until then the controller sends into the void.
type stream struct {
	w        *world
	i        *incarnation
	n        *node
	life     int
	pull     *jobs.Pull
	server   bool // the controller thinks that it is open
	client   bool // the agent thinks so
	cut      bool // nothing passes any more
	lastSent time.Time
}

// openStream is the beginning of a PullJobs call.
func (i *incarnation) openStream() *stream {
	w := i.w
	var s *stream
	credits := i.steps.Credits(true)
	err := w.call(i.ctx, i, "pull", func(n *node) error {
		p, err := n.broker.Attach(jobs.Puller{ID: i.of.id, SiteID: w.site, Connectors: []string{"ssh"}})
		if err != nil {
			return translated(err)
		}
		s = &stream{w: w, i: i, n: n, life: n.life, pull: p, server: true, client: true}
		n.streams = append(n.streams, s)
		p.AddCredits(credits)
		n.round()
		return nil
	})
	if err != nil && s != nil { // the answer was lost: the controller sees that nobody is there
		s.client, s.cut = false, true
		w.after(w.between(0, 40*time.Second), s.closeServer)
	}
	if err != nil {
		return nil
	}
	return s
}

// pump sends what the pulls of a node have.
func (n *node) pump() {
	for _, s := range n.streams {
		for s.server {
			m, err := s.pull.Next(ended)
			if err == context.Canceled { //nolint:errorlint // there is nothing to send
				break
			}
			if err != nil {
				s.server = false
				s.w.after(s.w.latency(), s.closeClient)
				break
			}
			s.send(m)
		}
	}
	n.forget()
}

func (n *node) forget() {
	k := 0
	for _, s := range n.streams {
		if s.server {
			n.streams[k] = s
			k++
		}
	}
	clear(n.streams[k:])
	n.streams = n.streams[:k]
}

func (s *stream) send(m *agentv1.PullJobsResponse) {
	w := s.w
	if !s.cut && w.strikes("stream cut", 0.003) {
		s.breakUp()
	}
	if s.cut {
		return
	}
	at := time.Now().Add(w.latency())
	if at.Before(s.lastSent) {
		at = s.lastSent
	}
	s.lastSent = at
	w.after(time.Until(at), func() {
		if s.client && !s.cut {
			s.i.receive(s, m)
		}
	})
}

// breakUp cuts the stream; each end learns of it when its keepalive does.
func (s *stream) breakUp() {
	s.cut = true
	s.w.after(s.w.between(0, 35*time.Second), s.closeClient)
	s.w.after(s.w.between(0, 35*time.Second), s.closeServer)
}

func (s *stream) closeClient() { s.client = false }

func (s *stream) closeServer() {
	if s.server && s.n.alive && s.n.life == s.life {
		s.server = false
		s.pull.Close()
		s.n.round()
	}
}

// serverDied is the end of a stream whose controller was killed.
func (s *stream) serverDied() {
	s.server, s.cut = false, true
	s.w.after(s.w.between(0, 35*time.Second), s.closeClient)
}

// addCredits tells the controller that there is room for more jobs.
func (s *stream) addCredits(credits uint32) {
	s.w.after(s.w.latency(), func() {
		if !s.cut && s.server && s.n.alive && s.n.life == s.life {
			s.pull.AddCredits(credits)
			s.n.round()
		}
	})
}
