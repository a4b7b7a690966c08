package sdktest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/reeve-pam/reeve/plugins/sdk"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// program is a connector at work.
type program struct {
	client *sdk.Client
	rpc    connectorv1.ConnectorClient
	stop   func()

	// Of plugin programs only.
	process *os.Process
	dir     string // its working directory, and where it puts temporary files
	version int    // of the protocol, as negotiated
}

// launch starts the plugin program as an agent does.
func (s *suite) launch() (*program, error) { return s.launchWith(sdk.Plugins()) }

// launchWith is launch by a host that knows other versions of the protocol.
func (s *suite) launchWith(versions map[int]plugin.PluginSet) (*program, error) {
	path, err := filepath.Abs(s.cfg.Binary)
	if err != nil {
		return nil, err
	}
	base, err := os.MkdirTemp("", "sdktest-")
	if err != nil {
		return nil, err
	}
	p := &program{dir: filepath.Join(base, "work")}
	sockets := filepath.Join(base, "sockets")
	if err := errors.Join(os.Mkdir(p.dir, 0o700), os.Mkdir(sockets, 0o700)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(base))
	}
	cmd := exec.Command(path) // Kill ends it
	cmd.Dir = p.dir
	cmd.Env = []string{"TMPDIR=" + p.dir, "HOME=" + p.dir, "PLUGIN_UNIX_SOCKET_DIR=" + sockets}
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  sdk.Handshake(),
		VersionedPlugins: versions,
		Cmd:              cmd,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		Logger:           hclog.NewNullLogger(),
		Stderr:           (*logWriter)(s),
		SyncStdout:       (*logWriter)(s),
		SyncStderr:       (*logWriter)(s),
	})
	p.stop = func() {
		client.Kill()
		_ = os.RemoveAll(base)
	}
	protocol, err := client.Client()
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("start %s: %w", s.cfg.Binary, err)
	}
	raw, err := protocol.Dispense(sdk.PluginName)
	if err != nil {
		p.stop()
		return nil, err
	}
	p.client = raw.(*sdk.Client)
	p.rpc = connectorv1.NewConnectorClient(protocol.(*plugin.GRPCClient).Conn)
	p.process, p.version = cmd.Process, client.NegotiatedVersion()
	return p, nil
}

// inProcess serves the connector in this process.
func (s *suite) inProcess() (*program, error) {
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	served := sdk.NewServer(s.cfg.Connector)
	if s.cfg.wrap != nil {
		served = s.cfg.wrap(served)
	}
	connectorv1.RegisterConnectorServer(server, served)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	conn, err := grpc.NewClient("passthrough:connector",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		server.Stop()
		return nil, err
	}
	return &program{client: sdk.NewClient(conn, 0), rpc: connectorv1.NewConnectorClient(conn), stop: func() {
		_ = conn.Close()
		server.Stop()
		serving.Wait()
	}}, nil
}

// needBinary is notApplicable for a connector without a process of its own.
func (s *suite) needBinary() error {
	if s.cfg.Binary == "" {
		return notApplicable("the connector is served in the kit's own process: set Config.Binary")
	}
	return nil
}
