package rest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/rest"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// CVE-2025-6000: an administrator of a vault chose the path of an audit file, and what was
// written there was run. Nobody chooses a path here: a sink's file is a name, and no other
// field of the contract is one.
func TestNobodyChoosesAPath_CVE_2025_6000(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	before := files(t, c.Dir)
	for _, name := range []string{"../x", "..", ".", "./x", "/etc/cron.d/x", "a/b", `a\b`, `C:\x`, ".bashrc", "~root", "x/", "x\x00.sh", "x\n", " x", "x ", "-x", "x-",
		"\u2024\u2024/x", "..%2fx", "${HOME}", "$(id)", strings.Repeat("x", 64), filepath.Join(c.Dir, "c0", "plugin")} {
		body, err := json.Marshal(map[string]string{"name": "s", "kind": "file", "file": name})
		if err != nil {
			t.Fatal(err)
		}
		if g := send(t, c, 0, call{method: "POST", path: "/v1/audit/sinks", token: c.RootToken.Reveal(), body: string(body)}); g.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("file %q: %d %s", name, g.StatusCode, g.raw)
		}
	}
	all := systemtest.Call[client.AuditSinkList](c, func(api *client.Client) (*http.Response, error) { return api.ListAuditSinks(t.Context()) })
	if after := files(t, c.Dir); len(all.Items) != 0 || !slices.Equal(before, after) {
		t.Errorf("there are sinks %+v and files %v", all.Items, after)
	}
	// A field that names a place in a file system must be added here by somebody who has thought about it.
	odd := regexp.MustCompile(`[._](path|file|dir|directory|folder|plugin|template|script|prefix|output)(_|$)`)
	names := map[string]string{"AuditSinkRequest.file": "a name in a directory that is fixed", "AuditSinkChange.file": "the same", "UserRequest.directory": "the name of an LDAP directory",
		"GroupRequest.directory": "the name of an LDAP directory", "ProvisionRequest.prefix": "how names of accounts begin"}
	taken(t, func(at string, _ *openapi3.Schema) {
		if odd.MatchString(at) && names[at] == "" {
			t.Errorf("does %s take a path?", at)
		}
	})
}

