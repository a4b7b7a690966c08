package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// contextFile is what the file named by --context holds. It is a secret: mode 0600.
type contextFile struct {
	Addresses []string `yaml:"addresses"`
	CA        string   `yaml:"ca"`
	Token     string   `yaml:"token,omitempty"`
	Session   string   `yaml:"session,omitempty"` // of reeve login; counts before Token
}

// api is a connection to the cluster.
type api struct{ *client.Client }

// connect reads context and flags and makes a client. It does no I/O to the cluster.
func (a *app) connect() (*api, error) {
	ctx, err := a.loadContext()
	if err != nil {
		return nil, err
	}
	if len(ctx.Addresses) == 0 {
		return nil, usagef("no cluster is known: give --address and --ca-file, or a --context file (%s)", a.contextFile)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(ctx.CA)) {
		return nil, usagef("no authority is known for the cluster: give --ca-file, or ca in the --context file")
	}
	rt := &failover{
		addresses: ctx.Addresses,
		next: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout: 5 * time.Second, ForceAttemptHTTP2: true,
		},
	}
	token := reeve.SecretString(strings.TrimSpace(cmp.Or(ctx.Session, ctx.Token)))
	c, err := client.NewClient("https://reeve", client.WithHTTPClient(&http.Client{Transport: rt}),
		client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			if !token.Empty() {
				r.Header.Set("Authorization", "Bearer "+token.Reveal())
			}
			r.Header.Set("User-Agent", "reeve/"+reeve.Version)
			return nil
		}))
	if err != nil {
		return nil, err
	}
	return &api{c}, nil
}

func (a *app) loadContext() (contextFile, error) {
	var ctx contextFile
	if a.contextFile != "" {
		raw, err := os.ReadFile(a.contextFile)
		switch {
		case err == nil:
			dec := yaml.NewDecoder(bytes.NewReader(raw))
			dec.KnownFields(true)
			if err := dec.Decode(&ctx); err != nil {
				return ctx, usagef("context file %s cannot be read as YAML with addresses, ca, token and session", a.contextFile)
			}
		case !errors.Is(err, fs.ErrNotExist) || os.Getenv("REEVE_CONTEXT") == a.contextFile:
			return ctx, fileError("--context", a.contextFile, err)
		}
	}
	if len(a.addresses) > 0 {
		ctx.Addresses = a.addresses
	}
	if a.caFile != "" {
		raw, err := readNamed("--ca-file", a.caFile)
		if err != nil {
			return ctx, err
		}
		ctx.CA = string(raw)
	}
	if a.tokenFile != "" {
		t, err := a.readSecret(a.tokenFile, "Token")
		if err != nil {
			return ctx, err
		}
		ctx.Token, ctx.Session = t.Reveal(), ""
	}
	return ctx, nil
}

// failover sends each request to the address that answered last, and to the others
// when that one cannot be reached. Only a failed dial moves on: the request was not
// sent, so trying elsewhere is safe. While the cluster elects a leader it tries again,
// if repeating the request cannot do anything twice.
type failover struct {
	addresses []string
	current   atomic.Int32
	next      http.RoundTripper
}

// How long, and how often, a request is tried while the cluster is between leaders.
const (
	electionPatience = 20 * time.Second
	electionPause    = 100 * time.Millisecond
)

// RoundTrip implements http.RoundTripper.
func (f *failover) RoundTrip(r *http.Request) (*http.Response, error) {
	until := time.Now().Add(electionPatience)
	for {
		resp, err := f.send(r)
		if time.Now().After(until) || !repeatable(r, resp, err) {
			return resp, err
		}
		if resp != nil {
			_ = resp.Body.Close()
		}
		select {
		case <-r.Context().Done():
			return nil, r.Context().Err()
		case <-time.After(electionPause):
		}
	}
}

// repeatable says whether the cluster has no leader at the moment and the request may
// be sent again: because it surely did nothing (503), or because it has a key or only
// reads. A sealed cluster waits for people and is not waited for.
func repeatable(r *http.Request, resp *http.Response, err error) bool {
	if r.Body != nil && r.GetBody == nil {
		return false // the body is used up
	}
	safe := r.Method == http.MethodGet || r.Header.Get("Idempotency-Key") != ""
	if err != nil {
		return safe && r.Context().Err() == nil && errors.Is(err, errConnectionLost)
	}
	if resp.StatusCode != http.StatusServiceUnavailable && (resp.StatusCode != http.StatusGatewayTimeout || !safe) {
		return false
	}
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(raw))
	var p client.Problem
	return json.Unmarshal(raw, &p) == nil && p.Code != "" && p.Code != "sealed"
}

// errConnectionLost is in the error of a request that was sent and not answered.
var errConnectionLost = errors.New("the connection was lost")

func (f *failover) send(r *http.Request) (*http.Response, error) {
	var last error
	first := int(f.current.Load())
	for i := range f.addresses {
		n := (first + i) % len(f.addresses)
		out := r.Clone(r.Context())
		out.URL.Host, out.Host = f.addresses[n], f.addresses[n]
		if r.GetBody != nil {
			body, err := r.GetBody()
			if err != nil {
				return nil, err
			}
			out.Body = body
		}
		resp, err := f.next.RoundTrip(out)
		if err == nil {
			f.current.Store(int32(n))
			return resp, nil
		}
		last = err
		if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "dial" {
			return nil, fmt.Errorf("%w: %w", errConnectionLost, err)
		}
	}
	return nil, fmt.Errorf("no controller answers at %s: %w", strings.Join(f.addresses, ", "), last)
}

// call reads an answer into T, or a problem into an error. Use with a generated
// client method: call[client.Site](c.GetSite(ctx, name)).
func call[T any](resp *http.Response, err error) (T, error) {
	var out T
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return out, problem(resp)
	}
	if resp.StatusCode == http.StatusNoContent {
		return out, nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<20)).Decode(&out); err != nil {
		return out, fmt.Errorf("the answer of the controller cannot be read: %w", err)
	}
	return out, nil
}

// none is the answer of calls that give nothing back.
type none struct{}

// refusal is an answer that is not the one asked for.
type refusal struct {
	status int // of HTTP
	text   string
	// Of the problem document; empty without one.
	code, detail, fix string
}

func (r *refusal) Error() string { return r.text }

// final reports whether asking again will bring the same.
func (r *refusal) final() bool { return r.status < 500 && r.status != http.StatusTooManyRequests }

// problem reads a problem document.
func problem(resp *http.Response) error {
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var p client.Problem
	if err := json.Unmarshal(raw, &p); err != nil || p.Code == "" {
		return &refusal{status: resp.StatusCode, text: "the controller answered " + resp.Status}
	}
	msg := fmt.Sprintf("%s [%s]", p.Detail, p.Code)
	if p.Fix != nil {
		msg += "\n  to do: " + *p.Fix
	}
	if p.RequestId != nil && p.Status >= 500 {
		msg += "\n  request: " + *p.RequestId
	}
	return &refusal{resp.StatusCode, msg, p.Code, p.Detail, str(p.Fix)}
}

// newKey makes an idempotency key for one call and its repetitions.
func newKey() *string {
	k := rand.Text()
	return &k
}

// pages calls get for each page until there is no next one.
func pages(get func(cursor *string) (next *string, err error)) error {
	var cursor *string
	for {
		next, err := get(cursor)
		if err != nil || next == nil || *next == "" {
			return err
		}
		cursor = next
	}
}
