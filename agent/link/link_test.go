package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/reeve-pam/reeve/agent/agenttest"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/jointoken"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

var quiet = slog.New(slog.DiscardHandler)

// enrolled returns the directory of a fresh agent.
func enrolled(t testing.TB, c *agenttest.Controller) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := Enroll(t.Context(), dir, c.Token(t), "1", quiet); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t testing.TB, dir string) *Link {
	t.Helper()
	l, err := Open(Config{Dir: dir, Version: "1", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	l.dial.rand = func() float64 { return 0 } // no waiting in tests
	t.Cleanup(l.Close)
	return l
}

// works makes one authenticated call, and opens what the controller would seal now.
func works(t testing.TB, l *Link, c *agenttest.Controller) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := l.Call(ctx, func(ctx context.Context, a agentv1.AgentServiceClient) error {
		_, err := a.RenewLeases(ctx, &agentv1.RenewLeasesRequest{})
		return err
	})
	if err != nil {
		return err
	}
	id := l.Identity()
	var key []byte
	c.With(func(s *agenttest.State) { key = s.Agents[string(id.Agent)].HPKE })
	public, err := envelope.ParsePublicKey(key)
	if err != nil {
		return err
	}
	b := envelope.Binding{Cluster: id.Cluster, Site: id.Site, Agent: id.Agent, Job: "job_1", Fence: 1, Connector: "toy"}
	ref := envelope.Ref{Slot: "current", Secret: "sec_1", Version: 1}
	enc, sealed, err := envelope.Seal(public, b, ref, reeve.SecretString("c4nary"))
	if err != nil {
		return err
	}
	s, err := l.OpenSecret(b, ref, enc, sealed)
	if err == nil && s.Reveal() != "c4nary" {
		err = fmt.Errorf("opened to something else")
	}
	return err
}

func TestEnrolledAgentSpeaksToItsController(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	dir := enrolled(t, c)
	l := open(t, dir)
	if err := works(t, l, c); err != nil {
		t.Fatal(err)
	}
	id := l.Identity()
	if id.Cluster != agenttest.Cluster || id.Site != agenttest.Site || id.Name != "agent-1" || id.Generation != 1 {
		t.Errorf("identity %+v", id)
	}
	if info, err := os.Stat(filepath.Join(dir, fileName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("identity file: %v %v", info, err)
	}
	if _, err := Enroll(t.Context(), dir, c.Token(t), "1", quiet); reeve.CodeOf(err) != "agent_enrolled" {
		t.Errorf("enrolled twice: %v", err)
	}
}

// fault makes one call of a method fail, before or after the controller has done it.
func fault(c *agenttest.Controller, method string, after bool) {
	left := 1
	fn := func(m string) error {
		if m == method && left > 0 {
			left--
			return status.Error(codes.PermissionDenied, "dropped") // ends the process' try, as a crash would
		}
		return nil
	}
	c.With(func(s *agenttest.State) {
		if after {
			s.After = fn
		} else {
			s.Before = fn
		}
	})
}

// Enrolment is interrupted with the request lost, with the answer lost, or by a crash
// before or after the answer was written. The next try ends with the same, working
// agent.
func TestInterruptedEnrolmentGivesTheSameAgent_A4(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"request lost", "answer lost", "crash before the answer is kept", "crash before keys are kept"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			c := agenttest.NewController(t)
			dir, token := t.TempDir(), c.Token(t)
			again := func() reeve.Secret { return reeve.SecretString(token.Reveal()) }
			switch point {
			case "request lost", "answer lost":
				fault(c, "Enroll", point == "answer lost")
				if _, err := Enroll(t.Context(), dir, again(), "1", quiet); err == nil {
					t.Fatal("no fault")
				}
			case "crash before the answer is kept":
				if _, err := Enroll(t.Context(), dir, again(), "1", quiet); err != nil {
					t.Fatal(err)
				}
				f, err := readFile(dir) // put the file back to what it was before the answer
				if err != nil {
					t.Fatal(err)
				}
				before := &file{Cluster: f.Cluster, Seeds: f.Seeds, Pending: &f.Next.keys}
				if err := before.write(dir); err != nil {
					t.Fatal(err)
				}
			case "crash before keys are kept":
				if err := os.WriteFile(filepath.Join(dir, ".tmp-1"), []byte("half a fi"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			id, err := Enroll(t.Context(), dir, again(), "1", quiet)
			if err != nil {
				t.Fatal(err)
			}
			c.With(func(s *agenttest.State) {
				if len(s.Agents) != 1 || s.Agents[string(id.Agent)] == nil {
					t.Errorf("%d agents", len(s.Agents))
				}
			})
			if err := works(t, open(t, dir), c); err != nil {
				t.Error(err)
			}
		})
	}
}

// A renewal is interrupted at every point at which a message can be lost or the agent
// can die. Afterwards the agent works, and the next renewal succeeds.
func TestInterruptedRenewalNeverStrands_A4(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"nothing", "request lost", "answer lost", "crash with the answer not kept",
		"crash with the answer kept", "first use lost", "answer to first use lost"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			c := agenttest.NewController(t)
			dir := enrolled(t, c)
			l := open(t, dir)
			if err := l.prove(t.Context()); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			stop := func() { cancel() }
			lose := func(method string, after bool) {
				fn := func(m string) error {
					if m == method {
						stop() // the agent dies with it
						return status.Error(codes.Unavailable, "lost")
					}
					return nil
				}
				c.With(func(s *agenttest.State) {
					if after {
						s.After = fn
					} else {
						s.Before = fn
					}
				})
			}
			before, err := os.ReadFile(filepath.Join(dir, fileName))
			if err != nil {
				t.Fatal(err)
			}
			switch point {
			case "request lost":
				lose("Renew", false)
			case "answer lost", "crash with the answer not kept":
				lose("Renew", true)
			case "first use lost", "crash with the answer kept":
				lose("RenewLeases", false)
			case "answer to first use lost":
				lose("RenewLeases", true)
			}
			err = l.renew(ctx)
			if (err == nil) != (point == "nothing") {
				t.Fatalf("renewal: %v", err)
			}
			if point == "crash with the answer not kept" { // nor the keys, as with a disk that lied
				if err := os.WriteFile(filepath.Join(dir, fileName), before, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c.With(func(s *agenttest.State) { s.Before, s.After = nil, nil })

			next := open(t, dir) // a new process
			if point == "crash with the answer not kept" {
				// Only the certificate survives such a disk: the old one must still do.
				if err := worksWithCertificate(t, next); err != nil {
					t.Fatal(err)
				}
				return
			}
			if err := works(t, next, c); err != nil {
				t.Fatalf("stranded: %v", err)
			}
			if err := next.prove(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := next.renew(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := works(t, next, c); err != nil {
				t.Errorf("after the next renewal: %v", err)
			}
		})
	}
}

func worksWithCertificate(t testing.TB, l *Link) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return l.Call(ctx, func(ctx context.Context, a agentv1.AgentServiceClient) error {
		_, err := a.RenewLeases(ctx, &agentv1.RenewLeasesRequest{})
		return err
	})
}

// A renewal whose certificate was never proven is followed by another: what was sealed
// to the key in between still opens.
func TestRenewalAfterAnUnprovenOneLosesNoKey_A4(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	l := open(t, enrolled(t, c))
	if err := l.prove(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.With(func(s *agenttest.State) {
		s.Before = func(m string) error {
			if m == "RenewLeases" {
				cancel()
				return status.Error(codes.Unavailable, "lost")
			}
			return nil
		}
	})
	if err := l.renew(ctx); err == nil {
		t.Fatal("no fault")
	}
	between := l.file.Next.HPKE
	c.With(func(s *agenttest.State) { s.Before = nil })
	if err := l.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := works(t, l, c); err != nil {
		t.Error(err)
	}
	if !slices.ContainsFunc(l.file.Retired, func(r retired) bool { return bytes.Equal(r.HPKE, between) }) {
		t.Error("the key in between was forgotten")
	}
}

func TestAddressesMayChangeDuringCalls(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	l := open(t, enrolled(t, c))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 200 {
			l.SetAddresses([]string{c.Address, fmt.Sprintf("127.0.0.1:%d", i+1)})
			l.dial.reset()
		}
	}()
	for range 20 {
		if err := works(t, l, c); err != nil {
			t.Error(err)
		}
	}
	<-done
}

// A job sealed before a renewal opens after it, and after the next one.
func TestJobSealedBeforeARenewalStillOpens(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	l := open(t, enrolled(t, c))
	if err := l.prove(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := l.Identity()
	var key []byte
	c.With(func(s *agenttest.State) { key = s.Agents[string(id.Agent)].HPKE })
	public, err := envelope.ParsePublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b := envelope.Binding{Cluster: id.Cluster, Site: id.Site, Agent: id.Agent, Job: "job_1", Fence: 1, Connector: "toy"}
	enc, sealed, err := envelope.Seal(public, b, envelope.Ref{Slot: "current"}, reeve.SecretString("c4nary"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s, err := l.OpenSecret(b, envelope.Ref{Slot: "current"}, enc, sealed); err != nil || s.Reveal() != "c4nary" {
			t.Fatalf("lost: %v", err)
		}
	}
	b.Fence++
	if _, err := l.OpenSecret(b, envelope.Ref{Slot: "current"}, enc, sealed); reeve.CodeOf(err) != "envelope_invalid" {
		t.Errorf("opened for another fence: %v", err)
	}
	l.file.promote(time.Now().Add(hpkeOverlap + time.Second))
	if len(l.file.Retired) > 1 {
		t.Errorf("%d old keys are kept for ever", len(l.file.Retired))
	}
}

// First contact is with whoever has the CA of the token, a certificate of a node, and
// nobody else.
func TestFirstContactIsAuthenticated(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	for name, cert := range map[string]func() (s string){
		"another CA":           func() string { return c.Serve(t, agenttest.NewCA(t, agenttest.Cluster).Node(t)) },
		"an agent":             func() string { return c.Serve(t, c.CA.Issue(t, "/site/s/agent/a")) },
		"no path":              func() string { return c.Serve(t, c.CA.Issue(t, "")) },
		"node of another name": func() string { return c.Serve(t, agenttest.NewCA(t, "other").Node(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_, err := Enroll(ctx, t.TempDir(), c.Token(t, cert()), "1", quiet)
			if reeve.CodeOf(err) != "controller_untrusted" {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Cleanup(func() {
		c.With(func(s *agenttest.State) {
			if slices.Contains(s.Calls, "Enroll") {
				t.Error("the token was shown to an impostor")
			}
		})
	})
}

func TestRefusedTokenIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	tok, err := jointoken.Parse(c.Token(t))
	if err != nil {
		t.Fatal(err)
	}
	tok.Secret = reeve.SecretString("c4nary-never-given-out")
	text, err := tok.Encode()
	if err != nil {
		t.Fatal(err)
	}
	_, err = Enroll(t.Context(), t.TempDir(), text, "1", quiet)
	if reeve.CodeOf(err) != "enrolment_refused" || strings.Contains(err.Error(), "c4nary") {
		t.Errorf("got %v", err)
	}
}

// The token's secret is nowhere in the directory or the log after enrolment.
func TestTokenIsNotKept_K1(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	token := c.Token(t)
	parsed, err := jointoken.Parse(token)
	if err != nil {
		t.Fatal(err)
	}
	secret := slices.Clone(parsed.Secret.Bytes())
	dir, log := t.TempDir(), &bytes.Buffer{}
	if _, err := Enroll(t.Context(), dir, token, "1", slog.New(slog.NewJSONHandler(log, nil))); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{raw, log.Bytes()} {
		if bytes.Contains(b, secret) || bytes.Contains(b, []byte(token.Reveal())) {
			t.Error("found")
		}
	}
}

// follower answers every call with where the leader is.
func follower(t testing.TB, c *agenttest.Controller, leader string) string {
	t.Helper()
	f := agenttest.NewController(t)
	f.CA = c.CA
	s, err := status.New(codes.FailedPrecondition, "not the leader").WithDetails(&agentv1.NotLeader{LeaderAddress: leader, Addresses: []string{leader}})
	if err != nil {
		t.Fatal(err)
	}
	f.With(func(st *agenttest.State) { st.Before = func(string) error { return s.Err() } })
	return f.Serve(t, c.CA.Node(t))
}

func TestCallFollowsTheLeaderAtOnce(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	l := open(t, enrolled(t, c))
	l.dial.rand = func() float64 { return 1 } // a wait would be seen
	l.dial.address = follower(t, c, c.Address)
	began := time.Now()
	if err := works(t, l, c); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > backoffBase {
		t.Errorf("took %s", took)
	}
}

func TestCallPassesByDeadControllers_C66(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	dir := enrolled(t, c)
	l := open(t, dir)
	l.SetAddresses([]string{"127.0.0.1:1", "127.0.0.1:2"}) // all gone; only the seed lives
	l.dial.reset()
	l.dial.address = "127.0.0.1:1"
	if err := works(t, l, c); err != nil {
		t.Fatalf("the seed was forgotten: %v", err)
	}
	f, err := readFile(dir)
	if err != nil || !slices.Equal(f.known(), []string{"127.0.0.1:1", "127.0.0.1:2", c.Address}) {
		t.Errorf("kept %v, %v", f.known(), err)
	}
}

func TestRedialWaitsLongerEachTimeWithFullJitter_C65(t *testing.T) {
	t.Parallel()
	d := newDialer([]string{"a:1", "b:1"}, quiet, func() (*tls.Config, error) { return &tls.Config{MinVersion: tls.VersionTLS13}, nil })
	unavailable := status.Error(codes.Unavailable, "down")
	for _, r := range []float64{0, 0.5, 1} {
		d.rand = func() float64 { return r }
		for tries, limit := range map[int]time.Duration{1: backoffBase, 2: 2 * backoffBase, 4: 8 * backoffBase, 9: backoffMax, 1000: backoffMax} {
			if got, _ := d.failed(nil, unavailable, tries, false); got != time.Duration(r*float64(limit)) {
				t.Errorf("try %d: %s of %s", tries, got, limit)
			}
		}
	}
	hint, err := status.New(codes.Unavailable, "busy").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(4 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	d.rand = func() float64 { return 0.5 }
	if got, _ := d.failed(nil, hint.Err(), 1, false); got != 6*time.Second {
		t.Errorf("with a hint of 4 s: %s", got)
	}
}

func TestRenewalIsDueAtHalfLifeWithJitter(t *testing.T) {
	t.Parallel()
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	to := from.Add(24 * time.Hour)
	for r, want := range map[float64]time.Duration{0: 9*time.Hour + 36*time.Minute, 0.5: 12 * time.Hour, 1: 14*time.Hour + 24*time.Minute} {
		if got := renewAt(from, to, r).Sub(from).Round(time.Second); got != want {
			t.Errorf("%v: %s, want %s", r, got, want)
		}
	}
}

func TestRunRenewsBeforeTheCertificateExpires(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	c.Lifetime = 3 * time.Second
	l := open(t, enrolled(t, c))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	c.Wait(t, "third generation", func(s *agenttest.State) bool {
		return s.Agents[string(l.Identity().Agent)].Generation >= 3
	})
	if err := works(t, l, c); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDirectoryWithoutAnAgentIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := Open(Config{Dir: t.TempDir(), Logger: quiet}); reeve.CodeOf(err) != "agent_not_enrolled" {
		t.Errorf("got %v", err)
	}
}

func FuzzIdentityFile(f *testing.F) {
	f.Add([]byte(`{"cluster":"c","seeds":["a:1"],"current":{"tls_pkcs8":"AA==","hpke":"AA==","certificate_der":"AA=="}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		f, err := parseFile("dir", raw)
		if err == nil && len(f.known()) == 0 {
			t.Fatal("accepted without an address")
		}
		if err != nil && reeve.CodeOf(err) != "identity_unreadable" {
			t.Fatalf("got %v", err)
		}
	})
}
