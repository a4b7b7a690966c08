//go:build linux

package fleet

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// ErrProblem is a problem document with which the API refused a call.
type ErrProblem struct{ client.Problem }

func (e *ErrProblem) Error() string { return fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Detail) }

// tryTimeout bounds one attempt of Call at one controller.
const tryTimeout = 2 * time.Second

// Call makes a call to the controllers in turn until one serves it or ctx ends: while
// there is no leader, or an answer is lost, it asks again. A call that changes something
// must carry an idempotency key. The controller that answered last is asked first. Other
// problems are returned as *ErrProblem.
func Call[T any](ctx context.Context, f *Fleet, call func(context.Context, *client.Client) (*http.Response, error)) (T, error) {
	for {
		var out T
		err := errors.New("the fleet has no controllers")
		first := f.answered.Load()
		for i := range f.Controllers {
			at := (int(first) + i) % len(f.Controllers)
			var api *client.Client
			if api, err = f.Client(f.Controllers[at]); err != nil {
				return out, err
			}
			try, cancel := context.WithTimeout(ctx, tryTimeout)
			out, err = Answer[T](call(try, api)) //nolint:bodyclose // Answer does
			cancel()
			if err == nil {
				f.answered.Store(int32(at)) //nolint:gosec // a handful
				return out, nil
			}
			if p, ok := errors.AsType[*ErrProblem](err); ok && !slices.Contains([]int{http.StatusBadGateway,
				http.StatusServiceUnavailable, http.StatusGatewayTimeout}, p.Status) {
				return out, err
			}
		}
		select {
		case <-ctx.Done():
			return out, fmt.Errorf("no controller served the call: %w", errors.Join(ctx.Err(), err))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Answer reads an answer of the API: a T, or *ErrProblem. A T of []byte takes the body as
// it is, any other is decoded from JSON; an answer without a body gives the zero T.
func Answer[T any](resp *http.Response, err error) (T, error) {
	var out T
	if err != nil {
		return out, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return out, err
	}
	if resp.StatusCode >= 300 {
		p := &ErrProblem{}
		if json.Unmarshal(raw, &p.Problem) != nil || p.Code == "" {
			return out, fmt.Errorf("answer %s: %.200s", resp.Status, raw)
		}
		return out, p
	}
	if b, ok := any(&out).(*[]byte); ok {
		*b = raw
		return out, nil
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return out, nil
	}
	return out, json.Unmarshal(raw, &out)
}

// access is what it takes to call the API.
type access struct {
	token reeve.Secret
	http  *http.Client
}

// Client is a client of one controller that sends the root token, from opts.From.
func (f *Fleet) Client(c *Controller) (*client.Client, error) {
	a, err := f.credentials()
	if err != nil {
		return nil, err
	}
	return client.NewClient("https://"+c.API, client.WithHTTPClient(a.http),
		client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+a.token.Reveal())
			return nil
		}))
}

type contextFile struct {
	Addresses []string `yaml:"addresses"`
	CA        string   `yaml:"ca"`
	Token     string   `yaml:"token"`
}

func (f *Fleet) readContext() (c contextFile, err error) {
	raw, err := os.ReadFile(f.Context())
	if err != nil {
		return c, err
	}
	return c, yaml.Unmarshal(raw, &c)
}

// knowAll tells the command line of every controller, so that it can fail over.
func (f *Fleet) knowAll() error {
	c, err := f.readContext()
	if err != nil {
		return err
	}
	c.Addresses = nil
	for _, m := range f.Controllers {
		c.Addresses = append(c.Addresses, m.API)
	}
	body, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(f.Context(), body, 0o600)
}

func (f *Fleet) credentials() (*access, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.access != nil {
		return f.access, nil
	}
	c, err := f.readContext()
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(c.CA))
	t := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: tryTimeout, MaxIdleConnsPerHost: 64}
	if f.opts.From != nil {
		t.DialContext = f.opts.From.Dial
	}
	f.access = &access{token: reeve.SecretString(c.Token), http: &http.Client{Transport: t}}
	return f.access, nil
}

// hangUp closes the connections to controllers.
func (f *Fleet) hangUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.access != nil {
		f.access.http.CloseIdleConnections()
	}
}

// Members is what the cluster says of itself.
func (f *Fleet) Members(ctx context.Context) (client.Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*tryTimeout)
	defer cancel()
	return Call[client.Cluster](ctx, f, func(ctx context.Context, api *client.Client) (*http.Response, error) {
		return api.GetCluster(ctx)
	})
}

// Term is the controller's term of Raft.
func (f *Fleet) Term(ctx context.Context, c *Controller) (uint64, error) {
	a, err := f.credentials()
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.API+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	raw, err := Answer[[]byte](a.http.Do(req)) //nolint:bodyclose // Answer does
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if value, ok := strings.CutPrefix(line, "reeve_raft_term "); ok {
			return strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, fmt.Errorf("controller %s does not tell its term", c.Name)
}
