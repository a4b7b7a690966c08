package sdk

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// answerGrace is how much longer than its deadline a caller waits for the connector,
// which works with the same deadline and knows best what became of its work.
const answerGrace = 2500 * time.Millisecond

// Client is a host's handle on a running connector. It implements the same interfaces
// as a connector; an operation the connector lacks fails with ClassUnsupported. All
// errors are *Error. The deadline of a context is the deadline the connector works
// with; a context without one gives two minutes. When a context is cancelled the
// connector is told and has 2.5 s to answer. Safe for concurrent use.
type Client struct {
	rpc      connectorv1.ConnectorClient
	protocol protocol
}

// NewClient returns a Client that speaks the version of the protocol agreed on over conn;
// 0 is the current one.
func NewClient(conn grpc.ClientConnInterface, version int) *Client {
	return &Client{rpc: connectorv1.NewConnectorClient(conn), protocol: agreed(version)}
}

var (
	_ Prober      = (*Client)(nil)
	_ Provisioner = (*Client)(nil)
	_ Verifier    = (*Client)(nil)
	_ Inspector   = (*Client)(nil)
	_ Discoverer  = (*Client)(nil)
	_ Runner      = (*Client)(nil)

	_ RightsChecker = (*Client)(nil)
)

// Describe says what the connector is. Unlike what a Connector returns, the
// Description has Powers.
func (c *Client) Describe(ctx context.Context) (Description, error) {
	res, err := c.rpc.Describe(ctx, &connectorv1.DescribeRequest{})
	if err != nil {
		return Description{}, ErrorFromStatus(err)
	}
	return DescriptionFromProto(res.GetDescription()), nil
}

// Probe implements Prober.
func (c *Client) Probe(ctx context.Context, t Target) (Fingerprint, error) {
	ctx, timeout, done := c.begin(ctx)
	defer done()
	res, err := c.rpc.Probe(ctx, &connectorv1.ProbeRequest{Target: TargetToProto(t), Timeout: DurationToProto(timeout)})
	if err != nil {
		return Fingerprint{}, ErrorFromStatus(err)
	}
	return FingerprintFromProto(res.GetFingerprint()), nil
}

// Plan implements Provisioner. A plan whose hash is not the one the connector gave is
// refused with ClassProtocol.
func (c *Client) Plan(ctx context.Context, t Target, in Intent) (Plan, error) {
	ctx, timeout, done := c.begin(ctx)
	defer done()
	res, err := c.rpc.Plan(ctx, &connectorv1.PlanRequest{
		Target: TargetToProto(t), Intent: IntentToProto(in), Timeout: DurationToProto(timeout),
	})
	if err != nil {
		return Plan{}, ErrorFromStatus(err)
	}
	plan := PlanFromProto(res.GetPlan())
	if PlanHash(plan) != res.GetHash() {
		return Plan{}, Errorf(ClassProtocol, "the connector hashes plans in another way than this host").
			WithFix("use a connector built with an SDK of protocol %d", ProtocolVersion)
	}
	return plan, nil
}

// Apply implements Provisioner. When no answer comes although the request may have
// reached the connector (its process died, ctx was cancelled), the class is
// ClassUnknownOutcome. progress may be nil.
func (c *Client) Apply(ctx context.Context, t Target, ch Change, progress Progress) (Result, error) {
	ctx, timeout, done := c.begin(ctx)
	defer done()
	stream, err := c.rpc.Apply(ctx, &connectorv1.ApplyRequest{
		Target: TargetToProto(t), Intent: IntentToProto(ch.Intent), Plan: PlanToProto(ch.Plan),
		PlanHash: PlanHash(ch.Plan), Password: ch.Password.Bytes(), Timeout: DurationToProto(timeout),
	})
	if err != nil {
		return Result{}, changeError(err)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return Result{}, changeError(err)
		}
		switch e := m.GetEvent().(type) {
		case *connectorv1.ApplyEvent_Progress:
			if progress != nil {
				progress(Event{
					Step: e.Progress.GetStep(), State: StepState(e.Progress.GetState()), Message: e.Progress.GetMessage(),
				})
			}
		case *connectorv1.ApplyEvent_Result:
			return Result{
				Facts: FactsFromProto(e.Result.GetFacts()), Residue: e.Result.GetResidue(), Changed: e.Result.GetChanged(),
			}, nil
		}
	}
}

// Verify implements Verifier. A connector that speaks version 1 does not get the management
// account.
func (c *Client) Verify(ctx context.Context, t Target, cred Credential) (Verdict, error) {
	ctx, timeout, done := c.begin(ctx)
	defer done()
	res, err := c.rpc.Verify(ctx, &connectorv1.VerifyRequest{
		Target: TargetToProto(c.protocol.verifyTarget(t)), Credential: CredentialToProto(cred), Timeout: DurationToProto(timeout),
	})
	if err != nil {
		return Verdict{}, ErrorFromStatus(err)
	}
	return Verdict{Kind: verdictKind(res.GetVerdict()), Message: res.GetMessage(), Fix: res.GetFix(), Identity: res.GetIdentity()}, nil
}

