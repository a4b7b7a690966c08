package rest

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Keys of what middleware leaves in the Gin context.
const (
	requestIDKey  = "reeve.request"
	permissionKey = "reeve.permission"
)

// requestIDHeader names a request in the answer, and on its way from one controller to
// another, so that the logs of both can be put together.
const requestIDHeader = "X-Request-Id"

// observe names the request, sets the headers every answer has, and counts it.
func (s *Server) observe(c *gin.Context) {
	start := time.Now()
	defer pace(c)()
	id := rand.Text()
	if given := c.GetHeader(requestIDHeader); given != "" && fromController(c.Request) {
		id = given
	}
	c.Set(requestIDKey, id)
	h := c.Writer.Header()
	h.Set(requestIDHeader, id)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("Strict-Transport-Security", "max-age=31536000")
	defer func() { s.metrics.observe(methodOf(c.Request), c.FullPath(), c.Writer.Status(), time.Since(start)) }()
	c.Next()
}

// methodOf is the request's method for logs and metrics: a caller may send any word.
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return r.Method
	default:
		return "other"
	}
}

// refuseOddPaths refuses paths that two readers may read differently: what is a
// parameter for one would be another route for the other.
func (s *Server) refuseOddPaths(c *gin.Context) {
	u := c.Request.URL
	escaped := strings.ToLower(u.EscapedPath())
	odd := strings.Contains(escaped, "%2f") || strings.Contains(escaped, "%5c") || strings.ContainsAny(u.Path, "\\") ||
		strings.Contains(u.Path, "//") || !utf8.ValidString(u.Path) || strings.ContainsFunc(u.Path, unicode.IsControl)
	for segment := range strings.SplitSeq(u.Path, "/") {
		odd = odd || segment == "." || segment == ".."
	}
	if odd {
		s.fail(c, reeve.Errorf(reeve.Invalid, "path_invalid", "the path holds an empty part, '.', '..', or an encoded slash or control character").
			WithFix("no id and no name has these"))
	}
}

// recover turns a panic into an internal error. The panic's value goes to the log
// only by type: it may hold what the caller sent.
func (s *Server) recover(c *gin.Context) {
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			s.log.ErrorContext(c.Request.Context(), "a handler panicked", "request", c.GetString(requestIDKey), "stack", string(debug.Stack()))
			s.fail(c, reeve.Errorf(reeve.Internal, "internal", "the controller hit a defect (%T)", p).
				WithFix("report it with request %s", c.GetString(requestIDKey)))
		}
	}()
	c.Next()
}

// authenticate finds the principal behind the token or session, and whether it may do what
// it asks for.
func (s *Server) authenticate(c *gin.Context) {
	declared, known := rules[s.contract.routes[route(c)].Operation.OperationID]
	if !known {
		s.fail(c, reeve.Errorf(reeve.Internal, "rule_missing", "there is no rule for this call"))
		return
	}
	if declared.access == open {
		return
	}
	secret, err := credential(c.Request)
	if err != nil {
		s.fail(c, err)
		return
	}
	p := &permission{rule: declared}
	var stale bool
	var refused error
	err = s.view(c, func(tx *store.Tx) (err error) {
		if p.who, err = identity.Authenticate(tx, secret, callerAddress(c.Request)); err != nil {
			return err
		}
		refused = p.prove(tx, c)
		stale = p.who.UseIsStale(tx.Now())
		return nil
	})
	if err == nil && stale { // once an hour for each token, once a minute for each session
		err = s.Store.Update(c.Request.Context(), func(tx *store.Tx) error { return identity.NoteUse(tx, p.who) })
		if err != nil && reeve.KindOf(err) != reeve.Unauthenticated {
			s.log.WarnContext(c.Request.Context(), "the use of a token or session could not be noted", "request", c.GetString(requestIDKey), "error", err)
			err = nil // what was asked for may still work
		}
	}
	if err != nil {
		s.fail(c, err)
		return
	}
	c.Set(permissionKey, p)
	if refused != nil {
		s.fail(c, s.recordDenial(c, refused))
		return
	}
	defer s.watchOver(c, secret)()
	c.Next()
}

// recheck is how often a call that is under way for longer, such as a live log, proves
// itself anew.
const recheck = 2 * time.Second

// watchOver ends the request's context when the token is revoked, or the controller
// removed that the request came through (A3). The returned function ends the watch.
func (s *Server) watchOver(c *gin.Context, secret reeve.Secret) (done func()) {
	ctx, cancel := context.WithCancelCause(c.Request.Context())
	r := c.Request.WithContext(ctx)
	c.Request = r
	late := time.AfterFunc(recheck, func() {
		t := time.NewTicker(recheck)
		defer t.Stop()
		for ctx.Err() == nil {
			err := s.checkForwarder(r)
			if err == nil {
				err = s.Store.View(ctx, func(tx *store.Tx) error {
					who, err := identity.Authenticate(tx, secret, callerAddress(r))
					if err != nil {
						return err
					}
					return (&permission{who: who, rule: permissionOf(c).rule}).allowed(tx, c)
				})
			}
			if err != nil {
				cancel(err)
			}
			select {
			case <-ctx.Done():
			case <-t.C:
			}
		}
	})
	return func() {
		late.Stop()
		cancel(nil)
	}
}

// bearer takes the token out of an Authorization header.
func bearer(header string) (reeve.Secret, error) {
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return reeve.Secret{}, reeve.Errorf(reeve.Unauthenticated, "token_missing", "this call needs a bearer token").
			WithFix("send Authorization: Bearer …; with the command line: reeve login, or --token-file")
	}
	return reeve.SecretString(token), nil
}

// validate checks the request against the contract.
func (s *Server) validate(c *gin.Context) {
	if err := s.contract.check(c); err != nil {
		s.fail(c, err)
	}
}

// actor is who audit says did it.
func (s *Server) actor(c *gin.Context) audit.Actor {
	if p := permissionOf(c); p != nil {
		return p.who.Actor(callerIP(c.Request), string(s.Node))
	}
	return audit.Actor{Kind: "anonymous", From: callerIP(c.Request), Node: string(s.Node)}
}

// callerIP is the peer's address, or what a fellow controller says it was: only a
// request that came with a node certificate may carry X-Forwarded-For.
func callerIP(r *http.Request) string {
	if f := r.Header.Get("X-Forwarded-For"); f != "" && fromController(r) {
		return f
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// callerAddress is callerIP for comparing; the zero Addr if it is none.
func callerAddress(r *http.Request) netip.Addr {
	a, _ := netip.ParseAddr(callerIP(r))
	return a.Unmap()
}

// refuseRemoved refuses a controller that was removed, also on a connection it has had
// open since before: nothing it says of others counts any more.
func (s *Server) refuseRemoved(c *gin.Context) {
	if err := s.checkForwarder(c.Request); err != nil {
		s.fail(c, err)
	}
}

// checkForwarder fails with Denied "node_removed" if the request came from a controller
// that was removed.
func (s *Server) checkForwarder(r *http.Request) error {
	if !fromController(r) {
		return nil
	}
	err := s.Store.View(r.Context(), func(tx *store.Tx) error {
		_, err := pki.CheckNode(tx, r.TLS.VerifiedChains[0][0])
		return err
	})
	if reeve.CodeOf(err) == "node_removed" {
		return err
	}
	return nil // one that lags behind may not know its fellows yet
}

// fromController reports whether the caller showed a certificate: the listener lets in
// no others than those of this cluster's controllers.
func fromController(r *http.Request) bool { return r.TLS != nil && len(r.TLS.VerifiedChains) > 0 }
