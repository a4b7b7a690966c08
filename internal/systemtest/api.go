package systemtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/fleet"
)

// Patience is how long waits of this package last before they fail the test: far longer
// than anything should take on a busy machine, and longer than a job that was granted by a
// leader which died before it could send it: a minute of lease, two of quarantine, and the
// next attempt.
const Patience = 5 * time.Minute

const pollEvery = 50 * time.Millisecond

// Client is a client of node i, numbered from 0, that sends the root token.
func (c *Cluster) Client(i int) *client.Client {
	return c.clientWith(i, c.RootToken.Reveal())
}

// Stranger is a client of node i with another bearer token; empty: none.
func (c *Cluster) Stranger(i int, token string) *client.Client { return c.clientWith(i, token) }

func (c *Cluster) clientWith(i int, token string) *client.Client {
	api, err := client.NewClient(c.URL(i), client.WithHTTPClient(c.HTTP()),
		client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			return nil
		}))
	if err != nil {
		c.t.Fatal(err)
	}
	return api
}

// HTTP is a client that trusts the cluster's authority and sends no credentials.
func (c *Cluster) HTTP() *http.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http == nil {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(c.CA)
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: 30 * time.Second}
		c.http = &http.Client{Transport: transport}
	}
	return c.http
}

// Try makes a call to the running nodes in turn until one can serve it: while there is
// no leader it waits. A call that changes something must carry an idempotency key, for
// it may be sent again. Other problems are returned. It may be used from any goroutine.
func Try[T any](c *Cluster, call func(*client.Client) (*http.Response, error)) (T, error) {
	deadline := time.Now().Add(Patience)
	for {
		var out T
		err := errors.New("no node runs")
		for i := range c.nodes {
			if !c.runs(i) {
				continue
			}
			if out, err = fleet.Answer[T](call(c.Client(i))); err == nil { //nolint:bodyclose // Answer does
				return out, nil
			}
			if p, ok := errors.AsType[*fleet.ErrProblem](err); ok && !slices.Contains([]int{502, 503, 504}, p.Status) {
				return out, err
			}
		}
		if time.Now().After(deadline) {
			return out, fmt.Errorf("nobody served the call within %s: %w", Patience, err)
		}
		time.Sleep(pollEvery)
	}
}

// Call is Try that fails the test.
func Call[T any](c *Cluster, call func(*client.Client) (*http.Response, error)) T {
	c.t.Helper()
	out, err := Try[T](c, call)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// Eventually polls until ok says true, and fails the test after Patience with the last
// reason why not.
func (c *Cluster) Eventually(what string, ok func() (bool, string)) {
	c.t.Helper()
	deadline := time.Now().Add(Patience)
	for {
		yes, why := ok()
		if yes {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s did not happen within %s: %s", what, Patience, why)
		}
		time.Sleep(pollEvery)
	}
}
