package rest

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/gin-gonic/gin"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// contract checks requests against the OpenAPI document before any handler runs.
type contract struct {
	routes map[string]*routers.Route // "GET /v1/sites/:site"
}

func newContract() (*contract, error) {
	doc, err := GetSpec()
	if err != nil {
		return nil, fmt.Errorf("rest: embedded contract: %w", err)
	}
	ct := &contract{routes: map[string]*routers.Route{}}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			ginPath := strings.NewReplacer("{", ":", "}", "").Replace(path)
			ct.routes[method+" "+ginPath] = &routers.Route{Spec: doc, Path: path, PathItem: item, Method: method, Operation: op}
		}
	}
	return ct, nil
}

// route is the key of a request's route in contract, open and local.
func route(c *gin.Context) string { return c.Request.Method + " " + c.FullPath() }

// check validates path, query, headers and body. Nothing a caller sent is ever
// quoted back: it may be a password in the wrong place.
func (ct *contract) check(c *gin.Context) error {
	r, ok := ct.routes[route(c)]
	if !ok {
		return nothingHere()
	}
	if err := checkParameters(c.Request, r); err != nil {
		return err
	}
	opts := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, KeepValidatedValue: true}
	opts.WithCustomSchemaErrorFunc(func(e *openapi3.SchemaError) string { return "violates " + e.SchemaField })
	streamed, err := checkBody(c, r)
	if err != nil {
		return err
	}
	opts.ExcludeRequestBody = streamed
	params := map[string]string{}
	for _, p := range c.Params {
		params[p.Key] = p.Value
	}
	return explain(r, openapi3filter.ValidateRequest(c.Request.Context(), &openapi3filter.RequestValidationInput{
		Request: c.Request, PathParams: params, Route: r, Options: opts,
	}))
}

// checkParameters refuses what the validator does not look at: parameters that are not
// in the contract, or there twice. A misspelt one would otherwise silently do nothing.
func checkParameters(req *http.Request, r *routers.Route) error {
	query, err := url.ParseQuery(req.URL.RawQuery)
	if err != nil {
		return reeve.Errorf(reeve.Invalid, "malformed_request", "the query could not be read").WithFix("encode it as RFC 3986 says")
	}
	known := map[string][]string{}
	for _, p := range slices.Concat(r.PathItem.Parameters, r.Operation.Parameters) {
		known[p.Value.In] = append(known[p.Value.In], p.Value.Name)
	}
	repeated := func(in, name string) error {
		return reeve.Errorf(reeve.Invalid, "parameter_repeated", "the %s parameter %s is there more than once", in, name)
	}
	for name, values := range query {
		switch {
		case !slices.Contains(known["query"], name) && r.Operation.Extensions["x-ignores-parameters"] == true:
		case !slices.Contains(known["query"], name):
			return reeve.Errorf(reeve.Invalid, "unknown_parameter", "a query parameter is not known").
				WithFix("this call takes: %s", orNone(known["query"]))
		case len(values) > 1:
			return repeated("query", name)
		case values[0] == "":
			return reeve.Errorf(reeve.Invalid, "field_required", "the query parameter %s is empty", name).WithFix("give it a value or leave it out")
		}
	}
	for _, name := range known["header"] {
		if len(req.Header.Values(name)) > 1 {
			return repeated("header", name)
		}
	}
	if req.Header.Get("Idempotency-Key") != "" && !slices.Contains(known["header"], "Idempotency-Key") {
		return reeve.Errorf(reeve.Invalid, "idempotency_key_unsupported", "this call takes no Idempotency-Key: its answer cannot be given twice").
			WithFix("leave it out, and look at what there is before trying again")
	}
	return nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(slices.Values(names)), ", ")
}

// checkBody reads a JSON body and puts it back for the validator. streamed says that the
// body is of another kind, which its reader checks.
func checkBody(c *gin.Context, r *routers.Route) (streamed bool, err error) {
	body := r.Operation.RequestBody
	if body == nil {
		var one [1]byte
		if n, _ := io.ReadFull(c.Request.Body, one[:]); n > 0 {
			return false, reeve.Errorf(reeve.Invalid, "body_unexpected", "this call takes no body").WithFix("leave it out")
		}
		return false, nil
	}
	mediaType, _, err := mime.ParseMediaType(c.GetHeader("Content-Type"))
	if err != nil || body.Value.Content[mediaType] == nil {
		return false, reeve.Errorf(reeve.UnsupportedMedia, "media_type_unsupported", "this call does not take a body of that media type").
			WithFix("send Content-Type: %s", orNone(mediaTypes(body.Value.Content)))
	}
	if mediaType != "application/json" {
		return true, nil
	}
	raw, err := readJSON(http.MaxBytesReader(c.Writer, c.Request.Body, maxBody))
	if err != nil {
		return false, err
	}
	c.Request.Body = io.NopCloser(bytes.NewReader(raw))
	return false, nil
}

func mediaTypes(content openapi3.Content) []string {
	var out []string
	for name := range content {
		out = append(out, name)
	}
	return out
}
