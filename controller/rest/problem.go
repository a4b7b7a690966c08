package rest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// methodNotAllowed is a kind of this edge alone: nothing below knows methods.
const methodNotAllowed reeve.Kind = "method_not_allowed"

// status is the HTTP status of each error kind. A kind that is not here is a defect
// and shows as 500.
var status = map[reeve.Kind]int{
	reeve.Invalid:          http.StatusUnprocessableEntity,
	reeve.TooLarge:         http.StatusRequestEntityTooLarge,
	reeve.Unauthenticated:  http.StatusUnauthorized,
	reeve.Denied:           http.StatusForbidden,
	reeve.NotFound:         http.StatusNotFound,
	methodNotAllowed:       http.StatusMethodNotAllowed,
	reeve.Conflict:         http.StatusConflict,
	reeve.Precondition:     http.StatusPreconditionFailed,
	reeve.TooMany:          http.StatusTooManyRequests,
	reeve.Unavailable:      http.StatusServiceUnavailable,
	reeve.Sealed:           http.StatusServiceUnavailable,
	reeve.OutcomeUnknown:   http.StatusGatewayTimeout,
	reeve.UnsupportedMedia: http.StatusUnsupportedMediaType,
	reeve.Internal:         http.StatusInternalServerError,
	reeve.Upstream:         http.StatusBadGateway,
}

// listed is what the command line lists.
var listed = map[string]bool{"account": true, "agent": true, "asset": true, "connector": true, "job": true, "role": true, "site": true, "token": true}

// problemOf translates err into what a caller may see. Causes stay inside; an error
// that is not a *reeve.Error shows as "internal" and nothing more.
func problemOf(err error, requestID string) client.Problem {
	e, ok := errors.AsType[*reeve.Error](err)
	switch {
	case ok:
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e = reeve.Errorf(reeve.OutcomeUnknown, "interrupted", "the request ended, or the controller stopped, before the answer was known").
			WithFix("look at what there is, or repeat it with the same Idempotency-Key")
	default:
		e = reeve.Errorf(reeve.Internal, "internal", "something went wrong inside the controller").
			WithFix("look for request %s in the controller's log", requestID)
	}
	code, known := status[e.Kind]
	if !known {
		code = http.StatusInternalServerError
	}
	p := client.Problem{
		Type: "urn:reeve:problem:" + e.Code, Title: strings.ReplaceAll(e.Code, "_", " "),
		Status: code, Code: e.Code, Detail: e.Message,
	}
	if what, ok := strings.CutSuffix(e.Code, "_not_found"); ok && e.Fix == "" && listed[what] {
		e = e.WithFix("see what there is: reeve %s list", what)
	}
	p.Fix, p.Field, p.RequestId = optional(e.Fix), optional(e.Field), optional(requestID)
	return p
}

// fail answers with a problem document and ends the request.
func (s *Server) fail(c *gin.Context, err error) {
	p := problemOf(err, c.GetString(requestIDKey))
	level := slog.LevelInfo
	if p.Status == http.StatusInternalServerError {
		level = slog.LevelError
	}
	s.log.Log(c.Request.Context(), level, "request failed", "request", c.GetString(requestIDKey),
		"method", methodOf(c.Request), "route", c.FullPath(), "status", p.Status, "code", p.Code, "error", err)
	c.Abort()
	if c.Writer.Written() { // half an answer must not look like a whole one
		panic(http.ErrAbortHandler)
	}
	if p.Status == http.StatusUnauthorized {
		c.Header("WWW-Authenticate", "Bearer")
	}
	if reeve.KindOf(err) == reeve.Unavailable { // a sealed controller waits for people
		c.Header("Retry-After", "1")
	}
	if s.showsPage(c) {
		if page, err := failurePage(c, p); err == nil {
			c.Data(p.Status, "text/html; charset=utf-8", page)
			return
		}
	}
	body, _ := json.Marshal(p) // a struct of strings and a number always encodes
	c.Header("Content-Type", "application/problem+json")
	c.Data(p.Status, "application/problem+json", body)
}

// optional is nil for the zero value: absent in JSON.
func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// value is the zero value for nil.
func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
