// Package rest is the public face of a controller: Gin handlers that implement the
// contract in api/openapi.yaml. It owns authentication of callers, validation,
// forwarding to the leader, idempotency keys and problem documents; every decision
// about the domain is made below it. Only package controller imports it.
package rest

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/audit/sink"
	"github.com/reeve-pam/reeve/controller/cluster"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/lifecycle"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Config is what the API needs of the controller around it.
type Config struct {
	Node    reeve.NodeID
	Name    string // of this node
	Cluster string // id
	Version string

	Store  *store.Store
	Raft   *cluster.Node
	Seal   *seal.Manager
	Vault  *vault.Vault
	Broker *jobs.Broker

	Lifecycle *lifecycle.Engine
	Pulse     *service.Pulse // of the loops of this node, while it leads
	Sinks     *sink.Delivery // for tests of sinks

	Authority *pki.Authority
	// Restore replaces all state by a snapshot of this cluster, after checking it.
	Restore func(ctx context.Context, by audit.Actor, snapshot io.Reader) error

	// ForwardTLS is how this node dials the API of the leader: mutual TLS with the
	// node's own certificate.
	ForwardTLS *tls.Config
	Metrics    *prometheus.Registry
	Logger     *slog.Logger
}

// Server answers the API.
type Server struct {
	Config
	log      *slog.Logger
	contract *contract
	forward  *forwarder
	metrics  *apiMetrics
	denials  denials
}

// New makes the API of a node. Use Handler for a listener.
func New(cfg Config) (*Server, error) {
	ct, err := newContract()
	if err == nil {
		err = ct.checkRules()
	}
	if err != nil {
		return nil, err
	}
	s := &Server{Config: cfg, log: cfg.Logger, contract: ct, metrics: newAPIMetrics(cfg.Metrics)}
	s.forward = newForwarder(cfg)
	return s, nil
}

// Handler is the whole API, with health and metrics.
func (s *Server) Handler() http.Handler {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.HandleMethodNotAllowed = true
	r.RedirectTrailingSlash, r.RedirectFixedPath = false, false
	r.ContextWithFallback = true // a *gin.Context then carries the request's context
	r.Use(s.observe, s.recover, s.refuseOddPaths)
	r.GET("/livez", s.livez)
	r.GET("/readyz", s.readyz)
	r.GET("/metrics", s.serveMetrics)
	serveKeyPage(r)
	r.NoRoute(func(c *gin.Context) { s.fail(c, nothingHere()) })
	r.NoMethod(func(c *gin.Context) {
		s.fail(c, reeve.Errorf(methodNotAllowed, "method_not_allowed", "this path does not take that method").
			WithFix("it takes %s", c.Writer.Header().Get("Allow")))
	})
	// Errors of decoding what the contract check let pass, such as the 31st of February,
	// quote it: they go no further.
	unreadable := func(c *gin.Context, _ error) {
		s.fail(c, reeve.Errorf(reeve.Invalid, "malformed_request", "the request could not be read").WithFix("send it as the API description says"))
	}
	api := r.Group("/", s.refuseRemoved, s.refuseCrossSite, s.forwardToLeader, s.authenticate, s.validate)
	RegisterHandlersWithOptions(api, NewStrictHandlerWithOptions(s, nil, StrictGinServerOptions{
		RequestErrorHandlerFunc: unreadable, HandlerErrorFunc: func(c *gin.Context, err error) { s.fail(c, s.recordDenial(c, err)) }, ResponseErrorHandlerFunc: s.fail,
	}), GinServerOptions{ErrorHandler: func(c *gin.Context, err error, _ int) { unreadable(c, err) }})
	return r
}

func nothingHere() *reeve.Error {
	return reeve.Errorf(reeve.NotFound, "route_not_found", "there is nothing at this path").WithFix("see api/openapi.yaml")
}

var _ StrictServerInterface = (*Server)(nil)

// view reads with the certainty that this node still leads and has applied
// everything that was acknowledged before.
func (s *Server) view(ctx context.Context, fn func(*store.Tx) error) error {
	c := ginContext(ctx)
	p := permissionOf(ctx)
	ctx = c.Request.Context() // a Gin context serves the next request when this one is over
	if err := s.Raft.VerifyLeader(ctx); err != nil {
		return err
	}
	return s.Store.View(ctx, func(tx *store.Tx) error {
		if p != nil {
			if err := p.prove(tx, c); err != nil {
				return err
			}
		}
		if err := fn(tx); err != nil {
			return err
		}
		return p.answered()
	})
}

// ginContext is the Gin context a strict handler was called with.
func ginContext(ctx context.Context) *gin.Context {
	c, _ := ctx.(*gin.Context)
	return c
}
