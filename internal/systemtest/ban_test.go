package systemtest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/reeve-pam/reeve/agent/link"
	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/internal/systemtest"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// banBound is how late anything may still succeed for who was banned; A3 gives the figure.
const banBound = 5 * time.Second

// banned is one way in of somebody who is shut out: use must succeed before, and once
// banBound is over no more. An open stream is used by reading on: it must have ended.
type banned struct {
	name string
	use  func(context.Context) error
	why  func(error) bool // the refusal is this one, and no accident
}

// Whoever is banned, revoked or removed is shut out of every listener within 5 s, on
// connections and streams that were open before as on new ones.
func TestBanActsWithinFiveSecondsOnEveryListener_A3(t *testing.T) {
	t.Parallel()
	shared.of(t)
	c := systemtest.Start(t, systemtest.Options{Nodes: 3})
	leader := c.Leader()
	follower, gone := (leader+1)%3, (leader+2)%3

	// A job that stands still in its work has a live log to follow.
	a := c.Agent("held", systemtest.AgentOptions{})
	g := c.AddAsset("held", "held", shared.target(t, "ssh"))
	account := c.Provision("held", g).Id
	a.Stop()
	p := pauseAt(t, "after-apply", false)
	a.Restart(p.crash)
	job := c.Act(account, "rotate", "")
	p.wait(t)

	t.Run("a banned agent", func(t *testing.T) {
		c := c.For(t)
		old := c.Agent("banned", systemtest.AgentOptions{})
		old.Stop()
		open := func() *link.Link {
			l, err := link.Open(link.Config{Dir: old.Data, Version: reeve.Version, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		l := open()
		t.Cleanup(l.Close)
		renew := func(l *link.Link) func(context.Context) error {
			return func(ctx context.Context) error {
				return callOnce(ctx, l, func(ctx context.Context, api agentv1.AgentServiceClient) error {
					_, err := api.RenewLeases(ctx, &agentv1.RenewLeasesRequest{})
					return err
				})
			}
		}
		pulls := opened(t, func(ctx context.Context, began func()) error {
			return callOnce(ctx, l, func(ctx context.Context, api agentv1.AgentServiceClient) error {
				s, err := api.PullJobs(ctx)
				if err != nil {
					return err
				}
				if err := s.Send(&agentv1.PullJobsRequest{Credits: 1}); err != nil && !errors.Is(err, io.EOF) {
					return err
				}
				for {
					if _, err := s.Recv(); err != nil {
						return err
					}
					began()
				}
			})
		})
		logs := opened(t, func(ctx context.Context, began func()) error {
			return callOnce(ctx, l, func(ctx context.Context, api agentv1.AgentServiceClient) error {
				s, err := api.StreamLogs(ctx)
				if err != nil {
					return err
				}
				began()
				_, err = s.Recv()
				return err
			})
		})
		shutOut(t, func() {
			must(c, func(api *client.Client) (*http.Response, error) {
				return api.BanAgent(t.Context(), old.ID, nil, client.ReasonRequest{Reason: "test"})
			})
		}, []banned{
			{"a call on an open connection", renew(l), refused},
			{"a call on a new connection", func(ctx context.Context) error {
				fresh := open()
				defer fresh.Close()
				return renew(fresh)(ctx)
			}, refused},
			{"an open stream of jobs", pulls, refused},
			{"an open stream of logs", logs, refused},
		})
	})

	t.Run("a revoked token", func(t *testing.T) {
		c := c.For(t)
		token := systemtest.Call[client.CreatedToken](c, func(api *client.Client) (*http.Response, error) {
			return api.CreateToken(t.Context(), client.TokenRequest{Name: "revoked"})
		})
		revoked := func(err error) bool {
			p, ok := errors.AsType[*fleet.ErrProblem](err)
			return ok && p.Code == "token_unknown"
		}
		var ways []banned
		for what, i := range map[string]int{"leader": leader, "follower": follower} {
			api := c.Stranger(i, token.Secret)
			ways = append(ways, banned{"a request on an open connection to the " + what, func(ctx context.Context) error {
				_, err := fleet.Answer[client.SitePage](api.ListSites(ctx, nil)) //nolint:bodyclose // Answer does
				return err
			}, revoked}, banned{"a live log at the " + what, opened(t, func(ctx context.Context, began func()) error {
				err := readLog(ctx, api, job, "", true, func(event) { began() })
				return errors.Join(errEnded, err)
			}), func(err error) bool { return errors.Is(err, errEnded) }})
		}
		shutOut(t, func() {
			must(c, func(api *client.Client) (*http.Response, error) {
				return api.RevokeToken(t.Context(), token.Token.Id, nil)
			})
		}, ways)
	})

	t.Run("a removed controller", func(t *testing.T) {
		c := c.For(t)
		conf := c.Config(gone)
		st, err := c.Status(gone)
		if err != nil {
			t.Fatal(err)
		}
		c.Stop(gone) // somebody has its files
		id, err := pki.OpenNodeIdentity(filepath.Join(conf.DataDir, "identity"))
		if err != nil {
			t.Fatal(err)
		}
		forward, err := id.ForwardTLS()
		if err != nil {
			t.Fatal(err)
		}
		hc := &http.Client{Transport: &http.Transport{TLSClientConfig: forward, ForceAttemptHTTP2: true}}
		t.Cleanup(hc.CloseIdleConnections)
		api, err := client.NewClient(c.URL(leader), client.WithHTTPClient(hc), client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+c.RootToken.Reveal())
			return nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		peer, err := id.NodeTLS(nil)
		if err != nil {
			t.Fatal(err)
		}
		peer.NextProtos, peer.ServerName = []string{"reeve-raft/1"}, pki.ServerName
		ways := []banned{
			{"a request on an open connection", func(ctx context.Context) error {
				_, err := fleet.Answer[client.SitePage](api.ListSites(ctx, nil)) //nolint:bodyclose // Answer does
				return err
			}, func(err error) bool {
				p, ok := errors.AsType[*fleet.ErrProblem](err)
				return ok && p.Code == "node_removed"
			}},
			{"an open live log", opened(t, func(ctx context.Context, began func()) error {
				err := readLog(ctx, api, job, "", true, func(event) { began() })
				return errors.Join(errEnded, err)
			}), func(err error) bool { return errors.Is(err, errEnded) }},
		}
		for what, i := range map[string]int{"leader": leader, "follower": follower} {
			raft := opened(t, func(ctx context.Context, began func()) error {
				return holdPeer(ctx, c.Config(i).Raft.Address(), peer, began)
			})
			ways = append(ways, banned{"an open connection to the peers' port of the " + what, raft, isClosed},
				banned{"a new connection to it", func(ctx context.Context) error {
					ctx, cancel := context.WithTimeout(ctx, time.Second)
					defer cancel()
					err := holdPeer(ctx, c.Config(i).Raft.Address(), peer, func() {})
					if errors.Is(err, context.DeadlineExceeded) {
						return nil // it was kept for all that time
					}
					return err
				}, isClosed})
		}
		shutOut(t, func() {
			c.Eventually("the controller is removed", func() (bool, string) { // refused while another seems sick
				_, err := fleet.Answer[[]byte](c.Client(c.Leader()).RemoveNode(t.Context(), st.Node, nil)) //nolint:bodyclose // Answer does
				return err == nil, fmt.Sprint(err)
			})
		}, ways)
	})
}

// refused reports that the gateway does not serve this agent.
func refused(err error) bool { return status.Code(err) == codes.PermissionDenied }

// callOnce is Call of a link that does not wait for the end of a ban.
func callOnce(ctx context.Context, l *link.Link, fn func(context.Context, agentv1.AgentServiceClient) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return l.Call(ctx, func(ctx context.Context, api agentv1.AgentServiceClient) error {
		err := fn(ctx, api)
		if refused(err) {
			cancel()
		}
		return err
	})
}

var errEnded = errors.New("the stream has ended")

// isClosed is what a peer sees that is turned away or cut off, and not the lack of a listener.
func isClosed(err error) bool {
	_, alert := errors.AsType[tls.AlertError](err)
	return errors.Is(err, io.EOF) || alert || strings.Contains(err.Error(), "remote error") || strings.Contains(err.Error(), "reset by peer")
}

// holdPeer opens a connection as controllers do among each other and holds it until ctx
// ends, or the other side closes it.
func holdPeer(ctx context.Context, addr string, conf *tls.Config, began func()) error {
	conn, err := (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	began()
	_, err = conn.Read(make([]byte, 1))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// opened runs a stream in the background and waits until it has begun. The use of it is
// to see that it goes on: the function returned fails with what ended it.
func opened(t *testing.T, run func(ctx context.Context, began func()) error) (use func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	began, ended := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var err error
	go func() {
		defer close(ended)
		err = run(ctx, func() { once.Do(func() { close(began) }) })
	}()
	t.Cleanup(func() { cancel(); <-ended })
	select {
	case <-began:
	case <-ended:
		t.Fatalf("a stream ended before it began: %v", err)
	case <-time.After(systemtest.Patience):
		t.Fatal("a stream did not begin")
	}
	return func(context.Context) error {
		select {
		case <-ended:
			return err
		default:
			return nil
		}
	}
}

// shutOut sees every way in work, bans, and uses each again and again: none may succeed
// after banBound, and it must be for the ban that it does not.
func shutOut(t *testing.T, ban func(), ways []banned) {
	t.Helper()
	for _, w := range ways {
		if err := w.use(t.Context()); err != nil {
			t.Fatalf("%s does not work before the ban: %v", w.name, err)
		}
	}
	ban()
	at := time.Now()
	var wg sync.WaitGroup
	for _, w := range ways {
		wg.Go(func() {
			for {
				began := time.Now()
				err := w.use(t.Context())
				switch {
				case err != nil && !w.why(err):
					t.Errorf("%s failed, and not for the ban: %v", w.name, err)
					return
				case err != nil:
					t.Logf("%s: shut out after %s: %v", w.name, began.Sub(at).Round(time.Millisecond), err)
					return
				case began.Sub(at) > banBound:
					t.Errorf("%s still works %s after the ban", w.name, began.Sub(at))
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	wg.Wait()
}

// must is Call for an answer that nobody reads.
func must(c *systemtest.Cluster, call func(*client.Client) (*http.Response, error)) {
	systemtest.Call[[]byte](c, call)
}
