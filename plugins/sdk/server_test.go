package sdk_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/reeve-pam/reeve/plugins/sdk"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

func description() sdk.Description {
	return sdk.Description{
		Name: "test", Title: "Test", Version: "1.2.3", Category: sdk.Database, DefaultPort: 4711,
		NameRule:     sdk.NameRule{Pattern: `^[a-z]+$`, MaxBytes: 8, Help: "small letters"},
		PasswordRule: sdk.PasswordRule{MinLength: 4, MaxLength: 20, Excluded: `"`},
		Options:      []sdk.Option{{Name: "mode", Default: "a", Allowed: []string{"a", "b"}}, {Name: "free"}},
	}
}

// bare has no powers.
type bare struct{}

func (bare) Describe() sdk.Description { return description() }

// stub is a connector made of functions.
type stub struct {
	bare
	probe func(context.Context, sdk.Target) (sdk.Fingerprint, error)
	apply func(context.Context, sdk.Target, sdk.Change, sdk.Progress) (sdk.Result, error)
}

func (s stub) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	return s.probe(ctx, t)
}

func (s stub) Plan(_ context.Context, _ sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	return sdk.Plan{Action: in.Action, Account: in.Account, Steps: []sdk.Step{{ID: "one", Title: "One", Command: "one"}}}, nil
}

func (s stub) Apply(ctx context.Context, t sdk.Target, c sdk.Change, p sdk.Progress) (sdk.Result, error) {
	return s.apply(ctx, t, c, p)
}

// serve serves c over an in-memory connection. stop kills the server.
func serve(t *testing.T, c sdk.Connector) (client *sdk.Client, rpc connectorv1.ConnectorClient, stop func()) {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	connectorv1.RegisterConnectorServer(server, sdk.NewServer(c))
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(listener) })
	conn, err := grpc.NewClient("passthrough:test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	stop = func() { server.Stop(); wg.Wait() }
	t.Cleanup(func() { _ = conn.Close(); stop() })
	return sdk.NewClient(conn, 0), connectorv1.NewConnectorClient(conn), stop
}

var target = sdk.Target{Address: "host.example"}

func TestPowersThatAreMissingAreUnsupported(t *testing.T) {
	t.Parallel()
	client, _, _ := serve(t, bare{})
	d, err := client.Describe(t.Context())
	if err != nil || len(d.Powers) != 0 {
		t.Fatalf("powers %v, %v", d.Powers, err)
	}
	ctx := t.Context()
	calls := map[string]error{}
	_, calls["probe"] = client.Probe(ctx, target)
	_, calls["plan"] = client.Plan(ctx, target, sdk.Intent{})
	_, calls["apply"] = client.Apply(ctx, target, sdk.Change{}, nil)
	_, calls["verify"] = client.Verify(ctx, target, sdk.Credential{})
	_, calls["inspect"] = client.Inspect(ctx, target, "a")
	calls["discover"] = client.Discover(ctx, target, func(sdk.Facts) bool { return true })
	_, calls["run"] = client.Run(ctx, target, "true", nil)
	_, calls["rights"] = client.CheckRights(ctx, target, sdk.Role{}, nil)
	for name, err := range calls {
		if sdk.ClassOf(err) != sdk.ClassUnsupported {
			t.Errorf("%s: %v, want class unsupported", name, err)
		}
	}
}

// checker answers questions about rights.
type checker struct{ bare }

func (checker) CheckRights(_ context.Context, t sdk.Target, r sdk.Role, params map[string]string) ([]sdk.Right, error) {
	return []sdk.Right{
		{Name: r.Name + params["P"], Reason: t.Options["mode"], Held: true},
		{Name: "CREATE", Reason: "make accounts", Grant: "GRANT CREATE"},
	}, nil
}