// files are the paths of all files below a directory, but for what the store and the log come and go with.
func files(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		out = append(out, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// taken visits every field that the contract takes in a body.
func taken(t *testing.T, visit func(at string, s *openapi3.Schema)) {
	t.Helper()
	seen := map[string]bool{}
	for _, op := range operations(t) {
		if op.RequestBody == nil || op.RequestBody.Value.Content["application/json"] == nil {
			continue
		}
		fields(op.RequestBody.Value.Content["application/json"].Schema, op.id, seen, visit)
	}
	if len(seen) < 20 {
		t.Fatalf("%d schemas are taken: %v", len(seen), seen)
	}
}

// fields visits the fields of a schema and of those in it, as Schema.field.
func fields(ref *openapi3.SchemaRef, name string, seen map[string]bool, visit func(at string, s *openapi3.Schema)) {
	if ref == nil {
		return
	}
	if ref.Ref != "" {
		name = ref.Ref[strings.LastIndex(ref.Ref, "/")+1:]
		if seen[name] {
			return
		}
		seen[name] = true
	}
	fields(ref.Value.Items, name, seen, visit)
	fields(ref.Value.AdditionalProperties.Schema, name, seen, visit)
	for field, p := range ref.Value.Properties {
		visit(name+"."+field, p.Value)
		fields(p, name+"."+field, seen, visit)
	}
}

// CVE-2025-1296: what is configured was shown again with the secrets in it. What the contract calls secret is taken and
// never shown, but by the few calls that are there for it.
func TestWhatIsConfiguredIsNotShownAgain_CVE_2025_1296(t *testing.T) {
	t.Parallel()
	secret := func(s *openapi3.Schema) bool {
		return s.Format == "password" || strings.HasSuffix(s.Description, "Secret.")
	}
	secrets := map[string]bool{} // names of fields
	taken(t, func(at string, s *openapi3.Schema) {
		if secret(s) {
			secrets[at[strings.LastIndex(at, ".")+1:]] = true
			if s.Format != "password" {
				t.Errorf("%s is secret, and clients may show it", at)
			}
		}
	})
	for _, name := range []string{"password", "private_key", "client_secret", "share", "key", "code", "secret", "verifier", "invitation"} {
		if !secrets[name] {
			t.Errorf("%s is not secret, or there is no such field", name)
		}
	}
	shown := map[string]bool{"RevealedSecret.password": true, "CreatedToken.secret": true, "CreatedSession.secret": true, "CreatedInvitation.secret": true,
		"StartedRekey.shares": true, "JoinToken.token": true, "CreatedFactor.uri": true, "RecoveryCodes.codes": true, "CreatedWrap.secret": true}
	public := map[string]string{"AuditCheckpointPage.key": "it verifies", "RotatedAuditKey.key": "it verifies", "OIDCProvider.second_factor": "who asks for one"}
	for _, op := range operations(t) {
		for status, response := range op.Responses.Map() {
			for _, media := range response.Value.Content {
				fields(media.Schema, op.id, map[string]bool{}, func(at string, s *openapi3.Schema) {
					name := at[strings.LastIndex(at, ".")+1:]
					problem := strings.HasPrefix(at, "Problem.") && name == "code"
					if (secret(s) || secrets[name] && s.Type.Is("string")) && !shown[at] && public[at] == "" && !problem && !strings.HasSuffix(at, "Code.code") {
						t.Errorf("%s %s shows %s: %s", op.id, status, at, s.Description)
					}
				})
			}
		}
	}
}

// bearers are secrets that let somebody in.
var bearers = regexp.MustCompile(`reeve[a-z]{0,2}_[a-z2-7]{16}`)

// CVE-2026-46405: a token was issued in an answer that was an error. An error here is a problem document and nothing
// else, by type: it has no field that could hold a credential, no call declares another, and none answers with one.
func TestAnErrorCarriesNoCredential_CVE_2026_46405(t *testing.T) {
	t.Parallel()
	for i := range reflect.TypeFor[client.Problem]().NumField() {
		f := reflect.TypeFor[client.Problem]().Field(i)
		if !slices.Contains([]string{"Code", "Detail", "Field", "Fix", "RequestId", "Status", "Title", "Type"}, f.Name) {
			t.Errorf("what is %s of a problem?", f.Name)
		}
	}
	c := systemtest.Start(t, systemtest.Options{})
	c.RegisterConnectors()
	service, user := true, "nothing"
	systemtest.Call[client.User](c, func(api *client.Client) (*http.Response, error) {
		return api.AddUser(t.Context(), nil, client.UserRequest{Name: user, Service: &service})
	})
	nobody := systemtest.Call[client.CreatedToken](c, func(api *client.Client) (*http.Response, error) {
		return api.CreateToken(t.Context(), client.TokenRequest{Name: user, Principal: &user})
	}).Secret
	refused := 0
	for _, op := range operations(t) {
		for status, response := range op.Responses.Map() {
			if strings.HasPrefix(status, "2") {
				continue
			}
			for media, m := range response.Value.Content {
				if media != "application/problem+json" || m.Schema.Ref != "#/components/schemas/Problem" {
					t.Errorf("%s answers %s with %s %s", op.id, status, media, m.Schema.Ref)
				}
			}
		}
		if op.Responses.Default() == nil {
			t.Errorf("%s does not say how an error looks", op.id)
		}
		for _, in := range []call{
			{}, {token: c.RootToken.Reveal()[:20]}, {token: nobody}, {token: nobody, body: "{}"}, {token: c.RootToken.Reveal(), path: "?nobody-takes=this"},
			{token: c.RootToken.Reveal(), body: `{"nobody":"takes this"}`}, {token: c.RootToken.Reveal(), body: some(op)}, {body: some(op)},
		} {
			if in.body == some(op) && in.token != "" && slices.Contains([]string{"sealNode", "restoreSnapshot", "transferLeadership"}, op.id) {
				continue // it would work, and the rest would be refused for that alone
			}
			if op.RequestBody == nil {
				in.body = ""
			}
			in.method, in.path = op.method, op.path+in.path
			if g := send(t, c, 0, in); g.StatusCode >= 300 {
				refused++
				bare(t, op.id, g)
			}
		}
	}
	if refused < 5*len(operations(t)) {
		t.Errorf("only %d of the calls were refused", refused)
	}
}

// some is a body with a value of the right type in every field, so that what refuses is what does the work.
func some(op operation) string {
	if op.RequestBody == nil || op.RequestBody.Value.Content["application/json"] == nil {
		return ""
	}
	var value func(s *openapi3.Schema) any
	value = func(s *openapi3.Schema) any {
		switch {
		case len(s.Enum) > 0:
			return s.Enum[0]
		case s.Type.Is("object"):
			out := map[string]any{}
			for name, p := range s.Properties {
				out[name] = value(p.Value)
			}
			return out
		case s.Type.Is("array"):
			return []any{value(s.Items.Value)}
		case s.Type.Is("boolean"):
			return false
		case s.Type.Is("integer"):
			return max(1, reflect.ValueOf(s.Min).Elem().Float())
		case s.Format == "date-time":
			return "2099-01-01T00:00:00Z"
		case s.Format == "byte":
			return "AAAA"
		default:
			return strings.Repeat("7", int(max(6, min(s.MinLength, 64)))) //nolint:gosec // small
		}
	}
	raw, err := json.Marshal(value(op.RequestBody.Value.Content["application/json"].Schema.Value))
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// bare fails unless an error is a problem and nothing else.
func bare(t *testing.T, what string, g got) {
	t.Helper()
	var p client.Problem
	dec := json.NewDecoder(bytes.NewReader(g.raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil || dec.More() {
		t.Errorf("%s: %d with more than a problem: %v %s", what, g.StatusCode, err, g.raw)
	}
	if bearers.Match(g.raw) {
		t.Errorf("%s: a credential in a problem: %d %s", what, g.StatusCode, g.problem.Code)
	}
	for name, v := range g.Header {
		if slices.Contains([]string{"Set-Cookie", "Authorization", "Location", "X-Auth-Token"}, name) || bearers.MatchString(fmt.Sprint(v)) {
			t.Errorf("%s: %d with the header %s", what, g.StatusCode, name)
		}
	}
}

// CVE-2026-5807: a stranger cancelled the ceremony of a new seal key. It takes the right, and the id of that very
// ceremony.
func TestAStrangerCancelsNoCeremony_CVE_2026_5807(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Shamir: true})
	ctx, shares, threshold, service, user := t.Context(), 3, 2, true, "helper"
	made := systemtest.Call[client.StartedRekey](c, func(api *client.Client) (*http.Response, error) {
		return api.StartRekey(ctx, client.RekeyRequest{Shares: &shares, Threshold: &threshold})
	})
	systemtest.Call[client.User](c, func(api *client.Client) (*http.Response, error) {
		return api.AddUser(ctx, nil, client.UserRequest{Name: user, Service: &service})
	})
	systemtest.Call[client.Assignment](c, func(api *client.Client) (*http.Response, error) {
		return api.AddAssignment(ctx, nil, client.AssignmentRequest{User: &user, Role: "auditor", Scope: everywhere()})
	})
	auditor := systemtest.Call[client.CreatedToken](c, func(api *client.Client) (*http.Response, error) {
		return api.CreateToken(ctx, client.TokenRequest{Name: user, Principal: &user})
	}).Secret
	id := made.Rekey.Id
	for what, in := range map[string]struct {
		call
		status int
	}{
		"nobody":                 {call{path: id}, http.StatusUnauthorized},
		"who may see it":         {call{path: id, token: auditor}, http.StatusForbidden},
		"root, another ceremony": {call{path: id[:len(id)-1] + "0", token: c.RootToken.Reveal()}, http.StatusNotFound},
		"root, any ceremony":     {call{path: "current", token: c.RootToken.Reveal()}, http.StatusNotFound},
	} {
		in.method, in.path = "DELETE", "/v1/seal/rekey/"+in.path
		if g := send(t, c, 0, in.call); g.StatusCode != in.status {
			t.Errorf("%s: %d %s", what, g.StatusCode, g.raw)
		}
	}
	for _, method := range []string{"DELETE", "PUT", "POST"} { // and there is no other way
		for _, path := range []string{"/v1/seal/rekey", "/v1/seal/unseal", "/v1/seal/rekey/" + id + "/prove"} {
			if g := send(t, c, 0, call{method: method, path: path, body: `{"reset":true}`}); g.StatusCode < 400 {
				t.Errorf("%s %s: %d %s", method, path, g.StatusCode, g.raw)
			}
		}
	}
	now := systemtest.Call[client.Seal](c, func(api *client.Client) (*http.Response, error) {
		return api.ProveRekey(ctx, id, client.RekeyProof{Share: &made.Shares[0]})
	})
	if now.Rekey == nil || len(now.Rekey.Proven) != 1 {
		t.Errorf("the ceremony does not go on: %+v", now)
	}
}

// CVE-2026-3605, CVE-2022-29081: a path that one reader takes for an open call and another for the call behind it.
// Written oddly, it is refused before anybody looks which call it is, whoever asks.
func TestAnOddPathIsNoCall_CVE_2026_3605_CVE_2022_29081(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	before := head(t, c)
	for path, code := range map[string]string{
		"/v1/status/../users": "path_invalid", "/v1/status/..%2fusers": "path_invalid", "/v1/status%2f..%2fusers": "path_invalid", "/v1/%2e%2e/v1/users": "path_invalid",
		"/v1/status/%2e%2e/users": "path_invalid", "/v1//users": "path_invalid", "//v1/users": "path_invalid", "/v1/users//": "path_invalid", "/v1/./users": "path_invalid",
		"/v1/users/.": "path_invalid", "/v1/users/%2e": "path_invalid", "/v1/users%00": "path_invalid", "/v1/users%0d%0a": "path_invalid", "/v1%5cusers": "path_invalid",
		"/v1/users%5c..%5cstatus": "path_invalid", "/v1/users/..%5cstatus": "path_invalid", "/v1/%75sers%ff": "path_invalid", "/v1/users/x%2Fdisable": "path_invalid",
		"/v1/status/..;/users": "route_not_found", "/v1/users;status": "route_not_found", "/v1/users%3f": "route_not_found", "/v1/users%23": "route_not_found",
		"/v1/status/%252e%252e/users": "route_not_found",
	} {
		for _, token := range []string{"", c.RootToken.Reveal()} {
			for _, method := range []string{"GET", "POST", "DELETE"} {
				if g := send(t, c, 0, call{method: method, path: path, token: token}); g.StatusCode < 400 || g.problem.Code != code {
					t.Errorf("%s %s: %d %s", method, path, g.StatusCode, g.raw)
				}
			}
		}
	}
	if head(t, c) != before {
		t.Error("something was changed")
	}
}

// CVE-2024-7594, CVE-2023-1299: what was left empty meant everything. Here it is refused, or it is nothing.
func TestAnEmptyListIsRefusedOrNothing_CVE_2024_7594_CVE_2023_1299(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	root := c.RootToken.Reveal()
	for _, in := range []call{
		{path: "/v1/tokens", body: `{"name":"ci","privileges":[]}`},
		{path: "/v1/tokens", body: `{"name":"ci","networks":[]}`},
		{path: "/v1/tokens", body: `{"name":"ci","networks":[""]}`},
		{path: "/v1/tokens", body: `{"name":"ci","privileges":[""]}`},
		{path: "/v1/tokens", body: `{"name":"ci","principal":""}`},
		{path: "/v1/assignments", body: `{"role":"administrator","user":"root","scope":{}}`},
		{path: "/v1/assignments", body: `{"role":"administrator","user":"root","scope":{"sites":[]}}`},
		{path: "/v1/assignments", body: `{"role":"administrator","user":"root","scope":{"tags":{}}}`},
		{path: "/v1/assignments", body: `{"role":"administrator","user":"root","scope":{"everything":false}}`},
		{path: "/v1/assignments", body: `{"role":"administrator","user":"root","scope":{"sites":[""]}}`},
		{path: "/v1/assignments", body: `{"role":"","user":"root","scope":{"everything":true}}`},
		{path: "/v1/assignments", body: `{"role":"administrator","scope":{"everything":true}}`},
		{path: "/v1/assignments", body: `{"role":"administrator","user":"","scope":{"everything":true}}`},
		{path: "/v1/pam-roles", body: `{"name":"empty","privileges":[""]}`},
		{path: "/v1/pam-roles", body: `{"name":"empty","privileges":["*"]}`},
	} {
		in.method, in.token = "POST", root
		if g := send(t, c, 0, in); g.StatusCode < 400 || g.StatusCode >= 500 {
			t.Errorf("%s %s: %d %s", in.path, in.body, g.StatusCode, g.raw)
		}
	}
	empty := &who{name: "empty", roles: map[string]client.Scope{"nothing": everywhere()}}
	systemtest.Call[client.PAMRole](c, func(api *client.Client) (*http.Response, error) {
		return api.AddPAMRole(t.Context(), nil, client.PAMRoleRequest{Name: "nothing", Privileges: []string{}})
	})
	empty.enrol(t, c, "empty")
	for _, op := range operations(t) {
		if openTo[op.id] != "" {
			continue
		}
		if v := verdict(t, c, op, op.path, empty.token); v == "yes" && !rest.Own(op.OperationID) {
			t.Errorf("%s is allowed to somebody whose PAM role holds nothing", op.id)
		}
	}
}

// CVE-2025-4922: a name was taken for another one that begins like it. A reference is an id or a name, whole.
func TestAReferenceIsWholeOrNothing_CVE_2025_4922(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	c.RegisterConnectors()
	ctx, root := t.Context(), c.RootToken.Reveal()
	site := c.AddSite("berlin")
	asset := systemtest.Call[client.Asset](c, func(api *client.Client) (*http.Response, error) {
		return api.AddAsset(ctx, nil, client.AssetRequest{Name: "db-one", Site: "berlin", Connector: "ssh", Address: "192.0.2.1"})
	})
	user := systemtest.Call[client.User](c, func(api *client.Client) (*http.Response, error) {
		return api.AddUser(ctx, nil, client.UserRequest{Name: "adalovelace"})
	})
	group := systemtest.Call[client.Group](c, func(api *client.Client) (*http.Response, error) {
		return api.AddGroup(ctx, nil, client.GroupRequest{Name: "admins-of-all"})
	})
	for path, refs := range map[string][]string{
		"/v1/sites/": {site.Id, site.Name}, "/v1/assets/": {asset.Id, asset.Name}, "/v1/users/": {user.Id, user.Name}, "/v1/groups/": {group.Id, group.Name},
		"/v1/pam-roles/": {"administrator"}, "/v1/connectors/": {"ssh"},
	} {
		for _, ref := range refs {
			if g := send(t, c, 0, call{method: "GET", path: path + ref, token: root}); g.StatusCode != http.StatusOK {
				t.Fatalf("%s%s: %d %s", path, ref, g.StatusCode, g.raw)
			}
			for _, other := range []string{ref[:len(ref)-1], ref[:len(ref)/2], ref + "x", ref + "-", ref + "%20", "%20" + ref, ref + "*", "*", ref + "%25", "_" + ref, ref + ",x"} {
				if g := send(t, c, 0, call{method: "GET", path: path + other, token: root}); g.StatusCode != http.StatusNotFound && g.StatusCode != http.StatusUnprocessableEntity {
					t.Errorf("%s%s instead of %s: %d %s", path, other, ref, g.StatusCode, g.raw)
				}
			}
		}
	}
}
