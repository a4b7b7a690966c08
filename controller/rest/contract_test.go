package rest

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// canary is a password that a caller puts where it does not belong.
const canary = "Canary-7f3a1c-hunter2"

// checked runs a request through routing and the contract check alone, and returns the
// problem, or nil if the request would have reached its handler.
func checked(t testing.TB, r *http.Request) (*reeve.Error, string) {
	t.Helper()
	gin.SetMode(gin.ReleaseMode)
	ct, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	s := &Server{contract: ct, log: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	e := gin.New()
	var got *reeve.Error
	e.Use(s.refuseOddPaths)
	for key := range ct.routes {
		method, path, _ := strings.Cut(key, " ")
		e.Handle(method, path, func(c *gin.Context) {
			if err := ct.check(c); err != nil {
				got, _ = err.(*reeve.Error) //nolint:errorlint // it must be that very type: its text is what is shown
				s.fail(c, err)
			}
		})
	}
	e.NoRoute(func(c *gin.Context) { s.fail(c, nothingHere()) })
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	if w.Code == http.StatusOK {
		return nil, logged.String()
	}
	var p struct{ Code string }
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Fatalf("not a problem document: %d %s", w.Code, w.Body)
	}
	if got == nil {
		got = &reeve.Error{Code: p.Code}
	}
	return got, logged.String() + w.Body.String()
}

func jsonRequest(method, path, body string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return r
}

