package link

import (
	"context"
	"crypto/hpke"
	"crypto/tls"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// refusedRetry is how long an agent whose certificate is refused waits before it asks
// again: it may have been banned for a while only.
const refusedRetry = time.Minute

// Config is what a Link needs.
type Config struct {
	Dir     string // the data directory, enrolled
	Version string // of the agent, told to the controller
	Logger  *slog.Logger
}

// Link is an enrolled agent's tie to the controllers. Its methods are safe for
// concurrent use.
type Link struct {
	dir     string
	version string
	log     *slog.Logger
	dial    *dialer // not called with mu held: it asks for the credential with its own lock held

	mu     sync.Mutex
	file   *file
	useOld bool // the next credential was refused: use the current one
}

// Open loads the identity. Codes: agent_not_enrolled, identity_unreadable.
func Open(cfg Config) (*Link, error) {
	f, err := readFile(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if f == nil {
		f = &file{}
	}
	l := &Link{dir: cfg.Dir, version: cfg.Version, log: cfg.Logger, file: f}
	if _, err := f.identity(l.credential()); err != nil {
		return nil, err
	}
	l.dial = newDialer(f.known(), cfg.Logger, l.tlsConfig)
	return l, nil
}

// Close ends the connection, after Run and every Call have returned.
func (l *Link) Close() { l.dial.close() }

// Identity says who the agent is, by the certificate in use.
func (l *Link) Identity() Identity {
	l.mu.Lock()
	defer l.mu.Unlock()
	id, err := l.file.identity(l.credential())
	if err != nil {
		panic("link: " + err.Error()) // Open has checked that there is one
	}
	return id
}

// Call runs fn with a client of the controller that leads. While fn fails in a way that
// another try may cure (no connection, not the leader, a stream that ended), Call
// moves to another controller and runs it again after a growing, random time. It
// returns nil when fn did, fn's error when the controller has decided, and fn's last
// error when ctx ends.
func (l *Link) Call(ctx context.Context, fn func(context.Context, agentv1.AgentServiceClient) error) error {
	for {
		err := l.dial.call(ctx, fn)
		if err == nil || ctx.Err() != nil || !refused(err) {
			return err
		}
		if l.turnBack() {
			continue
		}
		l.log.Error("the controllers refuse this agent", "error", err, "retry_in", refusedRetry)
		t := time.NewTimer(refusedRetry/2 + rand.N(refusedRetry/2)) //nolint:gosec // jitter
		select {
		case <-ctx.Done():
			t.Stop()
			return err
		case <-t.C:
		}
	}
}

// refused reports whether the controller does not accept who we are.
func refused(err error) bool {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied:
		return true
	default:
		return false
	}
}

// turnBack falls back on the credential before the renewal when the new one is
// refused. It reports whether there was one to fall back on.
func (l *Link) turnBack() bool {
	l.mu.Lock()
	possible := !l.useOld && l.file.Next != nil && l.file.Current != nil
	l.useOld = l.useOld || possible
	l.mu.Unlock()
	if possible {
		l.dial.reset()
	}
	return possible
}

// credential is the one to show. l.mu is held.
func (l *Link) credential() *credential {
	if l.file.Next != nil && !l.useOld {
		return l.file.Next
	}
	return l.file.Current
}

func (l *Link) tlsConfig() (*tls.Config, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cert, err := l.credential().tls()
	if err != nil {
		return nil, err
	}
	roots, err := l.file.pool()
	if err != nil {
		return nil, err
	}
	return controllerTLS(l.file.Cluster, cert, roots, nil), nil
}

// SetAddresses takes over the controllers' addresses as a controller told them.
func (l *Link) SetAddresses(addresses []string) {
	l.mu.Lock()
	news := l.file.learn(addresses)
	var err error
	if news {
		err = l.file.write(l.dir)
	}
	l.mu.Unlock()
	if err != nil {
		l.log.Error("new controller addresses cannot be kept", "error", err)
	}
	if news {
		l.dial.use(l.known())
	}
}

// OpenSecret opens a secret of a job with the key it was sealed to. It fails with code
// envelope_invalid.
func (l *Link) OpenSecret(b envelope.Binding, r envelope.Ref, enc, ciphertext []byte) (reeve.Secret, error) {
	keys, err := l.hpkeKeys()
	if err != nil {
		return reeve.Secret{}, err
	}
	for _, k := range keys {
		var s reeve.Secret
		if s, err = envelope.Open(k, b, r, enc, ciphertext); err == nil {
			return s, nil
		}
	}
	return reeve.Secret{}, err
}

func (l *Link) hpkeKeys() ([]hpke.PrivateKey, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.hpkeKeys()
}

// Run proves a new certificate, and renews it in time, until ctx ends.
func (l *Link) Run(ctx context.Context) error {
	err := l.prove(ctx)
	for ctx.Err() == nil {
		id := l.Identity()
		wait := time.Until(renewAt(id.NotBefore, id.NotAfter, rand.Float64())) //nolint:gosec // jitter
		if err != nil {
			l.log.Error("certificate not renewed", "error", err, "not_after", id.NotAfter)
			wait = refusedRetry/2 + rand.N(refusedRetry/2) //nolint:gosec // jitter
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		err = l.renew(ctx)
	}
	return nil
}

// renewAt is when to renew a certificate: at half its life, ±10 % of its life.
// r is between 0 and 1.
func renewAt(notBefore, notAfter time.Time, r float64) time.Time {
	life := notAfter.Sub(notBefore)
	return notBefore.Add(time.Duration((0.4 + 0.2*r) * float64(life)))
}

// renew gets a new certificate for new keys and takes it into use. The credential
// before stays until the new one has worked.
func (l *Link) renew(ctx context.Context) error {
	l.mu.Lock()
	var err error
	if l.file.Pending == nil {
		if l.file.Pending, err = newKeys(); err == nil {
			err = l.file.write(l.dir) // before anybody sees the public halves
		}
	}
	var csr, public []byte
	if err == nil {
		csr, public, err = l.file.Pending.request()
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	var res *agentv1.RenewResponse
	err = l.Call(ctx, func(ctx context.Context, c agentv1.AgentServiceClient) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		var err error
		res, err = c.Renew(ctx, &agentv1.RenewRequest{CsrDer: csr, HpkePublicKey: public, Version: l.version,
			Generation: l.Identity().Generation})
		return err
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	if l.file.Next != nil { // it has just been used, or was refused
		l.file.supersede(time.Now(), !l.useOld)
	}
	err = l.file.take(res.GetIdentity())
	if err == nil {
		err = l.file.write(l.dir)
	}
	l.useOld = false
	l.mu.Unlock()
	if err != nil {
		return err
	}
	l.dial.use(l.known())
	l.dial.reset() // streams come back with the new certificate
	return l.prove(ctx)
}

func (l *Link) known() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.known()
}

// prove uses a new credential once and, when that works, makes it the current one.
func (l *Link) prove(ctx context.Context) error {
	if !l.unproven() {
		return nil
	}
	err := l.Call(ctx, func(ctx context.Context, c agentv1.AgentServiceClient) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		_, err := c.RenewLeases(ctx, &agentv1.RenewLeasesRequest{})
		return err
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.useOld {
		return reeve.Errorf(reeve.Denied, "certificate_refused", "the controllers refuse the renewed certificate; the one before still works")
	}
	l.file.promote(time.Now())
	l.log.Info("certificate in use", "generation", l.file.Current.Generation)
	return l.file.write(l.dir)
}

func (l *Link) unproven() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Next != nil
}
