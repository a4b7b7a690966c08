package pluginhost

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	grunner "github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Limits of a process.
const (
	startTimeout = 15 * time.Second
	pingTimeout  = 2 * time.Second
	trusted      = 2 * time.Second // how long an answer counts as a sign of life
	killGrace    = 2 * time.Second // from the end of a call's context to the end of its process
	reapTime     = time.Second     // from the end of a connection to that of the process
	maxMessage   = 4 << 20         // bytes of one gRPC message
)

// engine is a running connector.
type engine struct {
	host    *Host
	name    string
	sha256  string
	rpc     *plugin.Client
	run     *runner
	conn    *grpc.ClientConn
	client  *sdk.Client
	out     *output
	born    time.Time
	mourned chan struct{} // closed when crowd is known

	// Guarded by Host.mu.
	active  int       // jobs in it
	jobs    int       // jobs it was ever given
	idle    time.Time // when a job last left it
	lone    bool      // its job shares it with no other
	retired bool      // takes no more jobs
	crowd   int       // jobs in it when it died
	culprit *Process  // the share for whose sake it was killed

	killOnce sync.Once
	alive    atomic.Int64 // when it last answered, Unix nanoseconds

	mu     sync.Mutex // guards run while the process starts, and doomed
	doomed bool       // to be killed, perhaps before it has begun
}

// start runs an image and shakes hands.
func start(ctx context.Context, name string, img *image, socketDir string, log *slog.Logger) (*engine, error) {
	p := &engine{name: name, sha256: img.sha256, out: newOutput(log.With("connector", name)), born: time.Now(), mourned: make(chan struct{})}
	catch := &dispenser{}
	p.rpc = plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  sdk.Handshake(),
		VersionedPlugins: everyVersion(catch),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     startTimeout,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: socketDir},
		Stderr:           p.out, // descriptor 2: the log, panics
		SyncStdout:       p.out, // what the connector prints itself comes over gRPC
		SyncStderr:       p.out,
		Logger:           hclog.NewNullLogger(), // the host logs what happens; output goes to Stderr
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		},
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, _ string) (grunner.Runner, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.doomed {
				return nil, errDoomed
			}
			r, err := newRunner(name, img, cmd)
			p.run = r
			return r, err
		},
	})
	cancelled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(cancelled); p.signal() })
	err := p.handshake(catch)
	if !stop() {
		<-cancelled
		err = errors.Join(err, ctx.Err())
	}
	if err != nil {
		p.kill()
		return nil, p.stillborn(err)
	}
	return p, nil
}

// stillborn says why there was no handshake.
func (p *engine) stillborn(err error) error {
	why, fix := err.Error(), "run the connector by hand: it says what it is, or what is missing"
	_, unrunnable := errors.AsType[*fs.PathError](err)
	switch {
	case unrunnable || p.run == nil:
		why, fix = "the system cannot run it: "+errnoOf(err), "build it for "+runtime.GOOS+"/"+runtime.GOARCH
	case p.run.ended != "":
		why = "it ended at once (" + p.run.ended + ") and did not say that it is a connector"
		fix = "if it is one, its log says why it ended; a connector is built with plugins/sdk and calls sdk.Serve"
	case strings.Contains(why, "Unrecognized remote plugin message"):
		why, fix = "it does not say that it is a connector", "a connector is built with plugins/sdk and calls sdk.Serve"
	}
	return sdk.Errorf(sdk.ClassInternal, "the connector %s does not start: %s", p.name, why).WithFix("%s", fix).Wrap(err)
}

// errnoOf is the system's own word of an error, where there is one.
func errnoOf(err error) string {
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e.Error()
	}
	return err.Error()
}

func (p *engine) handshake(catch *dispenser) error {
	proto, err := p.rpc.Client()
	if err != nil {
		return err
	}
	if _, err := proto.Dispense(sdk.PluginName); err != nil {
		return err
	}
	p.conn, p.client = catch.conn, sdk.NewClient(catch.conn, p.rpc.NegotiatedVersion())
	return nil
}

// everyVersion is the versions of the protocol a host speaks: connectors built with the
// one before are served too.
func everyVersion(catch *dispenser) map[int]plugin.PluginSet {
	all := map[int]plugin.PluginSet{}
	for v := sdk.OldestProtocol; v <= sdk.ProtocolVersion; v++ {
		all[v] = plugin.PluginSet{sdk.PluginName: catch}
	}
	return all
}

// dispenser catches the connection go-plugin made: the client for jobs and the health
// check share it.
type dispenser struct {
	plugin.NetRPCUnsupportedPlugin
	conn *grpc.ClientConn
}

// GRPCServer implements plugin.GRPCPlugin; a host serves nothing.
func (*dispenser) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("pluginhost: not a connector")
}

// GRPCClient implements plugin.GRPCPlugin.
func (d *dispenser) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	d.conn = conn
	return conn, nil
}

// call runs fn for a share of the process, which dies if fn does not return within
// killGrace after the end of ctx.
func (p *engine) call(ctx context.Context, by *Process, fn func(context.Context, *sdk.Client) error) error {
	answered := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-answered:
			return
		case <-ctx.Done():
		}
		grace := time.NewTimer(killGrace)
		defer grace.Stop()
		select {
		case <-answered:
		case <-p.run.exited:
		case <-grace.C:
			p.blame(by)
			p.kill()
		}
	}()
	err := fn(ctx, p.client)
	close(answered)
	<-watched
	if !sdk.Answered(err) {
		// Perhaps it has just died, and is not reaped yet.
		select {
		case <-p.run.exited:
		case <-time.After(reapTime):
		}
		return err
	}
	p.alive.Store(time.Now().UnixNano())
	return err
}

// blame notes for whose sake the process is killed.
func (p *engine) blame(by *Process) {
	if p.host == nil {
		return
	}
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	if p.culprit == nil && !p.Exited() {
		p.culprit = by
	}
}

// retire lets no more jobs in.
func (p *engine) retire() {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	p.retired = true
}

// Exited tells whether the process has ended.
func (p *engine) Exited() bool {
	select {
	case <-p.run.exited:
		return true
	default:
		return false
	}
}

// healthy reports whether the process has answered lately, or does so when asked.
func (p *engine) healthy(ctx context.Context) bool {
	if p.Exited() {
		return false
	}
	if time.Since(time.Unix(0, p.alive.Load())) < trusted {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	res, err := grpc_health_v1.NewHealthClient(p.conn).Check(ctx,
		&grpc_health_v1.HealthCheckRequest{Service: plugin.GRPCServiceName})
	if err != nil || res.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return false
	}
	p.alive.Store(time.Now().UnixNano())
	return true
}

// signal kills the process without waiting for more than its end.
func (p *engine) signal() {
	p.mu.Lock()
	p.doomed = true
	r := p.run
	p.mu.Unlock()
	if r != nil {
		r.kill()
	}
}

// kill ends the process, reaps it and joins everything that served it.
func (p *engine) kill() {
	p.killOnce.Do(func() {
		p.signal() // first: go-plugin would ask politely and wait
		p.rpc.Kill()
		if p.run != nil {
			_, _ = p.run.stdout.Close(), p.run.stderr.Close()
		}
		p.out.close()
	})
}