func TestRequestsAgainstTheContractAreRefusedWithoutQuotingThem_K1(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)
	asset := func(field, value string) string {
		return `{"name":"web1","site":"dmz","connector":"ssh","address":"192.0.2.1","` + field + `":` + value + `}`
	}
	for name, test := range map[string]struct {
		request     *http.Request
		code, field string
	}{
		"unknown field":            {jsonRequest("POST", "/v1/sites", `{"name":"dmz","`+canary+`":"x"}`), "unknown_field", ""},
		"unknown field inside":     {jsonRequest("POST", "/v1/assets", asset("management_account", `{"username":"root","pasword":"`+canary+`"}`)), "unknown_field", "/management_account"},
		"case variant of a field":  {jsonRequest("POST", "/v1/sites", `{"name":"dmz","Name":"`+canary+`"}`), "unknown_field", ""},
		"field twice":              {jsonRequest("POST", "/v1/sites", `{"name":"dmz","name":"`+canary+`"}`), "field_repeated", ""},
		"field twice by escape":    {jsonRequest("POST", "/v1/sites", `{"name":"dmz","n\u0061me":"`+canary+`"}`), "field_repeated", ""},
		"field twice inside":       {jsonRequest("POST", "/v1/assets", asset("options", `{"a":"x","b":"y","a":"`+canary+`"}`)), "field_repeated", ""},
		"string for an integer":    {jsonRequest("POST", "/v1/assets", asset("port", `"`+canary+`"`)), "wrong_type", "/port"},
		"fraction for an integer":  {jsonRequest("POST", "/v1/assets", asset("port", `1.5`)), "wrong_type", "/port"},
		"list for an object":       {jsonRequest("POST", "/v1/sites", `["`+canary+`"]`), "wrong_type", ""},
		"null":                     {jsonRequest("POST", "/v1/sites", `{"name":null}`), "wrong_type", "/name"},
		"value in a map":           {jsonRequest("POST", "/v1/assets", asset("options", `{"`+canary+`":1}`)), "wrong_type", "/options/*"},
		"element of a list":        {jsonRequest("POST", "/v1/assets", asset("host_keys", `["ok",7]`)), "wrong_type", "/host_keys/1"},
		"missing field":            {jsonRequest("POST", "/v1/sites", `{"description":"`+canary+`"}`), "field_required", "/name"},
		"empty":                    {jsonRequest("POST", "/v1/sites", ""), "body_required", ""},
		"blank":                    {jsonRequest("POST", "/v1/sites", " \n"), "body_required", ""},
		"too long":                 {jsonRequest("POST", "/v1/sites", `{"name":"`+strings.Repeat(strings.ToLower(canary), 4)+`"}`), "field_invalid", "/name"},
		"too big a number":         {jsonRequest("POST", "/v1/assets", asset("port", "99999999999999999999999")), "field_invalid", "/port"},
		"too small a number":       {jsonRequest("POST", "/v1/assets", asset("port", "0")), "field_invalid", "/port"},
		"bad pattern":              {jsonRequest("POST", "/v1/sites", `{"name":"`+canary+`"}`), "field_invalid", "/name"},
		"name with a command":      {jsonRequest("POST", "/v1/sites", `{"name":"a;id"}`), "field_invalid", "/name"},
		"bad date":                 {jsonRequest("POST", "/v1/accounts", `{"name":"a","assets":["w"],"role":"r","expires_at":"`+canary+`"}`), "field_invalid", "/expires_at"},
		"no assets":                {jsonRequest("POST", "/v1/accounts", `{"name":"a","assets":[],"role":"r"}`), "field_invalid", "/assets"},
		"not JSON":                 {jsonRequest("POST", "/v1/sites", `{"name":"`+canary), "malformed_request", ""},
		"two values":               {jsonRequest("POST", "/v1/sites", `{"name":"a"}{"name":"`+canary+`"}`), "malformed_request", ""},
		"not UTF-8":                {jsonRequest("POST", "/v1/sites", "{\"name\":\"dmz\",\"description\":\"\xff"+canary+"\"}"), "malformed_request", ""},
		"half a character":         {jsonRequest("POST", "/v1/sites", `{"name":"dmz","description":"\ud800`+canary+`"}`), "malformed_request", ""},
		"deep":                     {jsonRequest("POST", "/v1/sites", `{"name":`+deep+`}`), "body_too_complex", ""},
		"very deep":                {jsonRequest("POST", "/v1/sites", strings.Repeat(`{"`+canary+`":`, 30_000)), "body_too_complex", ""},
		"very many values":         {jsonRequest("POST", "/v1/accounts", `{"name":"a","assets":["w"`+strings.Repeat(`,"w"`, maxTokens)+`]}`), "body_too_complex", ""},
		"huge":                     {jsonRequest("POST", "/v1/sites", `{"name":"`+canary+strings.Repeat("a", maxBody)+`"}`), "body_too_large", ""},
		"no media type":            {httptest.NewRequest("POST", "/v1/sites", strings.NewReader(`{"name":"`+canary+`"}`)), "media_type_unsupported", ""},
		"body where none belongs":  {jsonRequest("POST", "/v1/assets/web1/verify", `{"password":"`+canary+`"}`), "body_unexpected", ""},
		"bad enum in a path":       {httptest.NewRequest("POST", "/v1/accounts/a@b/"+canary, nil), "field_invalid", ""},
		"bad pattern in a path":    {httptest.NewRequest("DELETE", "/v1/connectors/ssh/digests/"+canary, nil), "field_invalid", ""},
		"too long a path":          {httptest.NewRequest("GET", "/v1/sites/"+strings.Repeat(canary, 10), nil), "field_invalid", ""},
		"bad enum in a query":      {httptest.NewRequest("GET", "/v1/jobs?state="+canary, nil), "field_invalid", ""},
		"text for a number":        {httptest.NewRequest("GET", "/v1/sites?limit="+canary, nil), "wrong_type", ""},
		"number out of bounds":     {httptest.NewRequest("GET", "/v1/sites?limit=1001", nil), "field_invalid", ""},
		"huge number":              {httptest.NewRequest("GET", "/v1/audit?after=99999999999999999999999", nil), "", ""},
		"empty parameter":          {httptest.NewRequest("GET", "/v1/sites?limit=", nil), "field_required", ""},
		"unknown parameter":        {httptest.NewRequest("GET", "/v1/sites?"+canary+"=1", nil), "unknown_parameter", ""},
		"parameter twice":          {httptest.NewRequest("GET", "/v1/sites?limit=1&limit=2", nil), "parameter_repeated", ""},
		"query that does not read": {httptest.NewRequest("GET", "/v1/sites?cursor="+canary+"%zz", nil), "malformed_request", ""},
		"key where none is taken":  {withKey(jsonRequest("POST", "/v1/tokens", `{"name":"ci"}`), canary), "idempotency_key_unsupported", ""},
		"short key":                {withKey(jsonRequest("POST", "/v1/sites", `{"name":"dmz"}`), "short"), "field_invalid", ""},
		"two keys":                 {withKey(withKey(jsonRequest("POST", "/v1/sites", `{"name":"dmz"}`), canary), canary), "parameter_repeated", ""},
		"encoded slash":            {httptest.NewRequest("GET", "/v1/sites/"+canary+"%2Fx", nil), "path_invalid", ""},
		"encoded backslash":        {httptest.NewRequest("GET", "/v1/sites/"+canary+"%5Cx", nil), "path_invalid", ""},
		"encoded dots":             {httptest.NewRequest("GET", "/v1/sites/%2e%2e/status", nil), "path_invalid", ""},
		"dots":                     {httptest.NewRequest("GET", "/v1/sites/../status", nil), "path_invalid", ""},
		"double slash":             {httptest.NewRequest("GET", "/v1//sites", nil), "path_invalid", ""},
		"control character":        {httptest.NewRequest("GET", "/v1/sites/a%00b", nil), "path_invalid", ""},
		"not UTF-8 in a path":      {httptest.NewRequest("GET", "/v1/sites/a%ffb", nil), "path_invalid", ""},
		"nothing there":            {httptest.NewRequest("GET", "/v1/"+canary, nil), "route_not_found", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, seen := checked(t, test.request)
			switch {
			case got == nil && test.code == "":
				return // what the contract leaves to the handler
			case got == nil:
				t.Fatal("it was let through")
			case test.code != "" && (got.Code != test.code || got.Field != test.field):
				t.Errorf("got %s at %q, want %s at %q", got.Code, got.Field, test.code, test.field)
			}
			if strings.Contains(strings.ToLower(seen), strings.ToLower(canary)) {
				t.Errorf("the offending value is shown: %s", seen)
			}
		})
	}
}

