package link

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// Times of a connection.
const (
	callTimeout     = 20 * time.Second // of one unary call
	reachTimeout    = 5 * time.Second  // of TCP: nobody there
	connectTimeout  = 30 * time.Second // with TLS: after a failover a controller lets agents in one after the other
	backoffBase     = time.Second      // thousands of agents lose their leader in one moment
	backoffMax      = 15 * time.Second
	fineAfter       = 8 * time.Second // waiting begins anew after a call that lasted so long
	keepaliveEvery  = 20 * time.Second
	keepaliveAnswer = 10 * time.Second
	moveEvery       = 3       // failures after which a controller that knows no leader is left
	maxMessage      = 8 << 20 // bytes of one gRPC message
)

// dialer keeps one connection to the controller that is believed to lead, and moves it
// on when that turns out wrong.
type dialer struct {
	log  *slog.Logger
	tls  func() (*tls.Config, error)
	rand func() float64

	mu        sync.Mutex
	addresses []string
	address   string // of conn, or to try next
	conn      *grpc.ClientConn
}

func newDialer(addresses []string, log *slog.Logger, tls func() (*tls.Config, error)) *dialer {
	return &dialer{addresses: addresses, log: log, tls: tls, rand: rand.Float64}
}

// call runs fn until it succeeds, fails in a way that asking again does not cure, or
// ctx ends; then it returns fn's last error. Between tries it moves to another
// controller and waits, longer each time, a random part of the time (full jitter), so
// that many agents do not come back as one.
func (d *dialer) call(ctx context.Context, fn func(context.Context, agentv1.AgentServiceClient) error) error {
	hinted := false
	for tries := 1; ; tries++ {
		conn, err := d.connection()
		if err == nil {
			conn.settle(ctx)
		}
		began := time.Now()
		if err == nil {
			err = fn(ctx, agentv1.NewAgentServiceClient(conn))
		}
		if err == nil || ctx.Err() != nil || permanent(status.Code(err)) {
			return err
		}
		if time.Since(began) > fineAfter {
			tries, hinted = 1, false
		}
		var wait time.Duration
		wait, hinted = d.failed(conn, err, tries, hinted)
		if wait > 0 {
			d.log.Warn("call to controller failed", "address", conn.target(), "error", err, "retry_in", wait)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return err
		case <-t.C:
		}
	}
}

// permanent reports whether the controller has decided: asking again gives the same.
func permanent(c codes.Code) bool {
	switch c {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.Unauthenticated,
		codes.Unimplemented, codes.OutOfRange:
		return true
	default:
		return false
	}
}

// connection is a ClientConn with the address it goes to.
type connection struct {
	*grpc.ClientConn
	address string
}

func (c *connection) target() string {
	if c == nil {
		return ""
	}
	return c.address
}

// settle returns when the connection is there or has failed, or ctx ends: how long that
// takes is not the call's time.
func (c *connection) settle(ctx context.Context) {
	for {
		state := c.GetState()
		if state == connectivity.Idle {
			c.Connect()
		} else if state != connectivity.Connecting {
			return
		}
		if !c.WaitForStateChange(ctx, state) {
			return
		}
	}
}

func (d *dialer) connection() (*connection, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		return &connection{d.conn, d.address}, nil
	}
	if d.address == "" {
		d.address = d.addresses[rand.IntN(len(d.addresses))] //nolint:gosec // spreads agents over controllers
	}
	config, err := d.tls()
	if err != nil {
		return nil, err
	}
	d.conn, err = grpc.NewClient("passthrough:///"+d.address,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{Timeout: reachTimeout}).DialContext(ctx, "tcp", address)
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveEvery, Timeout: keepaliveAnswer}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: backoffBase, Multiplier: 2, Jitter: 0.5, MaxDelay: backoffMax},
			MinConnectTimeout: connectTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return nil, err
	}
	return &connection{d.conn, d.address}, nil
}

// failed moves on to another controller where that may help, and says how long to wait
// after so many tries: not at all when a follower names the leader and the failure before
// was another (hinted). A follower that knows no leader yet is asked again, on the
// connection there is, before others are.
func (d *dialer) failed(conn *connection, err error, tries int, hinted bool) (wait time.Duration, hintedNow bool) {
	leader, addresses, hint := read(err)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.merge(addresses)
	wait = time.Duration(d.rand() * float64(min(backoffBase<<min(tries-1, 10), backoffMax)))
	if hint > 0 {
		wait = hint + time.Duration(d.rand()*float64(hint))
	}
	if conn != nil && d.conn != conn.ClientConn {
		return wait, hinted // somebody else has moved on already
	}
	switch c := status.Code(err); {
	case leader != "":
		d.drop()
		d.address = leader
		if !hinted {
			wait = 0
		}
		return wait, true
	case len(addresses) > 0 && tries%moveEvery != 0:
	case len(addresses) > 0, conn == nil, c == codes.Unavailable, c == codes.DeadlineExceeded, c == codes.FailedPrecondition:
		d.drop()
		if tries == 1 { // it was served there
			d.address = d.successor(d.address)
		} else {
			d.address = d.after(d.address)
		}
	}
	return wait, false
}

// successor is the address to try first when the controller at a is gone: controllers are
// told in the order in which they joined, and in this order they stand for election when
// the leader's process dies (controller/cluster, vigil). A crowd that asks another first
// makes two connections each.
func (d *dialer) successor(a string) string {
	if i := slices.IndexFunc(d.addresses, func(b string) bool { return b != a }); i >= 0 {
		return d.addresses[i]
	}
	return a
}

// after is the address to try after a.
func (d *dialer) after(a string) string {
	i := slices.Index(d.addresses, a)
	return d.addresses[(i+1)%len(d.addresses)]
}

// merge adds addresses; the ones known stay, the seeds among them.
func (d *dialer) merge(addresses []string) {
	for _, a := range addresses {
		if !slices.Contains(d.addresses, a) {
			d.addresses = append(d.addresses, a)
		}
	}
}

// use replaces the addresses, for those the controllers told.
func (d *dialer) use(addresses []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addresses = addresses
}

// reset makes the next call connect afresh, with the credential of that moment.
func (d *dialer) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop()
}

func (d *dialer) close() { d.reset() }

func (d *dialer) drop() {
	if d.conn != nil {
		_ = d.conn.Close()
		d.conn = nil
	}
}

// read finds what a controller said about where to go and when.
func read(err error) (leader string, addresses []string, retry time.Duration) {
	s, ok := status.FromError(err)
	if !ok {
		var wrapped interface{ GRPCStatus() *status.Status }
		if !errors.As(err, &wrapped) {
			return "", nil, 0
		}
		s = wrapped.GRPCStatus()
	}
	for _, detail := range s.Details() {
		switch m := detail.(type) {
		case *agentv1.NotLeader:
			leader, addresses = m.GetLeaderAddress(), m.GetAddresses()
		case *errdetails.RetryInfo:
			retry = min(max(m.GetRetryDelay().AsDuration(), 0), backoffMax)
		}
	}
	return leader, addresses, retry
}