// verdictKind maps kinds this version does not know to VerdictUnknown, which decides
// nothing.
func verdictKind(s string) VerdictKind {
	switch k := VerdictKind(s); k {
	case VerdictOK, VerdictBadCredential, VerdictLocked, VerdictExpired, VerdictDisabled, VerdictMustChange, VerdictUnreachable:
		return k
	default:
		return VerdictUnknown
	}
}

// Inspect implements Inspector.
func (c *Client) Inspect(ctx context.Context, t Target, account string) (Facts, error) {
	ctx, timeout, done := c.begin(ctx)
	defer done()
	res, err := c.rpc.Inspect(ctx, &connectorv1.InspectRequest{
		Target: TargetToProto(t), Account: account, Timeout: DurationToProto(timeout),
	})
	if err != nil {
		return Facts{}, ErrorFromStatus(err)
	}
	return FactsFromProto(res.GetFacts()), nil
}

// Discover implements Discoverer.
func (c *Client) Discover(ctx context.Context, t Target, yield func(Facts) bool) error {
	ctx, timeout, done := c.begin(ctx)
	defer done()
	stream, err := c.rpc.Discover(ctx, &connectorv1.DiscoverRequest{
		Target: TargetToProto(t), Timeout: DurationToProto(timeout),
	})
	if err != nil {
		return ErrorFromStatus(err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return ErrorFromStatus(err)
		}
		if !yield(FactsFromProto(m.GetFacts())) {
			return nil
		}
	}
}

// Run implements Runner.
func (c *Client) Run(ctx context.Context, t Target, command string, out Output) (int, error) {
	ctx, timeout, done := c.begin(ctx)
	defer done()
	stream, err := c.rpc.Run(ctx, &connectorv1.RunRequest{
		Target: TargetToProto(t), Command: command, Timeout: DurationToProto(timeout),
	})
	if err != nil {
		return 0, changeError(err)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return 0, changeError(err)
		}
		switch e := m.GetEvent().(type) {
		case *connectorv1.RunEvent_Stdout:
			out.Stdout(e.Stdout)
		case *connectorv1.RunEvent_Stderr:
			out.Stderr(e.Stderr)
		case *connectorv1.RunEvent_ExitStatus:
			return int(e.ExitStatus), nil
		}
	}
}

// CheckRights implements RightsChecker.
func (c *Client) CheckRights(ctx context.Context, t Target, r Role, params map[string]string) ([]Right, error) {
	ctx, timeout, done := c.begin(ctx)
	defer done()
	res, err := c.rpc.CheckRights(ctx, &connectorv1.CheckRightsRequest{
		Target: TargetToProto(t), Role: RoleToProto(r), Params: params, Timeout: DurationToProto(timeout),
	})
	if err != nil {
		return nil, ErrorFromStatus(err)
	}
	return RightsFromProto(res.GetRights()), nil
}

// changeError is ErrorFromStatus for calls that may change the target.
func changeError(err error) error {
	e, answered := errorFromStatus(err)
	if answered || e.Class == ClassUnsupported {
		return e
	}
	return Errorf(ClassUnknownOutcome, "no answer from the connector, which may have changed the target: %s", e.Message).
		Wrap(e).WithFix("read the target back before anything else is tried")
}

// callKey is the gRPC metadata in which a call names itself, see Connector.Cancel.
const callKey = "reeve-call"

// cancelAgain is how often a connector is told again that a call is cancelled: the call
// may have reached it after the cancellation did.
const cancelAgain = 250 * time.Millisecond

// begin returns the time the connector is given, and a context that lasts a little
// longer. When ctx is cancelled, the connector is told so and has that little longer to
// say what became of its work. done ends the call.
func (c *Client) begin(ctx context.Context) (call context.Context, timeout time.Duration, done func()) {
	timeout = defaultTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), time.Millisecond)
	}
	name := rand.Text()
	call, end := context.WithTimeout(metadata.AppendToOutgoingContext(context.WithoutCancel(ctx), callKey, name), timeout+answerGrace)
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			c.cancel(call, name)
			end()
		}
	})
	return call, timeout, func() { stop(); end() }
}

// cancel tells the connector that a call is cancelled, until the call has ended or has
// had its time for an answer.
func (c *Client) cancel(call context.Context, name string) {
	call, stop := context.WithTimeout(call, answerGrace)
	defer stop()
	for call.Err() == nil {
		if _, err := c.rpc.Cancel(call, &connectorv1.CancelRequest{Call: name}); err != nil {
			return // a connector that does not know how, or is gone
		}
		select {
		case <-call.Done():
		case <-time.After(cancelAgain):
		}
	}
}