// theContract is read once: reading it takes longer than all it is asked for.
var theContract = sync.OnceValues(newContract)

// A key is any printable text without spaces of 8 to 128 characters; what is not is refused and never shown.
func FuzzIdempotencyKey(f *testing.F) {
	for _, seed := range []string{"", "1234567", "12345678", strings.Repeat("k", 128), strings.Repeat("k", 129), "with space", "tab\tin it", "12345678\n", "12345678\x00",
		"schlüssel", "\xff\xfe12345678", `"12345678"`, "%31%32%33%34%35%36%37%38"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		good := len(key) >= 8 && len(key) <= 128 && !strings.ContainsFunc(key, func(r rune) bool { return r < '!' || r > '~' })
		tooLong := canary + key + strings.Repeat("x", 128)
		for value, want := range map[string]bool{key: good, tooLong: false} {
			got, seen := checked(t, withKey(jsonRequest("POST", "/v1/sites", `{"name":"berlin"}`), value))
			if (got == nil) != want {
				t.Fatalf("key %q: let through %t, want %t: %v", value, got == nil, want, got)
			}
			if strings.Contains(seen, canary) && !strings.Contains(key, canary) {
				t.Fatalf("the key is shown: %s", seen)
			}
		}
	})
}

func withKey(r *http.Request, key string) *http.Request {
	r.Header.Add("Idempotency-Key", key)
	return r
}

func TestLawfulRequestsPassTheContract(t *testing.T) {
	t.Parallel()
	for _, r := range []*http.Request{
		jsonRequest("POST", "/v1/sites", `{"name":"dmz","description":"ein Platz \ud83d\ude00 für \u00e4lles"}`),
		withKey(jsonRequest("POST", "/v1/sites", `{"name":"dmz"}`), "a-good-key"),
		httptest.NewRequest("GET", "/v1/sites?limit=5&cursor=abc", nil),
		httptest.NewRequest("GET", "/v1/accounts/alice@web1", nil),
		httptest.NewRequest("POST", "/v1/accounts/alice@web1/rotate", nil),
		httptest.NewRequest("GET", "/v1/status", nil),
		jsonRequest("POST", "/v1/accounts", `{"name":"a","assets":["w"`+strings.Repeat(`,"w"`, 999)+`],"role":"r"}`),
	} {
		if got, _ := checked(t, r); got != nil {
			t.Errorf("%s %s: %v", r.Method, r.URL, got)
		}
	}
}

