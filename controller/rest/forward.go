package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// local lists the routes that speak about this very node, and the one that a caller
// proves itself for with its own TLS certificate: forwarded, it would arrive with that
// of this node. They are never forwarded.
var local = map[string]bool{
	"GET /v1/status":         true,
	"POST /v1/seal/unseal":   true,
	"POST /v1/cluster/renew": true,
}

// sealRoute is for the node that is asked: the leader decides and records, then that
// node seals itself.
const sealRoute = "POST /v1/seal/seal"

// forwardedBy names the controller that forwarded a request, so that two nodes that each
// believe the other leads do not send it round in circles. It counts only when it came
// with a controller's certificate.
const forwardedBy = "X-Reeve-Forwarded-By"

// forwarderOf is the controller that forwarded the request, "" if it came directly.
func forwarderOf(r *http.Request) reeve.NodeID {
	if !fromController(r) {
		return ""
	}
	return reeve.NodeID(r.Header.Get(forwardedBy))
}

// A leader that is gone without a word is noticed after this long.
const (
	leaderDial    = 5 * time.Second
	leaderSilence = 10 * time.Second
	leaderPing    = 5 * time.Second
)

// forwarder sends requests on to the leader over mutual TLS. The caller's own
// Authorization header goes along: the leader decides, not the follower.
type forwarder struct {
	transport *http.Transport
	errorLog  *log.Logger
}

func newForwarder(cfg Config) *forwarder {
	return &forwarder{
		transport: &http.Transport{
			TLSClientConfig: cfg.ForwardTLS, ForceAttemptHTTP2: true,
			DialContext:         (&net.Dialer{Timeout: leaderDial}).DialContext,
			TLSHandshakeTimeout: leaderDial, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute,
			HTTP2: &http.HTTP2Config{SendPingTimeout: leaderSilence, PingTimeout: leaderPing},
		},
		errorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn),
	}
}

// forwardToLeader answers on a follower by asking the leader.
func (s *Server) forwardToLeader(c *gin.Context) {
	if local[route(c)] {
		return
	}
	if s.Raft.IsLeader() {
		if s.Seal.Sealed() {
			s.fail(c, reeve.Errorf(reeve.Sealed, "sealed", "the leading controller %s is sealed", s.Name).
				WithFix("unseal it with `reeve seal unseal`"))
		}
		return
	}
	if forwarderOf(c.Request) != "" {
		s.fail(c, noLeader())
		return
	}
	addr, err := s.leaderAPI(c)
	if err != nil {
		s.fail(c, err)
		return
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "https", addr
			r.Out.Host = addr
			r.Out.Header.Set("X-Forwarded-For", callerIP(r.In))
			r.Out.Header.Set(forwardedBy, string(s.Node))
			r.Out.Header.Set(requestIDHeader, c.GetString(requestIDKey))
			if r.Out.Body != nil && r.In.ProtoMajor == 2 {
				// A leader that refuses early does not read the body, and a caller that sees the
				// refusal does not send the rest. The proxy's own wrapper cannot be closed: the
				// one who reads the body here, and with it the answer's end, would wait for ever.
				r.Out.Body = r.In.Body
			}
		},
		Transport:     s.forward.transport,
		FlushInterval: -1, // live logs
		ErrorLog:      s.forward.errorLog,
		ModifyResponse: func(resp *http.Response) error {
			for name := range c.Writer.Header() { // set here already, to the same
				resp.Header.Del(name)
			}
			if route(c) == sealRoute && resp.StatusCode == http.StatusOK {
				return s.sealHere(resp)
			}
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) { s.fail(c, unreached(r, addr, err)) },
	}
	proxy.ServeHTTP(c.Writer, c.Request)
	c.Abort()
}

// sealHere seals this node after the leader has allowed and recorded it, and answers
// with this node's status in place of the leader's.
func (s *Server) sealHere(resp *http.Response) error {
	s.Seal.SealNode()
	body, err := json.Marshal(s.status(resp.Request.Context()))
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}

// unreached says what is known of a request that the leader did not answer.
func unreached(r *http.Request, addr string, err error) error {
	if op, ok := errors.AsType[*net.OpError](err); (ok && op.Op == "dial") || r.Method == http.MethodGet {
		return reeve.Errorf(reeve.Unavailable, "leader_unreachable", "the leading controller at %s did not answer", addr).
			WithFix("try again").Wrap(err)
	}
	return reeve.Errorf(reeve.OutcomeUnknown, "leader_silent", "the leading controller at %s did not answer; it may have done it", addr).
		WithFix("look at what there is, or repeat it with the same Idempotency-Key").Wrap(err)
}

// leaderAPI is the API address of the leader.
func (s *Server) leaderAPI(ctx context.Context) (string, error) {
	id, _, ok := s.Raft.Leader()
	if !ok {
		return "", noLeader()
	}
	var node *pki.Node
	err := s.Store.View(ctx, func(tx *store.Tx) (err error) {
		node, err = pki.GetNode(tx, id)
		return err
	})
	if err != nil {
		return "", noLeader()
	}
	return node.APIAddr, nil
}

func noLeader() *reeve.Error {
	return reeve.Errorf(reeve.Unavailable, "no_leader", "no controller leads at the moment").
		WithFix("try again in a second; if it lasts, see `reeve cluster status` on each controller")
}
