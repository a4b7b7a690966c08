package sdk

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/reeve-pam/reeve/internal/memory"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// PluginName is the name under which a connector serves its one plugin.
const PluginName = "connector"

// maxMessageBytes bounds one message in either direction.
const maxMessageBytes = 4 << 20

// Handshake returns what a host and a connector must agree on before they talk. It is
// a courtesy to people who start a connector by hand, not a protection.
func Handshake() plugin.HandshakeConfig {
	return plugin.HandshakeConfig{
		ProtocolVersion:  ProtocolVersion,
		MagicCookieKey:   "REEVE_CONNECTOR",
		MagicCookieValue: "1",
	}
}

// Plugins returns the plugin sets by protocol version, for a host's ClientConfig.
func Plugins() map[int]plugin.PluginSet { return plugins(nil) }

// plugins serves c in every version.
func plugins(c Connector) map[int]plugin.PluginSet {
	all := map[int]plugin.PluginSet{}
	for v := OldestProtocol; v <= ProtocolVersion; v++ {
		all[v] = plugin.PluginSet{PluginName: &Plugin{Connector: c, Protocol: v}}
	}
	return all
}

// Plugin is the go-plugin face of a connector. A host dispenses it as *Client; a
// connector sets Connector and serves it.
type Plugin struct {
	plugin.NetRPCUnsupportedPlugin
	Connector Connector
	Protocol  int // the version of the plugin set it is in; 0: the current one
}

// GRPCServer implements plugin.GRPCPlugin.
func (p *Plugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	server := newServer(p.Connector, agreed(p.Protocol))
	server.idle.rest = debug.FreeOSMemory
	connectorv1.RegisterConnectorServer(s, server)
	return nil
}

// GRPCClient implements plugin.GRPCPlugin; what it returns is a *Client.
func (p *Plugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return NewClient(conn, p.Protocol), nil
}

// Serve is the whole main function of a connector. It answers its host until the host
// ends it, and does not return.
//
// Standard output belongs to the handshake: whatever the connector or a library prints
// there goes to standard error instead. The default slog logger, and the log package
// with it, write JSON lines to standard error, which the host adds to its own log.
//
// Started by hand the program explains itself; with --version it prints its version.
func Serve(c Connector) {
	os.Exit(serve(c, os.Args[1:], os.Stdout, os.Stderr))
}

func serve(c Connector, args []string, stdout, stderr io.Writer) int {
	d := c.Describe()
	if len(args) > 0 && (args[0] == "--version" || args[0] == "-version" || args[0] == "version") {
		fmt.Fprintf(stdout, "connector-%s %s (connector protocol %d)\n", d.Name, d.Version, ProtocolVersion)
		return 0
	}
	if err := d.Validate(); err != nil {
		fmt.Fprintf(stderr, "connector-%s cannot be served: %v\n", d.Name, err)
		return 1
	}
	hs := Handshake()
	if os.Getenv(hs.MagicCookieKey) != hs.MagicCookieValue {
		explain(stderr, d)
		return 2
	}

	if err := memory.KeepPrivate(); err != nil {
		fmt.Fprintf(stderr, "connector-%s: %v\n", d.Name, err)
		return 1
	}

	// go-plugin prints the handshake to os.Stdout and then replaces the variables
	// os.Stdout and os.Stderr. Descriptor 1 is pointed at standard error, so that
	// nothing but the handshake can reach the pipe the host reads.
	handshake, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		err = unix.Dup2(2, 1)
	}
	if err != nil {
		fmt.Fprintf(stderr, "connector-%s: standard output: %v\n", d.Name, err)
		return 1
	}
	os.Stdout = os.NewFile(uintptr(handshake), "handshake")
	slog.SetDefault(slog.New(hostLog(stderr)))

	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  hs,
		VersionedPlugins: plugins(c),
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts,
				grpc.MaxRecvMsgSize(maxMessageBytes), grpc.MaxSendMsgSize(maxMessageBytes))...)
		},
		Logger: hclog.New(&hclog.LoggerOptions{
			Name: d.Name, Level: hclog.Warn, Output: stderr, JSONFormat: true,
		}),
	})
	return 0
}

// explain tells a person who started a connector what it is for.
func explain(w io.Writer, d Description) {
	fmt.Fprintf(w, `connector-%s %s: %s

This program is a connector of Reeve. An agent starts it when a job needs it;
there is nothing to do with it by hand, except

    connector-%[1]s --version    print its version

To make it known: put it into the connector directory of the agents, then
register it with the controllers (see docs/connectors).
`, d.Name, d.Version, d.Title)
}

// hostLog writes records the way go-plugin hosts read them.
func hostLog(w io.Writer) slog.Handler {
	return slog.NewJSONHandler(w, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) > 0 {
				return a
			}
			switch a.Key {
			case slog.TimeKey:
				return slog.String("@timestamp", a.Value.Time().Format("2006-01-02T15:04:05.000000Z07:00"))
			case slog.LevelKey:
				return slog.String("@level", strings.ToLower(a.Value.String()))
			case slog.MessageKey:
				a.Key = "@message"
			}
			return a
		},
	})
}