// FuzzContract sends anything as the body of the call with the most fields: it is
// answered, never with a panic, and never with what was sent.
func FuzzContract(f *testing.F) {
	for _, seed := range []string{`{}`, `{"name":"a","site":"b","connector":"ssh","address":"c"}`, `{"name":1}`, `[[[`, `{"a":{"a":`, `"\ud800"`, "\xff", `{"options":{"x":1}}`,
		`{"management_account":{"username":"u","password":5}}`, `{"name":"a","name":"b"}`, `nul`, `1e999`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		spiced := append([]byte(`{"host_keys":["`+canary+`"],"`+canary+`":`), body...)
		for _, b := range [][]byte{body, spiced, append(spiced, '}')} {
			r := jsonRequest("POST", "/v1/assets", string(b))
			if _, seen := checked(t, r); strings.Contains(seen, canary) && !strings.Contains(string(body), canary) {
				t.Fatalf("the body is shown: %s", seen)
			}
		}
	})
}

// FuzzQuery asks for lists and the trail with any query: it is answered, never with a panic, and never with what was sent.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"", "limit=1", "limit=1&limit=2", "cursor=%zz", "actor=" + strings.Repeat("a", 200), "since=2026-02-31T00:00:00Z", "since=&until=x", "after=-1", "outcome=denied;object=x", "%00=1", "limit=1e3", "=", "&&", "limit[]=1", "format=csv"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		for _, path := range []string{"/v1/audit", "/v1/audit/export", "/v1/jobs", "/v1/can"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.URL.RawQuery = query + "&" + canary + "=1"
			got, seen := checked(t, r)
			if got == nil {
				t.Fatalf("%s?%s was let through", path, r.URL.RawQuery)
			}
			if strings.Contains(seen, canary) && !strings.Contains(query, canary) {
				t.Fatalf("the query is shown: %s", seen)
			}
			r = httptest.NewRequest(http.MethodGet, path, nil)
			r.URL.RawQuery = query
			_, _ = checked(t, r)
		}
	})
}

func TestTheContractDescribesEverything(t *testing.T) {
	t.Parallel()
	ct, err := newContract()
	if err != nil {
		t.Fatal(err)
	}
	for key, r := range ct.routes {
		op := r.Operation
		if op.Summary == "" || len(op.Tags) != 1 || op.Responses.Default() == nil {
			t.Errorf("%s has no summary, no tag or no default response", key)
		}
		for _, p := range slices.Concat(r.PathItem.Parameters, op.Parameters) {
			if p.Value.Description == "" {
				t.Errorf("%s: parameter %s is not described", key, p.Value.Name)
			}
		}
		if body := op.RequestBody; body != nil {
			if s := body.Value.Content["application/json"]; s != nil && (s.Schema.Value.AdditionalProperties.Has == nil || *s.Schema.Value.AdditionalProperties.Has) {
				t.Errorf("%s takes unknown fields", key)
			}
		}
	}
	for _, r := range ct.routes {
		for name, schema := range r.Spec.Components.Schemas {
			for field, p := range schema.Value.Properties {
				if p.Ref == "" && p.Value.Description == "" {
					t.Errorf("%s.%s is not described", name, field)
				}
			}
		}
		break // they share one document
	}
}

// A bound is told in words and numbers, not by the name the contract has for it.
func TestABoundThatIsNotKeptIsNamed(t *testing.T) {
	t.Parallel()
	long := `"` + strings.Repeat("a", 2000) + `"`
	for want, r := range map[string]*http.Request{
		"the field /reason is empty":                      jsonRequest("POST", "/v1/accounts/a/secret", `{"reason":""}`),
		"the field /description is longer than ":          jsonRequest("POST", "/v1/sites", `{"name":"a","description":`+long+`}`),
		"the field /port is less than 1":                  jsonRequest("POST", "/v1/assets", `{"name":"a","site":"a","connector":"ssh","address":"a","port":0}`),
		"the query parameter limit is more than ":         httptest.NewRequest("GET", "/v1/sites?limit=1001", nil),
		"the field /assets has fewer than 1 entries":      jsonRequest("POST", "/v1/accounts", `{"name":"a","assets":[],"role":"r"}`),
		"the header parameter Idempotency-Key is shorter": withKey(jsonRequest("POST", "/v1/sites", `{"name":"dmz"}`), "short"),
	} {
		if _, seen := checked(t, r); !strings.Contains(seen, want) {
			t.Errorf("want %q in %s", want, seen)
		}
	}
}