func TestRightsAreAskedForRolesThatAreWellFormed(t *testing.T) {
	t.Parallel()
	client, _, _ := serve(t, checker{})
	d, err := client.Describe(t.Context())
	if err != nil || !slices.Equal(d.Powers, []sdk.Power{sdk.PowerRights}) {
		t.Fatalf("powers %v, %v", d.Powers, err)
	}
	role := sdk.Role{Name: "r", Version: 1, Params: []sdk.RoleParam{{Name: "P", Pattern: "^[a-z]$", Required: true}}}
	got, err := client.CheckRights(t.Context(), target, role, map[string]string{"P": "x"})
	want := []sdk.Right{{Name: "rx", Reason: "a", Held: true}, {Name: "CREATE", Reason: "make accounts", Grant: "GRANT CREATE"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for name, params := range map[string]map[string]string{"missing": nil, "unfitting": {"P": "1"}, "unknown": {"P": "x", "Q": "x"}} {
		if _, err := client.CheckRights(t.Context(), target, role, params); sdk.ClassOf(err) != sdk.ClassInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	role.Phases = map[sdk.Phase][]string{sdk.PhaseGrant: {"x=%P%"}}
	if _, err := client.CheckRights(t.Context(), target, role, map[string]string{"P": "x"}); sdk.ClassOf(err) != sdk.ClassInvalid {
		t.Errorf("a command in which no value is safe: %v", err)
	}
}

func TestPanicBecomesInternalAndSparesOthers(t *testing.T) {
	t.Parallel()
	const canary = "canary-in-a-panic"
	client, _, _ := serve(t, stub{
		probe: func(context.Context, sdk.Target) (sdk.Fingerprint, error) { panic(canary) },
		apply: func(context.Context, sdk.Target, sdk.Change, sdk.Progress) (sdk.Result, error) {
			return sdk.Result{Changed: true}, nil
		},
	})
	_, err := client.Probe(t.Context(), target)
	if sdk.ClassOf(err) != sdk.ClassInternal || strings.Contains(err.Error(), canary) {
		t.Errorf("panic gave %v", err)
	}
	if r, err := apply(t, client, sdk.Rotate, "good-password"); err != nil || !r.Changed {
		t.Errorf("after a panic: %+v, %v", r, err)
	}
}

// apply plans and applies for account "abc".
func apply(t *testing.T, c *sdk.Client, action sdk.Action, password string) (sdk.Result, error) {
	t.Helper()
	in := sdk.Intent{Action: action, Account: "abc"}
	plan, err := c.Plan(t.Context(), target, in)
	if err != nil {
		t.Fatal(err)
	}
	return c.Apply(t.Context(), target, sdk.Change{Intent: in, Plan: plan, Password: sdk.NewSecret([]byte(password))}, nil)
}

func TestUnclassifiedErrorsTellNothing(t *testing.T) {
	t.Parallel()
	const canary = "canary-in-an-error"
	client, _, _ := serve(t, stub{probe: func(context.Context, sdk.Target) (sdk.Fingerprint, error) {
		return sdk.Fingerprint{}, errors.New("query failed: SET PASSWORD " + canary)
	}})
	_, err := client.Probe(t.Context(), target)
	if sdk.ClassOf(err) != sdk.ClassInternal || strings.Contains(err.Error(), canary) {
		t.Errorf("got %v", err)
	}
}

func TestErrorsArriveWhole(t *testing.T) {
	t.Parallel()
	want := &sdk.Error{
		Class: sdk.ClassHostKeyChanged, Message: "message \xff", Fix: "fix",
		Details: map[string]string{"fingerprint": "SHA256:x"}, Err: errors.New("stays here"),
	}
	client, _, _ := serve(t, stub{probe: func(context.Context, sdk.Target) (sdk.Fingerprint, error) { return sdk.Fingerprint{}, want }})
	_, err := client.Probe(t.Context(), target)
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok || e.Class != want.Class || e.Message != "message \uFFFD" || e.Fix != want.Fix ||
		e.Details["fingerprint"] != "SHA256:x" || e.Err != nil {
		t.Errorf("got %+v", e)
	}
}

func TestDeadLineReachesTheConnector(t *testing.T) {
	t.Parallel()
	client, rpc, _ := serve(t, stub{probe: func(ctx context.Context, _ sdk.Target) (sdk.Fingerprint, error) {
		<-ctx.Done()
		return sdk.Fingerprint{}, ctx.Err()
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.Probe(ctx, target); sdk.ClassOf(err) != sdk.ClassUnreachable {
		t.Errorf("deadline gave %v", err)
	}
	// The timeout in the request binds also when the caller itself is patient.
	_, err := rpc.Probe(t.Context(), &connectorv1.ProbeRequest{
		Target: sdk.TargetToProto(target), Timeout: sdk.DurationToProto(50 * time.Millisecond),
	})
	if got := sdk.ClassOf(sdk.ErrorFromStatus(err)); got != sdk.ClassUnreachable {
		t.Errorf("the request's timeout gave %s", got)
	}
}

func TestAChangeThatIsInterruptedIsUnknown(t *testing.T) {
	t.Parallel()
	started := make(chan struct{}, 1)
	client, _, stop := serve(t, stub{apply: func(ctx context.Context, _ sdk.Target, _ sdk.Change, _ sdk.Progress) (sdk.Result, error) {
		started <- struct{}{}
		<-ctx.Done()
		return sdk.Result{}, ctx.Err()
	}})
	in := sdk.Intent{Action: sdk.Disable, Account: "abc"}
	plan, err := client.Plan(t.Context(), target, in)
	if err != nil {
		t.Fatal(err)
	}
	change := sdk.Change{Intent: in, Plan: plan}

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.Apply(ctx, target, change, nil); sdk.ClassOf(err) != sdk.ClassUnknownOutcome {
		t.Errorf("deadline: %v", err)
	}
	<-started

	ctx, cancel = context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	if _, err := client.Apply(ctx, target, change, nil); sdk.ClassOf(err) != sdk.ClassUnknownOutcome {
		t.Errorf("cancelled: %v", err)
	}

	go func() { <-started; stop() }()
	if _, err := client.Apply(t.Context(), target, change, nil); sdk.ClassOf(err) != sdk.ClassUnknownOutcome {
		t.Errorf("connector died: %v", err)
	}
}

func TestTheServerRefusesBeforeTheConnectorIsAsked(t *testing.T) {
	t.Parallel()
	client, rpc, _ := serve(t, stub{
		probe: func(context.Context, sdk.Target) (sdk.Fingerprint, error) { panic("asked") },
		apply: func(context.Context, sdk.Target, sdk.Change, sdk.Progress) (sdk.Result, error) { panic("asked") },
	})
	ctx := t.Context()
	for name, c := range map[string]struct {
		target sdk.Target
		intent sdk.Intent
		want   sdk.Class
	}{
		"no address":       {target: sdk.Target{}, want: sdk.ClassInvalid},
		"port":             {target: sdk.Target{Address: "h", Port: 65536}, want: sdk.ClassInvalid},
		"unknown option":   {target: sdk.Target{Address: "h", Options: map[string]string{"x": "y"}}, want: sdk.ClassInvalid},
		"option's value":   {target: sdk.Target{Address: "h", Options: map[string]string{"mode": "c"}}, want: sdk.ClassInvalid},
		"action":           {target: target, intent: sdk.Intent{Action: "explode", Account: "abc"}, want: sdk.ClassInvalid},
		"name":             {target: target, intent: sdk.Intent{Action: sdk.Rotate, Account: "a;id"}, want: sdk.ClassInvalid},
		"long name":        {target: target, intent: sdk.Intent{Action: sdk.Rotate, Account: "abcdefghi"}, want: sdk.ClassInvalid},
		"colon in comment": {target: target, intent: sdk.Intent{Action: sdk.Rotate, Account: "abc", Comment: "a:b"}, want: sdk.ClassInvalid},
		"line in comment":  {target: target, intent: sdk.Intent{Action: sdk.Rotate, Account: "abc", Comment: "a\nb"}, want: sdk.ClassInvalid},
		"account id":       {target: target, intent: sdk.Intent{Action: sdk.Rotate, Account: "abc", AccountID: "a b"}, want: sdk.ClassInvalid},
	} {
		if _, err := client.Plan(ctx, c.target, c.intent); sdk.ClassOf(err) != c.want {
			t.Errorf("%s: %v, want class %s", name, err, c.want)
		}
	}
	for password, want := range map[string]sdk.Class{
		"": sdk.ClassPolicyRejected, "abc": sdk.ClassPolicyRejected, "with\nline": sdk.ClassPolicyRejected,
		`quo"te`: sdk.ClassPolicyRejected, strings.Repeat("x", 21): sdk.ClassPolicyRejected, "-leading": sdk.ClassPolicyRejected,
		"\xff\xfe\xfd\xfc": sdk.ClassPolicyRejected, "space ": sdk.ClassPolicyRejected,
	} {
		if _, err := apply(t, client, sdk.Rotate, password); sdk.ClassOf(err) != want {
			t.Errorf("password %q: %v, want class %s", password, err, want)
		} else if password != "" && strings.Contains(err.Error(), password) {
			t.Errorf("the error quotes the password: %v", err)
		}
	}
	if _, err := apply(t, client, sdk.Disable, "unexpected"); sdk.ClassOf(err) != sdk.ClassInvalid {
		t.Errorf("a password for disable: %v", err)
	}
	in := sdk.Intent{Action: sdk.Disable, Account: "abc"}
	plan := sdk.Plan{Action: sdk.Disable, Account: "abc"}
	for name, req := range map[string]*connectorv1.ApplyRequest{
		"hash":    {Intent: sdk.IntentToProto(in), Plan: sdk.PlanToProto(plan), PlanHash: strings.Repeat("0", 64)},
		"no hash": {Intent: sdk.IntentToProto(in), Plan: sdk.PlanToProto(plan)},
		"account": {Intent: sdk.IntentToProto(in), Plan: &connectorv1.Plan{Action: "disable", Account: "xyz"},
			PlanHash: sdk.PlanHash(sdk.Plan{Action: sdk.Disable, Account: "xyz"})},
	} {
		req.Target = sdk.TargetToProto(target)
		stream, err := rpc.Apply(ctx, req)
		if err == nil {
			_, err = stream.Recv()
		}
		if got := sdk.ClassOf(sdk.ErrorFromStatus(err)); got != sdk.ClassPlanChanged {
			t.Errorf("%s: class %s, want plan_changed", name, got)
		}
	}
}

func TestDefaultsOfTheTargetAreFilledIn(t *testing.T) {
	t.Parallel()
	seen := make(chan sdk.Target, 1)
	client, _, _ := serve(t, stub{probe: func(_ context.Context, t sdk.Target) (sdk.Fingerprint, error) {
		seen <- t
		return sdk.Fingerprint{}, nil
	}})
	if _, err := client.Probe(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got.Port != 4711 || got.Options["mode"] != "a" || got.Options["free"] != "" {
		t.Errorf("the connector saw %+v", got)
	}
}

func TestErrorFromStatusWithoutFailure(t *testing.T) {
	t.Parallel()
	for code, want := range map[codes.Code]sdk.Class{
		codes.Canceled:         sdk.ClassCancelled,
		codes.DeadlineExceeded: sdk.ClassUnreachable,
		codes.Unimplemented:    sdk.ClassUnsupported,
		codes.Unavailable:      sdk.ClassInternal,
	} {
		if got := sdk.ClassOf(sdk.ErrorFromStatus(status.Error(code, "x"))); got != want {
			t.Errorf("%s: class %s, want %s", code, got, want)
		}
	}
	if err := sdk.ErrorFromStatus(nil); err != nil {
		t.Errorf("nil became %v", err)
	}
}

// FuzzErrorFromStatus feeds whatever a hostile connector could send as a Failure.
func FuzzErrorFromStatus(f *testing.F) {
	f.Add("auth_failed", "message", "fix", "key", "value", uint32(9))
	f.Add("", "", "", "", "", uint32(0))
	f.Fuzz(func(t *testing.T, class, message, fix, key, value string, code uint32) {
		s := status.New(codes.Code(code%17), message)
		with, err := s.WithDetails(&connectorv1.Failure{Class: class, Message: message, Fix: fix, Details: map[string]string{key: value}})
		if err != nil {
			t.Skip()
		}
		got := sdk.ErrorFromStatus(with.Err())
		e, ok := errors.AsType[*sdk.Error](got)
		if !ok || e.Class == "" || e.Details[key] != value {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAHangingHostIsLeftAfterItsDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		listener := bufconn.Listen(1 << 16) // nobody serves
		conn, err := grpc.NewClient("passthrough:test", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = listener.Close() }()
		defer func() { _ = conn.Close() }()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		_, err = sdk.NewClient(conn, 0).Probe(ctx, target)
		if took := time.Since(began); err == nil || took > 13*time.Second {
			t.Errorf("a connector that never answers: %v after %s", err, took)
		}
	})
}
