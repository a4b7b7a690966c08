package gateway

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"runtime"
	"time"

	"google.golang.org/grpc/credentials"
)

// turns bounds what new connections compute side by side, so that a crowd of agents that
// comes back after a failover takes neither the processors from the calls of those that
// are there nor the time from each other. A connection has a turn only while it computes,
// never while it waits for its peer: who connects and says nothing keeps nobody waiting.
type turns struct {
	begin  chan struct{} // to answer a hello
	finish chan struct{} // to check what came back, so that those begun do not wait behind new ones
	stop   <-chan struct{}
}

func newTurns(n int, stop <-chan struct{}) *turns {
	return &turns{begin: make(chan struct{}, n), finish: make(chan struct{}, n), stop: stop}
}

// A place rests restShare times as long as its answer has taken by the clock, which is long
// where processors are contended, within these bounds. The lower one is what a crowd gets on
// an idle machine: some 200 in a second from each place.
const (
	restShare = 4
	restMin   = 4 * time.Millisecond
	restMax   = 100 * time.Millisecond
)

func rest(took time.Duration) time.Duration { return min(max(restShare*took, restMin), restMax) }

// handshakesAtOnce leaves half of the processors to calls while all others are beginners.
func handshakesAtOnce() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// queued are TLS credentials whose server handshakes take turns.
type queued struct {
	credentials.TransportCredentials
	turns *turns
}

func newQueued(config *tls.Config, t *turns) queued {
	config = config.Clone()
	each := config.GetConfigForClient
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if a, ok := hello.Conn.(*arrival); ok {
			if err := a.begin(); err != nil {
				return nil, err
			}
		}
		if each == nil {
			return nil, nil //nolint:nilnil // the config as it is
		}
		return each(hello)
	}
	return queued{credentials.NewTLS(config), t}
}

// ServerHandshake implements credentials.TransportCredentials. The peer has the deadline
// that conn came with to say hello, and handshakeTimeout from its turn on for the rest.
func (q queued) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	a := &arrival{Conn: conn, turns: q.turns}
	defer func() {
		a.yield()
		a.done = true
	}()
	return q.TransportCredentials.ServerHandshake(a)
}

// Clone implements credentials.TransportCredentials.
func (q queued) Clone() credentials.TransportCredentials {
	return queued{q.TransportCredentials.Clone(), q.turns}
}

// arrival is a connection during its handshake; afterwards it only passes on.
type arrival struct {
	net.Conn
	turns       *turns
	held        chan struct{} // where its turn is from, nil if it has none
	since       time.Time     // it began to answer the hello
	begun, done bool
	ahead       []byte // what was read while it waited
}

var past = time.Unix(1, 0)

var errStopping = errors.New("gateway: shutting down")

// begin waits for a turn. It fails when the peer goes away meanwhile, or the server stops.
func (a *arrival) begin() error {
	select {
	case a.turns.begin <- struct{}{}:
	default:
		if err := a.wait(); err != nil {
			return err
		}
	}
	a.held, a.begun, a.since = a.turns.begin, true, time.Now()
	return a.SetDeadline(time.Now().Add(handshakeTimeout))
}

// wait is begin when there is a queue. It listens to the peer, who has nothing to say
// now, to learn that it has gone: a handshake that was given up is not worth a turn.
func (a *arrival) wait() error {
	if err := a.SetDeadline(time.Time{}); err != nil {
		return err
	}
	heard := make(chan error, 1)
	go func() { // ends with wait, or before
		var b [1]byte
		n, err := a.Conn.Read(b[:])
		a.ahead = b[:n]
		heard <- err
	}()
	quiet := func() error {
		if err := a.SetDeadline(past); err != nil {
			return err
		}
		if err := <-heard; !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		return nil
	}
	select {
	case a.turns.begin <- struct{}{}:
		err := quiet()
		if err != nil {
			<-a.turns.begin
		}
		return err
	case <-a.turns.stop:
		return errors.Join(errStopping, quiet())
	case err := <-heard:
		if err != nil {
			return err
		}
	}
	select { // it talks although it is not its turn; what it says is kept
	case a.turns.begin <- struct{}{}:
		return nil
	case <-a.turns.stop:
		return errors.Join(errStopping, a.SetDeadline(past)) // without a last word
	}
}

// yield gives the turn back.
func (a *arrival) yield() {
	held := a.held
	a.held = nil
	switch held {
	case nil:
	case a.turns.begin:
		time.AfterFunc(rest(time.Since(a.since)), func() { <-held })
	default:
		<-held
	}
}

// Read implements net.Conn.
func (a *arrival) Read(p []byte) (int, error) {
	if a.done && len(a.ahead) == 0 {
		return a.Conn.Read(p)
	}
	a.yield()
	if len(a.ahead) > 0 {
		n := copy(p, a.ahead)
		a.ahead = a.ahead[n:]
		return n, nil
	}
	n, err := a.Conn.Read(p)
	if n > 0 && a.begun {
		a.turns.finish <- struct{}{}
		a.held = a.turns.finish
	}
	return n, err
}

// Write implements net.Conn.
func (a *arrival) Write(p []byte) (int, error) {
	if !a.done {
		a.yield() // a peer may be slow to take it
	}
	return a.Conn.Write(p)
}
