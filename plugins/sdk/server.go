package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// defaultTimeout is used when a request names none.
const defaultTimeout = 2 * time.Minute

// NewServer returns the gRPC side of c, as Serve registers it. Before it calls c it
// refuses names, passwords, parameters and plans that break the rules c declared, so
// no connector has to check those; it bounds every call by the request's timeout, and
// turns panics into ClassInternal.
func NewServer(c Connector) connectorv1.ConnectorServer { return newServer(c, ProtocolVersion) }

func newServer(c Connector, p protocol) *server {
	d := c.Describe()
	d.Powers, d.Protocol = powersOf(c), ProtocolVersion
	return &server{connector: c, description: d, protocol: p}
}

func powersOf(c Connector) []Power {
	var ps []Power
	add := func(ok bool, p Power) {
		if ok {
			ps = append(ps, p)
		}
	}
	_, ok := c.(Prober)
	add(ok, PowerProbe)
	_, ok = c.(Provisioner)
	add(ok, PowerProvision)
	_, ok = c.(Verifier)
	add(ok, PowerVerify)
	_, ok = c.(Inspector)
	add(ok, PowerInspect)
	_, ok = c.(Discoverer)
	add(ok, PowerDiscover)
	_, ok = c.(Runner)
	add(ok, PowerRun)
	_, ok = c.(RightsChecker)
	add(ok, PowerRights)
	return ps
}

type server struct {
	connectorv1.UnimplementedConnectorServer
	connector   Connector
	description Description
	protocol    protocol
	calls       sync.Map // name of a call at work: context.CancelFunc
	idle        idle
}

// Cancel implements connectorv1.ConnectorServer.
func (s *server) Cancel(_ context.Context, req *connectorv1.CancelRequest) (*connectorv1.CancelResponse, error) {
	if cancel, ok := s.calls.Load(req.GetCall()); ok {
		cancel.(context.CancelFunc)()
	}
	return &connectorv1.CancelResponse{}, nil
}

func (s *server) Describe(context.Context, *connectorv1.DescribeRequest) (*connectorv1.DescribeResponse, error) {
	return &connectorv1.DescribeResponse{Description: DescriptionToProto(s.description)}, nil
}

