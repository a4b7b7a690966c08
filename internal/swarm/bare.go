//go:build linux

package swarm

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Bare is a bare server, a process of its own, and its clients in this one.
type Bare struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	address string
	config  *tls.Config
	conns   []*grpc.ClientConn
	before  baseline
}

// StartBare builds the bare server into dir, with the flags of a release, and starts it.
func StartBare(ctx context.Context, dir string) (*Bare, error) {
	program := filepath.Join(dir, "bareserver")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "nomsgpack", "-ldflags", "-s -w", "-o", program, //nolint:gosec // our own
		"github.com/reeve-pam/reeve/internal/swarm/bareserver")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the bare server: %w\n%s", err, out)
	}
	cmd := exec.Command(program) //nolint:noctx,gosec // Stop ends it
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b := &Bare{cmd: cmd, stdin: stdin}
	if err := b.read(stdout); err != nil {
		return nil, errors.Join(err, b.Stop())
	}
	return b, nil
}

func (b *Bare) read(stdout io.Reader) error {
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		return err
	}
	var ticket struct {
		Address       string
		CA, Cert, Key []byte
	}
	if err := json.Unmarshal(line, &ticket); err != nil {
		return err
	}
	ca, err := x509.ParseCertificate(ticket.CA)
	if err != nil {
		return err
	}
	key, err := x509.ParseECPrivateKey(ticket.Key)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	b.address = ticket.Address
	b.config = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool,
		Certificates: []tls.Certificate{{Certificate: [][]byte{ticket.Cert}, PrivateKey: key}}}
	return nil
}

// PID is the server's process.
func (b *Bare) PID() int { return b.cmd.Process.Pid }

// Connect opens n connections with a stream on each, and returns once the server has
// answered on every one.
func (b *Bare) Connect(ctx context.Context, n int) error {
	b.conns = make([]*grpc.ClientConn, n)
	var g errgroup.Group
	g.SetLimit(enrolAtOnce)
	for i := range n {
		g.Go(func() (err error) {
			b.conns[i], err = grpc.NewClient("passthrough:///"+b.address, grpc.WithTransportCredentials(credentials.NewTLS(b.config)))
			if err != nil {
				return err
			}
			st, err := b.conns[i].NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/bare.Bare/Stream")
			if err == nil {
				err = st.SendMsg(&emptypb.Empty{})
			}
			if err == nil {
				err = st.RecvMsg(&emptypb.Empty{})
			}
			return err
		})
	}
	return g.Wait()
}

// Disconnect closes the connections.
func (b *Bare) Disconnect() {
	for _, c := range b.conns {
		if c != nil {
			_ = c.Close()
		}
	}
	b.conns = nil
}

// Stop ends clients and server.
func (b *Bare) Stop() error {
	b.Disconnect()
	return errors.Join(b.stdin.Close(), b.cmd.Wait())
}

// Anonymous is the memory in use that belongs to a process alone (RssAnon of
// /proc/PID/status), in bytes: heap and stacks, without the pages of files it has mapped.
func Anonymous(pid int) (int, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return kib * 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no RssAnon", pid)
}