func (s *server) Probe(ctx context.Context, req *connectorv1.ProbeRequest) (*connectorv1.ProbeResponse, error) {
	p, ok := s.connector.(Prober)
	if !ok {
		return nil, s.unsupported(PowerProbe)
	}
	var f Fingerprint
	err := s.call(ctx, "probe", false, req.GetTimeout(), func(ctx context.Context) (err error) {
		t, err := s.target(req.GetTarget())
		if err != nil {
			return err
		}
		f, err = p.Probe(ctx, t)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &connectorv1.ProbeResponse{Fingerprint: FingerprintToProto(f)}, nil
}

func (s *server) Plan(ctx context.Context, req *connectorv1.PlanRequest) (*connectorv1.PlanResponse, error) {
	p, ok := s.connector.(Provisioner)
	if !ok {
		return nil, s.unsupported(PowerProvision)
	}
	var plan Plan
	err := s.call(ctx, "plan", false, req.GetTimeout(), func(ctx context.Context) (err error) {
		t, err := s.target(req.GetTarget())
		if err != nil {
			return err
		}
		in := IntentFromProto(req.GetIntent())
		if err := s.checkIntent(in); err != nil {
			return err
		}
		plan, err = p.Plan(ctx, t, in)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &connectorv1.PlanResponse{Plan: PlanToProto(plan), Hash: PlanHash(plan)}, nil
}

func (s *server) Apply(req *connectorv1.ApplyRequest, stream connectorv1.Connector_ApplyServer) error {
	p, ok := s.connector.(Provisioner)
	if !ok {
		return s.unsupported(PowerProvision)
	}
	var result Result
	err := s.call(stream.Context(), "apply", true, req.GetTimeout(), func(ctx context.Context) (err error) {
		t, err := s.target(req.GetTarget())
		if err != nil {
			return err
		}
		change := Change{
			Intent:   IntentFromProto(req.GetIntent()),
			Plan:     PlanFromProto(req.GetPlan()),
			Password: NewSecret(req.GetPassword()),
		}
		if err := s.checkChange(change, req.GetPlanHash()); err != nil {
			return err
		}
		var mu sync.Mutex
		result, err = p.Apply(ctx, t, change, func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			// A lost progress line must not end a change half-way.
			_ = stream.Send(&connectorv1.ApplyEvent{Event: &connectorv1.ApplyEvent_Progress{
				Progress: &connectorv1.Progress{Step: valid(e.Step), State: string(e.State), Message: valid(e.Message)},
			}})
		})
		return err
	})
	if err != nil {
		return err
	}
	return stream.Send(&connectorv1.ApplyEvent{Event: &connectorv1.ApplyEvent_Result{
		Result: &connectorv1.ApplyResult{
			Facts: FactsToProto(result.Facts), Residue: result.Residue, Changed: result.Changed,
		},
	}})
}

func (s *server) Verify(ctx context.Context, req *connectorv1.VerifyRequest) (*connectorv1.VerifyResponse, error) {
	p, ok := s.connector.(Verifier)
	if !ok {
		return nil, s.unsupported(PowerVerify)
	}
	var v Verdict
	err := s.call(ctx, "verify", false, req.GetTimeout(), func(ctx context.Context) (err error) {
		t, err := s.target(req.GetTarget())
		if err != nil {
			return err
		}
		c := CredentialFromProto(req.GetCredential())
		if err := checkAccount(c.Username); err != nil {
			return err
		}
		v, err = p.Verify(ctx, s.protocol.verifyTarget(t), c)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &connectorv1.VerifyResponse{
		Verdict: string(s.protocol.verdict(v.Kind)), Message: valid(v.Message), Fix: valid(v.Fix), Identity: valid(v.Identity),
	}, nil
}

func (s *server) Inspect(ctx context.Context, req *connectorv1.InspectRequest) (*connectorv1.InspectResponse, error) {
	p, ok := s.connector.(Inspector)
	if !ok {
		return nil, s.unsupported(PowerInspect)
	}
	var f Facts
	err := s.call(ctx, "inspect", false, req.GetTimeout(), func(ctx context.Context) (err error) {
		t, err := s.target(req.GetTarget())
		if err != nil {
			return err
		}
		if err := checkAccount(req.GetAccount()); err != nil {
			return err
		}
		f, err = p.Inspect(ctx, t, req.GetAccount())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &connectorv1.InspectResponse{Facts: FactsToProto(f)}, nil
}

func (s *server) Discover(req *connectorv1.DiscoverRequest, stream connectorv1.Connector_DiscoverServer) error {
	p, ok := s.connector.(Discoverer)
	if !ok {
		return s.unsupported(PowerDiscover)
	}
	return s.call(stream.Context(), "discover", false, req.GetTimeout(), func(ctx context.Context) error {
		t, err := s.target(req.GetTarget())
		if err != nil {
			return err
		}
		return p.Discover(ctx, t, func(f Facts) bool {
			return stream.Send(&connectorv1.DiscoverResponse{Facts: FactsToProto(f)}) == nil
		})
	})
}

func (s *server) Run(req *connectorv1.RunRequest, stream connectorv1.Connector_RunServer) error {
	p, ok := s.connector.(Runner)
	if !ok {
		return s.unsupported(PowerRun)
	}
	return s.call(stream.Context(), "run", true, req.GetTimeout(), func(ctx context.Context) error {
		t, err := s.target(req.GetTarget())
		if err != nil {
			return err
		}
		status, err := p.Run(ctx, t, req.GetCommand(), &runOutput{stream: stream})
		if err != nil {
			return err
		}
		return stream.Send(&connectorv1.RunEvent{
			Event: &connectorv1.RunEvent_ExitStatus{ExitStatus: int32(status)}, //nolint:gosec // exit statuses are small
		})
	})
}

func (s *server) CheckRights(ctx context.Context, req *connectorv1.CheckRightsRequest) (*connectorv1.CheckRightsResponse, error) {
	p, ok := s.connector.(RightsChecker)
	if !ok {
		return nil, s.unsupported(PowerRights)
	}
	var rights []Right
	err := s.call(ctx, "check rights", false, req.GetTimeout(), func(ctx context.Context) (err error) {
		t, err := s.target(req.GetTarget())
		if err != nil {
			return err
		}
		r := RoleFromProto(req.GetRole())
		if err := s.description.CheckRole(r); err != nil {
			return err
		}
		if err := r.CheckParams(req.GetParams()); err != nil {
			return err
		}
		rights, err = p.CheckRights(ctx, t, r, req.GetParams())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &connectorv1.CheckRightsResponse{Rights: RightsToProto(rights)}, nil
}

// runOutput sends what a command prints, in pieces that fit into a message.
type runOutput struct {
	mu     sync.Mutex
	stream connectorv1.Connector_RunServer
}

func (o *runOutput) Stdout(p []byte) {
	o.send(p, func(b []byte) *connectorv1.RunEvent {
		return &connectorv1.RunEvent{Event: &connectorv1.RunEvent_Stdout{Stdout: b}}
	})
}

func (o *runOutput) Stderr(p []byte) {
	o.send(p, func(b []byte) *connectorv1.RunEvent {
		return &connectorv1.RunEvent{Event: &connectorv1.RunEvent_Stderr{Stderr: b}}
	})
}

func (o *runOutput) send(p []byte, event func([]byte) *connectorv1.RunEvent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for part := range slices.Chunk(p, 64<<10) {
		_ = o.stream.Send(event(part)) // a host that is gone cancels the context
	}
}

// call runs f bounded by timeout, and turns what it returns, or a panic, into a status.
func (s *server) call(
	ctx context.Context, operation string, changes bool, timeout *durationpb.Duration, f func(context.Context) error,
) (err error) {
	s.idle.begin()
	defer s.idle.end()
	limit := defaultTimeout
	if timeout != nil && timeout.AsDuration() > 0 {
		limit = timeout.AsDuration()
	}
	name := metadata.ValueFromIncomingContext(ctx, callKey)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if len(name) == 1 {
		s.calls.Store(name[0], cancel)
		defer s.calls.Delete(name[0])
	}
	defer func() {
		if v := recover(); v != nil {
			slog.Error("connector panicked", "operation", operation, "stack", string(debug.Stack()))
			err = statusOf(recovered(operation, v))
		}
	}()
	err = classify(ctx, operation, changes, f(ctx))
	if err != nil {
		if _, ok := errors.AsType[*Error](err); !ok {
			// Its text may quote what was sent to the target.
			slog.Error("connector returned an unclassified error", "operation", operation, "type", fmt.Sprintf("%T", err))
		}
	}
	return statusOf(s.protocol.failure(err))
}

func (s *server) unsupported(p Power) error {
	return statusOf(Errorf(ClassUnsupported, "connector %s has no power to %s", s.description.Name, p))
}
